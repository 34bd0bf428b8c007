"""The admin of policies, routes and rules' own targets, and the record of groups, escalations and notices."""

import copy
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import InlineAdminForm, InlineAdminFormSet
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, ManyToManyField, QuerySet, TextField
from django.forms.models import BaseInlineFormSet
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
    QueryDict,
)
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from apps.accounts.admin import (
    AuditedAdmin,
    AuditedStackedInline,
    AuditedTabularInline,
    Link,
    to_list,
    to_row,
)
from apps.accounts.models import User
from apps.accounts.permissions import Principal, principal_of
from apps.alerting.models import Alert, AlertRule, Incident
from apps.core.registry import extend
from apps.notifications.models import Contact, Delivery
from apps.oncall import (
    calendar_admin,  # noqa: F401 - registers its pages
    escalation,
    foresight,
    importing_admin,
    plans,
    schedules,
    services,
    trials,
)
from apps.oncall.models import (
    CoverageFinding,
    Escalation,
    Layer,
    Notice,
    NotificationGroup,
    Override,
    Policy,
    Route,
    RuleTarget,
    Schedule,
    Step,
)
from apps.oncall.steps import ContactIds, Known, ScheduleName, TeamId, clean, steps

SEPARATOR = "__"
SHOWN_STEPS = 30
SHORT: Any = {TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 2})}}
TICKED: Any = {ManyToManyField: {"widget": forms.CheckboxSelectMultiple}}
"""A handful of contacts is ticked, not moved from one list to another."""


def _fields(known: Known) -> dict[str, forms.Field]:
    """Return one form field for each setting of each kind of step, as kind__setting; `known` is what it may name."""
    fields: dict[str, forms.Field] = {}
    for kind, plugin in steps.all().items():
        for name, field in plugin.Config().fields.items():
            label = f"{plugin.label}: {field.label or name.replace('_', ' ')}"
            options: dict[str, Any] = {"required": False, "label": label, "help_text": field.help_text}
            shown: forms.Field
            if isinstance(field, ContactIds):
                boxes = forms.CheckboxSelectMultiple
                there = list(known.of(field.offers).items())
                shown = forms.MultipleChoiceField(choices=there, widget=boxes, **options)
            elif isinstance(field, (ScheduleName, TeamId)):
                there = [("", "–"), *known.of(field.offers).items()]
                shown = forms.ChoiceField(choices=there, widget=UnfoldAdminSelectWidget, **options)
            elif isinstance(field, forms.ChoiceField):
                shown = forms.ChoiceField(
                    choices=field.choices, initial=field.initial, widget=UnfoldAdminSelectWidget, **options
                )
            elif isinstance(field, forms.BooleanField):
                shown = forms.BooleanField(widget=UnfoldBooleanSwitchWidget, **options)
            else:
                shown = forms.CharField(widget=UnfoldAdminTextInputWidget, initial=field.initial, **options)
            fields[f"{kind}{SEPARATOR}{name}"] = shown
    return fields


