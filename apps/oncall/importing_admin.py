"""The admin's page for importing another product's configuration: upload, report, import."""

from typing import Any

from django import forms
from django.contrib.admin import ModelAdmin
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget

from apps.accounts.permissions import principal_of
from apps.accounts.uploads import UploadForm
from apps.oncall.importers import importers, kinds
from apps.oncall.importing import Report, import_configuration


class ProductForm(UploadForm):
    """Which product, and its file."""

    too_large = "More than 2 MB: use the API or manage.py oncall import."
    kind = forms.ChoiceField(choices=kinds, label="Product", widget=UnfoldAdminSelectWidget)
    field_order = ("kind", "file")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        told = "; ".join(f"{one.label}: {one.file}" for one in importers.all().values())
        self.fields["file"].help_text = f"{told}. At most 2 MB."


def page(admin: ModelAdmin[Any], request: HttpRequest) -> HttpResponse:
    """Show what the file would do; do it when the answer has come."""
    form = ProductForm(request.POST or None, request.FILES or None)
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
            form = ProductForm(initial={"kind": values["kind"], "content": values["content"]})
    shared = {**admin.admin_site.each_context(request), "title": "Import from another product", "opts": admin.opts}
    context = {**shared, "form": form, "report": report, "back": back}
    return TemplateResponse(request, "admin/oncall/import.html", context)
