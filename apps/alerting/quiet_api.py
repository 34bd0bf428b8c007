"""The API of silences, maintenance windows, inhibition rules and services: parse, one verb, answer."""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.models import Team
from apps.accounts.permissions import Right, principal_of
from apps.alerting import quiet, services
from apps.alerting.api import Pages, Seconds
from apps.alerting.models import Inhibition, MaintenanceWindow, Service, Silence
from apps.alerting.services.windows import check_inhibition


# --- Silences --------------------------------------------------------------------------------------------------------
class SilenceSerializer(serializers.ModelSerializer[Silence]):
    """A silence; `state` is pending, active or expired."""

    duration = Seconds()
    state = serializers.SerializerMethodField()

    class Meta:
        model = Silence
        fields = (
            "id", "matchers", "state", "starts_at", "ends_at", "until_resolved", "recurrence", "duration", "time_zone",
            "comment", "created_by", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_state(self, row: Silence) -> str:
        return row.state(timezone.now())


class SilenceInput(Exact):
    """What may be sent; an operator silences for 24 hours at most."""

    matchers = serializers.ListField(
        child=serializers.JSONField(),
        max_length=50,
        help_text='Each as {"name", "value", "isRegex", "isEqual"} or as text: service=~"db|web".',
    )
    starts_at = serializers.DateTimeField(required=False, allow_null=True)
    ends_at = serializers.DateTimeField()
    until_resolved = serializers.BooleanField(default=False)
    recurrence = serializers.CharField(default="", allow_blank=True, max_length=500)
    duration = Seconds(required=False, allow_null=True)
    time_zone = serializers.CharField(default="UTC", max_length=64)
    comment = serializers.CharField()


@extend_schema(parameters=[OpenApiParameter("state", str, enum=("current", "all"), default="current")])
class SilenceViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Silence]):
    """Silences that are not over, or all."""

    queryset = Silence.objects.all()
    serializer_class = SilenceSerializer
    permission_classes = (Needs(Right.READ, Right.OPERATE),)
    pagination_class = Pages
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[Silence]:
        found = Silence.objects.visible_to(principal_of(self.request).scope)
        if self.action != "list" or self.request.query_params.get("state") == "all":
            return found
        return found.current(timezone.now())

    @extend_schema(request=SilenceInput, responses={201: SilenceSerializer})
    def create(self, request: Request) -> Response:
        """Silence what the matchers accept."""
        return Response(SilenceSerializer(self._save(request, None)).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=SilenceInput, responses=SilenceSerializer)
    def update(self, request: Request, pk: str) -> Response:
        """Change a silence that is not over."""
        return Response(SilenceSerializer(self._save(request, self.get_object())).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """End a silence now; it stays as history."""
        services.expire_silence(by=principal_of(request), silence=self.get_object(), now=timezone.now())
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _save(self, request: Request, silence: Silence | None) -> Silence:
        form = SilenceInput(data=request.data)
        form.is_valid(raise_exception=True)
        given = dict(form.validated_data)
        given["duration"] = _span(given)
        return services.silence(by=principal_of(request), silence=silence, now=timezone.now(), **given)


def _span(given: Mapping[str, Any]) -> Any:
    value = given.get("duration")
    return None if value in (None, "") else services.duration(value, "duration")


# --- Maintenance windows ---------------------------------------------------------------------------------------------
class WindowSerializer(Exact, serializers.ModelSerializer[MaintenanceWindow]):
    """A maintenance window of a service (by name) or of what matchers accept."""

    service = serializers.SlugRelatedField[Service](
        slug_field="name", queryset=Service.objects.all(), required=False, allow_null=True
    )
    matchers = serializers.ListField(child=serializers.JSONField(), max_length=50, required=False)
    duration = Seconds(required=False, allow_null=True)
    state = serializers.SerializerMethodField()

    class Meta:
        model = MaintenanceWindow
        fields = (
            "id", "name", "description", "service", "matchers", "state", "starts_at", "ends_at", "recurrence",
            "duration", "time_zone", "excluded_from_sla", "created_by", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = ("created_by", "created_at", "updated_at")

    def get_state(self, row: MaintenanceWindow) -> str:
        return row.state(timezone.now())


class WindowViewSet(viewsets.ModelViewSet[MaintenanceWindow]):
    """Maintenance windows."""

    queryset = MaintenanceWindow.objects.select_related("service")
    serializer_class = WindowSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def get_queryset(self) -> QuerySet[MaintenanceWindow]:
        """Return those that the caller may see."""
        return super().get_queryset().visible_to(principal_of(self.request).scope)  # type: ignore[attr-defined, no-any-return]

    pagination_class = Pages

    def perform_create(self, serializer: Any) -> None:
        self._write(serializer, None)

    def perform_update(self, serializer: Any) -> None:
        self._write(serializer, serializer.instance)

    def perform_destroy(self, instance: MaintenanceWindow) -> None:
        services.delete_window(by=principal_of(self.request), window=instance, now=timezone.now())

    def _write(self, serializer: Any, window: MaintenanceWindow | None) -> None:
        values = dict(serializer.validated_data)
        if "duration" in values:
            values["duration"] = _span(values)
        serializer.instance = services.save_window(
            by=principal_of(self.request), values=values, window=window, now=timezone.now()
        )


# --- Inhibition ------------------------------------------------------------------------------------------------------
class InhibitionSerializer(Exact, serializers.ModelSerializer[Inhibition]):
    """An inhibition rule."""

    source_matchers = serializers.ListField(child=serializers.JSONField(), max_length=50)
    target_matchers = serializers.ListField(child=serializers.JSONField(), max_length=50)
    equal = serializers.ListField(child=serializers.CharField(max_length=200), max_length=20, required=False)

    class Meta:
        model = Inhibition
        fields = ("id", "name", "source_matchers", "target_matchers", "equal", "enabled")
        validators = ()


class InhibitionViewSet(viewsets.ModelViewSet[Inhibition]):
    """Inhibition rules."""

    queryset = Inhibition.objects.all()
    serializer_class = InhibitionSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)
    pagination_class = Pages

    def perform_create(self, serializer: Any) -> None:
        self._write(serializer, None)

    def perform_update(self, serializer: Any) -> None:
        self._write(serializer, serializer.instance)

    def perform_destroy(self, instance: Inhibition) -> None:
        services.delete_inhibition(by=principal_of(self.request), inhibition=instance, now=timezone.now())

    def _write(self, serializer: Any, row: Inhibition | None) -> None:
        serializer.instance = services.save_inhibition(
            by=principal_of(self.request), values=serializer.validated_data, inhibition=row, now=timezone.now()
        )

    @extend_schema(
        operation_id="inhibitions_preview",
        parameters=[
            OpenApiParameter("source", str, many=True, required=True),
            OpenApiParameter("target", str, many=True, required=True),
            OpenApiParameter("equal", str, many=True),
        ],
        responses=OpenApiTypes.OBJECT,
    )
    @action(detail=False, methods=["get"], pagination_class=None, filter_backends=())
    def preview(self, request: Request) -> Response:
        """Return what such a rule would mute now; nothing is saved."""
        asked = request.query_params
        row = Inhibition(
            name="preview",
            source_matchers=asked.getlist("source"),
            target_matchers=asked.getlist("target"),
            equal=asked.getlist("equal"),
        )
        check_inhibition(row)
        found = quiet.would_inhibit(row, scope=principal_of(request).scope)
        rows = [{"alert": muted.key, "because_of": source.key, "message": muted.message} for muted, source in found]
        return Response({"count": len(rows), "alerts": rows[:100]})


# --- Services --------------------------------------------------------------------------------------------------------
class ServiceSerializer(Exact, serializers.ModelSerializer[Service]):
    """A service with what it depends on, by name."""

    team = serializers.SlugRelatedField[Team](
        slug_field="name", queryset=Team.objects.all(), required=False, allow_null=True
    )
    depends_on = serializers.SlugRelatedField[Service](
        slug_field="name", queryset=Service.objects.all(), many=True, required=False
    )

    class Meta:
        model = Service
        fields = ("id", "name", "description", "team", "depends_on", "fails_at")
        validators = ()


class ServiceViewSet(viewsets.ModelViewSet[Service]):
    """Services and what they depend on."""

    queryset = Service.objects.select_related("team").prefetch_related("depends_on")
    serializer_class = ServiceSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def get_queryset(self) -> QuerySet[Service]:
        """Return those that the caller may see."""
        return super().get_queryset().visible_to(principal_of(self.request).scope)  # type: ignore[attr-defined, no-any-return]

    pagination_class = Pages

    def perform_create(self, serializer: Any) -> None:
        self._write(serializer, None)

    def perform_update(self, serializer: Any) -> None:
        self._write(serializer, serializer.instance)

    def perform_destroy(self, instance: Service) -> None:
        services.delete_service(by=principal_of(self.request), service=instance, now=timezone.now())

    def _write(self, serializer: Any, row: Service | None) -> None:
        values = dict(serializer.validated_data)
        parents = values.pop("depends_on", None)
        serializer.instance = services.save_service(
            by=principal_of(self.request), values=values, depends_on=parents, service=row, now=timezone.now()
        )


def register(router: BaseRouter) -> None:
    """Add these endpoints to /api/v1/portal/."""
    router.register("silences", SilenceViewSet, basename="silence")
    router.register("maintenance-windows", WindowViewSet, basename="maintenancewindow")
    router.register("inhibitions", InhibitionViewSet, basename="inhibition")
    router.register("services", ServiceViewSet, basename="service")
