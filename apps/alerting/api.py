"""The API of rules, groups, alerts and incidents under /api/v1/portal/: parse, one verb, answer."""

import json
from datetime import timedelta
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, pagination, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.models import Calendar, Team, User
from apps.accounts.permissions import Right, principal_of
from apps.accounts.rights import require
from apps.alerting import previews, services, upkeep
from apps.alerting.models import (
    AdaptiveBand,
    Alert,
    AlertRule,
    Incident,
    RecordingRule,
    RuleGroup,
    RuleLevel,
    RuleTest,
    Transition,
    severities,
)
from apps.alerting.plainrules import DEFAULT_TARGET
from apps.alerting.services.rulefiles import REMOVALS
from apps.alerting.services.ruletests import failing


class Pages(pagination.LimitOffsetPagination):
    """`limit` (100, at most 1000) and `offset`."""

    default_limit = 100
    max_limit = 1000


@extend_schema_field(OpenApiTypes.NUMBER)
class Seconds(serializers.Field[Any, Any, Any, Any]):
    """A duration: given as seconds or as text (1h30m), answered in seconds."""

    def to_internal_value(self, data: Any) -> Any:
        return data  # the verb reads it and names the field

    def to_representation(self, value: Any) -> float:
        return float(value.total_seconds())


@extend_schema_field(OpenApiTypes.NUMBER)
class SafeFloat(serializers.Field[Any, Any, Any, Any]):
    """A value; NaN and the infinities, which JSON lacks, as text."""

    def to_representation(self, value: float) -> float | str:
        return value if value - value == 0 else str(value)


# --- Rules ------------------------------------------------------------------------------------------------------
class LevelSerializer(serializers.ModelSerializer[RuleLevel]):
    """One severity of a rule."""

    class Meta:
        model = RuleLevel
        fields = ("severity", "comparison", "threshold", "recovery_threshold", "recovery_expression")


class TestOfRule(serializers.ModelSerializer[RuleTest]):
    """A unit test on its rule."""

    class Meta:
        model = RuleTest
        fields = ("name", "text")


class RuleSerializer(serializers.ModelSerializer[AlertRule]):
    """An alert rule with its levels."""

    group = serializers.SlugRelatedField[RuleGroup](slug_field="name", read_only=True)
    owner = serializers.SlugRelatedField[User](slug_field="username", read_only=True)
    levels = LevelSerializer(many=True, read_only=True)
    tests = TestOfRule(many=True, read_only=True)
    pending_period = Seconds()
    keep_firing_for = Seconds()
    cooldown = Seconds()
    new_series_delay = Seconds()
    adaptive = serializers.SerializerMethodField()
    team = serializers.SlugRelatedField[Team](slug_field="name", read_only=True)
    schedule = serializers.SlugRelatedField[Calendar](slug_field="name", read_only=True)

    class Meta:
        model = AlertRule
        fields = (
            "id", "slug", "name", "group", "type", "expression", "levels", "pending_period", "keep_firing_for",
            "no_data_policy", "missing_evaluations", "error_policy", "new_series_delay", "schedule",
            "detects_flapping", "labels", "annotations", "cooldown", "service", "runbook", "review_on", "owner", "team",
            "enabled", "adaptive", "tests", "created_at", "updated_at",
        )  # fmt: skip

    def get_adaptive(self, rule: AlertRule) -> bool:
        """Whether it has an adaptive band."""
        return hasattr(rule, "band")


class TestInput(Exact):
    """A unit test as it may be sent with its rule."""

    name = serializers.CharField(max_length=200)
    text = serializers.CharField(trim_whitespace=False)


