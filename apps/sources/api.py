"""The API of scrape jobs and targets under /api/v1/portal/: one verb, one answer. Secrets go in, never come out."""

from datetime import timedelta
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
from apps.sources import scrapeconfigs, scraping, services
from apps.sources.models import ScrapeJob, ScrapeTarget, credentials, schemes

PLAIN = (
    "name", "enabled", "targets", "file_sd", "http_sd", "scheme", "metrics_path", "params", "interval", "timeout",
    "honor_labels", "honor_timestamps", "follow_redirects", "sample_limit", "label_limit", "label_name_limit",
    "label_value_limit", "body_limit", "relabel", "metric_relabel", "auth", "auth_name", "ca", "certificate",
    "server_name", "insecure",
)  # fmt: skip
"""What of a job is set and shown as it is; secrets are set beside it."""


class Seconds(serializers.FloatField):
    """A duration as a number of seconds."""

    most = 86_400

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        if not 0 < value <= self.most:
            raise serializers.ValidationError(f"Give seconds, more than 0 and at most {self.most}.")
        return timedelta(seconds=value)

    def to_representation(self, value: Any) -> Any:
        return value.total_seconds() if isinstance(value, timedelta) else value


class JobSerializer(serializers.ModelSerializer[ScrapeJob]):
    """A scrape job as it is shown; `secrets` names those that it has."""

    interval, timeout = Seconds(), Seconds()
    secrets = serializers.SerializerMethodField()

    class Meta:
        model = ScrapeJob
        fields = ("id", *PLAIN, "secrets", "trusted", "problem")
        read_only_fields = fields

    @extend_schema_field(serializers.ListField(child=serializers.CharField()))
    def get_secrets(self, job: ScrapeJob) -> list[str]:
        """Return the names of the secrets that are set."""
        return sorted(readable(job))


class JobInput(Exact):
    """What may be sent. A secret that is left out or blank stays; null removes it. Secrets are an administrator's."""

    name = serializers.CharField(max_length=100)
    enabled = serializers.BooleanField(required=False)
    targets = serializers.ListField(child=serializers.DictField(), required=False)
    file_sd = serializers.ListField(child=serializers.DictField(), required=False)
    http_sd = serializers.ListField(child=serializers.DictField(), required=False)
    scheme = serializers.ChoiceField(choices=schemes(), required=False)
    metrics_path = serializers.CharField(max_length=500, required=False)
    params = serializers.DictField(required=False)
    interval = Seconds(required=False)
    timeout = Seconds(required=False)
    honor_labels = serializers.BooleanField(required=False)
    honor_timestamps = serializers.BooleanField(required=False)
    follow_redirects = serializers.BooleanField(required=False)
    sample_limit = serializers.IntegerField(min_value=1, required=False)
    label_limit = serializers.IntegerField(min_value=1, required=False)
    label_name_limit = serializers.IntegerField(min_value=1, required=False)
    label_value_limit = serializers.IntegerField(min_value=1, required=False)
    body_limit = serializers.IntegerField(min_value=1, required=False)
    relabel = serializers.ListField(child=serializers.DictField(), required=False)
    metric_relabel = serializers.ListField(child=serializers.DictField(), required=False)
    auth = serializers.ChoiceField(choices=credentials(), required=False)
    auth_name = serializers.CharField(max_length=200, allow_blank=True, required=False)
    ca = serializers.CharField(allow_blank=True, required=False)
    certificate = serializers.CharField(allow_blank=True, required=False)
    server_name = serializers.CharField(max_length=253, allow_blank=True, required=False)
    insecure = serializers.BooleanField(required=False)
    secrets = serializers.DictField(child=serializers.CharField(allow_blank=True, allow_null=True), required=False)


class ScrapeConfigs(Exact):
    """A prometheus.yml."""

    text = serializers.CharField(max_length=scrapeconfigs.LARGEST, trim_whitespace=False)
    dry_run = serializers.BooleanField(required=False)


