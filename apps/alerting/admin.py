"""Rules, alerts and incidents in the admin. Rules are written by the same verb as through the API; alerts are read."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

from django import forms
from django.contrib import admin
from django.contrib import messages as notes
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Count, Func, JSONField, OuterRef, Q, QuerySet, Subquery, TextField, Value
from django.db.models.functions import Cast, Coalesce
from django.forms.models import BaseInlineFormSet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_duration
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminFileFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from apps.accounts.admin import (
    AuditedAdmin,
    AuditedStackedInline,
    AuditedTabularInline,
    Link,
    among,
    to_list,
    to_row,
)
from apps.accounts.permissions import Principal, principal_of
from apps.alerting import quiet_admin, services  # noqa: F401 - it registers its own pages
from apps.alerting.models import (
    AdaptiveBand,
    Alert,
    AlertRule,
    Change,
    Incident,
    RecordingRule,
    RuleGroup,
    RuleLevel,
    RuleTest,
    Service,
    Transition,
)
from apps.alerting.plainrules import DEFAULT_TARGET
from apps.alerting.services.bands import check_band
from apps.alerting.services.rulefiles import REMOVALS, Report
from apps.alerting.services.rules import check_group, check_levels, check_recording_rule, check_rule
from apps.core.registry import extend
from apps.promql.text import duration as written_duration

M = TypeVar("M", bound=models.Model)

SILENCED_OF_ONE = 100
"""Alerts of one incident that an action silences."""
SEVERITIES = {"info": "info", "warning": "warning", "error": "danger", "critical": "danger"}
STATES = {"pending": "info", "firing": "danger", "recovering": "warning", "resolved": "success", "inactive": "success"}


def service_names() -> list[str]:
    """The services that somebody described; for filters."""
    return list(Service.objects.values_list("name", flat=True))


class SpanField(forms.CharField):
    """A duration as people write it: 1m30s, or seconds."""

    def prepare_value(self, value: Any) -> Any:
        return written_duration(round(value.total_seconds() * 1000)) if isinstance(value, timedelta) else value

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return timedelta(0)
        try:
            return services.duration(float(text) if text.replace(".", "", 1).isdigit() else text, "x")
        except ValidationError as error:
            if (clock := parse_duration(text) if ":" in text else None) is not None:
                return clock
            raise ValidationError(error.message_dict["x"]) from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(super().has_changed(self.prepare_value(initial), data))


SPANS: dict[Any, dict[str, Any]] = {
    models.DurationField: {"form_class": SpanField, "widget": UnfoldAdminTextInputWidget}
}


class CheckedForm(forms.ModelForm[Any]):
    """A form that shows what the verb would refuse, at the field that is wrong."""

    check: ClassVar[Callable[..., None]]
    refused: ClassVar[ValidationError | None] = None
    """What the verb refused of the very same input, a moment ago."""

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        try:
            type(self).check(self.instance)
        except ValidationError as problems:
            self._show(problems)
        if self.refused is not None:
            self._show(self.refused)

    def _show(self, problems: ValidationError) -> None:
        found = problems.message_dict if hasattr(problems, "error_dict") else {"": problems.messages}
        for name, messages in found.items():
            if name not in self.errors:
                self.add_error(name if name in self.fields else None, messages)


class TestedForm(CheckedForm):
    """A form of something that unit tests concern."""

    __test__ = False  # for pytest

    although_tests_fail = forms.BooleanField(
        required=False,
        widget=UnfoldBooleanWidget,
        label="Save although tests fail",
        help_text="Unit tests that this concerns are run on saving; one that fails refuses it. The audit tells of it.",
    )


class TestedAdmin(AuditedAdmin[M]):
    """A page of something that unit tests concern: what the verb refuses is shown on the form, nothing is written."""

    __test__ = False  # for pytest

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except ValidationError as refused:  # after the forms were found valid; its transaction is rolled back
            vars(request)["refused"] = refused
            return super().changeform_view(request, *args, **kwargs)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.refused = vars(request).get("refused")
        return form

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """With the way out where somebody may save at all."""
        fields = tuple(super().get_fieldsets(request, obj))
        may = self.has_change_permission(request, obj) if obj is not None else self.has_add_permission(request)
        return (*fields, ("Unit tests", {"fields": ("although_tests_fail",)})) if may else fields

    @staticmethod
    def although(form: Any) -> bool:
        """Whether the person asked to save what fails."""
        return bool(form.cleaned_data.get("although_tests_fail"))


class TestFormSet(BaseInlineFormSet[RuleTest, Any, Any]):
    """The unit tests of a rule or group."""

    __test__ = False  # for pytest

    def rows(self) -> list[dict[str, str]]:
        """The tests that will stand, as the verb takes them."""
        return [
            {"name": form.cleaned_data["name"], "text": form.cleaned_data["text"]}
            for form in self.forms
            if form.cleaned_data.get("name") and not form.cleaned_data.get("DELETE")
        ]


class TestInline(AuditedStackedInline):
    """Unit tests on the page of what they test."""

    __test__ = False  # for pytest

    model = RuleTest
    formset = TestFormSet
    fields = ("name", "text")
    verbose_name_plural = "unit tests in promtool's format: run on every save"


def _last(kind: str) -> Func:
    """The line of a row in its group's last results, cut out by the database: the whole can be large."""
    return Func(
        "group__run__results", Value(kind), Cast("id", TextField()),
        function="jsonb_extract_path", output_field=JSONField(),
    )  # fmt: skip


