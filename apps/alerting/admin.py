"""Rules, alerts and incidents in the admin. Rules are written by the same verb as through the API; alerts are read."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Count, Func, JSONField, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast
from django.forms.models import BaseInlineFormSet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_duration
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.accounts.admin import AuditedAdmin, AuditedTabularInline
from apps.accounts.permissions import Principal, principal_of
from apps.alerting import services
from apps.alerting.models import Alert, AlertRule, Incident, RecordingRule, RuleGroup, RuleLevel, Transition
from apps.alerting.services.rules import check_group, check_levels, check_recording_rule, check_rule
from apps.promql.text import duration as written_duration

SHOWN = 20
SEVERITIES = {"info": "info", "warning": "warning", "error": "danger", "critical": "danger"}
STATES = {"pending": "info", "firing": "danger", "recovering": "warning", "resolved": "success", "inactive": "success"}


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

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        try:
            type(self).check(self.instance)
        except ValidationError as problems:
            for name, messages in problems.message_dict.items():
                if name not in self.errors:
                    self.add_error(name if name in self.fields else None, messages)


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


# --- Rules ------------------------------------------------------------------------------------------------------
@admin.register(RuleGroup)
class RuleGroupAdmin(AuditedAdmin[RuleGroup]):
    """Groups: how often their rules are evaluated, and how the last evaluation went."""

    class form(CheckedForm):  # noqa: N801 - Django's name
        check = staticmethod(check_group)

    list_display = ("name", "interval", "enabled", "rules_in_it", "evaluated_at", "took", "missed", "failing")
    list_filter = ("enabled",)
    search_fields = ("name",)
    fields = ("name", "interval", "enabled")
    formfield_overrides = SPANS

    def get_queryset(self, request: HttpRequest) -> QuerySet[RuleGroup]:
        count = {
            "rule_count": Count("rules", distinct=True),
            "recording_count": Count("recording_rules", distinct=True),
        }
        return super().get_queryset(request).select_related("run").annotate(**count)

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

    def delete_model(self, request: HttpRequest, obj: RuleGroup) -> None:
        services.delete_group(by=principal_of(request), group=obj, now=timezone.now())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[RuleGroup]) -> None:
        _each(queryset, lambda group: self.delete_model(request, group))


class LevelFormSet(BaseInlineFormSet[RuleLevel, AlertRule, Any]):
    """The levels of a rule, judged together."""

    def rows(self) -> list[dict[str, Any]]:
        """The levels that will stand, as the verb takes them."""
        names = ("severity", "comparison", "threshold")
        forms = [form for form in self.forms if form.cleaned_data and not form.cleaned_data.get("DELETE")]
        return [
            {**{name: form.cleaned_data.get(name) for name in names},
             "recovery_threshold": form.instance.recovery_threshold,
             "recovery_expression": form.instance.recovery_expression}
            for form in forms
            if form.cleaned_data.get("severity")
        ]  # fmt: skip

    def clean(self) -> None:
        super().clean()
        if not any(self.errors) and (problem := check_levels(self.rows())):
            raise ValidationError(problem)


class LevelInline(AuditedTabularInline):
    """Levels on their rule's page."""

    model = RuleLevel
    formset = LevelFormSet
    fields = ("severity", "comparison", "threshold")
    extra = 1
    max_num = 4
    verbose_name_plural = "levels: the worst one that is breached counts"


class RuleForm(CheckedForm):
    """A rule; its levels are judged by their formset."""

    @staticmethod
    def check(rule: AlertRule) -> None:
        check_rule(rule, None)


