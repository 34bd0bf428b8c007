"""The admin's page for importing another product's configuration: upload, report, import."""

import base64
import binascii
from typing import Any

from django import forms
from django.contrib.admin import ModelAdmin
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget

from apps.accounts.permissions import principal_of
from apps.oncall.importers import importers, kinds
from apps.oncall.importing import Report, import_configuration

LARGEST = 2 * 2**20


class UploadForm(forms.Form):
    """Which product, and its file; `content` carries the upload, in Base64, from the report to the import."""

    kind = forms.ChoiceField(choices=kinds, label="Product", widget=UnfoldAdminSelectWidget)
    file = forms.FileField(required=False, widget=UnfoldAdminFileFieldWidget)
    content = forms.CharField(required=False, strip=False, max_length=LARGEST * 4 // 3 + 4, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        told = "; ".join(f"{one.label}: {one.file}" for one in importers.all().values())
        self.fields["file"].help_text = f"{told}. At most 2 MB."

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if (file := values.get("file")) is not None:
            if file.size > LARGEST:
                raise ValidationError({"file": "More than 2 MB: use the API or manage.py oncall import."})
            values["content"] = base64.b64encode(file.read()).decode()
        if not values.get("content") and not self.errors:
            raise ValidationError("Choose a file.")
        try:
            values["bytes"] = base64.b64decode(values.get("content", ""), validate=True)
        except (binascii.Error, ValueError):
            raise ValidationError("Choose the file once more.") from None
        return {**values, "file": None}


def page(admin: ModelAdmin[Any], request: HttpRequest) -> HttpResponse:
    """Show what the file would do; do it when the answer has come."""
    form = UploadForm(request.POST or None, request.FILES or None)
    report: Report | None = None
    back = reverse("admin:oncall_route_changelist")
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        confirmed = bool(request.POST.get("confirmed"))
        try:
            report = import_configuration(
                by=principal_of(request),
                kind=values["kind"],
                content=values["bytes"],
                dry_run=not confirmed,
                now=timezone.now(),
            )
        except ValidationError as problems:
            form.add_error(None, problems.messages)
        else:
            if confirmed:
                done = ", ".join(f"{number} {name}" for name, number in report.counts().items() if number)
                admin.message_user(request, f"Imported: {done or 'nothing'}.")
                return HttpResponseRedirect(back)
            form = UploadForm(initial={"kind": values["kind"], "content": values["content"]})
    shared = {**admin.admin_site.each_context(request), "title": "Import from another product", "opts": admin.opts}
    context = {**shared, "form": form, "report": report, "back": back}
    return TemplateResponse(request, "admin/oncall/import.html", context)