def _line(line: Any) -> str:
    """A line of results for people."""
    if not line:
        return "not evaluated yet"
    if "error" in line:
        return f"error: {line['error']}"
    parts = (
        []
        if line.get("value") is None
        else [f"{line['value']:g}" if isinstance(line["value"], float) else f"{line['value']}"]
    )
    series = line.get("series", 0)
    parts.append("no series" if not series else f"{series} series" if series > 1 else "1 series")
    if line.get("breached"):
        parts.append(f"{line['breached']} breached")
    return ", ".join(parts + line.get("warnings", []))


# --- Rule files ---------------------------------------------------------------------------------------------------
class ExportForm(forms.Form):
    """For which Prometheus."""

    target = forms.CharField(
        label="Version of Prometheus",
        widget=UnfoldAdminTextInputWidget,
        help_text="Such as 2.42, 2.53 or 3.0. What it does not have is refused by name.",
    )
    partial = forms.BooleanField(
        required=False, widget=UnfoldBooleanWidget, label="Leave out what that version does not have"
    )


class ImportForm(forms.Form):
    """A rule file, uploaded or pasted."""

    file = forms.FileField(required=False, widget=UnfoldAdminFileFieldWidget, help_text="YAML, at most 2 MB.")
    name = forms.CharField(required=False, widget=forms.HiddenInput)
    text = forms.CharField(
        required=False, strip=False, max_length=2 * 2**20, widget=UnfoldAdminTextareaWidget, label="or its text"
    )
    remove = forms.ChoiceField(
        choices=tuple(
            zip(REMOVALS, ("stays", "is removed from the groups in the file", "is removed everywhere"), strict=True)
        ),
        widget=UnfoldAdminSelectWidget,
        label="What is not in the file",
    )
    although_tests_fail = forms.BooleanField(
        required=False, widget=UnfoldBooleanWidget, label="Import although unit tests fail"
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if (file := values.get("file")) is not None:
            if file.size > 2 * 2**20:
                raise ValidationError({"file": "More than 2 MB: use the API or manage.py rules import."})
            try:
                values |= {"text": file.read().decode(), "name": file.name}
            except UnicodeDecodeError:
                raise ValidationError({"file": "This is no text in UTF-8."}) from None
        if not values.get("text", "").strip() and not self.errors:
            raise ValidationError("Choose a file or paste its text.")
        return values | {"name": (values.get("name") or "pasted")[:200], "file": None}


# --- Rules ------------------------------------------------------------------------------------------------------
@admin.register(RuleGroup)
class RuleGroupAdmin(TestedAdmin[RuleGroup]):
    """Groups: how often their rules are evaluated, how the last evaluation went, and rule files in and out."""

    switched = "The open alerts of their rules end."
    inlines = (TestInline,)
    actions = ("export",)
    actions_list = ("export_all", "import_file")

    class form(TestedForm):  # noqa: N801 - Django's name
        check = staticmethod(check_group)

    list_display = ("name", "interval", "enabled", "rules_in_it", "evaluated_at", "took", "missed", "failing")
    list_filter = ("enabled", "on_arrival")
    search_fields = ("name",)
    fields = ("name", "interval", "enabled", "on_arrival")
    formfield_overrides = SPANS

    def get_queryset(self, request: HttpRequest) -> QuerySet[RuleGroup]:
        count = {
            "rule_count": Count("rules", distinct=True),
            "recording_count": Count("recording_rules", distinct=True),
        }
        return super().get_queryset(request).select_related("run").annotate(**count)

    def keep(self, request: HttpRequest, row: RuleGroup) -> None:
        services.save_group(by=principal_of(request), group=row, now=timezone.now())

    @display(description="Rules")
    def rules_in_it(self, group: RuleGroup) -> str:
        return f"{vars(group)['rule_count']} alert, {vars(group)['recording_count']} recording"

    @display(description="Evaluated")
    def evaluated_at(self, group: RuleGroup) -> Any:
        return group.run.evaluated_at if hasattr(group, "run") else None

    @display(description="Took")
    def took(self, group: RuleGroup) -> str:
        return f"{group.run.duration.total_seconds() * 1000:.0f} ms" if hasattr(group, "run") else "–"

    @display(description="Missed ticks")
    def missed(self, group: RuleGroup) -> int:
        return group.run.missed if hasattr(group, "run") else 0

    @display(description="Failing", label={"none": "success"})
    def failing(self, group: RuleGroup) -> str:
        results = group.run.results if hasattr(group, "run") else {}
        failing = sum("error" in line for kind in ("rules", "recording") for line in results.get(kind, {}).values())
        return f"{failing}" if failing else "none"

    def save_model(self, request: HttpRequest, obj: RuleGroup, form: Any, change: bool) -> None:
        services.save_group(by=principal_of(request), group=obj, now=timezone.now())

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        if not isinstance(formset, TestFormSet):
            super().save_formset(request, form, formset, change)
            return
        by, now = principal_of(request), timezone.now()
        rows = formset.save(commit=False)
        for row in formset.deleted_objects:
            services.delete_rule_test(by=by, test=row, now=now)
        for row in rows:
            services.save_rule_test(by=by, test=row, although_tests_fail=self.although(form), now=now)

    # Rule files

    @action(description="Export for Prometheus", permissions=["view"])
    def export(self, request: HttpRequest, queryset: QuerySet[RuleGroup]) -> HttpResponse:
        return self._export(request, list(queryset))

    @action(description="Export all", permissions=["view"], url_path="export")
    def export_all(self, request: HttpRequest) -> HttpResponse:
        return self._export(request, None)

    def _export(self, request: HttpRequest, groups: list[RuleGroup] | None) -> HttpResponse:
        """Ask for the target; answer with the file, or with what stands in its way."""
        confirmed = request.method == "POST" and bool(request.POST.get("confirmed"))
        given = {"target": request.POST.get("target", DEFAULT_TARGET), "partial": request.POST.get("partial", "")}
        form = ExportForm(given if confirmed else None, initial={"target": DEFAULT_TARGET})
        if confirmed and form.is_valid():
            try:
                found = services.export_rules(
                    by=principal_of(request),
                    target=form.cleaned_data["target"],
                    groups=groups,
                    partial=form.cleaned_data["partial"],
                )
            except ValidationError as problems:
                form.add_error(None, problems.messages)
            else:
                answer = HttpResponse(found.text, content_type="application/yaml; charset=utf-8")
                answer["Content-Disposition"] = 'attachment; filename="rules.yml"'
                return answer
        context = {
            "form": form,
            "selected": [group.pk for group in groups or ()],
            "groups": groups or RuleGroup.objects.order_by("name"),
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return self._page(request, "Export for Prometheus", "admin/alerting/export.html", context)

    @action(description="Import a rule file", permissions=["change"], url_path="import")
    def import_file(self, request: HttpRequest) -> HttpResponse:
        """Show what a file would do; do it when the answer has come."""
        form = ImportForm(request.POST or None, request.FILES or None)
        report: Report | None = None
        if request.method == "POST" and form.is_valid():
            given = form.cleaned_data
            confirmed = bool(request.POST.get("confirmed"))
            try:
                report = services.import_rules(
                    by=principal_of(request),
                    files=[(given["name"], given["text"])],
                    dry_run=not confirmed,
                    remove=given["remove"],
                    although_tests_fail=given["although_tests_fail"],
                    now=timezone.now(),
                )
            except ValidationError as problems:
                form.add_error(None, problems.messages)
            else:
                if confirmed:
                    done = ", ".join(f"{number} {name}" for name, number in report.counts().items() if number)
                    self.message_user(request, f"Imported: {done or 'nothing'}.")
                    return HttpResponseRedirect(reverse("admin:alerting_rulegroup_changelist"))
                form = ImportForm(initial=given)  # the upload has become text that the next step sends
        context = {"form": form, "report": report}
        return self._page(request, "Import a rule file", "admin/alerting/import.html", context)

    def _page(self, request: HttpRequest, title: str, template: str, context: dict[str, Any]) -> HttpResponse:
        back = reverse("admin:alerting_rulegroup_changelist")
        shared = {**self.admin_site.each_context(request), "title": title, "opts": self.opts, "back": back}
        return TemplateResponse(request, template, shared | context)

    def delete_model(self, request: HttpRequest, obj: RuleGroup) -> None:
        services.delete_group(by=principal_of(request), group=obj, now=timezone.now())


class LevelFormSet(BaseInlineFormSet[RuleLevel, AlertRule, Any]):
    """The levels of a rule, judged together."""

    def rows(self) -> list[dict[str, Any]]:
        """The levels that will stand, as the verb takes them."""
        names = ("severity", "comparison", "threshold", "recovery_threshold", "recovery_expression")
        forms = [form for form in self.forms if form.cleaned_data and not form.cleaned_data.get("DELETE")]
        return [
            {name: form.cleaned_data.get(name) for name in names} for form in forms if form.cleaned_data.get("severity")
        ]

    def clean(self) -> None:
        super().clean()
        adaptive = self.instance.pk is not None and hasattr(self.instance, "band")
        if not any(self.errors) and (problem := check_levels(self.rows(), adaptive=adaptive)):
            raise ValidationError(problem)


class LevelInline(AuditedTabularInline):
    """Levels on their rule's page."""

    model = RuleLevel
    formset = LevelFormSet
    fields = ("severity", "comparison", "threshold", "recovery_threshold", "recovery_expression")
    formfield_overrides = {models.TextField: {"widget": UnfoldAdminTextInputWidget}}
    extra = 1
    max_num = 4
    verbose_name_plural = "levels: the worst one that is breached counts"


class RuleForm(TestedForm):
    """A rule; its levels are judged by their formset."""

    adaptive = forms.BooleanField(
        required=False,
        widget=UnfoldBooleanWidget,
        label="Adaptive",
        help_text="Learn what is usual at each hour of the week; levels without a threshold are breached outside. "
        "How wide the band is stands under adaptive bands.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and "adaptive" in self.fields:
            self.fields["adaptive"].initial = hasattr(self.instance, "band")

    @staticmethod
    def check(rule: AlertRule) -> None:
        check_rule(rule, None)


@admin.register(AlertRule)
class AlertRuleAdmin(TestedAdmin[AlertRule]):
    """Alert rules with their levels and tests; a wrong expression is refused with its position."""

    switched = "Their open alerts end."
    assigned = ("owner", "team", "service")
    form = RuleForm
    inlines = (LevelInline, TestInline)
    list_display = ("name", "slug", "type", "group", "condition", "waits", "last", "active", "enabled")
    list_filter = (
        "enabled", "type", "group", "levels__severity", "owner", "team", ("runbook", admin.EmptyFieldListFilter),
    )  # fmt: skip
    list_select_related = ("group",)
    search_fields = ("slug", "name", "expression", "service")
    readonly_fields = ("last", "created_at", "updated_at")
    prepopulated_fields: ClassVar[dict[str, Any]] = {"slug": ("name",)}
    formfield_overrides = SPANS
    change_form_outer_after_template = "admin/alerting/preview.html"
    fieldsets = (
        (None, {"fields": ("name", "slug", "enabled", "type", "group", "expression", "adaptive", "last")}),
        ("Time", {"fields": ("pending_period", "keep_firing_for", "cooldown", "schedule", "new_series_delay")}),
        ("Without data", {"fields": ("no_data_policy", "missing_evaluations", "error_policy")}),
        ("Words", {"fields": ("service", "labels", "annotations", "runbook", "review_on")}),
        ("Who", {"fields": ("owner", "team", "detects_flapping")}),
        ("Dates", {"fields": ("created_at", "updated_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[AlertRule]:
        wrong = Count("alerts", filter=Q(alerts__state__in=("firing", "recovering")), distinct=True)
        found = super().get_queryset(request).annotate(last_line=_last("rules"), active_count=wrong)
        return found.prefetch_related("levels")

    def get_prepopulated_fields(self, request: HttpRequest, obj: AlertRule | None = None) -> Any:
        return self.prepopulated_fields if obj is None and self.has_add_permission(request) else {}

    def keep(self, request: HttpRequest, row: AlertRule) -> None:
        services.keep_rule(by=principal_of(request), rule=row, now=timezone.now())

    @display(description="Levels")
    def condition(self, rule: AlertRule) -> str:
        return ", ".join(map(str, rule.levels.all()))

    @display(description="For", ordering="pending_period")
    def waits(self, rule: AlertRule) -> str:
        return written_duration(round(rule.pending_period.total_seconds() * 1000))

    @display(description="Last evaluation")
    def last(self, rule: AlertRule) -> str:
        return _line(vars(rule).get("last_line"))

    @display(description="Active", ordering="active_count")
    def active(self, rule: AlertRule) -> int:
        return int(vars(rule).get("active_count", 0))

    def save_model(self, request: HttpRequest, obj: AlertRule, form: Any, change: bool) -> None:
        """Nothing yet: a rule is written with its levels, in save_related."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        mine = [formset for formset in formsets if isinstance(formset, LevelFormSet | TestFormSet)]
        rows: dict[type, list[dict[str, Any]]] = {LevelFormSet: [], TestFormSet: []}
        for formset in mine:
            formset.save(commit=False)  # only for the lists that Django reads afterwards
            rows[LevelFormSet if isinstance(formset, LevelFormSet) else TestFormSet] += formset.rows()
        services.save_rule(
            by=principal_of(request),
            rule=form.instance,
            levels=rows[LevelFormSet],
            tests=rows[TestFormSet],
            although_tests_fail=self.although(form),
            now=timezone.now(),
        )
        if broken := services.shipped_tests_that_fail(form.instance):
            notes.warning(request, f"Saved. It expects the rule as it was shipped, change or delete it: {broken}.")
        adaptive = bool(form.cleaned_data.get("adaptive"))
        services.make_adaptive(by=principal_of(request), rule=form.instance, on=adaptive, now=timezone.now())
        rest = [formset for formset in formsets if formset not in mine]
        super().save_related(request, form, rest, change)

    def delete_model(self, request: HttpRequest, obj: AlertRule) -> None:
        services.delete_rule(by=principal_of(request), rule=obj, now=timezone.now())


@admin.register(AdaptiveBand)
class AdaptiveBandAdmin(AuditedAdmin[AdaptiveBand]):
    """Adaptive bands: what is usual, of a rule's expression or of one of its own."""

    class form(CheckedForm):  # noqa: N801 - Django's name
        check = staticmethod(check_band)

    switched = ""
    list_display = ("slug", "of", "direction", "width", "learned_until", "standing", "enabled")
    list_filter = ("enabled", "direction")
    list_select_related = ("rule", "group")
    search_fields = ("slug", "expression", "rule__slug", "rule__name")
    formfield_overrides = SPANS
    readonly_fields = ("learned_until", "standing", "known")
    fieldsets = (
        (None, {"fields": ("slug", "enabled", "rule", "group", "expression")}),
        ("How far is too far", {"fields": ("direction", "width", "least", "least_share")}),
        ("Learning", {"fields": ("warm_up", "calendar", "learned_until", "standing", "known")}),
    )

    def keep(self, request: HttpRequest, row: AdaptiveBand) -> None:
        services.save_band(by=principal_of(request), band=row, now=timezone.now())

    @display(description="Of")
    def of(self, band: AdaptiveBand) -> str:
        return f"rule {band.rule.slug}" if band.rule is not None else band.expression

    @display(description="Learning", label={"fine": "success", "waiting": "info"})
    def standing(self, band: AdaptiveBand) -> str:
        return band.error or ("fine" if band.learned_until else "waiting")

    @display(description="Series")
    def known(self, band: AdaptiveBand) -> str:
        return f"{band.series.count()} known" if band.pk else "–"

    def save_model(self, request: HttpRequest, obj: AdaptiveBand, form: Any, change: bool) -> None:
        services.save_band(by=principal_of(request), band=obj, now=timezone.now())

    def delete_model(self, request: HttpRequest, obj: AdaptiveBand) -> None:
        services.delete_band(by=principal_of(request), band=obj, now=timezone.now())


@admin.register(RecordingRule)
class RecordingRuleAdmin(TestedAdmin[RecordingRule]):
    """Recording rules; a wrong expression is refused with its position."""

    class form(TestedForm):  # noqa: N801 - Django's name
        check = staticmethod(check_recording_rule)

    switched = "Their series end."
    list_display = ("name", "group", "expression", "last", "enabled")
    list_filter = ("enabled", "group")
    list_select_related = ("group",)
    search_fields = ("name", "expression")
    fields = ("name", "group", "enabled", "expression", "labels", "last")
    readonly_fields = ("last",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[RecordingRule]:
        return super().get_queryset(request).annotate(last_line=_last("recording"))

    def keep(self, request: HttpRequest, row: RecordingRule) -> None:
        services.save_recording_rule(by=principal_of(request), rule=row, run_tests=False, now=timezone.now())

    @display(description="Last evaluation")
    def last(self, rule: RecordingRule) -> str:
        return _line(vars(rule).get("last_line"))

    def save_model(self, request: HttpRequest, obj: RecordingRule, form: Any, change: bool) -> None:
        although = self.although(form)
        services.save_recording_rule(
            by=principal_of(request), rule=obj, although_tests_fail=although, now=timezone.now()
        )

    def delete_model(self, request: HttpRequest, obj: RecordingRule) -> None:
        services.delete_recording_rule(by=principal_of(request), rule=obj, now=timezone.now())


# --- Alerts -----------------------------------------------------------------------------------------------------
class TransitionInline(AuditedTabularInline):
    """An alert's history on its page."""

    model = Transition
    fields = ("at", "kind", "before", "after", "reason", "severity", "value", "by", "detail")
    readonly_fields = fields
    ordering = ("id",)
    can_delete = False
    show_change_link = False
    per_page = 50


class ResolveForm(forms.Form):
    """In whose name."""

    resolved_by = forms.CharField(
        label="In the name of (optional)", required=False, max_length=200, widget=UnfoldAdminTextInputWidget
    )


class QuietForm(forms.Form):
    """For how long, and why."""

    lasts = forms.ChoiceField(
        label="For",
        choices=(("1h", "1 hour"), ("4h", "4 hours"), ("12h", "12 hours"), ("24h", "24 hours")),
        widget=UnfoldAdminSelectWidget,
    )
    comment = forms.CharField(label="Why", max_length=1_000, widget=UnfoldAdminTextInputWidget)


class Operated(AuditedAdmin[Any]):
    """A page that is read only but for acknowledging, resolving and silencing, each with a question in between."""

    edit_right = None
    actions = ("acknowledge", "resolve", "silence")
    actions_detail = ("acknowledge_this", "resolve_this")

    def _verb(self, name: str, request: HttpRequest, form: forms.Form | None) -> Callable[[Any], object]:
        """Return what is done to each row."""
        raise NotImplementedError

    def _alerts(self, row: Any) -> list[Alert]:
        """Return the alerts that silencing the row silences."""
        raise NotImplementedError

    def _form(self, name: str, request: HttpRequest) -> forms.Form | None:
        given = request.POST if request.POST.get("confirmed") else None
        return ResolveForm(given) if name == "resolve" and self.model is Alert else None

    @action(description="Acknowledge", permissions=["operate"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self.act_on(
            request, queryset, action="acknowledge", title="Acknowledge", done="acknowledged",
            note="Nobody further is paged for them.", act=self._verb("acknowledge", request, None),
        )  # fmt: skip

    @action(description="Resolve", permissions=["operate"])
    def resolve(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        form = self._form("resolve", request)
        return self.act_on(
            request, queryset, action="resolve", title="Resolve", done="resolved", form=form,
            note="What is still wrong fires again.", act=self._verb("resolve", request, form),
        )  # fmt: skip

    @action(description="Silence", permissions=["operate"])
    def silence(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        form = QuietForm(request.POST if request.POST.get("confirmed") else None)
        by, now = principal_of(request), timezone.now()

        def act(row: Any) -> None:
            ends_at = now + services.duration(form.cleaned_data["lasts"], "lasts")
            for alert in self._alerts(row):
                matchers = list(map(str, services.matchers_of(alert)))
                services.silence(
                    by=by, matchers=matchers, ends_at=ends_at, comment=form.cleaned_data["comment"], now=now
                )

        return self.act_on(
            request, queryset, action="silence", title="Silence", done="silenced", form=form, act=act,
            note="One silence for each alert, by its labels: also for others that have the same.",
        )  # fmt: skip

    @action(description="Acknowledge", permissions=["operate"], url_path="acknowledge")
    def acknowledge_this(self, request: HttpRequest, object_id: str) -> HttpResponse | None:
        return self._one("acknowledge", request, object_id)

    @action(description="Resolve", permissions=["operate"], url_path="resolve")
    def resolve_this(self, request: HttpRequest, object_id: str) -> HttpResponse | None:
        return self._one("resolve", request, object_id)

    def _one(self, name: str, request: HttpRequest, object_id: str) -> HttpResponse | None:
        """Ask, then do it to the one whose page it is."""
        found = self.get_object(request, object_id)
        if found is None:
            raise Http404
        back = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[found.pk])
        form, title = self._form(name, request), name.capitalize()
        page = self.ask(request, title=title, question=f"{title} this?", back=back, rows=[found], form=form)
        if page is not None:
            return page
        try:
            self._verb(name, request, form)(found)
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), level="ERROR")
        else:
            self.message_user(request, f"{title}d.")
        return HttpResponseRedirect(back)


@admin.register(Alert)
class AlertAdmin(Operated):
    """Alerts: to be read, acknowledged and resolved."""

    inlines = (TransitionInline,)
    list_display = ("message", "how_bad", "standing", "type", "service", "fired_at", "acknowledged_by", "count")
    list_filter = (
        "state",
        "severity",
        "category",
        "source",
        ("acknowledged_at", admin.EmptyFieldListFilter),
        "fired_at",
    )
    search_fields = ("key", "message", "type", "service")
    list_per_page = 50
    fields = (
        "key", "message", "standing", "how_bad", "rule", "type", "category", "service", "source", "value", "threshold",
        "label_set", "notes", "details", "count", "pending_at", "fired_at", "recovering_at", "resolved_at",
        "resolve_reason", "resolved_by", "acknowledged_at", "acknowledged_by", "ends_at", "incident",
    )  # fmt: skip
    readonly_fields = ("key", "standing", "how_bad", "label_set", "notes", "details")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alert]:
        return Alert.objects.visible_to(principal_of(request).scope).select_related("rule", "incident")

    @display(description="Severity", label=SEVERITIES, ordering="severity")
    def how_bad(self, alert: Alert) -> str:
        return alert.severity

    @display(description="State", label=STATES, ordering="state")
    def standing(self, alert: Alert) -> str:
        return alert.state

    @display(description="Labels")
    def label_set(self, alert: Alert) -> str:
        return _pretty(alert.labels)

    @display(description="Annotations")
    def notes(self, alert: Alert) -> str:
        return _pretty(alert.annotations)

    @display(description="Metadata")
    def details(self, alert: Alert) -> str:
        return _pretty(alert.metadata)

    def _verb(self, name: str, request: HttpRequest, form: forms.Form | None) -> Callable[[Alert], object]:
        by: Principal = principal_of(request)
        if name == "acknowledge":
            return lambda alert: services.acknowledge(by=by, alert=alert, now=timezone.now())
        return lambda alert: services.resolve(
            by=by, alert=alert, resolved_by=form.cleaned_data["resolved_by"] if form else "", now=timezone.now()
        )

    def _alerts(self, row: Alert) -> list[Alert]:
        return [row]


@admin.register(Incident)
class IncidentAdmin(Operated):
    """Incidents: to be read, acknowledged and resolved as a whole."""

    list_display = ("title", "how_bad", "standing", "opened_at", "resolved_at", "acknowledged_by", "size")
    list_filter = ("state", "severity", ("acknowledged_at", admin.EmptyFieldListFilter), "opened_at")
    search_fields = ("title",)
    list_per_page = 50
    fields = (
        "title",
        "standing",
        "how_bad",
        "opened_at",
        "resolved_at",
        "acknowledged_at",
        "acknowledged_by",
        "members",
    )
    readonly_fields = ("standing", "how_bad", "members")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Incident]:
        # Counted for the rows of the page alone: a join would group millions of incidents before it drops all but 50.
        alerts = Alert.objects.filter(incident=OuterRef("pk")).order_by().values("incident")
        size = Subquery(alerts.annotate(size=Count("pk")).values("size"))
        return Incident.objects.visible_to(principal_of(request).scope).annotate(alert_count=Coalesce(size, 0))

    @display(description="Severity", label=SEVERITIES, ordering="severity")
    def how_bad(self, incident: Incident) -> str:
        return incident.severity

    @display(description="State", label={"open": "danger", "resolved": "success"}, ordering="state")
    def standing(self, incident: Incident) -> str:
        return incident.state

    @display(description="Alerts", ordering="alert_count")
    def size(self, incident: Incident) -> int:
        return int(vars(incident).get("alert_count", 0))

    @display(description="Alerts")
    def members(self, incident: Incident) -> str:
        return "\n".join(f"{alert} ({alert.state})" for alert in incident.alerts.order_by("id")[:100])

    def _verb(self, name: str, request: HttpRequest, form: forms.Form | None) -> Callable[[Incident], object]:
        verb = services.acknowledge_incident if name == "acknowledge" else services.resolve_incident
        return lambda incident: verb(by=principal_of(request), incident=incident, now=timezone.now())

    def _alerts(self, row: Incident) -> list[Alert]:
        found = row.alerts.exclude(state="resolved").order_by("id")
        return list(found[:SILENCED_OF_ONE])


@admin.register(Transition)
class TransitionAdmin(AuditedAdmin[Transition]):
    """Every change of every alert: to be read."""

    edit_right = None
    list_display = ("at", "alert", "kind", "before", "after", "reason", "severity", "by", "told_at")
    list_filter = (
        "kind",
        among("after", "after", STATES),
        "severity",
        "reason",
        ("told_at", admin.EmptyFieldListFilter),
        "at",
    )
    list_select_related = ("alert",)
    search_fields = ("alert__key", "alert__message", "alert__type", "by")
    searched_apart = ("alert",)
    list_per_page = 50
    fields = (
        "at",
        "alert",
        "incident",
        "kind",
        "before",
        "after",
        "reason",
        "severity",
        "value",
        "by",
        "detail",
        "told_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Transition]:
        return Transition.objects.visible_to(principal_of(request).scope).select_related("alert", "incident")


@admin.register(Change)
class ChangeAdmin(AuditedAdmin[Change]):
    """Deployments and other changes, as they were told: to be read."""

    edit_right = None
    list_display = ("at", "title", "kind", "service", "author", "created_by")
    list_filter = ("kind", among("service", "service", service_names), "at")
    search_fields = ("title", "service", "author", "key")
    list_per_page = 50
    fields = ("key", "at", "kind", "title", "service", "author", "link", "what", "created_by", "created_at")
    readonly_fields = ("key", "what")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Change]:
        return Change.objects.visible_to(principal_of(request).scope)

    @display(description="Details")
    def what(self, change: Change) -> str:
        return _pretty(change.details)


def _pretty(value: Any) -> str:
    if not value:
        return "–"
    return format_html('<pre class="whitespace-pre-wrap">{}</pre>', json.dumps(value, indent=2, ensure_ascii=False))


# --- From row to row ----------------------------------------------------------------------------------------------
def _rule_links(rule: AlertRule, who: Principal) -> list[Link]:
    return [
        to_list("Its alerts", Alert, rule__id__exact=rule.pk),
        to_list("Incidents", Incident, alerts__rule__id__exact=rule.pk),
        to_list("Every change", Transition, alert__rule__id__exact=rule.pk),
        Link("Preview over history", "#preview-title"),
    ]


def _alert_links(alert: Alert, who: Principal) -> list[Link]:
    found = [to_row(alert.rule, "Its rule")] if alert.rule is not None else []
    found += [to_row(alert.incident, "Its incident")] if alert.incident is not None else []
    return [*found, to_list("Every change", Transition, alert__id__exact=alert.pk)]


def _incident_links(incident: Incident, who: Principal) -> list[Link]:
    return [
        to_list("Its alerts", Alert, incident__id__exact=incident.pk),
        to_list("Every change", Transition, incident__id__exact=incident.pk),
    ]


extend(AlertRule, "links", _rule_links)
extend(Incident, "reached", "alerts__rule__id__exact")
extend(Transition, "reached", "alert__rule__id__exact")
extend(Alert, "links", _alert_links)
extend(Incident, "links", _incident_links)
extend(
    RuleGroup, "links",
    lambda group, _: [
        to_list("Alert rules", AlertRule, group__id__exact=group.pk),
        to_list("Recording rules", RecordingRule, group__id__exact=group.pk),
    ],
)  # fmt: skip
extend(RecordingRule, "links", lambda rule, _: [to_row(rule.group, "Its group")])
extend(Transition, "links", lambda one, _: [to_row(one.alert, "Its alert")])
