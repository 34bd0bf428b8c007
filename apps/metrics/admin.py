"""The admin's view of what is measured: metrics, series, retention, collectors, and what the store keeps."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.signing import Signer
from django.db import transaction
from django.db.models import Count, F, Func, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.accounts.admin import AuditedAdmin
from apps.accounts.models import Token
from apps.accounts.permissions import EVERYTHING, Right, principal_of
from apps.core.registry import UnknownKind
from apps.metrics import budgets, burial, census, envelope, gateway, services, store_page
from apps.metrics.models import (
    Batch,
    Block,
    CollectionSwitch,
    CollectorSetting,
    Metric,
    PushGroup,
    QueryBudget,
    RetentionPolicy,
    Series,
    SeriesBudget,
    TokenCount,
    Tombstone,
)
from apps.promql.errors import PromQLError
from apps.promql.source import Matcher


class Stored(AuditedAdmin[Any]):
    """Rows that only the store writes."""

    edit_right = None


def moment(ms: int) -> datetime:
    """Milliseconds since 1970 as a time."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def _deleted(ms: int | None) -> str:
    return "none yet" if ms is None else f"{moment(ms):%Y-%m-%d %H:%M} UTC"


@admin.register(RetentionPolicy)
class RetentionPolicyAdmin(AuditedAdmin[RetentionPolicy]):
    """How long samples are kept."""

    imported = "category"
    edit_right = Right.ADMINISTER
    list_display = ("category", "raw", "rollup_5m", "rollup_1h", "samples_from", "description", "metric_count")
    search_fields = ("category", "description")
    readonly_fields = ("samples_from", "finest_from")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RetentionPolicy]:
        return super().get_queryset(request).annotate(metric_count=Count("metrics"))

    @display(description="metrics", ordering="metric_count")
    def metric_count(self, row: Any) -> int:
        return int(row.metric_count)

    def has_delete_permission(self, request: HttpRequest, obj: RetentionPolicy | None = None) -> bool:
        """New metrics that no other policy takes need the default one."""
        if obj is not None and obj.category == RetentionPolicy.DEFAULT:
            return False
        return super().has_delete_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: RetentionPolicy | None = None) -> tuple[str, ...]:
        is_default = obj is not None and obj.category == RetentionPolicy.DEFAULT
        return ("category", *self.readonly_fields) if is_default else self.readonly_fields

    @display(description="samples deleted up to", ordering="raw_from")
    def samples_from(self, row: RetentionPolicy) -> str:
        return _deleted(row.raw_from)

    @display(description="5-minute roll-ups deleted up to")
    def finest_from(self, row: RetentionPolicy) -> str:
        return _deleted(row.rollup_5m_from)

    def save_model(self, request: HttpRequest, obj: RetentionPolicy, form: Any, change: bool) -> None:
        services.save_retention(by=principal_of(request), policy=obj)


@admin.register(Metric)
class MetricAdmin(AuditedAdmin[Metric]):
    """What a metric is, how long it is kept, how many series it has, may have, gets and loses; counted each minute."""

    imported = "name"
    list_display = ("name", "type", "unit", "retention", "live", "active", "new_day", "ended_day", "series_limit")
    list_filter = ("type", "retention")
    search_fields = ("name", "help")
    readonly_fields = ("name", "created_at")
    list_select_related = ("retention",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Metric]:
        counts = {f"{name}_count": Coalesce(f"counted__{name}", 0) for name in census.COLUMNS}
        return super().get_queryset(request).annotate(**counts)

    @display(description="series", ordering="live_count")
    def live(self, row: Any) -> int:
        return int(row.live_count)

    @display(description="spoke in a day", ordering="active_count")
    def active(self, row: Any) -> int:
        return int(row.active_count)

    @display(description="new in a day (an hour)", ordering="new_day_count")
    def new_day(self, row: Any) -> str:
        return f"{row.new_day_count} ({row.new_hour_count})"

    @display(description="ended in a day (an hour)", ordering="ended_day_count")
    def ended_day(self, row: Any) -> str:
        return f"{row.ended_day_count} ({row.ended_hour_count})"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Metric | None = None) -> bool:
        return False


@admin.register(Series)
class SeriesAdmin(Stored):
    """The series of all metrics."""

    list_display = ("id", "metric", "label_text", "first_at", "last_at", "gone_at")
    list_filter = (("gone_at", admin.EmptyFieldListFilter),)
    search_fields = ("metric__name", "labels")
    list_select_related = ("metric",)
    exclude = ("fingerprint",)
    ordering = ("-id",)

    @display(description="labels")
    def label_text(self, row: Series) -> str:
        return ", ".join(f'{name}="{value}"' for name, value in sorted(row.labels.items()))


