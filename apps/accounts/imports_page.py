"""The page of each list of the admin that takes its export back: upload, report, import."""

from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from apps.accounts import imports
from apps.accounts.uploads import UploadForm


class RowsForm(UploadForm):
    """A file of rows."""

    too_large = "More than 2 MB: bring the rows in with several files."

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields[
            "file"
        ].help_text = (
            f"CSV or JSON as this list exports it, edited as you like; at most 2 MB and {imports.MOST_ROWS:,} rows."
        )


def page(admin: Any, request: HttpRequest) -> HttpResponse:
    """Show what the file would do; do it when the answer has come."""
    form = RowsForm(request.POST or None, request.FILES or None)
    back = reverse(f"admin:{admin.opts.app_label}_{admin.opts.model_name}_changelist")
    report: imports.Report | None = None
    if request.method == "POST" and form.is_valid():
        content, seen = form.cleaned_data["bytes"], request.POST.get("seen", "")
        has_new = bool(request.FILES)
        try:
            if request.POST.get("confirmed") and not has_new:
                report = imports.write(page=admin, request=request, content=content, seen=seen)
                if not report.is_stale:
                    done = ", ".join(f"{number} {name}" for name, number in report.counts().items())
                    admin.message_user(request, f"Imported: {done}.")
                    return HttpResponseRedirect(back)
            else:
                report = imports.report(page=admin, request=request, content=content)
        except ValidationError as problems:
            form.add_error(None, problems.messages)
        else:
            form = RowsForm(initial={"content": form.cleaned_data["content"]})
    context = {
        **admin.admin_site.each_context(request),
        "title": f"Import {admin.opts.verbose_name_plural}",
        "opts": admin.opts,
        "form": form,
        "report": report,
        "back": back,
        "key": admin.imported,
    }
    return TemplateResponse(request, "admin/accounts/import.html", context)
