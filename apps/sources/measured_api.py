"""The API of data sources and business metrics under /api/v1/portal/: passwords go in, never come out."""

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.permissions import Right, principal_of
from apps.sources import measured
from apps.sources.api import Seconds
from apps.sources.models import BusinessMetric, DataSource, server_kinds, small_groups, tls_modes

SOURCE = ("name", "kind", "enabled", "address", "database", "user", "tls", "labels", "interval", "timeout")
METRIC = (
    "name", "help", "type", "enabled", "source", "query", "value_column", "size_column", "floor", "small", "most_rows",
    "labels", "interval", "timeout",
)  # fmt: skip


class DataSourceSerializer(serializers.ModelSerializer[DataSource]):
    """A data source and how it stands."""

    interval, timeout, duration = Seconds(), Seconds(), Seconds()

    class Meta:
        model = DataSource
        fields = ("id", *SOURCE, "health", "health_at", "last_at", "last_good_at", "duration", "error")
        read_only_fields = fields


class DataSourceInput(Exact):
    """What may be sent; a password left out or blank stays, null removes it."""

    name = serializers.SlugField(max_length=60)
    kind = serializers.ChoiceField(choices=server_kinds(), required=False)
    enabled = serializers.BooleanField(required=False)
    address = serializers.CharField(max_length=300)
    database = serializers.CharField(max_length=100, required=False, allow_blank=True)
    user = serializers.CharField(max_length=100, required=False, allow_blank=True)
    password = serializers.CharField(max_length=1_000, required=False, allow_blank=True, allow_null=True)
    tls = serializers.ChoiceField(choices=tls_modes(), required=False)
    labels = serializers.DictField(child=serializers.CharField(), required=False)
    interval = Seconds(required=False)
    timeout = Seconds(required=False)


class BusinessMetricSerializer(serializers.ModelSerializer[BusinessMetric]):
    """A business metric and how it stands."""

    interval, timeout, duration = Seconds(), Seconds(), Seconds()
    source: Any = serializers.SlugRelatedField("name", read_only=True)

    class Meta:
        model = BusinessMetric
        fields = (
            "id", *METRIC, "last_at", "last_good_at", "duration", "error", "rows", "omitted", "merged",
        )  # fmt: skip
        read_only_fields = fields


class BusinessMetricInput(Exact):
    """What may be sent; `source` is the name of a data source."""

    name = serializers.CharField(max_length=100)
    help = serializers.CharField(max_length=300, required=False, allow_blank=True)
    type = serializers.ChoiceField(choices=["gauge", "counter"], required=False)
    enabled = serializers.BooleanField(required=False)
    source: Any = serializers.SlugRelatedField("name", queryset=DataSource.objects.all())
    query = serializers.CharField(max_length=20_000)
    value_column = serializers.CharField(max_length=63, required=False)
    size_column = serializers.CharField(max_length=63, required=False, allow_blank=True)
    floor = serializers.IntegerField(min_value=0, max_value=1_000_000, required=False)
    small = serializers.ChoiceField(choices=small_groups(), required=False)
    most_rows = serializers.IntegerField(min_value=1, max_value=1_000, required=False)
    labels = serializers.DictField(child=serializers.CharField(), required=False)
    interval = Seconds(required=False)
    timeout = Seconds(required=False)


class TriedSerializer(serializers.Serializer[Any]):
    """What a query gave: the groups that would be stored, and how many were left out or merged."""

    error = serializers.CharField()
    rows = serializers.IntegerField()
    omitted = serializers.IntegerField()
    merged = serializers.IntegerField()
    groups = serializers.ListField(child=serializers.DictField())