class RuleInput(Exact):
    """What may be sent: a rule with `expression` and `levels`, or the seed's `{id, name, condition, severity}`.

    A PATCH takes any part. `notifications` are names of contacts that hear of it.
    """

    slug = serializers.CharField(required=False)
    id = serializers.CharField(required=False, help_text="The seed's word for slug.")
    name = serializers.CharField(required=False)
    group = serializers.CharField(required=False, help_text="Name; made where there is none.")
    type = serializers.CharField(required=False)
    expression = serializers.CharField(required=False)
    condition = serializers.CharField(required=False, help_text="The seed's spelling: responseTime > 5000")
    severity = serializers.CharField(required=False, help_text="With `condition`.")
    levels = serializers.ListField(child=serializers.DictField(), required=False)
    pending_period = Seconds(required=False)
    keep_firing_for = Seconds(required=False)
    cooldown = Seconds(required=False)
    no_data_policy = serializers.CharField(required=False)
    error_policy = serializers.CharField(required=False)
    missing_evaluations = serializers.IntegerField(required=False, min_value=1, max_value=1000)
    new_series_delay = Seconds(required=False)
    schedule = serializers.SlugRelatedField[Calendar](
        slug_field="name", queryset=Calendar.objects.all(), required=False, allow_null=True
    )
    detects_flapping = serializers.BooleanField(required=False)
    labels = serializers.DictField(required=False)
    annotations = serializers.DictField(required=False)
    service = serializers.CharField(required=False, allow_blank=True, max_length=100)
    runbook = serializers.CharField(required=False, allow_blank=True)
    review_on = serializers.DateField(required=False, allow_null=True)
    owner = serializers.SlugRelatedField[User](
        slug_field="username", queryset=User.objects.all(), required=False, allow_null=True
    )
    team = serializers.SlugRelatedField[Team](
        slug_field="name", queryset=Team.objects.all(), required=False, allow_null=True
    )
    enabled = serializers.BooleanField(required=False)
    adaptive = serializers.BooleanField(required=False, help_text="Levels without a threshold follow what is usual.")
    tests = serializers.ListField(
        child=TestInput(), required=False, help_text="All unit tests of the rule, in promtool's format."
    )
    although_tests_fail = serializers.BooleanField(required=False, help_text="Save it even so; the audit says it.")
    notifications = serializers.ListField(child=serializers.CharField(), required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "condition" in attrs:
            return services.rule_from_condition(attrs)
        if "id" in attrs:
            attrs.setdefault("slug", attrs.pop("id"))
        return attrs


class FileInput(Exact):
    """One rule file."""

    name = serializers.CharField(max_length=200, default="rules.yml", help_text="Stands in what is said of the file.")
    text = serializers.CharField(trim_whitespace=False)


class ImportInput(Exact):
    """Rule files and what shall be done with them."""

    files = serializers.ListField(child=FileInput(), min_length=1, max_length=200)
    dry_run = serializers.BooleanField(default=False)
    remove = serializers.ChoiceField(choices=REMOVALS, default="nothing")
    although_tests_fail = serializers.BooleanField(default=False)


class PreviewInput(Exact):
    """A rule to be tried over its history: a saved one, a draft, or a draft over a saved one; and a second one."""

    slug = serializers.CharField(required=False, help_text="A saved rule; what `rule` gives replaces its values.")
    rule = RuleInput(required=False)
    compare = RuleInput(required=False, help_text="A second draft over the same saved rule, for the same time.")
    start = serializers.DateTimeField(required=False)
    end = serializers.DateTimeField(required=False, help_text="Now, where it is not given.")
    hours = serializers.FloatField(required=False, min_value=0.02, max_value=720, help_text="24, without a start.")
    alerts_per_week = serializers.FloatField(
        required=False, min_value=0, max_value=100_000, help_text="Suggest a threshold for so many."
    )
    severity = serializers.ChoiceField(
        choices=severities(), required=False, help_text="Of which level the threshold is suggested; the mildest one."
    )
    stream = serializers.BooleanField(
        default=False, help_text='Answer lines of JSON as it goes: {"progress": 0 to 1}, at last {"result": …}.'
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs.get("slug") and not attrs.get("rule"):
            raise serializers.ValidationError("Name a saved rule by its slug, or give a rule.")
        return attrs


@extend_schema(parameters=[OpenApiParameter("group", str), OpenApiParameter("type", str)])
class RuleViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[AlertRule]):
    """Alert rules by slug."""

    queryset = AlertRule.objects.select_related("group", "owner", "team", "schedule", "band").prefetch_related(
        "levels", "tests"
    )
    serializer_class = RuleSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)
    pagination_class = Pages
    lookup_field = "slug"

    def get_queryset(self) -> QuerySet[AlertRule]:
        asked = self.request.query_params
        found = super().get_queryset()
        if "group" in asked:
            found = found.filter(group__name=asked["group"])
        return found.filter(type=asked["type"]) if "type" in asked else found

    @extend_schema(request=RuleInput, responses={201: RuleSerializer})
    def create(self, request: Request) -> Response:
        """Make a rule."""
        return self._save(request, None, status.HTTP_201_CREATED)

    @extend_schema(request=RuleInput, responses=RuleSerializer)
    def update(self, request: Request, slug: str) -> Response:
        """Change a rule; what is not given stays."""
        return self._save(request, self.get_object(), status.HTTP_200_OK)

    @extend_schema(request=RuleInput, responses=RuleSerializer)
    def partial_update(self, request: Request, slug: str) -> Response:
        """Change a rule; what is not given stays."""
        return self._save(request, self.get_object(), status.HTTP_200_OK)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, slug: str) -> Response:
        """Delete a rule; its open alerts end."""
        services.delete_rule(by=principal_of(request), rule=self.get_object(), now=timezone.now())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="rules_export",
        parameters=[
            OpenApiParameter("target", str, default=DEFAULT_TARGET, description="Version of Prometheus, such as 2.42."),
            OpenApiParameter("group", str, many=True, description="Names; all groups where none is given."),
            OpenApiParameter("partial", bool, default=False, description="Leave out what the target does not have."),
        ],
        responses={(200, "application/yaml"): OpenApiTypes.STR},
    )
    @action(detail=False, methods=["get"], pagination_class=None, filter_backends=())
    def export(self, request: Request) -> HttpResponse:
        """Return the rules as a rule file of Prometheus; what was left out stands in the header X-Left-Out as JSON."""
        asked = request.query_params
        names = asked.getlist("group")
        groups = list(RuleGroup.objects.filter(name__in=names)) if names else None
        if unknown := sorted(set(names) - {group.name for group in groups or ()}):
            raise ValidationError({"group": [f"There is no group {name!r}." for name in unknown]})
        partial = asked.get("partial", "").lower() in ("1", "true", "yes")
        target = asked.get("target", DEFAULT_TARGET)
        found = services.export_rules(by=principal_of(request), target=target, groups=groups, partial=partial)
        answer = HttpResponse(found.text, content_type="application/yaml; charset=utf-8")
        answer["Content-Disposition"] = 'attachment; filename="rules.yml"'
        if found.refused:
            answer["X-Left-Out"] = json.dumps(found.refused[:20])
        return answer

    @extend_schema(operation_id="rules_import", request=ImportInput, responses=OpenApiTypes.OBJECT)
    @action(detail=False, methods=["post"], url_path="import", pagination_class=None, filter_backends=())
    def take(self, request: Request) -> Response:
        """Take over rule files of Prometheus, all or nothing; with `dry_run` only say what would become of them."""
        form = ImportInput(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        report = services.import_rules(
            by=principal_of(request),
            files=[(file["name"], file["text"]) for file in given["files"]],
            dry_run=given["dry_run"],
            remove=given["remove"],
            although_tests_fail=given["although_tests_fail"],
            now=timezone.now(),
        )
        return Response(report.as_dict())

    @extend_schema(operation_id="rules_preview", request=PreviewInput, responses=OpenApiTypes.OBJECT)
    @action(
        detail=False,
        methods=["post"],
        url_path="preview",
        pagination_class=None,
        filter_backends=(),
        permission_classes=(Needs(Right.QUERY),),
    )
    def preview(self, request: Request) -> HttpResponseBase:
        """Tell when a rule, saved or not, would have fired, and what would have been sent. Writes nothing."""
        form = PreviewInput(data=request.data)
        form.is_valid(raise_exception=True)
        given, by = form.validated_data, principal_of(request)
        if given.get("slug"):
            require(by, Right.READ)
        return previews.answer(by, given, timezone.now())

    def _save(self, request: Request, rule: AlertRule | None, code: int) -> Response:
        form = RuleInput(data=request.data)
        form.is_valid(raise_exception=True)
        values, by, now = form.validated_data, principal_of(request), timezone.now()
        adaptive = values.pop("adaptive", None)
        with transaction.atomic():
            rule = services.write_rule(by=by, values=values, rule=rule, now=now)
            if adaptive is not None:
                services.make_adaptive(by=by, rule=rule, on=adaptive, now=now)
        return Response(RuleSerializer(self.queryset.get(pk=rule.pk)).data, status=code)


class GroupSerializer(Exact, serializers.ModelSerializer[RuleGroup]):
    """A rule group with what its last evaluation found."""

    interval = Seconds(required=False)
    evaluated_at = serializers.DateTimeField(source="run.evaluated_at", read_only=True, default=None)
    duration = Seconds(source="run.duration", read_only=True, default=None)
    missed = serializers.IntegerField(source="run.missed", read_only=True, default=0)
    results = serializers.JSONField(source="run.results", read_only=True, default=dict)

    class Meta:
        model = RuleGroup
        fields = ("id", "name", "interval", "enabled", "on_arrival", "evaluated_at", "duration", "missed", "results")

    def to_representation(self, instance: RuleGroup) -> Any:
        shown = super().to_representation(instance)
        request = self.context.get("request")
        if request is None or principal_of(request).scope.matchers:
            shown.pop("results")  # values of series of which the caller may see only some
        return shown


class GroupViewSet(viewsets.ModelViewSet[RuleGroup]):
    """Rule groups by name, with the results of their last evaluation."""

    queryset = RuleGroup.objects.select_related("run")
    serializer_class = GroupSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)
    pagination_class = Pages

    def perform_create(self, serializer: Any) -> None:
        self._write(serializer, RuleGroup())

    def perform_update(self, serializer: Any) -> None:
        self._write(serializer, serializer.instance)

    def perform_destroy(self, instance: RuleGroup) -> None:
        services.delete_group(by=principal_of(self.request), group=instance, now=timezone.now())

    def _write(self, serializer: Any, group: RuleGroup) -> None:
        values = dict(serializer.validated_data)
        if "interval" in values:
            values["interval"] = services.duration(values["interval"], "interval")
        for name, value in values.items():
            setattr(group, name, value)
        serializer.instance = services.save_group(by=principal_of(self.request), group=group, now=timezone.now())


