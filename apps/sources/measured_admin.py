"""The admin of data sources and business metrics: what is measured and asked, and a try that stores nothing."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget

from apps.accounts.admin import AuditedAdmin
from apps.accounts.permissions import principal_of
from apps.accounts.rights import Right
from apps.sources import measured
from apps.sources.models import BusinessMetric, DataSource

STANDING = {"up": "success", "down": "danger", "unknown": "info"}


class DataSourceForm(forms.ModelForm[DataSource]):
    """A data source; its password is never put into the page, and left blank it stays."""

    password = forms.CharField(
        required=False, max_length=1_000, widget=UnfoldAdminPasswordWidget(),
        help_text="Kept encrypted. Leave blank to keep it.",
    )  # fmt: skip
    no_password = forms.BooleanField(required=False, label="Remove the password")

    class Meta:
        model = DataSource
        fields = ("name", "kind", "enabled", "address", "database", "user", "tls", "labels", "interval", "timeout")

    def clean_labels(self) -> dict[str, Any]:
        """An emptied field is no label."""
        return self.cleaned_data["labels"] or {}

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        _judged(self, measured.examine_source)

    @property
    def given_password(self) -> str | None:
        """Return what was typed, as the verb takes it."""
        return None if self.cleaned_data.get("no_password") else self.cleaned_data.get("password", "")


class BusinessMetricForm(forms.ModelForm[BusinessMetric]):
    """A business metric."""

    class Meta:
        model = BusinessMetric
        fields = (
            "name", "help", "type", "enabled", "source", "query", "value_column", "size_column", "floor", "small",
            "most_rows", "labels", "interval", "timeout",
        )  # fmt: skip
        widgets = {"query": UnfoldAdminTextareaWidget(attrs={"rows": 8, "style": "font-family: monospace"})}

    def clean_labels(self) -> dict[str, Any]:
        """An emptied field is no label."""
        return self.cleaned_data["labels"] or {}

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        _judged(self, measured.examine_metric)


def _judged(form: Any, judge: Any) -> None:
    """Let the verb's own rules judge what was typed, and put their words beside the right fields."""
    if form.errors:
        return
    try:
        judge(form.instance)
    except ValidationError as error:
        for name, texts in error.message_dict.items():
            form.add_error(name if name in form.fields else None, texts)