class _MeasuredViewSet(viewsets.GenericViewSet[Any], mixins.ListModelMixin, mixins.RetrieveModelMixin):
    """What both have."""

    permission_classes = (Needs(Right.READ, Right.ADMINISTER),)
    input: type[Exact]
    model: type[DataSource | BusinessMetric]

    def get_queryset(self) -> QuerySet[Any]:
        """Return what the caller may see."""
        seen = self.model.objects.all().visible_to(principal_of(self.request).scope)
        return super().get_queryset().filter(pk__in=[row.pk for row in seen])

    def create(self, request: Request) -> Response:
        """Make one."""
        form = self.input(data=request.data)
        form.is_valid(raise_exception=True)
        return Response(self._saved(self.model(), form.validated_data), status=status.HTTP_201_CREATED)

    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent."""
        row = self.get_object()
        form = self.input(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        return Response(self._saved(row, form.validated_data))

    def _saved(self, row: Any, given: dict[str, Any]) -> Any:
        raise NotImplementedError

    @extend_schema(request=None, responses={202: OpenApiTypes.OBJECT})
    @action(detail=True, methods=["post"], permission_classes=[Needs(Right.OPERATE)])
    def ask(self, request: Request, pk: str) -> Response:
        """Have it asked at once; what was found stands on it within seconds."""
        measured.measure_now(by=principal_of(request), row=self.get_object(), now=timezone.now())
        return Response({"success": True}, status=status.HTTP_202_ACCEPTED)


class DataSourceViewSet(_MeasuredViewSet):
    """Databases and caches other than the portal's own."""

    queryset = DataSource.objects.order_by("name", "pk")
    serializer_class = DataSourceSerializer
    input, model = DataSourceInput, DataSource

    @extend_schema(request=DataSourceInput, responses={201: DataSourceSerializer})
    def create(self, request: Request) -> Response:
        """Make a data source."""
        return super().create(request)

    @extend_schema(request=DataSourceInput, responses=DataSourceSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent."""
        return super().partial_update(request, pk)

    def _saved(self, row: DataSource, given: dict[str, Any]) -> Any:
        values = dict(given)
        password = values.pop("password", "")
        for name, value in values.items():
            setattr(row, name, value)
        by = principal_of(self.request)
        saved = measured.save_data_source(by=by, source=row, password=password, now=timezone.now())
        return self.get_serializer(saved).data

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a data source that no business metric asks."""
        measured.delete_data_source(by=principal_of(request), source=self.get_object(), now=timezone.now())
        return Response(status=status.HTTP_204_NO_CONTENT)


class BusinessMetricViewSet(_MeasuredViewSet):
    """Figures that queries give."""

    queryset = BusinessMetric.objects.select_related("source").order_by("name", "pk")
    serializer_class = BusinessMetricSerializer
    input, model = BusinessMetricInput, BusinessMetric

    @extend_schema(request=BusinessMetricInput, responses={201: BusinessMetricSerializer})
    def create(self, request: Request) -> Response:
        """Make a business metric."""
        return super().create(request)

    @extend_schema(request=BusinessMetricInput, responses=BusinessMetricSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent."""
        return super().partial_update(request, pk)

    def _saved(self, row: BusinessMetric, given: dict[str, Any]) -> Any:
        for name, value in given.items():
            setattr(row, name, value)
        saved = measured.save_business_metric(by=principal_of(self.request), metric=row, now=timezone.now())
        return self.get_serializer(saved).data

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a business metric; its series end, what is stored stays."""
        measured.delete_business_metric(by=principal_of(request), metric=self.get_object(), now=timezone.now())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=None, responses=TriedSerializer)
    @action(detail=True, methods=["post"], permission_classes=[Needs(Right.ADMINISTER)], url_path="try")
    def try_out(self, request: Request, pk: str) -> Response:
        """Ask once as it does, and store nothing."""
        found, problem = measured.try_metric(by=principal_of(request), metric=self.get_object())
        groups = [{"labels": one.labels, "value": one.value} for one in found.groups] if found else []
        counts = {name: getattr(found, name, 0) for name in ("rows", "omitted", "merged")}
        return Response({"error": problem, **counts, "groups": groups})


def register(router: BaseRouter) -> None:
    """Add these endpoints to /api/v1/portal/."""
    router.register("data-sources", DataSourceViewSet, basename="data-source")
    router.register("business-metrics", BusinessMetricViewSet, basename="business-metric")