class _Payload(Stored):
    """Rows with payloads, which no list needs to fetch."""

    heavy: tuple[str, ...] = ("payload",)
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        sizes = (Func(F(name), function="octet_length", output_field=IntegerField()) for name in self.heavy)
        rows: QuerySet[Any] = super().get_queryset(request).defer(*self.heavy).annotate(stored=sum(sizes, start=0))
        return rows

    @display(description="from", ordering="t_min")
    def begins(self, row: Any) -> datetime:
        return moment(row.t_min)

    @display(description="to", ordering="t_max")
    def ends(self, row: Any) -> datetime:
        return moment(row.t_max)

    @display(description="bytes", ordering="stored")
    def size(self, row: Any) -> int:
        return int(row.stored)

    @display(description="bytes a sample")
    def density(self, row: Any) -> str:
        return f"{row.stored / row.samples:.2f}"


class Damaged(admin.SimpleListFilter):
    """Rows that fail their checksum, or the others."""

    title = "damaged"
    parameter_name = "damaged"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Yes"), ("no", "No")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else queryset.filter(bad_at__isnull=self.value() == "no")


@admin.register(Batch)
class BatchAdmin(_Payload):
    """The young rows: what was received and is not compacted yet."""

    exclude = ("payload",)
    list_display = ("id", "received_at", "samples", "begins", "ends", "size", "density", "bad_at")
    list_filter = (Damaged,)


@admin.register(Block)
class BlockAdmin(_Payload):
    """The compacted rows."""

    heavy = ("payload", "directory")
    exclude = ("payload", "directory")
    list_display = ("id", "level", "resolution", "retention", "begins", "ends", "samples", "size", "density", "bad_at")
    list_filter = (Damaged, "level", "resolution", "retention")
    list_select_related = ("retention",)
    actions_list = ("store",)

    def has_store_permission(self, request: HttpRequest) -> bool:
        """The page is about the whole store: for whoever may see all of it."""
        who = principal_of(request)
        return who.can(self.view_right) and who.scope == EVERYTHING

    @action(description="Store", url_path="store", permissions=["store"])
    def store(self, request: HttpRequest) -> HttpResponse:
        """What the store holds, and what to do."""
        if not self.has_store_permission(request):
            raise PermissionDenied
        shared = {**self.admin_site.each_context(request), "title": "Store", "opts": self.opts}
        return TemplateResponse(request, "admin/metrics/store.html", shared | store_page.context(timezone.now()))


class DeletionForm(forms.Form):
    """Which series, and from when to when."""

    selectors = forms.CharField(
        widget=UnfoldAdminTextareaWidget(),
        help_text='Selectors, one a line: visits{user="anna"}. Series that any of them accepts are meant.',
    )
    start = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="From then on, such as 2026-01-31T12:00:00Z or seconds since 1970; empty: from the begin.",
    )
    end = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Up to then, itself included; empty: all that is stored now.",
    )

    def clean_selectors(self) -> list[tuple[Matcher, ...]]:
        lines = [line.strip() for line in self.cleaned_data["selectors"].splitlines() if line.strip()]
        try:
            return [envelope.matchers_of(line, parameter=line) for line in lines]
        except envelope.ApiError as error:
            raise ValidationError(error.message) from None

    def clean_start(self) -> datetime | None:
        return self._moment("start")

    def clean_end(self) -> datetime | None:
        return self._moment("end")

    def _moment(self, name: str) -> datetime | None:
        text = str(self.cleaned_data[name]).strip()
        try:
            return envelope.moment(text) if text else None
        except ValueError as error:
            raise ValidationError(str(error)) from None


def selector_of(labels: Mapping[str, str]) -> str:
    """A label set as PromQL writes it."""
    return burial.selector_text([Matcher(name, "=", value) for name, value in sorted(labels.items())])


@admin.register(SeriesBudget)
class SeriesBudgetAdmin(AuditedAdmin[SeriesBudget]):
    """How many series there may be, where neither a metric nor a token says more."""

    edit_right = Right.ADMINISTER
    list_display = ("__str__", "series", "per_token", "per_metric")

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        SeriesBudget.objects.get_or_create(pk=1)
        return super().get_changelist(request, **options)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: SeriesBudget | None = None) -> bool:
        return False


@admin.register(TokenCount)
class TokenCountAdmin(Stored):
    """How many series each token made that are there, as of the last minute."""

    view_right = Right.ADMINISTER
    list_display = ("name", *census.COLUMNS)
    ordering = ("-live",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TokenCount]:
        token = Token.objects.filter(pk=OuterRef("token")).values("name")
        rows: QuerySet[TokenCount] = super().get_queryset(request)
        return rows.annotate(token_name=Subquery(token))

    @display(description="token")
    def name(self, row: Any) -> str:
        return row.token_name or ("the portal and people" if row.pk == 0 else f"deleted token {row.pk}")