@admin.register(AlertRule)
class AlertRuleAdmin(AuditedAdmin[AlertRule]):
    """Alert rules with their levels; a wrong expression is refused with its position."""

    form = RuleForm
    inlines = (LevelInline,)
    list_display = ("name", "slug", "type", "group", "condition", "waits", "last", "active", "enabled")
    list_filter = ("enabled", "type", "group", "levels__severity")
    list_select_related = ("group",)
    search_fields = ("slug", "name", "expression", "service")
    readonly_fields = ("last", "created_at", "updated_at")
    prepopulated_fields: ClassVar[dict[str, Any]] = {"slug": ("name",)}
    formfield_overrides = SPANS
    fieldsets = (
        (None, {"fields": ("name", "slug", "enabled", "type", "group", "expression", "last")}),
        ("Time", {"fields": ("pending_period", "keep_firing_for", "cooldown")}),
        ("Words", {"fields": ("service", "labels", "annotations", "runbook", "owner")}),
        ("Dates", {"fields": ("created_at", "updated_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[AlertRule]:
        wrong = Count("alerts", filter=Q(alerts__state__in=("firing", "recovering")), distinct=True)
        found = super().get_queryset(request).annotate(last_line=_last("rules"), active_count=wrong)
        return found.prefetch_related("levels")

    def get_prepopulated_fields(self, request: HttpRequest, obj: AlertRule | None = None) -> Any:
        return self.prepopulated_fields if obj is None and self.has_add_permission(request) else {}

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
        levels = [formset for formset in formsets if isinstance(formset, LevelFormSet)]
        rows: list[dict[str, Any]] = []
        for formset in levels:
            formset.save(commit=False)  # only for the lists that Django reads afterwards
            rows += formset.rows()
        services.save_rule(by=principal_of(request), rule=form.instance, levels=rows, now=timezone.now())
        rest = [formset for formset in formsets if formset not in levels]
        super().save_related(request, form, rest, change)

    def delete_model(self, request: HttpRequest, obj: AlertRule) -> None:
        services.delete_rule(by=principal_of(request), rule=obj, now=timezone.now())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[AlertRule]) -> None:
        _each(queryset, lambda rule: self.delete_model(request, rule))


@admin.register(RecordingRule)
class RecordingRuleAdmin(AuditedAdmin[RecordingRule]):
    """Recording rules; a wrong expression is refused with its position."""

    class form(CheckedForm):  # noqa: N801 - Django's name
        check = staticmethod(check_recording_rule)

    list_display = ("name", "group", "expression", "last", "enabled")
    list_filter = ("enabled", "group")
    list_select_related = ("group",)
    search_fields = ("name", "expression")
    fields = ("name", "group", "enabled", "expression", "labels", "last")
    readonly_fields = ("last",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[RecordingRule]:
        return super().get_queryset(request).annotate(last_line=_last("recording"))

    @display(description="Last evaluation")
    def last(self, rule: RecordingRule) -> str:
        return _line(vars(rule).get("last_line"))

    def save_model(self, request: HttpRequest, obj: RecordingRule, form: Any, change: bool) -> None:
        services.save_recording_rule(by=principal_of(request), rule=obj, now=timezone.now())

    def delete_model(self, request: HttpRequest, obj: RecordingRule) -> None:
        services.delete_recording_rule(by=principal_of(request), rule=obj, now=timezone.now())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[RecordingRule]) -> None:
        _each(queryset, lambda rule: self.delete_model(request, rule))


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


class Operated(AuditedAdmin[Any]):
    """A page that is read only but for acknowledging and resolving, both with a question in between."""

    edit_right = None
    actions = ("acknowledge", "resolve")
    actions_detail = ("acknowledge_this", "resolve_this")

    def _act(self, name: str, request: HttpRequest, chosen: Any) -> None:
        raise NotImplementedError

    @action(description="Acknowledge", permissions=["operate"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._ask("acknowledge", request, list(queryset), bulk=True)

    @action(description="Resolve", permissions=["operate"])
    def resolve(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        return self._ask("resolve", request, list(queryset), bulk=True)

    @action(description="Acknowledge", permissions=["operate"], url_path="acknowledge")
    def acknowledge_this(self, request: HttpRequest, object_id: str) -> HttpResponse | None:
        return self._ask("acknowledge", request, [self._one(request, object_id)])

    @action(description="Resolve", permissions=["operate"], url_path="resolve")
    def resolve_this(self, request: HttpRequest, object_id: str) -> HttpResponse | None:
        return self._ask("resolve", request, [self._one(request, object_id)])

    def _one(self, request: HttpRequest, object_id: str) -> Any:
        found = self.get_object(request, object_id)
        if found is None:
            raise Http404
        return found

    def _ask(self, name: str, request: HttpRequest, chosen: Sequence[Any], bulk: bool = False) -> HttpResponse | None:
        """Show what would be done; do it when the answer has come."""
        where = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        back = reverse(f"{where}_changelist") if bulk else reverse(f"{where}_change", args=[chosen[0].pk])
        if request.method == "POST" and request.POST.get("confirmed"):
            try:
                with transaction.atomic():
                    for thing in chosen:
                        self._act(name, request, thing)
            except ValidationError as error:
                self.message_user(request, " ".join(error.messages), level="ERROR")
            else:
                self.message_user(request, f"{len(chosen)} {name}d." if name.endswith("e") else f"{len(chosen)} done.")
            return HttpResponseRedirect(back)
        context = {
            **self.admin_site.each_context(request),
            "title": name.capitalize(),
            "question": f"{name.capitalize()} {len(chosen)} of these?" if bulk else f"{name.capitalize()} this?",
            "rows": chosen[:SHOWN],
            "more": max(0, len(chosen) - SHOWN),
            "selected": [thing.pk for thing in chosen] if bulk else [],
            "action_name": name if bulk else "",
            "names_someone": name == "resolve" and self.model is Alert,
            "back": back,
            "opts": self.opts,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/alerting/confirm.html", context)


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

    def _act(self, name: str, request: HttpRequest, chosen: Alert) -> None:
        by: Principal = principal_of(request)
        if name == "acknowledge":
            services.acknowledge(by=by, alert=chosen, now=timezone.now())
        else:
            named = request.POST.get("resolved_by", "").strip()
            services.resolve(by=by, alert=chosen, resolved_by=named, now=timezone.now())


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
        return Incident.objects.visible_to(principal_of(request).scope).annotate(alert_count=Count("alerts"))

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

    def _act(self, name: str, request: HttpRequest, chosen: Incident) -> None:
        verb = services.acknowledge_incident if name == "acknowledge" else services.resolve_incident
        verb(by=principal_of(request), incident=chosen, now=timezone.now())


@admin.register(Transition)
class TransitionAdmin(AuditedAdmin[Transition]):
    """Every change of every alert: to be read."""

    edit_right = None
    list_display = ("at", "alert", "kind", "before", "after", "reason", "severity", "by", "told_at")
    list_filter = ("kind", "after", "reason", ("told_at", admin.EmptyFieldListFilter), "at")
    list_select_related = ("alert",)
    search_fields = ("alert__key", "alert__message", "alert__type", "by")
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


def _pretty(value: Any) -> str:
    if not value:
        return "–"
    return format_html('<pre class="whitespace-pre-wrap">{}</pre>', json.dumps(value, indent=2, ensure_ascii=False))


def _each(queryset: QuerySet[Any], delete: Callable[[Any], None]) -> None:
    with transaction.atomic():
        for row in queryset:
            delete(row)
