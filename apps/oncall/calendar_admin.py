"""The admin of calendars that are kept elsewhere and name who is on call."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminPasswordWidget

from apps.accounts import ical
from apps.accounts.admin import AuditedAdmin
from apps.accounts.permissions import principal_of
from apps.oncall import calendars
from apps.oncall.models import ImportedCalendar


class CalendarForm(forms.ModelForm[ImportedCalendar]):
    """A calendar's name, and where its events come from."""

    url = forms.CharField(
        required=False,
        max_length=2000,
        label="Address",
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text="The secret address in iCal format, as Google and Outlook offer it. It is never shown again; empty: "
        "what there is stays.",
    )
    file = forms.FileField(
        required=False, widget=UnfoldAdminFileFieldWidget, help_text="Or an .ics file, at most 2 MB."
    )

    class Meta:
        model = ImportedCalendar
        fields = ("name", "zone")

    def clean_file(self) -> bytes | None:
        """Read the file as soon as its size allows."""
        file = self.cleaned_data.get("file")
        if file is None:
            return None
        if file.size > ical.MOST_BYTES:
            raise ValidationError(f"The file is larger than {ical.MOST_BYTES // 1_000_000} MB.")
        return bytes(file.read())

    def clean(self) -> dict[str, Any]:
        """Have the calendar read without keeping it, so that what is wrong stands beside its field."""
        values = super().clean() or self.cleaned_data
        url: str | None = values.get("url") or None
        data: bytes | None = values.get("file")
        if self.errors:
            return values
        if not (self.instance.pk or url or data):
            raise ValidationError({"url": "Give the address of a calendar, or a file."})
        if url is not None and data is not None:
            raise ValidationError({"url": "Give an address or a file, not both."})
        if data is not None:
            try:
                calendars.take(ImportedCalendar(zone=values["zone"]), data, timezone.now())
            except ical.CalendarError as error:
                raise ValidationError({"file": str(error)}) from None
        return values


@admin.register(ImportedCalendar)
class ImportedCalendarAdmin(AuditedAdmin[ImportedCalendar]):
    """Calendars, what of them was understood and what was not."""

    form = CalendarForm
    list_display = ("name", "source", "fetched_at", "nobodys", "problem")
    search_fields = ("name", "host")
    readonly_fields = ("source", "fetched_at", "read_until", "problem", "nobodys", "not_understood")
    fields = ("name", "zone", "url", "file", *readonly_fields)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ImportedCalendar]:
        return super().get_queryset(request).defer("content", "turns", "secrets")

    @display(description="Comes from")
    def source(self, calendar: ImportedCalendar) -> str:
        return calendar.host or "a file"

    @display(description="Events that are nobody's")
    def nobodys(self, calendar: ImportedCalendar) -> str:
        return ", ".join(calendar.unmatched) or "–"

    @display(description="Not understood")
    def not_understood(self, calendar: ImportedCalendar) -> str:
        return " ".join(calendar.remarks) or "–"

    def save_model(self, request: HttpRequest, obj: ImportedCalendar, form: Any, change: bool) -> None:
        given = form.cleaned_data
        stored = ImportedCalendar.objects.get(pk=obj.pk) if change else None
        saved = calendars.save_calendar(
            by=principal_of(request), now=timezone.now(), calendar=stored, name=given["name"], zone=given["zone"],
            url=given.get("url") or None, data=given.get("file"),
        )  # fmt: skip
        obj.pk = saved.pk

    def delete_model(self, request: HttpRequest, obj: ImportedCalendar) -> None:
        calendars.delete_calendar(by=principal_of(request), calendar=obj)
