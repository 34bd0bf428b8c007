"""The API of checks and heartbeats under /api/v1/portal/: one verb, one answer. Secrets go in, never come out."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.permissions import Right, principal_of
from apps.core.secrets import readable
from apps.sources import checks, heartbeats, probes
from apps.sources.api import Seconds
from apps.sources.models import Check, CheckChange, Heartbeat, Ping

READ_ONLY = ("health", "health_at", "failures", "last_at", "duration", "error", "certificate", "trusted")


class LongSeconds(Seconds):
    """A duration of up to a year, as a number of seconds."""

    most = 366 * 86_400


class CheckSerializer(serializers.ModelSerializer[Check]):
    """A check and how it stands; `secrets` names those that it has."""

    interval, timeout, duration = Seconds(), Seconds(), Seconds()
    secrets = serializers.SerializerMethodField()
    address = serializers.CharField()

    class Meta:
        model = Check
        fields = (
            "id", "name", "kind", "enabled", "address", "config", "secrets", "labels", "interval", "timeout", "confirm",
            *READ_ONLY,
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.ListField(child=serializers.CharField()))
    def get_secrets(self, check: Check) -> list[str]:
        """Return the names of the secrets that are set."""
        return sorted(readable(check))


class CheckInput(Exact):
    """What may be sent. `config` are the settings of the kind, secrets among them: one left out or blank stays."""

    name = serializers.CharField(max_length=100)
    kind = serializers.ChoiceField(choices=probes.kinds())
    enabled = serializers.BooleanField(required=False)
    config = serializers.DictField(required=False)
    labels = serializers.DictField(child=serializers.CharField(), required=False)
    interval = Seconds(required=False)
    timeout = Seconds(required=False)
    confirm = serializers.IntegerField(min_value=1, max_value=100, required=False)


class ChangeSerializer(serializers.ModelSerializer[CheckChange]):
    """A check went up or down."""

    class Meta:
        model = CheckChange
        fields = ("at", "health", "reason")


@extend_schema(parameters=[OpenApiParameter("health", str), OpenApiParameter("kind", str)])
class CheckViewSet(viewsets.GenericViewSet[Check], mixins.ListModelMixin, mixins.RetrieveModelMixin):
    """Checks: what is asked from outside, and how it stands."""

    queryset = Check.objects.order_by("name", "pk")
    serializer_class = CheckSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def get_queryset(self) -> QuerySet[Check]:
        """Return what the caller may see of what was asked for."""
        found = super().get_queryset()
        for name in ("health", "kind"):
            if wanted := self.request.query_params.get(name):
                found = found.filter(**{name: wanted})
        return found.filter(pk__in=Check.objects.all().visible_to(principal_of(self.request).scope))

    @extend_schema(request=CheckInput, responses={201: CheckSerializer})
    def create(self, request: Request) -> Response:
        """Make a check."""
        form = CheckInput(data=request.data)
        form.is_valid(raise_exception=True)
        return Response(self._saved(Check(), form.validated_data), status=status.HTTP_201_CREATED)

    @extend_schema(request=CheckInput, responses=CheckSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent; the kind of a check does not change."""
        check = self.get_object()
        form = CheckInput(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        if form.validated_data.get("kind", check.kind) != check.kind:
            raise ValidationError({"kind": "The kind of a check does not change: make a new one instead."})
        return Response(self._saved(check, form.validated_data))

    def _saved(self, check: Check, given: dict[str, Any]) -> Any:
        values = dict(given)
        config = values.pop("config", {})
        for name, value in values.items():
            setattr(check, name, value)
        saved = checks.save_check(by=principal_of(self.request), check=check, values=config, now=timezone.now())
        return self.get_serializer(saved).data

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a check; its series end, what is stored stays."""
        checks.delete_check(by=principal_of(request), check=self.get_object(), now=timezone.now())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(responses=ChangeSerializer(many=True))
    @action(detail=True, methods=["get"], permission_classes=[Needs(Right.READ)], pagination_class=None)
    def changes(self, request: Request, pk: str) -> Response:
        """When it went up and down, the newest hundred first."""
        return Response(ChangeSerializer(self.get_object().changes.all()[:100], many=True).data)

    @extend_schema(request=None, responses={202: OpenApiTypes.OBJECT})
    @action(detail=True, methods=["post"], permission_classes=[Needs(Right.OPERATE)])
    def ask(self, request: Request, pk: str) -> Response:
        """Have it asked at once; what was found stands on the check within seconds."""
        check = self.get_object()
        checks.check_now(by=principal_of(request), check=check, now=timezone.now())
        return Response({"success": True}, status=status.HTTP_202_ACCEPTED)


class HeartbeatSerializer(serializers.ModelSerializer[Heartbeat]):
    """A heartbeat and how it stands; `code` is shown to those who may edit."""

    period, grace, duration = LongSeconds(), LongSeconds(), LongSeconds()
    code = serializers.SerializerMethodField()

    class Meta:
        model = Heartbeat
        fields = (
            "id", "name", "slug", "code", "enabled", "labels", "period", "cron", "zone", "grace", "confirm", "health",
            "health_at", "failures", "reason", "last_ping_at", "last_success_at", "started_at", "duration",
            "expected_at", "deadline_at", "pings",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.UUIDField(allow_null=True))
    def get_code(self, beat: Heartbeat) -> str | None:
        """Return the code, for whoever knows it may ping."""
        return str(beat.code) if principal_of(self.context["request"]).can(Right.EDIT) else None


class HeartbeatInput(Exact):
    """What may be sent."""

    name = serializers.CharField(max_length=100)
    slug = serializers.SlugField(max_length=100, required=False)
    enabled = serializers.BooleanField(required=False)
    labels = serializers.DictField(child=serializers.CharField(), required=False)
    period = LongSeconds(required=False)
    cron = serializers.CharField(max_length=100, allow_blank=True, required=False)
    zone = serializers.CharField(max_length=64, required=False)
    grace = LongSeconds(required=False)
    confirm = serializers.IntegerField(min_value=1, max_value=100, required=False)


class PingSerializer(serializers.ModelSerializer[Ping]):
    """One call."""

    duration = LongSeconds()

    class Meta:
        model = Ping
        fields = ("at", "signal", "exit_status", "run", "duration", "method", "agent", "address", "body")


class HeartbeatViewSet(viewsets.GenericViewSet[Heartbeat], mixins.ListModelMixin, mixins.RetrieveModelMixin):
    """Heartbeats: jobs that should call now and then."""

    queryset = Heartbeat.objects.order_by("name", "pk")
    serializer_class = HeartbeatSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def get_queryset(self) -> QuerySet[Heartbeat]:
        """Return what the caller may see."""
        return super().get_queryset().filter(
            pk__in=Heartbeat.objects.visible_to(principal_of(self.request).scope)
        )  # fmt: skip

    @extend_schema(request=HeartbeatInput, responses={201: HeartbeatSerializer})
    def create(self, request: Request) -> Response:
        """Make a heartbeat."""
        form = HeartbeatInput(data=request.data)
        form.is_valid(raise_exception=True)
        return Response(self._saved(Heartbeat(), form.validated_data), status=status.HTTP_201_CREATED)

    @extend_schema(request=HeartbeatInput, responses=HeartbeatSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent."""
        beat = self.get_object()
        form = HeartbeatInput(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        return Response(self._saved(beat, form.validated_data))

    def _saved(self, beat: Heartbeat, given: dict[str, Any]) -> Any:
        for name, value in given.items():
            setattr(beat, name, value)
        saved = heartbeats.save_heartbeat(by=principal_of(self.request), beat=beat, now=timezone.now())
        return self.get_serializer(saved).data

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a heartbeat and what is kept of its calls."""
        heartbeats.delete_heartbeat(by=principal_of(request), beat=self.get_object(), now=timezone.now())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(responses=PingSerializer(many=True))
    @action(detail=True, methods=["get"], permission_classes=[Needs(Right.READ)], pagination_class=None)
    def calls(self, request: Request, pk: str) -> Response:
        """The calls that are kept, newest first."""
        return Response(PingSerializer(self.get_object().calls.all()[:100], many=True).data)


def register(router: BaseRouter) -> None:
    """Add these endpoints to /api/v1/portal/."""
    router.register("checks", CheckViewSet, basename="check")
    router.register("heartbeats", HeartbeatViewSet, basename="heartbeat")