class StepForm(forms.ModelForm[Step]):
    """A step with the settings of every kind; those of the chosen kind count."""

    class Meta:
        model = Step
        fields = ("position", "kind")

    def __init__(self, *args: Any, known: Known | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known = known or services.known()
        own = f"{self.instance.kind}{SEPARATOR}"
        for name, field in _fields(self.known).items():
            self.fields[name] = field
            if name.startswith(own):
                self.initial[name] = self.instance.config.get(name.removeprefix(own))

    def clean(self) -> dict[str, Any]:
        """Let the form of the chosen kind judge, and put its words beside the right fields."""
        values = super().clean() or self.cleaned_data
        kind = values.get("kind")
        if not kind or values.get("DELETE"):
            return values
        own = f"{kind}{SEPARATOR}"
        typed = {name.removeprefix(own): value for name, value in values.items() if name.startswith(own)}
        try:
            self.instance.config = clean(kind, typed, self.known)
        except ValidationError as error:
            for name, texts in error.message_dict.items():
                self.add_error(own + name if own + name in self.fields else "kind", texts)
        return values


class StepFormSet(BaseInlineFormSet[Any, Any, Any]):
    """The steps of a policy, at least one."""

    def get_form_kwargs(self, index: int | None) -> dict[str, Any]:
        """Read once for all steps what they may name."""
        self.known = getattr(self, "known", None) or services.known()
        return {**super().get_form_kwargs(index), "known": self.known}

    def clean(self) -> None:
        """Refuse a policy without steps, and one that would come back to itself."""
        super().clean()
        if any(self.errors):
            return
        rows = self.rows()
        if not rows:
            raise ValidationError(services.NO_STEPS)
        # The name that is typed counts; where it is refused, the form says so.
        try:
            services.check_hand_overs(str(self.data.get("name", "")).strip(), rows)
        except ValidationError as error:
            raise ValidationError(error.messages) from None

    def rows(self) -> list[dict[str, Any]]:
        """Return the steps in order, as the verb takes them."""
        kept = [form for form in self.forms if form.cleaned_data.get("kind") and not form.cleaned_data.get("DELETE")]
        kept.sort(key=lambda form: form.cleaned_data["position"])
        return [{"kind": form.cleaned_data["kind"], "config": form.instance.config} for form in kept]

    def validate_unique(self) -> None:
        """Positions only order the rows: the verb numbers them anew."""


class ShownSteps(InlineAdminFormSet):
    """Shows of each step the settings of its own kind; the empty form has those of all, from which the script takes.

    A policy of fourteen steps would else be a page of a megabyte.
    """

    def __iter__(self) -> Iterator[InlineAdminForm]:
        for one in super().__iter__():
            if "__prefix__" not in str(one.form.prefix):
                own = f"{one.form['kind'].value()}{SEPARATOR}"
                one.fieldsets = [
                    (title, {**options, "fields": _of_kind(options["fields"], own)}) for title, options in one.fieldsets
                ]
            yield one


def _of_kind(names: Iterable[str], own: str) -> list[str]:
    return [name for name in names if SEPARATOR not in name or name.startswith(own)]


class StepInline(AuditedStackedInline):
    """Steps in the order of their positions."""

    model = Step
    form = StepForm
    formset = StepFormSet
    ordering = ("position",)
    extra = 0

    class Media:
        js = ("portal/admin-steps.js",)
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("portal/admin.css",)}

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return ((None, {"fields": ("position", "kind", *_fields(Known()))}),)

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        kwargs["fields"] = ("position", "kind")
        return super().get_formset(request, obj, **kwargs)


def run_test(page: AuditedAdmin[Any], request: HttpRequest, object_id: str) -> HttpResponse:
    """Send a test of the row, a route or a policy, once the person has seen whom it would tell and confirmed."""
    found = page.get_object(request, object_id)
    back = reverse(f"admin:oncall_{page.opts.model_name}_change", args=[object_id])
    if found is None:
        return HttpResponseRedirect(back)
    now = timezone.now()
    question = f"A test message goes out now. {trials.trial(found, at=now).sentence}"
    if (asking := page.ask(request, title=f"Test {found}", question=question, back=back)) is not None:
        return asking
    try:
        if isinstance(found, Policy):
            sent = trials.try_policy(by=principal_of(request), policy=found, now=now)
        else:
            sent = trials.try_route(by=principal_of(request), route=found, now=now)
    except ValidationError as error:
        page.message_user(request, " ".join(error.messages), messages.ERROR)
    else:
        page.message_user(request, f"A test is on its way to {', '.join(each.contact_name for each in sent)}.")
    return HttpResponseRedirect(back)


MOST_FORMS = 200
ONLY_FALLBACK = "Nobody is told by these steps: the fall-back contact is, when they have come to their end."


def outline_of(posted: QueryDict) -> dict[str, Any]:
    """Return, for each step of a posted form that stays, when it happens, what it does or what is wrong with it."""
    known = services.known()
    total = posted.get("steps-TOTAL_FORMS", "0")
    found: list[tuple[int, StepForm]] = []
    for index in range(min(int(total) if total.isdecimal() and len(total) < 6 else 0, MOST_FORMS)):
        form = StepForm(posted, prefix=f"steps-{index}", known=known)
        if posted.get(f"steps-{index}-kind") and not posted.get(f"steps-{index}-DELETE"):
            found.append((index, form))
    found.sort(key=lambda each: _place(posted, each[0]))
    rows, lines, order = [], [], []
    for index, form in found:
        if form.is_valid():
            rows.append({"kind": form.cleaned_data["kind"], "config": form.instance.config})
            order.append(index)
        else:
            problem = " ".join(str(text) for texts in form.errors.values() for text in texts)
            lines.append({"form": index, "when": "", "text": "", "problem": problem})
    plan = escalation.whole("", {"": rows, **plans.reachable(rows)})
    for index, line in zip(order, escalation.outline(plan, known), strict=False):
        lines.append({"form": index, "when": happens(line.after), "text": line.text, "problem": ""})
    enabled = frozenset(Contact.objects.enabled().values_list("pk", flat=True))
    tells = escalation.tells_somebody(plan, contacts=enabled, has_route_contacts=True)
    return {"lines": lines, "warning": "" if tells else services.NO_STEPS if not found else ONLY_FALLBACK}


