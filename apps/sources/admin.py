"""The admin of scraping: jobs as people know them from prometheus.yml, and the targets that they came to."""

from typing import Any

import yaml
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget

from apps.accounts.admin import AuditedAdmin
from apps.accounts.permissions import principal_of
from apps.accounts.rights import Forbidden
from apps.core.secrets import readable
from apps.sources import (
    check_admin,  # noqa: F401 - registers the pages of checks and heartbeats
    measured_admin,  # noqa: F401 - registers the pages of data sources and business metrics
    scrapeconfigs,
    services,
)
from apps.sources.discovery import PlainLoader
from apps.sources.logs import admin as logs_admin  # noqa: F401 - registers the pages of logs
from apps.sources.models import ScrapeJob, ScrapeTarget

LISTS = {
    "targets": "- targets: [web-1:9100, web-2:9100]\n  labels: {zone: a}",
    "file_sd": "- files: [/etc/portal/targets/*.yml]\n  refresh_interval: 60",
    "http_sd": "- url: http://inventory:8000/targets\n  refresh_interval: 60",
    "relabel": "- source_labels: [__address__]\n  regex: '([^:]+):.*'\n  target_label: instance",
    "metric_relabel": "- source_labels: [__name__]\n  regex: 'go_.*'\n  action: drop",
}
"""Fields that are written as in a prometheus.yml, each with an example."""
MAPPINGS = {"params": "module: [http_2xx]"}
LONGEST = 200_000
FIELDS = (
    "name", "enabled", "targets", "file_sd", "http_sd", "relabel", "interval", "timeout", "scheme", "metrics_path",
    "params", "follow_redirects", "auth", "auth_name", "ca", "server_name", "certificate", "insecure", "honor_labels",
    "honor_timestamps", "metric_relabel", "sample_limit", "body_limit", "label_limit", "label_name_limit",
    "label_value_limit",
)  # fmt: skip


class YamlField(forms.CharField):
    """A list or a mapping, written as YAML."""

    def __init__(self, example: str, kind: type, **options: Any) -> None:
        self.kind = kind
        widget = UnfoldAdminTextareaWidget(attrs={"rows": 4, "placeholder": example, "class": "font-mono"})
        super().__init__(required=False, max_length=LONGEST, widget=widget, strip=False, **options)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return value
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True) if value else ""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        try:
            found = PlainLoader(text).get_single_data() if text.strip() else self.kind()
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f" in line {mark.line + 1}" if mark else ""
            raise ValidationError(f"This is no YAML{place}.") from None
        if not isinstance(found, self.kind):
            what = "a list, each entry behind a dash" if self.kind is list else "names with values"
            raise ValidationError(f"This should be {what}.")
        return found

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(data) != (initial or self.kind()))
        except ValidationError:
            return True


class JobForm(forms.ModelForm[ScrapeJob]):
    """A job; a secret is never put into the page, and left blank it stays."""

    credential = forms.CharField(
        label="Password, token or header value",
        required=False,
        widget=UnfoldAdminPasswordWidget(),
        help_text="Stored encrypted; leave blank to keep it. Set by administrators.",
    )
    client_key = forms.CharField(
        label="Key of the client certificate",
        required=False,
        strip=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="PEM, stored encrypted; leave blank to keep it. Set by administrators.",
    )
    for _name, _example in LISTS.items():
        locals()[_name] = YamlField(_example, list)
    for _name, _example in MAPPINGS.items():
        locals()[_name] = YamlField(_example, dict)
    del _name, _example

    class Meta:
        model = ScrapeJob
        fields = FIELDS

    who: Any = None

    def secrets(self) -> dict[str, str | None]:
        """Return what was typed as secrets."""
        return {name: self.cleaned_data.get(name) or "" for name in services.SECRETS}

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        if self.errors:
            return values
        stored = ScrapeJob.objects.filter(pk=self.instance.pk).first() if self.instance.pk else None
        job = ScrapeJob.objects.get(pk=stored.pk) if stored else ScrapeJob()
        for name, value in values.items():
            if name not in services.SECRETS:
                setattr(job, name, value)
        try:
            services.check(who=self.who, job=job, stored=stored, secrets=self.secrets())
        except ValidationError as error:
            for name, texts in error.message_dict.items():
                self.add_error(name if name in self.fields else None, texts)
        except Forbidden as error:
            self.add_error(None, str(error))
        return values