class BandSerializer(Exact, serializers.ModelSerializer[AdaptiveBand]):
    """An adaptive band, of a rule (by slug) or of a group and an expression."""

    rule = serializers.SlugRelatedField[AlertRule](
        slug_field="slug", queryset=AlertRule.objects.all(), required=False, allow_null=True
    )
    group = serializers.SlugRelatedField[RuleGroup](
        slug_field="name", queryset=RuleGroup.objects.all(), required=False, allow_null=True
    )
    calendar = serializers.SlugRelatedField[Calendar](
        slug_field="name", queryset=Calendar.objects.all(), required=False, allow_null=True
    )
    warm_up = Seconds(required=False)

    class Meta:
        model = AdaptiveBand
        fields = (
            "id", "slug", "rule", "group", "expression", "direction", "width", "least", "least_share", "warm_up",
            "calendar", "enabled", "learned_until", "error",
        )  # fmt: skip
        read_only_fields = ("learned_until", "error")
        validators = ()
        extra_kwargs: ClassVar[dict[str, Any]] = {"slug": {"validators": []}}


class BandViewSet(viewsets.ModelViewSet[AdaptiveBand]):
    """Adaptive bands by slug: what is usual for the series of a rule or an expression."""

    queryset = AdaptiveBand.objects.select_related("rule", "group", "calendar")
    serializer_class = BandSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)
    pagination_class = Pages
    lookup_field = "slug"

    def perform_create(self, serializer: Any) -> None:
        self._write(serializer, AdaptiveBand())

    def perform_update(self, serializer: Any) -> None:
        self._write(serializer, serializer.instance)

    def perform_destroy(self, instance: AdaptiveBand) -> None:
        services.delete_band(by=principal_of(self.request), band=instance, now=timezone.now())

    def _write(self, serializer: Any, band: AdaptiveBand) -> None:
        values = dict(serializer.validated_data)
        if "warm_up" in values:
            values["warm_up"] = services.duration(values["warm_up"], "warm_up")
        for name, value in values.items():
            setattr(band, name, value)
        serializer.instance = services.save_band(by=principal_of(self.request), band=band, now=timezone.now())