def _place(posted: QueryDict, index: int) -> int:
    text = posted.get(f"steps-{index}-position", "")
    return int(text) if text.isdecimal() and len(text) < 6 else 0


def happens(after: timedelta | None) -> str:
    """Return in words when a step happens."""
    if after is None:
        return "never"
    minutes = after.total_seconds() / 60
    return f"after {minutes:g} min" if minutes else "at once"


@admin.register(Policy)
class PolicyAdmin(AuditedAdmin[Policy]):
    """Escalation policies with their steps; what runs keeps the copy it began with."""

    inlines = (StepInline,)
    actions_detail = ("test_now",)
    list_display = ("name", "summary", "used_by")
    search_fields = ("name", "description")
    fields = ("name", "description", "acknowledged_for", "shown_run")
    formfield_overrides = SHORT
    readonly_fields = ("shown_run",)

    def get_urls(self) -> Any:
        """Add what the editor of the steps asks."""
        view = self.admin_site.admin_view(self.outline)
        return [path("outline/", view, name="oncall_policy_outline"), *super().get_urls()]

    def outline(self, request: HttpRequest) -> HttpResponse:
        """Say in plain words when each of the posted steps would happen and what it does; nothing is saved."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        return JsonResponse(outline_of(request.POST))

    def get_fields(self, request: HttpRequest, obj: Policy | None = None) -> Any:
        return self.fields if obj is not None else ("name", "description", "acknowledged_for")

    @action(description="Test", permissions=["operate"], url_path="test")
    def test_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return run_test(self, request, object_id)

    @display(description="Dry run")
    def shown_run(self, policy: Policy) -> str:
        """As saved, for a critical alert that fires now and that nobody acknowledges."""
        if not policy.pk:
            return ""
        now = timezone.now()
        run = foresight.dry_run(policy, at=now, severity="critical")
        lines = [
            (happens(step.at - now), ", ".join(step.contacts) or "nobody", step.reason)
            for step in run.steps[:SHOWN_STEPS]
        ]
        more = [("…", "", "and so on")] if run.is_cut or len(run.steps) > SHOWN_STEPS else []
        return listed([*lines, *more])

    def get_inline_formsets(self, *args: Any, **kwargs: Any) -> Any:
        found = super().get_inline_formsets(*args, **kwargs)
        for each in found:
            if isinstance(each.opts, StepInline):
                each.__class__ = ShownSteps
        return found

    def get_queryset(self, request: HttpRequest) -> QuerySet[Policy]:
        return super().get_queryset(request).prefetch_related("steps", "routes", "rule_targets__rule")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Read the names once for all rows."""
        found = super().get_changelist_instance(request)
        known = services.known()
        for policy in found.result_list:
            vars(policy)["known"] = known
        return found

    @display(description="Steps")
    def summary(self, policy: Policy) -> str:
        known = vars(policy).get("known") or services.known()
        return " › ".join(
            escalation.spelled([{"kind": step.kind, "config": step.config} for step in policy.steps.all()], known)
        )

    @display(description="Used by")
    def used_by(self, policy: Policy) -> str:
        return ", ".join([*map(str, policy.routes.all()), *(str(t.rule) for t in policy.rule_targets.all())])

    def save_model(self, request: HttpRequest, obj: Policy, form: Any, change: bool) -> None:
        """Nothing yet: a policy is written with its steps, in save_related."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        rows: list[dict[str, Any]] = []
        for formset in formsets:
            formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []
            rows += formset.rows()
        values = form.cleaned_data
        saved = services.save_policy(
            by=principal_of(request),
            name=values["name"],
            description=values["description"],
            acknowledged_for=values["acknowledged_for"],
            steps=rows,
            policy=Policy.objects.get(pk=form.instance.pk) if change else None,
        )
        form.instance.pk = saved.pk

    def delete_model(self, request: HttpRequest, obj: Policy) -> None:
        services.delete_policy(by=principal_of(request), policy=obj)


def listed(lines: list[tuple[str, str, str]]) -> str:
    """Return (when, who, why) for people."""
    rows = format_html_join("", "<dt>{}</dt><dd><b>{}</b> {}</dd>", lines)
    return format_html('<dl class="portal-run">{}</dl>', rows)


class Lines(forms.CharField):
    """Texts, one a line; the value is a list."""

    widget = UnfoldAdminTextareaWidget

    def to_python(self, value: Any) -> Any:
        """Split lines."""
        return [line.strip() for line in str(value or "").splitlines() if line.strip()]

    def prepare_value(self, value: Any) -> Any:
        """Join lines."""
        return "\n".join(value) if isinstance(value, list) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare lists."""
        return bool((initial or []) != self.to_python(data))


