"""The admin's view of what is measured: metrics, series, retention, collectors, and what the store keeps."""

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, F, Func, IntegerField, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display

from apps.accounts.admin import AuditedAdmin
from apps.accounts.permissions import Right, principal_of
from apps.core.registry import UnknownKind
from apps.metrics import budgets, services
from apps.metrics.models import (
    Batch,
    Block,
    CollectionSwitch,
    CollectorSetting,
    Metric,
    QueryBudget,
    RetentionPolicy,
    Series,
    Tombstone,
)


class Stored(AuditedAdmin[Any]):
    """Rows that only the store writes."""

    edit_right = None


def moment(ms: int) -> datetime:
    """Milliseconds since 1970 as a time."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


@admin.register(RetentionPolicy)
class RetentionPolicyAdmin(AuditedAdmin[RetentionPolicy]):
    """How long samples are kept."""

    edit_right = Right.ADMINISTER
    list_display = ("category", "raw", "description", "metric_count")
    search_fields = ("category", "description")

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
        return ("category",) if obj is not None and obj.category == RetentionPolicy.DEFAULT else ()


@admin.register(Metric)
class MetricAdmin(AuditedAdmin[Metric]):
    """What a metric is, how long it is kept, how many series it may have."""

    list_display = ("name", "type", "unit", "retention", "live_series", "series_limit")
    list_filter = ("type", "retention")
    search_fields = ("name", "help")
    readonly_fields = ("name", "created_at")
    list_select_related = ("retention",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Metric]:
        return super().get_queryset(request).annotate(live=Count("series", filter=Q(series__gone_at=None)))

    @display(description="series", ordering="live")
    def live_series(self, row: Any) -> int:
        return int(row.live)

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


@admin.register(Batch)
class BatchAdmin(_Payload):
    """The young rows: what was received and is not compacted yet."""

    exclude = ("payload",)
    list_display = ("id", "received_at", "samples", "begins", "ends", "size", "density", "bad_at")
    list_filter = (("bad_at", admin.EmptyFieldListFilter),)


@admin.register(Block)
class BlockAdmin(_Payload):
    """The compacted rows."""

    heavy = ("payload", "directory")
    exclude = ("payload", "directory")
    list_display = ("id", "level", "retention", "begins", "ends", "samples", "size", "density", "bad_at")
    list_filter = ("level", "retention", ("bad_at", admin.EmptyFieldListFilter))
    list_select_related = ("retention",)


@admin.register(Tombstone)
class TombstoneAdmin(Stored):
    """What was deleted on request."""

    list_display = ("id", "created_at", "by", "begins", "ends", "applied_at")

    @display(description="from")
    def begins(self, row: Tombstone) -> datetime:
        return moment(row.t_min)

    @display(description="to")
    def ends(self, row: Tombstone) -> datetime:
        return moment(row.t_max)


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

    form = CollectorForm
    list_display = ("kind", "enabled", "every", "last_at", "duration", "short_error")
    list_filter = ("enabled",)
    readonly_fields = ("last_at", "duration", "error")

    @display(description="error")
    def short_error(self, row: CollectorSetting) -> str:
        return row.error[:80]

    def get_readonly_fields(self, request: HttpRequest, obj: CollectorSetting | None = None) -> tuple[str, ...]:
        return ("last_at", "duration", "error") if obj is None else ("kind", "last_at", "duration", "error")


@admin.register(QueryBudget)
class QueryBudgetAdmin(AuditedAdmin[QueryBudget]):
    """What a query of each role may cost; a row for each is shipped."""

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