class RecordingRuleSerializer(Exact, serializers.ModelSerializer[RecordingRule]):
    """A recording rule."""

    group = serializers.SlugRelatedField[RuleGroup](slug_field="name", queryset=RuleGroup.objects.all())

    although_tests_fail = serializers.BooleanField(write_only=True, required=False)

    class Meta:
        model = RecordingRule
        fields = ("id", "group", "name", "expression", "labels", "enabled", "although_tests_fail")
        validators = ()


class RecordingRuleViewSet(viewsets.ModelViewSet[RecordingRule]):
    """Recording rules."""

    queryset = RecordingRule.objects.select_related("group")
    serializer_class = RecordingRuleSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)
    pagination_class = Pages

    def perform_create(self, serializer: Any) -> None:
        self._write(serializer, RecordingRule())

    def perform_update(self, serializer: Any) -> None:
        self._write(serializer, serializer.instance)

    def perform_destroy(self, instance: RecordingRule) -> None:
        services.delete_recording_rule(by=principal_of(self.request), rule=instance, now=timezone.now())

    def _write(self, serializer: Any, rule: RecordingRule) -> None:
        values = dict(serializer.validated_data)
        although = values.pop("although_tests_fail", False)
        for name, value in values.items():
            setattr(rule, name, value)
        serializer.instance = services.save_recording_rule(
            by=principal_of(self.request), rule=rule, although_tests_fail=although, now=timezone.now()
        )