class RouteForm(forms.ModelForm[Route]):
    """A route whose matchers and labels are typed a line each."""

    matchers = Lines(required=False, help_text='All must hold; one a line, like severity="critical" or team=~"db|web".')
    group_by = Lines(required=False, help_text="Label names, one a line; ... keeps every alert by itself.")

    class Meta:
        model = Route
        fields = (
            "name", "position", "enabled", "matchers", "continue_matching", "contacts", "policy",
            "group_by", "group_wait", "group_interval", "repeat_interval",
        )  # fmt: skip

    def clean(self) -> dict[str, Any]:
        """Let the verb's own check judge, before anything is saved."""
        values = super().clean() or self.cleaned_data
        draft = copy.copy(self.instance)
        for name in services.ROUTE_FIELDS:
            setattr(draft, name, values.get(name, getattr(self.instance, name)))
        try:
            services.check_route(draft)
        except ValidationError as error:
            for name, texts in error.message_dict.items():
                if name not in self.errors:
                    self.add_error(name if name in self.fields else None, texts)
        return values


@admin.register(Route)
class RouteAdmin(AuditedAdmin[Route]):
    """Routes in the order in which they are tried; the root takes the rest and stays."""

    imported = "name"
    form = RouteForm
    switched = "What they would take goes on to the next route, at last to the root."
    actions_detail = ("test_now",)
    list_display = ("name", "place", "shown_matchers", "continue_matching", "told", "policy", "enabled")
    list_select_related = ("policy",)
    formfield_overrides = TICKED
    list_filter = ("enabled", "policy", "contacts")
    search_fields = ("name", "matchers")
    ordering = ("is_root", "position", "id")
    actions_list = ("import_configuration",)

    @action(description="Import from another product", permissions=["administer"], url_path="import")
    def import_configuration(self, request: HttpRequest) -> HttpResponse:
        return importing_admin.page(self, request)

    @action(description="Test", permissions=["operate"], url_path="test")
    def test_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return run_test(self, request, object_id)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Route]:
        return super().get_queryset(request).prefetch_related("contacts")

    def get_readonly_fields(self, request: HttpRequest, obj: Route | None = None) -> Any:
        return ("position", "enabled", "matchers", "continue_matching") if obj is not None and obj.is_root else ()

    def has_delete_permission(self, request: HttpRequest, obj: Route | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj is not None and obj.is_root)

    def keep(self, request: HttpRequest, row: Route) -> None:
        stored = Route.objects.get(pk=row.pk)
        services.save_route(by=principal_of(request), values={"enabled": row.enabled}, route=stored)

    @display(description="Order")
    def place(self, route: Route) -> str:
        return "last (root)" if route.is_root else str(route.position)

    @display(description="Matchers")
    def shown_matchers(self, route: Route) -> str:
        return "everything else" if route.is_root else ", ".join(route.matchers) or "everything"

    @display(description="Contacts")
    def told(self, route: Route) -> str:
        return ", ".join(map(str, route.contacts.all()))

    def save_model(self, request: HttpRequest, obj: Route, form: Any, change: bool) -> None:
        values = {name: form.cleaned_data[name] for name in services.ROUTE_FIELDS if name in form.cleaned_data}
        saved = services.save_route(
            by=principal_of(request),
            values=values,
            contacts=form.cleaned_data["contacts"],
            route=Route.objects.get(pk=obj.pk) if change else None,
        )
        obj.pk = saved.pk

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Contacts are saved with the route."""

    def delete_model(self, request: HttpRequest, obj: Route) -> None:
        services.delete_route(by=principal_of(request), route=obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Route]) -> None:
        roots = [route.name for route in queryset if route.is_root]
        super().delete_queryset(request, queryset.filter(is_root=False))
        if roots:
            self.message_user(request, f"{roots[0]} is the root and stays.", "WARNING")


class TargetFormSet(BaseInlineFormSet[Any, Any, Any]):
    """Saves through the verb, which audits contacts and policy together; `by` is put in for each request."""

    by: ClassVar[Any] = None

    def save(self, commit: bool = True) -> list[Any]:
        """Leave everything to save_m2m: the rule itself is saved by then."""
        self.new_objects, self.changed_objects, self.deleted_objects = [], [], []
        self.save_m2m = self.write  # type: ignore[method-assign]
        return []

    def write(self) -> None:
        """Give the rule what was chosen; a removed target leaves its alerts to the routes."""
        for form in self.forms:
            if form.has_changed():
                values = {} if form.cleaned_data.get("DELETE") else form.cleaned_data
                services.save_target(
                    by=self.by, rule=self.instance, contacts=values.get("contacts", []), policy=values.get("policy")
                )


class RuleTargetInline(AuditedStackedInline):
    """A rule's own contacts and policy, on the rule's page; empty: the routes decide."""

    model = RuleTarget
    formset = TargetFormSet
    fields = ("contacts", "policy")
    formfield_overrides = TICKED
    max_num = 1
    extra = 1

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        formset = super().get_formset(request, obj, **kwargs)
        return type("TargetFormSet", (formset,), {"by": principal_of(request)})


extend(AlertRule, "inlines", RuleTargetInline)


# --- Schedules -------------------------------------------------------------------------------------------------------
class People(Lines):
    """Usernames, one a line; the value is the list of their ids."""

    def clean(self, value: Any) -> Any:
        """Find the people; name the one who does not exist."""
        names = super().clean(value)
        known = dict(User.objects.filter(username__in=names).values_list("username", "pk"))
        if unknown := [name for name in names if name not in known]:
            raise ValidationError(f"There is nobody called {unknown[0]!r}.")
        return [known[name] for name in names]

    def prepare_value(self, value: Any) -> Any:
        """Show usernames; the id of somebody who is gone stays, so that saving says so."""
        if not isinstance(value, list):
            return value
        names = dict(User.objects.filter(pk__in=value).values_list("pk", "username"))
        return "\n".join(str(names.get(person, person)) for person in value)

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare usernames."""
        return bool(self.to_python(self.prepare_value(initial or [])) != self.to_python(data))