class MeasuredAdmin(AuditedAdmin[Any]):
    """What both have: an administrator's to change, and a button that asks at once."""

    edit_right = Right.ADMINISTER
    switched = "They are asked no more, and their series end."
    actions = ("measure_now",)

    @display(description="Charts")
    def page(self, row: Any) -> str:
        name = "databases" if isinstance(row, DataSource) else "business"
        return format_html('<a href="{}">Charts</a>', reverse(name))

    @action(description="Ask now", permissions=["operate"])
    def measure_now(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        by, now = principal_of(request), timezone.now()
        return self.act_on(
            request, queryset, action="measure_now", title="Ask now", done="are asked within a second or two",
            act=lambda row: measured.measure_now(by=by, row=row, now=now),
        )  # fmt: skip


@admin.register(DataSource)
class DataSourceAdmin(MeasuredAdmin):
    """Databases and caches other than the portal's own."""

    imported = "name"
    form = DataSourceForm
    list_display = ("name", "kind", "address", "state", "last_at", "duration", "interval", "enabled")
    list_filter = ("kind", "health", "enabled")
    search_fields = ("name", "address", "error")
    readonly_fields = ("state", "health_at", "last_at", "last_good_at", "duration", "error", "page")

    def keep(self, request: HttpRequest, row: DataSource) -> None:
        measured.save_data_source(by=principal_of(request), source=row, now=timezone.now())

    @display(description="State", ordering="health", label=STANDING)
    def state(self, source: DataSource) -> tuple[str, str]:
        return source.health, {"up": "Up", "down": "Down"}.get(source.health, "Not measured yet")

    def get_fieldsets(self, request: HttpRequest, obj: DataSource | None = None) -> Any:
        may = self.has_change_permission(request, obj)
        secret = ("password", *(("no_password",) if obj else ())) if may else ()
        shown = (
            (None, {"fields": ("name", "kind", "enabled")}),
            ("Where it is", {"fields": ("address", "database", "user", *secret, "tls")}),
            ("When", {"fields": ("interval", "timeout", "labels")}),
        )
        return shown if obj is None else (*shown, ("How it does", {"fields": self.readonly_fields}))

    def save_model(self, request: HttpRequest, obj: DataSource, form: Any, change: bool) -> None:
        by = principal_of(request)
        measured.save_data_source(by=by, source=obj, password=form.given_password, now=timezone.now())

    def has_delete_permission(self, request: HttpRequest, obj: DataSource | None = None) -> bool:
        is_asked = obj is not None and obj.metrics.exists()
        return super().has_delete_permission(request, obj) and not is_asked

    def delete_model(self, request: HttpRequest, obj: DataSource) -> None:
        measured.delete_data_source(by=principal_of(request), source=obj, now=timezone.now())


@admin.register(BusinessMetric)
class BusinessMetricAdmin(MeasuredAdmin):
    """Figures that queries give."""

    imported = "name"
    form = BusinessMetricForm
    list_display = ("name", "source", "state", "rows", "omitted", "last_good_at", "interval", "enabled")
    list_filter = ("enabled", "type", "source", ("error", admin.EmptyFieldListFilter))
    list_select_related = ("source",)
    search_fields = ("name", "help", "error", "query")
    readonly_fields = ("state", "last_at", "last_good_at", "duration", "error", "rows", "omitted", "merged", "page")
    actions_detail = ("try_out",)

    def keep(self, request: HttpRequest, row: BusinessMetric) -> None:
        measured.save_business_metric(by=principal_of(request), metric=row, now=timezone.now())

    @display(description="State", label={"fine": "success", "failed": "danger", "new": "info"})
    def state(self, metric: BusinessMetric) -> tuple[str, str]:
        if metric.error:
            return "failed", "Failed"
        return ("fine", "Fine") if metric.last_good_at else ("new", "Not asked yet")

    def get_fieldsets(self, request: HttpRequest, obj: BusinessMetric | None = None) -> Any:
        shown = (
            (None, {"fields": ("name", "help", "type", "enabled", "labels")}),
            ("What is asked", {"fields": ("source", "query", "value_column")}),
            ("People in small groups", {"fields": ("size_column", "floor", "small")}),
            ("When", {"fields": ("interval", "timeout", "most_rows")}),
        )
        return shown if obj is None else (*shown, ("How it does", {"fields": self.readonly_fields}))

    def save_model(self, request: HttpRequest, obj: BusinessMetric, form: Any, change: bool) -> None:
        measured.save_business_metric(by=principal_of(request), metric=obj, now=timezone.now())

    def delete_model(self, request: HttpRequest, obj: BusinessMetric) -> None:
        measured.delete_business_metric(by=principal_of(request), metric=obj, now=timezone.now())

    @action(description="Try now", url_path="try", permissions=["administer"])
    def try_out(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask once as the metric does, show what would be stored, and store nothing."""
        metric = self.get_object(request, object_id)
        if metric is None:
            return redirect("admin:sources_businessmetric_changelist")
        back = reverse("admin:sources_businessmetric_change", args=[object_id])
        question = f"Ask {metric.source} once, show what would be stored, and store nothing?"
        if (page := self.ask(request, title="Try now", question=question, back=back)) is not None:
            return page
        found, problem = measured.try_metric(by=principal_of(request), metric=metric)
        names = sorted({name for group in found.groups for name in group.labels}) if found else []
        context = {
            **self.admin_site.each_context(request),
            "title": f"{metric.name}, tried and not stored",
            "opts": self.opts,
            "metric": metric,
            "found": found,
            "problem": problem,
            "names": names,
            "lines": [([group.labels.get(name, "") for name in names], group.value) for group in found.groups]
            if found
            else [],
        }
        return TemplateResponse(request, "admin/try_out.html", context)