class RuleTestSerializer(Exact, serializers.ModelSerializer[RuleTest]):
    """A unit test of a rule (by slug) or a group (by name)."""

    rule = serializers.SlugRelatedField[AlertRule](
        slug_field="slug", queryset=AlertRule.objects.all(), required=False, allow_null=True
    )
    group = serializers.SlugRelatedField[RuleGroup](
        slug_field="name", queryset=RuleGroup.objects.all(), required=False, allow_null=True
    )
    text = serializers.CharField(trim_whitespace=False)
    although_tests_fail = serializers.BooleanField(write_only=True, required=False)

    class Meta:
        model = RuleTest
        fields = ("id", "name", "rule", "group", "text", "although_tests_fail")
        validators = ()


class RuleTestViewSet(viewsets.ModelViewSet[RuleTest]):
    """Unit tests of rules in promtool's format; one that fails is not saved."""

    queryset = RuleTest.objects.select_related("rule", "group")
    serializer_class = RuleTestSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)
    pagination_class = Pages

    @extend_schema(operation_id="rule_tests_result", responses=OpenApiTypes.OBJECT)
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=())
    def result(self, request: Request, pk: str) -> Response:
        """Run it now, against the rules as they are."""
        failures = [line for lines in failing([self.get_object()]).values() for line in lines]
        return Response({"passed": not failures, "failures": failures})

    def perform_create(self, serializer: Any) -> None:
        self._write(serializer, RuleTest())

    def perform_update(self, serializer: Any) -> None:
        self._write(serializer, serializer.instance)

    def perform_destroy(self, instance: RuleTest) -> None:
        services.delete_rule_test(by=principal_of(self.request), test=instance, now=timezone.now())

    def _write(self, serializer: Any, test: RuleTest) -> None:
        values = dict(serializer.validated_data)
        although = values.pop("although_tests_fail", False)
        for name, value in values.items():
            setattr(test, name, value)
        serializer.instance = services.save_rule_test(
            by=principal_of(self.request), test=test, although_tests_fail=although, now=timezone.now()
        )