class ImportForm(forms.Form):
    """A prometheus.yml, as a file or pasted."""

    file = forms.FileField(required=False, help_text="A prometheus.yml; its scrape_configs are read.")
    text = forms.CharField(
        required=False,
        strip=False,
        label="or its text",
        max_length=scrapeconfigs.LARGEST,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 14, "class": "font-mono"}),
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        upload, text = values.get("file"), values.get("text") or ""
        if upload is not None:
            if upload.size > scrapeconfigs.LARGEST:
                raise ValidationError("The file is larger than a configuration can be.")
            text = upload.read().decode(errors="replace")
        if not text.strip():
            raise ValidationError("Choose a file or paste its text.")
        try:
            values["read"] = scrapeconfigs.read(text)
        except scrapeconfigs.BadConfig as error:
            raise ValidationError(str(error)) from None
        return values | {"text": text}


@admin.register(ScrapeJob)
class ScrapeJobAdmin(AuditedAdmin[ScrapeJob]):
    """Scrape jobs."""

    imported = "name"
    switched = "Their targets are asked no more, and their series end."
    form = JobForm
    list_display = ("name", "state", "interval", "address", "trusted", "enabled")
    list_filter = ("enabled", "trusted", "scheme", ("problem", admin.EmptyFieldListFilter))
    search_fields = ("name",)
    readonly_fields = ("problem", "trusted", "has_secrets", "found_targets")
    actions_list = ("take_over",)
    fieldsets = (
        (None, {"fields": ("name", "enabled", "problem", "found_targets")}),
        ("Which targets", {"fields": ("targets", "file_sd", "http_sd", "relabel")}),
        (
            "How they are asked",
            {"fields": ("interval", "timeout", "scheme", "metrics_path", "params", "follow_redirects")},
        ),
        ("Credentials", {"fields": ("auth", "auth_name", "credential", "has_secrets")}),
        ("TLS", {"fields": ("ca", "server_name", "certificate", "client_key", "insecure", "trusted")}),
        ("Series", {"fields": ("honor_labels", "honor_timestamps", "metric_relabel")}),
        (
            "Limits",
            {"fields": ("sample_limit", "body_limit", "label_limit", "label_name_limit", "label_value_limit")},
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScrapeJob]:
        alive = Q(found__ended=False, found__dropped=False)
        return (
            super()
            .get_queryset(request)
            .annotate(
                up_count=Count("found", filter=alive & Q(found__health="up")),
                down_count=Count("found", filter=alive & Q(found__health="down")),
                all_count=Count("found", filter=alive),
            )
        )

    def keep(self, request: HttpRequest, row: ScrapeJob) -> None:
        services.save_job(by=principal_of(request), job=row, now=timezone.now())

    @display(description="Targets", ordering="down_count", label={"down": "danger", "up": "success", "none": "info"})
    def state(self, job: Any) -> tuple[str, str]:
        if job.down_count:
            return "down", f"{job.down_count} of {job.all_count} down"
        return ("up", f"{job.up_count} of {job.all_count} up") if job.all_count else ("none", "no targets")

    @display(description="Address")
    def address(self, job: ScrapeJob) -> str:
        return f"{job.scheme}://…{job.metrics_path}"

    @display(description="Secrets that are set")
    def has_secrets(self, job: ScrapeJob) -> str:
        return ", ".join(sorted(readable(job))) or "none"

    @display(description="Targets")
    def found_targets(self, job: ScrapeJob) -> str:
        url = reverse("admin:sources_scrapetarget_changelist")
        return format_html('<a href="{}?job__id__exact={}">What it came to</a>', url, job.pk)

    def get_fieldsets(self, request: HttpRequest, obj: ScrapeJob | None = None) -> Any:
        if obj is not None and self.has_change_permission(request, obj):
            return self.fieldsets
        hidden = {"credential", "client_key"} if obj is not None else {"problem", "found_targets", "has_secrets"}
        return tuple(
            (title, {"fields": tuple(name for name in options["fields"] if name not in hidden)})
            for title, options in self.fieldsets
        )

    def get_form(self, request: HttpRequest, obj: ScrapeJob | None = None, change: bool = False, **kwargs: Any) -> Any:
        made = super().get_form(request, obj, change, **kwargs)
        return type("JobForm", (made,), {"who": principal_of(request)})

    def save_model(self, request: HttpRequest, obj: ScrapeJob, form: Any, change: bool) -> None:
        services.save_job(by=principal_of(request), job=obj, now=timezone.now(), secrets=form.secrets())

    def delete_model(self, request: HttpRequest, obj: ScrapeJob) -> None:
        services.delete_job(by=principal_of(request), job=obj, now=timezone.now())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ScrapeJob]) -> None:
        for job in ScrapeJob.objects.filter(pk__in=[row.pk for row in queryset]):
            self.delete_model(request, job)

    @action(description="Import prometheus.yml", permissions=["administer"], url_path="import")
    def take_over(self, request: HttpRequest) -> HttpResponse:
        """Show what an import would do, then do it."""
        if not self.has_administer_permission(request):
            raise PermissionDenied
        form = ImportForm(request.POST or None, request.FILES or None)
        done: services.Imported | None = None
        if request.method == "POST" and form.is_valid():
            try:
                done = services.import_jobs(
                    by=principal_of(request),
                    read=form.cleaned_data["read"],
                    now=timezone.now(),
                    dry_run="confirmed" not in request.POST,
                )
            except ValidationError as error:
                form.add_error(None, list(error.messages))
            else:
                if not done.dry_run:
                    changed = sum(one[0] != "unchanged" for one in done.changes)
                    self.message_user(request, f"{changed} jobs were made or changed.", messages.SUCCESS)
                    for note in done.notes:
                        self.message_user(request, note, messages.WARNING)
                    return HttpResponseRedirect(reverse("admin:sources_scrapejob_changelist"))
                form = ImportForm(initial={"text": form.cleaned_data["text"]})
        context = {
            **self.admin_site.each_context(request),
            "title": "Import scrape_configs of a prometheus.yml",
            "opts": self.opts,
            "form": form,
            "report": done,
            "back": reverse("admin:sources_scrapejob_changelist"),
        }
        return TemplateResponse(request, "admin/sources/import.html", context)


