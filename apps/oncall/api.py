"""The API of policies, routes, schedules and escalations under /api/v1/portal/: parse, one verb, answer."""

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Prefetch, QuerySet
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, pagination, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.models import Calendar, User
from apps.accounts.permissions import Principal, Right, principal_of
from apps.alerting.models import Alert, Incident
from apps.notifications.models import Contact
from apps.oncall import foresight, quieting, rotation, schedules, services, trials
from apps.oncall.importing_api import ConfigurationImportViewSet
from apps.oncall.models import (
    Escalation,
    ImportedCalendar,
    Layer,
    Notice,
    Override,
    Policy,
    Route,
    Schedule,
    Step,
    StepTaken,
)
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


class TrialSerializer(Exact, serializers.Serializer[Any]):
    """A test of a route or policy: only what it would do, or with `confirm` a real message to whoever is told first."""

    confirm = serializers.BooleanField(default=False)
    severity = serializers.CharField(required=False, max_length=10)

    def trial(self, what: Policy | Route, by: Principal, now: datetime) -> Response:
        """Do as it says."""
        severity = self.validated_data.get("severity") or trials.AS_IF
        found = trials.trial(what, at=now, severity=severity).as_dict()
        if not self.validated_data["confirm"]:
            return Response({**found, "sent": []})
        if isinstance(what, Policy):
            sent = trials.try_policy(by=by, policy=what, now=now, severity=severity)
        else:
            sent = trials.try_route(by=by, route=what, now=now, severity=severity)
        told = [{"contact": each.contact_name, "delivery": each.pk} for each in sent]
        return Response({**found, "sent": told}, status=status.HTTP_202_ACCEPTED)


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

    @extend_schema(operation_id="policy_test", request=TrialSerializer, responses=OpenApiTypes.OBJECT)
    @action(detail=True, methods=["post"], permission_classes=[Needs(Right.OPERATE)])
    def test(self, request: Request, pk: str) -> Response:
        """Return the dry run; with `confirm` send a test message to whoever it would tell first now."""
        form = TrialSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        return form.trial(self.get_object(), principal_of(request), timezone.now())


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

    @extend_schema(operation_id="route_test", request=TrialSerializer, responses=OpenApiTypes.OBJECT)
    @action(detail=True, methods=["post"], permission_classes=[Needs(Right.OPERATE)])
    def test(self, request: Request, pk: str) -> Response:
        """Return who would be told; with `confirm` send a test message to whoever is told first now."""
        form = TrialSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        return form.trial(self.get_object(), principal_of(request), timezone.now())


# --- Schedules -------------------------------------------------------------------------------------------------------
MOST_DAYS = 366
"""The longest span whose shifts are answered at once."""


class PeopleField(serializers.ListField):
    """People by username, in order; stored as their ids."""

    child = serializers.CharField()

    def to_internal_value(self, data: Any) -> Any:
        """Return ids."""
        names = super().to_internal_value(data)
        known = dict(User.objects.filter(username__in=names).values_list("username", "pk"))
        if unknown := [name for name in names if name not in known]:
            raise serializers.ValidationError(f"There is nobody called {unknown[0]!r}.")
        return [known[name] for name in names]

    def to_representation(self, data: Any) -> Any:
        """Return usernames; of those who are gone the id."""
        names = names_of(data)
        return [names.get(person, str(person)) for person in data]


class LayerSerializer(Exact, serializers.ModelSerializer[Layer]):
    """One layer; `people` are usernames in the order of their turns."""

    people = PeopleField(required=False)
    calendar = serializers.SlugRelatedField[ImportedCalendar](
        slug_field="name", queryset=ImportedCalendar.objects.all(), required=False, allow_null=True
    )

    class Meta:
        model = Layer
        fields = schedules.LAYER_FIELDS


class ScheduleSerializer(Exact, serializers.ModelSerializer[Schedule]):
    """A schedule with its layers; the last layer that has somebody wins."""

    layers = LayerSerializer(many=True)
    owner = serializers.SlugRelatedField[User](
        slug_field="username", queryset=User.objects.all(), required=False, allow_null=True
    )
    holidays = serializers.SlugRelatedField[Calendar](
        slug_field="name", queryset=Calendar.objects.all(), required=False, allow_null=True
    )

    class Meta:
        model = Schedule
        fields = ("id", "name", "description", "zone", "owner", "holidays", "layers")


class ScheduleViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Schedule]):
    """Schedules: who is on call when."""

    queryset = (
        Schedule.objects.select_related("owner", "holidays")
        .prefetch_related(Prefetch("layers", Layer.objects.select_related("calendar").defer("calendar__content")))
        .order_by("name")
    )
    serializer_class = ScheduleSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def create(self, request: Request) -> Response:
        """Make a schedule."""
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        made = schedules.save_schedule(by=principal_of(request), **form.validated_data)
        return Response(self.get_serializer(made).data, status=status.HTTP_201_CREATED)

    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent; layers are replaced as a whole."""
        schedule = self.get_object()
        form = self.get_serializer(schedule, data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        kept = {name: getattr(schedule, name) for name in ("name", "zone", "description", "owner", "holidays")}
        schedules.save_schedule(by=principal_of(request), schedule=schedule, **{**kept, **form.validated_data})
        return Response(self.get_serializer(self.get_object()).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a schedule that no policy names."""
        schedules.delete_schedule(by=principal_of(request), schedule=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="schedules_on_call",
        parameters=[OpenApiParameter("at", OpenApiTypes.DATETIME, description="When; left out: now.")],
        responses=OpenApiTypes.OBJECT,
        filters=False,
    )
    @action(detail=False, url_path="on-call", pagination_class=None)
    def on_call(self, request: Request) -> Response:
        """Return who is on call by each schedule, now or at a moment, and why; `person` is null where nobody is."""
        at = moment_asked(request, "at", timezone.now())
        found = [(schedule, schedules.on_call(schedule, at)) for schedule in self.get_queryset()]
        names = names_of([shift.person for _, shift in found if shift])
        return Response(
            [
                {
                    "schedule": schedule.name,
                    "at": at,
                    "person": names.get(shift.person) if shift else None,
                    "reason": shift.reason if shift else "nobody is on call",
                }
                for schedule, shift in found
            ]
        )

    @extend_schema(
        operation_id="schedule_shifts",
        parameters=[
            OpenApiParameter("start", OpenApiTypes.DATETIME, description="From when; left out: now."),
            OpenApiParameter("end", OpenApiTypes.DATETIME, description="Until when; left out: 14 days later."),
        ],
        responses=OpenApiTypes.OBJECT,
    )
    @action(detail=True)
    def shifts(self, request: Request, pk: str) -> Response:
        """Return the shifts of a span, when nobody is told, where overrides disagree, and everybody's hours.

        A gap is a time in which nobody is on call, or somebody who cannot be told; its reason says which.
        """
        start = moment_asked(request, "start", timezone.now())
        end = moment_asked(request, "end", start + timedelta(days=14))
        if not start < end <= start + timedelta(days=MOST_DAYS):
            raise serializers.ValidationError({"end": f"After the start, and at most {MOST_DAYS} days later."})
        found = schedules.plan(self.get_object(), start, end)
        names = names_of([*found.loads, *(person for clash in found.clashes for person in clash.people)])
        return Response(
            {
                "shifts": [
                    {
                        "start": shift.start,
                        "end": shift.end,
                        "person": names.get(shift.person),
                        "reason": shift.reason,
                        "is_override": shift.is_override,
                    }
                    for shift in found.shifts
                ],
                "gaps": [{"start": gap.start, "end": gap.end, "reason": gap.reason} for gap in found.gaps],
                "clashes": [
                    {
                        "start": clash.start,
                        "end": clash.end,
                        "reason": clash.reason,
                        "people": [names.get(person) for person in clash.people],
                    }
                    for clash in found.clashes
                ],
                "hours": [_load(names.get(person), load) for person, load in found.loads.items()],
            }
        )


def _load(person: str | None, load: rotation.Load) -> dict[str, Any]:
    loads = {"hours": load.hours, "nights": load.nights, "weekends": load.weekends, "holidays": load.holidays}
    return {"person": person, **loads}


class OverrideSerializer(Exact, serializers.ModelSerializer[Override]):
    """Somebody who is on call whatever the layers say; schedule and person are given by name."""

    schedule = serializers.SlugRelatedField[Schedule](slug_field="name", queryset=Schedule.objects.all())
    person = serializers.SlugRelatedField[User](slug_field="username", queryset=User.objects.all())

    class Meta:
        model = Override
        fields = ("id", "schedule", "person", "starts_at", "ends_at", "by", "reason")
        read_only_fields = ("by",)


class OverrideViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Override]):
    """Overrides; a swap is two of them."""

    queryset = Override.objects.select_related("schedule", "person").order_by("-id")
    serializer_class = OverrideSerializer
    permission_classes = (Needs(Right.READ, Right.OPERATE),)
    pagination_class = NewestFirst

    def create(self, request: Request) -> Response:
        """Put somebody on call for a while."""
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        made = schedules.override(by=principal_of(request), **form.validated_data)
        return Response(self.get_serializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Take an override back."""
        schedules.delete_override(by=principal_of(request), override=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)


def names_of(people: list[int]) -> dict[int, str]:
    """Return the usernames by id."""
    return dict(User.objects.filter(pk__in=people).values_list("pk", "username"))


def moment_asked(request: Request, name: str, default: datetime) -> datetime:
    """Return the time of the query, which needs a time zone."""
    if not (text := request.query_params.get(name)):
        return default
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not 1970 < at.year < 2200:
        raise serializers.ValidationError({name: "Give a time with its zone, such as 2026-11-30T09:00:00Z."})
    return at


# --- What happened ---------------------------------------------------------------------------------------------------
class StepTakenSerializer(serializers.ModelSerializer[StepTaken]):
    """A step that an escalation has taken; `told` are the names of the contacts who were told by it."""

    class Meta:
        model = StepTaken
        fields = ("position", "rounds", "kind", "reason", "told", "delivery", "at")
        read_only_fields = fields


class EscalationSerializer(serializers.ModelSerializer[Escalation]):
    """A policy on its way for one incident, with the copy of the policy that it follows and the steps it has taken."""

    taken = StepTakenSerializer(many=True, read_only=True)

    class Meta:
        model = Escalation
        fields = (
            "id", "incident", "policy", "plan", "position", "rounds", "severity", "state", "reason",
            "due_at", "started_at", "ended_at", "taken",
        )  # fmt: skip
        read_only_fields = fields


class EscalationViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Escalation]):
    """Escalations, newest first."""

    queryset = Escalation.objects.prefetch_related("taken")
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
    router.register("schedules", ScheduleViewSet, basename="schedule")
    router.register("overrides", OverrideViewSet, basename="override")
    router.register("escalations", EscalationViewSet, basename="escalation")
    router.register("notices", NoticeViewSet, basename="notice")
    router.register("silence-preview", SilencePreviewViewSet, basename="silencepreview")
    router.register("who-would-be-told", ForesightViewSet, basename="whowouldbetold")
    router.register("import", ConfigurationImportViewSet, basename="configurationimport")
    from apps.oncall import calendar_api

    calendar_api.register(router)