# --- Alerts -----------------------------------------------------------------------------------------------------
class TransitionSerializer(serializers.ModelSerializer[Transition]):
    """One change of one alert."""

    alert = serializers.SlugRelatedField[Alert](slug_field="key", read_only=True)
    value = SafeFloat()

    class Meta:
        model = Transition
        fields = (
            "id", "alert", "incident", "at", "kind", "before", "after", "reason", "severity", "value", "by", "detail",
            "told_at",
        )  # fmt: skip
        read_only_fields = fields


class AlertSerializer(serializers.ModelSerializer[Alert]):
    """An alert."""

    rule = serializers.SlugRelatedField[AlertRule](slug_field="slug", read_only=True)
    value = SafeFloat()
    threshold = SafeFloat()

    class Meta:
        model = Alert
        fields = (
            "key", "rule", "source", "type", "category", "labels", "annotations", "state", "severity", "value",
            "threshold", "message", "service", "metadata", "count", "pending_at", "fired_at", "recovering_at",
            "resolved_at", "resolve_reason", "resolved_by", "acknowledged_at", "acknowledged_by", "ends_at", "seen_at",
            "incident",
        )  # fmt: skip
        read_only_fields = fields


class ResolveInput(Exact):
    """Who resolved it, where that is somebody else than the caller."""

    resolved_by = serializers.CharField(required=False, default="", allow_blank=True, max_length=200)


ALERT_FILTERS = ("state", "severity", "type", "category", "service", "source")


@extend_schema(
    parameters=[
        OpenApiParameter("status", str, enum=("active", "history", "all"), default="active"),
        *(OpenApiParameter(name, str) for name in ALERT_FILTERS),
    ]
)
class AlertViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Alert]):
    """Alerts by key: what is wrong now (`status=active`, the default), what ever fired, or all with pending ones."""

    queryset = Alert.objects.select_related("rule")
    serializer_class = AlertSerializer
    permission_classes = (Needs(Right.READ, Right.OPERATE),)
    pagination_class = Pages
    lookup_field = "key"

    def get_queryset(self) -> QuerySet[Alert]:
        visible = Alert.objects.select_related("rule").visible_to(principal_of(self.request).scope)
        if self.action != "list":
            return visible
        asked = self.request.query_params
        wanted = asked.get("status", "active")
        chosen = {"active": visible.active().order_by("-fired_at", "-id"), "history": visible.history(), "all": visible}
        if wanted not in chosen:
            raise ValidationError({"status": [f"{wanted!r} is none of {', '.join(chosen)}."]})
        return chosen[wanted].filter(**{name: asked[name] for name in ALERT_FILTERS if name in asked})

    @extend_schema(request=None, responses=AlertSerializer)
    @action(detail=True, methods=["post"])
    def acknowledge(self, request: Request, key: str) -> Response:
        """Take it on."""
        alert = services.acknowledge(by=principal_of(request), alert=self.get_object(), now=timezone.now())
        return Response(AlertSerializer(alert).data)

    @extend_schema(request=None, responses=AlertSerializer)
    @action(detail=True, methods=["post"])
    def unacknowledge(self, request: Request, key: str) -> Response:
        """Give it back."""
        alert = services.unacknowledge(by=principal_of(request), alert=self.get_object(), now=timezone.now())
        return Response(AlertSerializer(alert).data)

    @extend_schema(request=ResolveInput, responses=AlertSerializer)
    @action(detail=True, methods=["post"])
    def resolve(self, request: Request, key: str) -> Response:
        """End it by hand."""
        form = ResolveInput(data=request.data)
        form.is_valid(raise_exception=True)
        alert = services.resolve(
            by=principal_of(request), alert=self.get_object(), now=timezone.now(), **form.validated_data
        )
        return Response(AlertSerializer(alert).data)

    @extend_schema(request=None, responses=OpenApiTypes.OBJECT)
    @action(detail=True, methods=["post"], url_path="not-an-anomaly")
    def not_an_anomaly(self, request: Request, key: str) -> Response:
        """Widen the band of its series at these hours of the week; answers its factors by hour (Monday 0:00 is 0)."""
        widened = services.not_an_anomaly(by=principal_of(request), alert=self.get_object(), now=timezone.now())
        return Response({"widened": {str(slot): factor for slot, factor in widened.items()}})

    @extend_schema(responses=TransitionSerializer(many=True))
    @action(detail=True, methods=["get"], pagination_class=None, filter_backends=())
    def transitions(self, request: Request, key: str) -> Response:
        """Return its history, oldest first."""
        rows = self.get_object().transitions.select_related("alert").order_by("id")[:1000]
        return Response(TransitionSerializer(rows, many=True).data)