@admin.register(Tombstone)
class TombstoneAdmin(Stored):
    """What was deleted on request, and by when it had left the stored rows; here more is deleted."""

    list_display = ("id", "created_at", "by", "begins", "ends", "applied_at", "blocks", "samples")
    list_filter = (("applied_at", admin.EmptyFieldListFilter),)
    search_fields = ("by",)
    date_hierarchy = "created_at"
    actions_list = ("delete_series",)

    @action(description="Delete series", permissions=["administer"], url_path="delete-series")
    def delete_series(self, request: HttpRequest) -> HttpResponse:
        """Show what a deletion would take; do it when that has been seen and confirmed."""
        form = DeletionForm(request.POST or None)
        preview: burial.Preview | None = None
        by, now = principal_of(request), timezone.now()
        previewed = ""
        if request.method == "POST" and form.is_valid():
            given = form.cleaned_data
            span = {"start": given["start"], "end": given["end"]}
            previewed = Signer().sign(repr([form.data.get(name, "") for name in form.fields]))
            try:
                if request.POST.get("confirmed") and request.POST.get("previewed") == previewed:
                    gone = services.delete_series(by=by, selectors=given["selectors"], now=now, **span)
                    self.message_user(request, f"Samples of {len(gone.ids)} series are hidden and go within minutes.")
                    return HttpResponseRedirect(reverse("admin:metrics_tombstone_changelist"))
                preview = burial.preview(given["selectors"], scope=by.scope, now=now, **span)
            except ValidationError as problems:
                form.add_error(None, problems.messages)
            except (ValueError, PromQLError) as problem:
                form.add_error(None, str(problem))
        context = {
            **self.admin_site.each_context(request),
            "title": "Delete series",
            "opts": self.opts,
            "back": reverse("admin:metrics_tombstone_changelist"),
            "form": form,
            "preview": preview,
            "previewed": previewed,
            "examples": [selector_of(labels) for labels in preview.doomed.examples] if preview else [],
        }
        return TemplateResponse(request, "admin/metrics/delete_series.html", context)

    @display(description="from")
    def begins(self, row: Tombstone) -> datetime:
        return moment(row.t_min)

    @display(description="to")
    def ends(self, row: Tombstone) -> datetime | None:
        return None if row.t_max >= burial.LAST_MS else moment(row.t_max)


class CollectorForm(forms.ModelForm[CollectorSetting]):
    """A collector's settings are checked by the form that the collector brings."""

    class Meta:
        model = CollectorSetting
        fields = ("kind", "enabled", "every", "config")

    def clean(self) -> dict[str, Any]:
        from apps.metrics.collectors import COLLECTORS

        values = super().clean() or {}
        try:
            config = COLLECTORS.get(values.get("kind") or self.instance.kind).Config(values.get("config") or {})
        except UnknownKind as error:
            raise ValidationError({"kind": str(error)}) from None
        if not config.is_valid():
            problems = [f"{name}: {' '.join(map(str, texts))}" for name, texts in config.errors.items()]
            raise ValidationError({"config": problems})
        return values


@admin.register(CollectorSetting)
class CollectorSettingAdmin(AuditedAdmin[CollectorSetting]):
    """Which collectors run, how often, and how their last run went."""

    imported = "kind"
    form = CollectorForm
    switched = "Their series end."
    list_display = ("kind", "enabled", "every", "last_at", "duration", "short_error")
    list_filter = ("enabled", ("error", admin.EmptyFieldListFilter))
    search_fields = ("kind", "error")
    readonly_fields = ("last_at", "duration", "error")

    @display(description="error")
    def short_error(self, row: CollectorSetting) -> str:
        return row.error[:80]

    def get_readonly_fields(self, request: HttpRequest, obj: CollectorSetting | None = None) -> tuple[str, ...]:
        return ("last_at", "duration", "error") if obj is None else ("kind", "last_at", "duration", "error")


@admin.register(PushGroup)
class PushGroupAdmin(AuditedAdmin[PushGroup]):
    """What batch jobs have pushed by the Pushgateway's paths; deleting a group ends its series."""

    list_display = ("__str__", "samples", "pushed_at", "failed_at", "ttl", "pushed_by")
    readonly_fields = ("labels", "samples", "pushed_at", "pushed_by", "failed_at", "error", "holds")
    search_fields = ("labels",)

    @display(description="holds")
    def holds(self, group: PushGroup) -> str:
        return ", ".join(sorted(group.families))[:2_000] or "nothing but the times of its pushes"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def delete_model(self, request: HttpRequest, obj: PushGroup) -> None:
        gateway.delete(by=principal_of(request), group=obj, now=timezone.now())


@admin.register(QueryBudget)
class QueryBudgetAdmin(AuditedAdmin[QueryBudget]):
    """What a query of each role may cost; a row for each is shipped."""

    imported = "role"
    edit_right = Right.ADMINISTER
    list_display = ("role", "series", "samples", "points", "seconds")
    readonly_fields = ("role",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: QueryBudget | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: QueryBudget, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        transaction.on_commit(budgets.forget)


@admin.register(CollectionSwitch)
class CollectionSwitchAdmin(AuditedAdmin[CollectionSwitch]):
    """The one switch of all collectors."""

    list_display = ("__str__", "on", "changed_at", "changed_by")
    readonly_fields = ("changed_at", "changed_by")

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        CollectionSwitch.objects.get_or_create(pk=1)
        return super().get_changelist(request, **options)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: CollectionSwitch | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: CollectionSwitch, form: Any, change: bool) -> None:
        services.switch_collection(by=principal_of(request), on=obj.on, now=timezone.now())
