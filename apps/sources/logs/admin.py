"""The admin of logs: what is taken in, the templates that were found, the rows that hold the records."""

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display

from apps.accounts.admin import AuditedAdmin
from apps.accounts.permissions import Right, principal_of
from apps.sources.logs import services
from apps.sources.logs.records import datetime_of
from apps.sources.models import LogIntake, LogRun, LogTemplate


@admin.register(LogTemplate)
class LogTemplateAdmin(AuditedAdmin[LogTemplate]):
    """What messages have in common; made by the portal as records come."""

    edit_right = None
    list_display = ("pattern", "service", "level", "records", "first_at", "last_at", "found")
    list_filter = ("level", "service")
    search_fields = ("pattern",)
    ordering = ("-last_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[LogTemplate]:
        rows: Any = super().get_queryset(request)
        return rows.visible_to(principal_of(request).scope)  # type: ignore[no-any-return]

    @display(description="records of it")
    def found(self, row: LogTemplate) -> str:
        return format_html('<a href="{}?template={}&amp;range=24h">Records</a>', reverse("logs"), row.pk)


@admin.register(LogRun)
class LogRunAdmin(AuditedAdmin[LogRun]):
    """Rows of packed records, as the store of samples has them."""

    edit_right = None
    list_display = ("__str__", "begin", "end", "records", "size", "stored", "is_young", "bad_at")
    list_filter = ("is_young",)
    fields = readonly_fields = ("begin", "end", "received_at", "records", "size", "stored", "is_young", "bad_at")
    ordering = ("-t_max",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[LogRun]:
        rows: QuerySet[LogRun] = super().get_queryset(request)
        return rows.defer("payload", "tally", "templates")

    @display(description="from", ordering="t_min")
    def begin(self, row: LogRun) -> datetime:
        return datetime_of(row.t_min)

    @display(description="to", ordering="t_max")
    def end(self, row: LogRun) -> datetime:
        return datetime_of(row.t_max)


@admin.register(LogIntake)
class LogIntakeAdmin(AuditedAdmin[LogIntake]):
    """How much is taken in, and what is blacked out."""

    edit_right = Right.ADMINISTER
    list_display = ("__str__", "records_per_day", "stored_bytes", "masks", "own_level")

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        LogIntake.objects.get_or_create(pk=1)
        return super().get_changelist(request, **options)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: LogIntake | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: LogIntake, form: Any, change: bool) -> None:
        services.save_log_intake(by=principal_of(request), settings=obj)