class IncidentSerializer(serializers.ModelSerializer[Incident]):
    """An incident with the keys of its alerts, its probable cause (an alert's key) and why that is thought to be it."""

    alerts = serializers.SerializerMethodField()
    cause = serializers.SlugRelatedField[Alert](slug_field="key", read_only=True)

    class Meta:
        model = Incident
        fields = (
            "id", "title", "state", "severity", "opened_at", "resolved_at", "acknowledged_at", "acknowledged_by",
            "cause", "reasons", "merged_into", "is_by_hand", "alerts",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.ListField(child=serializers.CharField()))
    def get_alerts(self, incident: Incident) -> list[str]:
        return [alert.key for alert in incident.alerts.all()]


class MergeInput(Exact):
    """Ids of the incidents that become part of this one."""

    incidents = serializers.ListField(child=serializers.IntegerField(), min_length=1, max_length=200)


class SplitInput(Exact):
    """Keys of the alerts that get an incident of their own."""

    alerts = serializers.ListField(child=serializers.CharField(), min_length=1, max_length=10_000)


@extend_schema(parameters=[OpenApiParameter("state", str, enum=("open", "resolved"))])
class IncidentViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Incident]):
    """Incidents, newest first."""

    queryset = Incident.objects.all()
    serializer_class = IncidentSerializer
    permission_classes = (Needs(Right.READ, Right.OPERATE),)
    pagination_class = Pages

    def get_queryset(self) -> QuerySet[Incident]:
        scope = principal_of(self.request).scope
        seen = Alert.objects.visible_to(scope).only("id", "key", "incident_id").order_by("id")
        found = Incident.objects.visible_to(scope).select_related("cause")
        found = found.prefetch_related(Prefetch("alerts", queryset=seen))
        state = self.request.query_params.get("state")
        return found if state is None or self.action != "list" else found.filter(state=state)

    @extend_schema(request=None, responses=IncidentSerializer)
    @action(detail=True, methods=["post"])
    def acknowledge(self, request: Request, pk: str) -> Response:
        """Take on everything in it."""
        incident = self.get_object()
        services.acknowledge_incident(by=principal_of(request), incident=incident, now=timezone.now())
        return Response(IncidentSerializer(self.get_object()).data)

    @extend_schema(request=None, responses=IncidentSerializer)
    @action(detail=True, methods=["post"])
    def resolve(self, request: Request, pk: str) -> Response:
        """End everything in it by hand."""
        services.resolve_incident(by=principal_of(request), incident=self.get_object(), now=timezone.now())
        return Response(IncidentSerializer(self.get_object()).data)

    @extend_schema(request=MergeInput, responses=IncidentSerializer)
    @action(detail=True, methods=["post"])
    def merge(self, request: Request, pk: str) -> Response:
        """Make other incidents part of this one."""
        form = MergeInput(data=request.data)
        form.is_valid(raise_exception=True)
        by, keys = principal_of(request), form.validated_data["incidents"]
        others = list(Incident.objects.visible_to(by.scope).filter(pk__in=keys))
        if unknown := sorted(set(keys) - {other.pk for other in others}):
            raise ValidationError({"incidents": [f"There is no incident {unknown[0]}."]})
        services.merge_incidents(by=by, incident=self.get_object(), others=others, now=timezone.now())
        return Response(IncidentSerializer(self.get_object()).data)

    @extend_schema(request=SplitInput, responses=IncidentSerializer)
    @action(detail=True, methods=["post"])
    def split(self, request: Request, pk: str) -> Response:
        """Take alerts (by key) out of it into an incident of their own, which is answered."""
        form = SplitInput(data=request.data)
        form.is_valid(raise_exception=True)
        by = principal_of(request)
        alerts = list(Alert.objects.visible_to(by.scope).filter(key__in=form.validated_data["alerts"]))
        own = services.split_incident(by=by, incident=self.get_object(), alerts=alerts, now=timezone.now())
        return Response(IncidentSerializer(self.get_queryset().get(pk=own.pk)).data)


