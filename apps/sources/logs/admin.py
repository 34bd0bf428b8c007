"""The admin of logs: what is taken in, the templates that were found, the rows that hold the records."""

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.core.signing import Signer
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextInputWidget

from apps.accounts.admin import AuditedAdmin
from apps.accounts.permissions import Right, principal_of
from apps.sources.logs import api, deletion, services
from apps.sources.logs.records import LEVELS, datetime_of
from apps.sources.logs.search import BadSearch, Wanted
from apps.sources.models import LogDeletion, LogIntake, LogRun, LogShare, LogTemplate


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
    list_display = ("__str__", "records_per_day", "per_token", "stored_bytes", "masks", "own_level")

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        LogIntake.objects.get_or_create(pk=1)
        return super().get_changelist(request, **options)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: LogIntake | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: LogIntake, form: Any, change: bool) -> None:
        services.save_log_intake(by=principal_of(request), settings=obj)


@admin.register(LogShare)
class LogShareAdmin(AuditedAdmin[LogShare]):
    """Who brought how many records on a day."""

    edit_right = None
    list_display = ("day", "name", "records")
    search_fields = ("name",)
    date_hierarchy = "day"


def _text(help_text: str) -> forms.CharField:
    return forms.CharField(required=False, widget=UnfoldAdminTextInputWidget(), help_text=help_text)


class LogDeletionForm(forms.Form):
    """Which records, and from when to when."""

    service = _text("Of this service only.")
    level = forms.MultipleChoiceField(
        required=False,
        choices=[(level, level) for level in LEVELS],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="Of these levels only; none: of all.",
    )
    template = _text("Of this template only: its number, as in the address of its page.")
    host = _text("Of this host only.")
    text = _text("Those that hold this text in message or attributes, in upper or lower case.")
    since = _text("From then on, such as 2026-01-31T12:00:00Z; empty: from the beginning.")
    until = _text("Up to then, itself not included; empty: all that is stored now.")

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        try:
            wanted = api.doomed_of(lambda name: str(given.get(name, "")).strip(), lambda name: given.get(name, []))
        except BadSearch as error:
            raise ValidationError(str(error)) from None
        return {**given, "wanted": wanted}


@admin.register(LogDeletion)
class LogDeletionAdmin(AuditedAdmin[LogDeletion]):
    """What was deleted on request, and by when nothing of it was stored any more; here more is deleted."""

    edit_right = None
    list_display = ("id", "created_at", "by", "which", "records", "runs", "applied_at")
    list_filter = (("applied_at", admin.EmptyFieldListFilter),)
    search_fields = ("by",)
    date_hierarchy = "created_at"
    actions_list = ("delete_logs",)

    @action(description="Delete log records", permissions=["administer"], url_path="delete-logs")
    def delete_logs(self, request: HttpRequest) -> HttpResponse:
        """Show what a deletion would take; do it when that has been seen and confirmed."""
        given = {name: request.GET.get(name, "") for name in LogDeletionForm.base_fields}
        levels = [level for text in request.GET.getlist("level") for level in text.split(",")]
        form = LogDeletionForm(request.POST or None, initial={**given, "level": levels})
        by, now = principal_of(request), timezone.now()
        previewed, counted = "", None
        back = reverse("admin:sources_logdeletion_changelist")
        if request.method == "POST" and form.is_valid():
            wanted: Wanted = form.cleaned_data["wanted"]
            previewed = Signer().sign(repr([request.POST.getlist(name) for name in form.fields]))
            try:
                if request.POST.get("confirmed") and request.POST.get("previewed") == previewed:
                    row = services.delete_logs(by=by, wanted=wanted, now=now)
                    is_open = deletion.carry_out(now=now, seconds=api.PATIENCE)
                    row.refresh_from_db()
                    rest = ", and more go within minutes" if is_open else ""
                    self.message_user(request, f"{row.records} log records are deleted{rest}.")
                    return HttpResponseRedirect(back)
                counted = deletion.preview(wanted, scope=by.scope)
            except BadSearch as problem:
                form.add_error(None, str(problem))
            except ValidationError as problems:
                form.add_error(None, problems.messages)
        found = {level: int(each.sum()) for level, each in counted.levels.items()} if counted else {}
        context = {
            **self.admin_site.each_context(request),
            "title": "Delete log records",
            "opts": self.opts,
            "back": back,
            "form": form,
            "is_counted": counted is not None,
            "reached": datetime_of(counted.reached) if counted and counted.reached else None,
            "records": sum(found.values()),
            "levels": {level: count for level, count in found.items() if count},
            "previewed": previewed,
        }
        return TemplateResponse(request, "admin/sources/delete_logs.html", context)

    @display(description="which")
    def which(self, row: LogDeletion) -> str:
        wanted = deletion.wanted_of(row)
        span = [
            f"{word} {datetime_of(ms):%Y-%m-%d %H:%M:%S}"
            for word, ms, end in (("from", wanted.start, deletion.FIRST_MS), ("to", wanted.end, deletion.LAST_MS))
            if ms != end
        ]
        named = [f"{name} {row.wanted[name]}" for name in ("service", "template", "host", "text") if row.wanted[name]]
        return ", ".join([*named, *(["levels " + " ".join(wanted.levels)] if wanted.levels else []), *span])[:300]