class LayerForm(forms.ModelForm[Layer]):
    """A layer whose people are typed a line each."""

    people = People(required=False, help_text="Usernames of those who take turns, one a line, in order.")

    class Meta:
        model = Layer
        fields = (
            "position", "name", "people", "rotation", "every", "hand_over", "weekday", "zone", "hours",
            "calendar", "starts_at", "ends_at",
        )  # fmt: skip


class LayerInline(AuditedStackedInline):
    """Who takes turns; the last layer that has somebody wins."""

    model = Layer
    form = LayerForm


class OverrideInline(AuditedTabularInline):
    """Who is on call instead, for a while."""

    model = Override
    fields = ("person", "starts_at", "ends_at", "reason")


@admin.register(Schedule)
class ScheduleAdmin(AuditedAdmin[Schedule]):
    """Schedules with their layers and overrides, and who is on call now."""

    inlines = (LayerInline, OverrideInline)
    assigned = ("owner",)
    list_display = ("name", "zone", "owner", "shown_layers", "description")
    list_filter = ("owner",)
    list_select_related = ("owner",)
    search_fields = ("name", "description")
    readonly_fields = ("now",)
    fields = ("name", "zone", "description", "owner", "holidays", "now")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        return super().get_queryset(request).annotate(layer_count=Count("layers"))

    @display(description="Layers", ordering="layer_count")
    def shown_layers(self, schedule: Schedule) -> int:
        return int(vars(schedule).get("layer_count", 0))

    @display(description="On call now")
    def now(self, schedule: Schedule) -> str:
        shift = schedules.on_call(schedule, timezone.now()) if schedule.pk else None
        if shift is None:
            return "nobody"
        person = User.objects.filter(pk=shift.person).first()
        return f"{person or 'somebody who is gone'} ({shift.reason})"

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Write down who made an override."""
        for row in formset.forms:
            if isinstance(row.instance, Override) and not row.instance.by:
                row.instance.by = principal_of(request).name
        super().save_formset(request, form, formset, change)

    def delete_model(self, request: HttpRequest, obj: Schedule) -> None:
        schedules.delete_schedule(by=principal_of(request), schedule=obj)


@admin.register(Override)
class OverrideAdmin(AuditedAdmin[Override]):
    """Who is on call instead of whom: to be read; overrides are made on the page of the schedule and on call."""

    edit_right = None
    list_display = ("schedule", "person", "starts_at", "ends_at", "by", "reason")
    list_filter = ("schedule", "person", "ends_at")
    list_select_related = ("schedule", "person")
    search_fields = ("schedule__name", "person__username", "by", "reason")
    date_hierarchy = "starts_at"
    ordering = ("-starts_at",)


@admin.register(CoverageFinding)
class CoverageFindingAdmin(AuditedAdmin[CoverageFinding]):
    """Gaps and burdens of the next days, as on-call found them: to be read; a row goes when it is over."""

    edit_right = None
    list_display = ("schedule", "kind", "text", "starts_at", "hours", "told_at")
    list_filter = ("kind", "schedule", ("told_at", admin.EmptyFieldListFilter))
    list_select_related = ("schedule",)
    search_fields = ("schedule__name", "text")


# --- The record ------------------------------------------------------------------------------------------------------
@admin.register(NotificationGroup)
class NotificationGroupAdmin(AuditedAdmin[NotificationGroup]):
    """Alerts that are told together, and when they are next looked at."""

    edit_right = None
    list_display = ("key", "receiver", "alert_count", "opened_at", "flushed_at", "due_at", "reason")
    search_fields = ("key", "receiver")
    list_filter = (("due_at", admin.EmptyFieldListFilter),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[NotificationGroup]:
        return super().get_queryset(request).annotate(held=Count("members"))

    @display(description="Alerts")
    def alert_count(self, group: NotificationGroup) -> int:
        return int(vars(group).get("held", 0))


@admin.register(Escalation)
class EscalationAdmin(AuditedAdmin[Escalation]):
    """Policies on their way, with the copy that each follows."""

    class Media:
        css: ClassVar[dict[str, tuple[str, ...]]] = {"all": ("portal/admin.css",)}

    edit_right = None
    list_display = ("started_at", "incident", "policy_name", "shown_state", "severity", "reason", "due_at", "ended_at")
    list_filter = ("state", "severity", "policy", "started_at")
    list_select_related = ("incident",)
    search_fields = ("incident__title", "reason")
    fields = (
        "incident", "policy_name", "shown_plan", "shown_steps", "position", "rounds", "severity", "shown_state",
        "reason", "due_at", "started_at", "ended_at",
    )  # fmt: skip
    readonly_fields = ("policy_name", "shown_plan", "shown_steps", "shown_state")

    COLOURS: ClassVar[dict[str, str]] = {
        "Running": "danger",
        "Stopped by an acknowledgement": "success",
        "Stopped: nothing is wrong any more": "success",
        "Ran to the end of its policy": "warning",
    }

    @display(description="Policy")
    def policy_name(self, running: Escalation) -> str:
        return str(running.plan.get("name", ""))

    @display(description="State", label=COLOURS)
    def shown_state(self, running: Escalation) -> str:
        return running.get_state_display()

    @display(description="Plan")
    def shown_plan(self, running: Escalation) -> str:
        """The copy that it follows; beside it, where that differs, the policy as it is now."""
        known = services.known()
        words = escalation.spelled(running.plan.get("steps", []), known)
        lines = [
            f"{'→ ' if number == running.position else ''}{number + 1}. {text}" for number, text in enumerate(words)
        ]
        now = plans.changed_since(running)
        if now is not None:
            lines += ["", "The policy was changed since; now it is:" if now else "The policy is gone by now."]
            lines += [f"{number}. {text}" for number, text in enumerate(escalation.spelled(now, known), start=1)]
        return format_html('<div class="portal-lines">{}</div>', "\n".join(lines))

    @display(description="Steps taken")
    def shown_steps(self, running: Escalation) -> str:
        """Each step that it has taken: when, who was told, why."""
        lines = []
        for row in running.taken.select_related("delivery").order_by("-id")[:SHOWN_STEPS]:
            call = f" ({row.delivery.get_state_display().lower()})" if row.delivery else ""
            where = escalation.place(running.plan.get("steps", []), row.position)
            lines.append((f"{row.at:%Y-%m-%d %H:%M:%S} UTC", ", ".join(row.told), f"{where} {row.reason}{call}"))
        return listed(lines) if lines else "none yet"


@admin.register(Notice)
class NoticeAdmin(AuditedAdmin[Notice]):
    """Who was told what of which alert, when and why."""

    edit_right = None
    list_display = ("at", "contact_name", "kind", "alert", "severity", "reason", "delivery_state")
    list_filter = ("kind", "severity")
    list_select_related = ("alert", "delivery")
    search_fields = ("contact_name", "alert__key", "alert__message", "reason")
    list_per_page = 50

    @display(description="Delivery")
    def delivery_state(self, notice: Notice) -> str:
        return notice.delivery.get_state_display() if notice.delivery else "–"


# --- From row to row ----------------------------------------------------------------------------------------------
def _incident_links(incident: Incident, who: Principal) -> list[Link]:
    return [
        to_list("Escalations", Escalation, incident__id__exact=incident.pk),
        to_list("Who was told", Notice, alert__incident__id__exact=incident.pk),
        to_list("Deliveries", Delivery, notices__alert__incident__id__exact=incident.pk),
    ]


def _rule_links(rule: AlertRule, who: Principal) -> list[Link]:
    return [
        to_list("Who was told", Notice, alert__rule__id__exact=rule.pk),
        to_list("Deliveries", Delivery, notices__alert__rule__id__exact=rule.pk),
    ]


def _alert_links(alert: Alert, who: Principal) -> list[Link]:
    return [
        to_list("Who was told", Notice, alert__id__exact=alert.pk),
        to_list("Deliveries", Delivery, notices__alert__id__exact=alert.pk),
    ]


def _delivery_links(delivery: Delivery, who: Principal) -> list[Link]:
    """Its incident, by the first of the alerts that it told of."""
    notice = Notice.objects.filter(delivery=delivery).select_related("alert__incident").order_by("id").first()
    if notice is None or notice.alert is None:
        return []
    found = [to_row(notice.alert.incident, "Its incident")] if notice.alert.incident is not None else []
    return [*found, to_list("Whom it told of what", Notice, delivery__id__exact=delivery.pk)]


def _contact_links(contact: Contact, who: Principal) -> list[Link]:
    """The policies, routes and rules that name it."""
    named = [*services.policies_of(contact)[:MOST_NAMED], *contact.routes.all()[:MOST_NAMED]]
    rules = [target.rule for target in contact.rule_targets.select_related("rule").order_by("rule__name")[:MOST_NAMED]]
    return [to_row(row, f"{row._meta.verbose_name} {row}".capitalize()) for row in [*named, *rules]]


def _policy_links(policy: Policy, who: Principal) -> list[Link]:
    return [
        to_list("Escalations", Escalation, policy__id__exact=policy.pk),
        to_list("Routes", Route, policy__id__exact=policy.pk),
        to_list("Rules", AlertRule, target__policy__id__exact=policy.pk),
    ]


MOST_NAMED = 10
for _through in ("notices__alert__rule__id__exact", "notices__alert__incident__id__exact", "notices__alert__id__exact"):
    extend(Delivery, "reached", _through)
extend(Notice, "reached", "alert__rule__id__exact")
extend(Notice, "reached", "alert__incident__id__exact")
extend(AlertRule, "reached", "target__policy__id__exact")
extend(AlertRule, "links", _rule_links)
extend(Alert, "links", _alert_links)
extend(Incident, "links", _incident_links)
extend(Delivery, "links", _delivery_links)
extend(Contact, "links", _contact_links)
extend(Policy, "links", _policy_links)
extend(Escalation, "links", lambda running, _: [to_row(running.incident, "Its incident")])
extend(
    Schedule, "links",
    lambda schedule, _: [
        to_list("Overrides", Override, schedule__id__exact=schedule.pk),
        to_list("Gaps and burdens", CoverageFinding, schedule__id__exact=schedule.pk),
    ],
)  # fmt: skip