@admin.register(ScrapeTarget)
class ScrapeTargetAdmin(AuditedAdmin[ScrapeTarget]):
    """Targets: what the jobs came to; to be read only."""

    edit_right = None
    list_display = ("instance", "job", "state", "last_at", "kept", "refused", "error")
    list_filter = ("job", "health", "dropped")
    search_fields = ("url", "error")
    actions = ("scrape_now",)
    fields = (
        "job", "url", "labels", "discovered", "source", "interval", "timeout", "dropped", "state", "health_at",
        "last_at", "due_at", "duration", "error", "samples", "kept", "added", "refused", "problems",
    )  # fmt: skip
    readonly_fields = ("state",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScrapeTarget]:
        rows = ScrapeTarget.objects.filter(ended=False).with_job().order_by("job__name", "url")
        return rows.filter(pk__in=ScrapeTarget.objects.visible_to(principal_of(request).scope))

    @display(description="State", ordering="health", label={"up": "success", "down": "danger", "dropped": "warning"})
    def state(self, target: ScrapeTarget) -> str:
        return "dropped" if target.dropped else target.health

    @action(description="Scrape now", permissions=["operate"])
    def scrape_now(self, request: HttpRequest, queryset: QuerySet[ScrapeTarget]) -> HttpResponse | None:
        by, now = principal_of(request), timezone.now()
        return self.act_on(
            request, queryset, action="scrape_now", title="Scrape now", done="are asked within a second or two",
            act=lambda target: services.scrape_now(by=by, target=target, now=now),
        )  # fmt: skip
