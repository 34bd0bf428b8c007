"""The API of policies, routes and escalations under /api/v1/portal/: parse, one verb, answer."""

from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, pagination, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.permissions import Right, principal_of
from apps.alerting.models import Alert, Incident
from apps.notifications.models import Contact
from apps.oncall import foresight, quieting, services
from apps.oncall.models import Escalation, Notice, Policy, Route, Step
from apps.oncall.steps import kinds


@extend_schema_field(OpenApiTypes.NUMBER)
class Seconds(serializers.Field[Any, Any, Any, Any]):
    """A duration in seconds."""

    def to_internal_value(self, data: Any) -> Any:
        """Return a timedelta."""
        try:
            return timedelta(seconds=float(data))
        except (TypeError, ValueError, OverflowError):
            raise serializers.ValidationError("Give a number of seconds.") from None

    def to_representation(self, value: Any) -> float:
        """Return seconds."""
        return float(value.total_seconds())


class NewestFirst(pagination.CursorPagination):
    """Pages of a table that only grows, without counting it."""

    ordering = "-id"
    page_size = 100
    page_size_query_param = "limit"
    max_page_size = 1000


# --- Policies --------------------------------------------------------------------------------------------------------
class StepSerializer(Exact, serializers.ModelSerializer[Step]):
    """One step; `config` is what its kind of step asks for. Contacts are given by id or name."""

    kind = serializers.ChoiceField(choices=kinds())
    config = serializers.DictField(required=False)

    class Meta:
        model = Step
        fields = ("kind", "config")


class PolicySerializer(Exact, serializers.ModelSerializer[Policy]):
    """An escalation policy with its steps in order."""

    steps = StepSerializer(many=True)
    acknowledged_for = Seconds(required=False, allow_null=True)

    class Meta:
        model = Policy
        fields = ("id", "name", "description", "acknowledged_for", "steps")


class PolicyViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Policy]):
    """Escalation policies."""

    queryset = Policy.objects.prefetch_related("steps").order_by("name")
    serializer_class = PolicySerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def create(self, request: Request) -> Response:
        """Make a policy."""
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        policy = services.save_policy(by=principal_of(request), **form.validated_data)
        return Response(self.get_serializer(policy).data, status=status.HTTP_201_CREATED)

    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent; steps are replaced as a whole. Escalations that run keep what they began with."""
        policy = self.get_object()
        form = self.get_serializer(policy, data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        values = {
            "name": policy.name,
            "description": policy.description,
            "acknowledged_for": policy.acknowledged_for,
            "steps": list(policy.steps.order_by("position").values("kind", "config")),
            **form.validated_data,
        }
        services.save_policy(by=principal_of(request), policy=policy, **values)
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a policy that nothing names."""
        services.delete_policy(by=principal_of(request), policy=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="policy_dry_run",
        parameters=[
            OpenApiParameter("severity", str, description="Of the alert; warning without it."),
            OpenApiParameter("at", str, description="When it starts, ISO 8601; now without it."),
        ],
        responses=OpenApiTypes.OBJECT,
    )
    @action(detail=True, url_path="dry-run")
    def dry_run(self, request: Request, pk: str) -> Response:
        """Return what the policy would do, step by step, if nobody acknowledged; nothing is told or saved."""
        asked = request.query_params
        at = foresight.moment_of(asked.get("at", ""), now=timezone.now())
        found = foresight.dry_run(self.get_object(), at=at, severity=asked.get("severity") or "warning")
        return Response(found.as_dict())


# --- Routes ----------------------------------------------------------------------------------------------------------
class RouteSerializer(Exact, serializers.ModelSerializer[Route]):
    """A route. Contacts and policy are given by name; waits and intervals in seconds."""

    contacts = serializers.SlugRelatedField[Contact](
        slug_field="name", queryset=Contact.objects.all(), many=True, required=False
    )
    policy = serializers.SlugRelatedField[Policy](
        slug_field="name", queryset=Policy.objects.all(), required=False, allow_null=True
    )
    matchers = serializers.ListField(child=serializers.CharField(), required=False)
    group_by = serializers.ListField(child=serializers.CharField(), required=False)
    group_wait = Seconds(required=False)
    group_interval = Seconds(required=False)
    repeat_interval = Seconds(required=False)

    class Meta:
        model = Route
        fields = (
            "id", "name", "position", "enabled", "is_root", "matchers", "continue_matching", "group_by",
            "group_wait", "group_interval", "repeat_interval", "policy", "contacts",
        )  # fmt: skip
        read_only_fields = ("is_root",)


class RouteViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Route]):
    """Routes in the order in which they are tried, the root last."""

    queryset = Route.objects.select_related("policy").prefetch_related("contacts").in_order()
    serializer_class = RouteSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def create(self, request: Request) -> Response:
        """Make a route; without a position it comes last before the root."""
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        values = dict(form.validated_data)
        contacts = values.pop("contacts", [])
        route = services.save_route(by=principal_of(request), values=values, contacts=contacts)
        return Response(self.get_serializer(route).data, status=status.HTTP_201_CREATED)

    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent."""
        route = self.get_object()
        form = self.get_serializer(route, data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        values = dict(form.validated_data)
        contacts = values.pop("contacts", None)
        services.save_route(by=principal_of(request), route=route, values=values, contacts=contacts)
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a route that is not the root."""
        services.delete_route(by=principal_of(request), route=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)


# --- What happened ---------------------------------------------------------------------------------------------------
class EscalationSerializer(serializers.ModelSerializer[Escalation]):
    """A policy on its way for one incident, with the copy of the policy that it follows."""

    class Meta:
        model = Escalation
        fields = (
            "id", "incident", "policy", "plan", "position", "rounds", "severity", "state", "reason",
            "due_at", "started_at", "ended_at",
        )  # fmt: skip
        read_only_fields = fields


class EscalationViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Escalation]):
    """Escalations, newest first."""

    queryset = Escalation.objects.all()
    serializer_class = EscalationSerializer
    permission_classes = (Needs(Right.READ),)
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Escalation]:
        """Return those of incidents that the caller may see."""
        scope = principal_of(self.request).scope
        found = super().get_queryset()
        return found.filter(incident__in=Incident.objects.visible_to(scope)) if scope.matchers else found


class NoticeSerializer(serializers.ModelSerializer[Notice]):
    """One contact was told one thing of one alert."""

    alert = serializers.SlugRelatedField[Alert](slug_field="key", read_only=True)

    class Meta:
        model = Notice
        fields = ("id", "alert", "contact", "contact_name", "delivery", "kind", "severity", "reason", "at")
        read_only_fields = fields


class NoticeViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Notice]):
    """Who was told what of which alert, newest first."""

    queryset = Notice.objects.select_related("alert")
    serializer_class = NoticeSerializer
    permission_classes = (Needs(Right.READ),)
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Notice]:
        """Return those of alerts that the caller may see."""
        scope = principal_of(self.request).scope
        found = super().get_queryset()
        return found.filter(alert__in=Alert.objects.visible_to(scope)) if scope.matchers else found


class SilencePreviewViewSet(viewsets.ViewSet):
    """What a silence would mute; nothing is saved."""

    permission_classes = (Needs(Right.READ),)

    @extend_schema(
        operation_id="silence_preview",
        parameters=[
            OpenApiParameter("matcher", str, many=True, required=True, description='Each such as service="db".'),
            OpenApiParameter("recurrence", str),
            OpenApiParameter("duration", str),
            OpenApiParameter("time_zone", str),
        ],
        responses=OpenApiTypes.OBJECT,
    )
    def list(self, request: Request) -> Response:
        """Return which active alerts it mutes, and what it would have muted in the last week."""
        asked = request.query_params
        found = quieting.preview(
            asked.getlist("matcher"),
            scope=principal_of(request).scope,
            now=timezone.now(),
            recurrence=asked.get("recurrence", ""),
            duration=asked.get("duration", ""),
            time_zone=asked.get("time_zone", "UTC"),
        )
        return Response(found.as_dict())


class ForesightViewSet(viewsets.ViewSet):
    """Who would be told of an alert; nothing is told or saved."""

    permission_classes = (Needs(Right.READ),)

    @extend_schema(
        operation_id="who_would_be_told",
        parameters=[
            OpenApiParameter("labels", str, description='Of the alert, such as service="db", severity="critical".'),
            OpenApiParameter("at", str, description="When it fires, ISO 8601; now without it."),
        ],
        responses=OpenApiTypes.OBJECT,
    )
    def list(self, request: Request) -> Response:
        """Return every route that the alert would take, and who would be told when, if nobody acknowledged."""
        asked = request.query_params
        found = foresight.who_would_be_told(
            foresight.labels_of(asked.get("labels", "")),
            at=foresight.moment_of(asked.get("at", ""), now=timezone.now()),
            scope=principal_of(request).scope,
        )
        return Response(found.as_dict())


def register(router: BaseRouter) -> None:
    """Add this room's endpoints to /api/v1/portal/."""
    router.register("policies", PolicyViewSet, basename="policy")
    router.register("routes", RouteViewSet, basename="route")
    router.register("escalations", EscalationViewSet, basename="escalation")
    router.register("notices", NoticeViewSet, basename="notice")
    router.register("silence-preview", SilencePreviewViewSet, basename="silencepreview")
    router.register("who-would-be-told", ForesightViewSet, basename="whowouldbetold")