class JobViewSet(viewsets.GenericViewSet[ScrapeJob], mixins.ListModelMixin, mixins.RetrieveModelMixin):
    """Scrape jobs: what is asked, how often, and how its series are labelled."""

    queryset = ScrapeJob.objects.order_by("name")
    serializer_class = JobSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def get_queryset(self) -> QuerySet[ScrapeJob]:
        """Return every job; none to who sees only some labels, for a job names all of its targets."""
        every = super().get_queryset()
        return every.none() if principal_of(self.request).scope.matchers else every

    @extend_schema(request=JobInput, responses={201: JobSerializer})
    def create(self, request: Request) -> Response:
        """Make a job."""
        form = JobInput(data=request.data)
        form.is_valid(raise_exception=True)
        return Response(self._saved(ScrapeJob(), form.validated_data), status=status.HTTP_201_CREATED)

    @extend_schema(request=JobInput, responses=JobSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent."""
        job = self.get_object()
        form = JobInput(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        return Response(self._saved(job, form.validated_data))

    def _saved(self, job: ScrapeJob, given: dict[str, Any]) -> Any:
        values = dict(given)
        secrets = values.pop("secrets", None)
        for name, value in values.items():
            setattr(job, name, value)
        saved = services.save_job(by=principal_of(self.request), job=job, now=timezone.now(), secrets=secrets)
        return self.get_serializer(saved).data

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a job; the series of its targets end, what is stored stays."""
        services.delete_job(by=principal_of(request), job=self.get_object(), now=timezone.now())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(operation_id="scrape_jobs_import", request=ScrapeConfigs, responses=OpenApiTypes.OBJECT)
    @action(
        detail=False, methods=["post"], url_path="import", url_name="import",
        permission_classes=[Needs(Right.ADMINISTER)],
    )  # fmt: skip
    def take_over(self, request: Request) -> Response:
        """Take over the scrape_configs of a prometheus.yml: jobs by name, all or nothing; twice changes nothing."""
        form = ScrapeConfigs(data=request.data)
        form.is_valid(raise_exception=True)
        try:
            read = scrapeconfigs.read(form.validated_data["text"])
        except scrapeconfigs.BadConfig as error:
            raise ValidationError({"text": str(error)}) from None
        done = services.import_jobs(
            by=principal_of(request), read=read, now=timezone.now(), dry_run=form.validated_data.get("dry_run", False)
        )
        changes = [{"action": what, "job": job, "settings": list(settings)} for what, job, settings in done.changes]
        return Response({"changes": changes, "left_out": list(done.notes), "dry_run": done.dry_run})


class TargetSerializer(serializers.ModelSerializer[ScrapeTarget]):
    """A target, and how its last scrape went."""

    job = serializers.SlugRelatedField[ScrapeJob](slug_field="name", read_only=True)
    interval, timeout, duration = Seconds(), Seconds(), Seconds()

    class Meta:
        model = ScrapeTarget
        fields = (
            "id", "job", "url", "labels", "discovered", "source", "interval", "timeout", "dropped", "due_at", "health",
            "health_at", "last_at", "duration", "error", "samples", "kept", "added", "refused", "problems",
        )  # fmt: skip
        read_only_fields = fields


class SampleSerializer(serializers.Serializer[Any]):
    """A sample as it would be stored."""

    series = serializers.CharField()
    value = serializers.CharField()


class LookSerializer(serializers.Serializer[Any]):
    """What a target shows at this moment: how it was read, the first samples, what was refused and why."""

    error = serializers.CharField()
    seconds = serializers.FloatField()
    bytes = serializers.IntegerField()
    content_type = serializers.CharField()
    samples = serializers.IntegerField()
    kept = serializers.IntegerField()
    refused = serializers.DictField(child=serializers.IntegerField())
    problems = serializers.ListField(child=serializers.CharField())
    first = SampleSerializer(many=True)


@extend_schema(parameters=[OpenApiParameter("job", str), OpenApiParameter("health", str)])
class TargetViewSet(viewsets.GenericViewSet[ScrapeTarget], mixins.ListModelMixin, mixins.RetrieveModelMixin):
    """Targets of the scrape jobs, those that relabelling drops among them."""

    queryset = ScrapeTarget.objects.filter(ended=False).with_job().order_by("job__name", "url", "pk")
    serializer_class = TargetSerializer
    permission_classes = (Needs(Right.READ),)

    def get_queryset(self) -> QuerySet[ScrapeTarget]:
        """Return what the caller may see of what was asked for."""
        found = super().get_queryset()
        if job := self.request.query_params.get("job"):
            found = found.filter(job__name=job)
        if health := self.request.query_params.get("health"):
            found = found.filter(health=health)
        return found.filter(pk__in=ScrapeTarget.objects.visible_to(principal_of(self.request).scope))

    @extend_schema(request=None, responses=LookSerializer)
    @action(detail=True, methods=["get"], permission_classes=[Needs(Right.OPERATE)], pagination_class=None)
    def look(self, request: Request, pk: str) -> Response:
        """Ask the target once, as its job says, and store nothing."""
        try:
            seen = scraping.look(self.get_object(), now=timezone.now())
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return Response(shown(seen))

    @extend_schema(request=None, responses={202: TargetSerializer})
    @action(detail=True, methods=["post"], permission_classes=[Needs(Right.OPERATE)])
    def scrape(self, request: Request, pk: str) -> Response:
        """Have it scraped at once and what it shows stored; what becomes of it stands on the target within seconds."""
        target = self.get_object()
        services.scrape_now(by=principal_of(request), target=target, now=timezone.now())
        target.refresh_from_db()
        return Response(self.get_serializer(target).data, status=status.HTTP_202_ACCEPTED)


def shown(seen: scraping.Seen) -> dict[str, Any]:
    """A look as JSON."""
    return {
        "error": seen.round.error,
        "seconds": round(seen.seconds, 6),
        "bytes": seen.size,
        "content_type": seen.content_type,
        "samples": seen.round.scraped,
        "kept": seen.round.kept,
        "refused": dict(seen.round.refused),
        "problems": seen.round.problems,
        "first": [{"series": series, "value": f"{value:g}"} for series, value in seen.samples],
    }


def register(router: BaseRouter) -> None:
    """Add this room's endpoints to /api/v1/portal/."""
    router.register("scrape-jobs", JobViewSet, basename="scrape-job")
    router.register("targets", TargetViewSet, basename="target")