class NewestFirst(pagination.CursorPagination):
    """Pages of a table that only grows, without counting it."""

    ordering = "-id"
    page_size = 100
    page_size_query_param = "limit"
    max_page_size = 1000


@extend_schema(parameters=[OpenApiParameter("alert", str, description="Key of an alert.")])
class TransitionViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Transition]):
    """Every change of every alert, newest first."""

    queryset = Transition.objects.select_related("alert")
    serializer_class = TransitionSerializer
    permission_classes = (Needs(Right.READ),)
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Transition]:
        found = Transition.objects.select_related("alert").visible_to(principal_of(self.request).scope)
        key = self.request.query_params.get("alert")
        return found if key is None else found.filter(alert__key=key)


class HygieneViewSet(viewsets.ViewSet):
    """What rules need from a person: how noisy each was, what would help, what matches nothing, what is due."""

    permission_classes = (Needs(Right.READ),)

    @extend_schema(
        operation_id="hygiene",
        parameters=[OpenApiParameter("days", int, default=30, description="Firings of so many days, 1 to 366.")],
        responses=OpenApiTypes.OBJECT,
    )
    def list(self, request: Request) -> Response:
        """Return every rule that is switched on, the noisiest first."""
        text, now = request.query_params.get("days", "30"), timezone.now()
        if not text.isdecimal() or not 1 <= int(text) <= 366:
            raise ValidationError({"days": ["A number of days, 1 to 366."]})
        found = upkeep.report(
            start=now - timedelta(days=int(text)), end=now, today=now.date(), scope=principal_of(request).scope
        )
        rules = [upkeep.as_dict(each) for each in found.rules]
        return Response({"start": found.start, "end": found.end, "cut": found.cut, "rules": rules})


def register(router: BaseRouter) -> None:
    """Add this room's endpoints to /api/v1/portal/."""
    router.register("hygiene", HygieneViewSet, basename="hygiene")
    router.register("adaptive-bands", BandViewSet, basename="adaptive-band")
    router.register("rules", RuleViewSet, basename="rule")
    router.register("rule-groups", GroupViewSet, basename="rulegroup")
    router.register("recording-rules", RecordingRuleViewSet, basename="recordingrule")
    router.register("rule-tests", RuleTestViewSet, basename="ruletest")
    router.register("alerts", AlertViewSet, basename="alert")
    router.register("incidents", IncidentViewSet, basename="incident")
    router.register("transitions", TransitionViewSet, basename="transition")
