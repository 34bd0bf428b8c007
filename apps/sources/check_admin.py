"""The admin of checks, heartbeats and front ends: pick what to ask, fill in its fields, ask now, read how it went."""

import copy
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from apps.accounts.admin import AuditedAdmin
from apps.accounts.exports import SETTING as PREFIX
from apps.accounts.permissions import principal_of
from apps.accounts.rights import Forbidden
from apps.sources import checks, heartbeats, sites
from apps.sources.models import Check, CheckChange, Heartbeat, Ping, Site
from apps.sources.probes import Probe, probes

WIDGETS: tuple[tuple[type[forms.Field], type[forms.Widget]], ...] = (
    (forms.BooleanField, UnfoldBooleanSwitchWidget),
    (forms.ChoiceField, UnfoldAdminSelectWidget),
    (forms.IntegerField, UnfoldAdminIntegerFieldWidget),
)
STANDING = {"up": "success", "failing": "warning", "down": "danger", "unknown": "info"}


class CheckForm(forms.ModelForm[Check]):
    """A check with the fields of its probe; a secret is never put into the page, and left blank it stays."""

    probe: ClassVar[type[Probe]] = Probe
    who: ClassVar[Any] = None
    write_only: ClassVar[frozenset[str]] = frozenset()

    class Meta:
        model = Check
        fields = ("name", "enabled", "interval", "timeout", "confirm", "labels")

    def clean_labels(self) -> dict[str, Any]:
        """An emptied field is no label."""
        return self.cleaned_data["labels"] or {}

    def settings(self) -> dict[str, Any]:
        """Return what was typed into the probe's fields, as the verb takes it."""
        typed = {name: value for name, value in self.cleaned_data.items() if name.startswith(PREFIX)}
        return {name.removeprefix(PREFIX): value for name, value in typed.items()}

    def clean(self) -> dict[str, Any]:
        """Let the verb's own rules judge, and put their words beside the right fields."""
        values = super().clean() or self.cleaned_data
        if self.errors:
            return values
        check = Check(kind=self.probe.kind)
        if self.instance.pk:
            check = Check.objects.get(pk=self.instance.pk)
        for name in self.Meta.fields:
            setattr(check, name, values.get(name))
        try:
            checks.examine(by=self.who, check=check, values=self.settings())
        except ValidationError as error:
            for name, texts in error.message_dict.items():
                field = name if name in self.fields else PREFIX + name
                self.add_error(field if field in self.fields else None, texts)
        except Forbidden as error:
            self.add_error(None, str(error))
        return values


def form_of(probe: type[Probe], check: Check, who: Any) -> type[CheckForm]:
    """Return the form of a check of that kind: the probe's own fields, in the admin's clothes."""
    hidden = frozenset(PREFIX + name for name in probe.secrets)
    fields: dict[str, Any] = {"probe": probe, "who": who, "write_only": hidden}
    for name, given in probe.Config().fields.items():
        field = copy.deepcopy(given)
        secret = name in probe.secrets
        kind = next((widget for type_, widget in WIDGETS if isinstance(field, type_)), UnfoldAdminTextInputWidget)
        choices = getattr(field, "choices", None)
        field.widget = UnfoldAdminPasswordWidget() if secret else kind()
        if choices is not None:
            field.choices = choices  # type: ignore[attr-defined]
        field.label = field.label or name.replace("_", " ").capitalize()
        if check.pk:
            field.initial = "" if secret else check.config.get(name, field.initial)
        if secret:
            field.required = False
            field.help_text = f"{field.help_text} Leave blank to keep it. Set by administrators."
        fields[PREFIX + name] = field
    return type("CheckForm", (CheckForm,), fields)


@admin.register(Check)
class CheckAdmin(AuditedAdmin[Check]):
    """Checks, how they stand, and a button that asks at once."""

    imported = "name"
    formed_by = "kind"
    switched = "They are asked no more, and their series end."
    list_display = ("name", "kind", "address", "state", "last_at", "certificate_ends", "interval", "enabled")
    list_filter = ("kind", "health", "enabled")
    search_fields = ("name", "error")
    actions = ("check_now",)
    readonly = ("kind_name", "state", "health_at", "last_at", "duration", "error", "failures", "certificate_ends",
                "trusted", "page")  # fmt: skip

    def keep(self, request: HttpRequest, row: Check) -> None:
        checks.save_check(by=principal_of(request), check=row, values=row.config, now=timezone.now())

    @display(description="What is asked")
    def address(self, check: Check) -> str:
        return check.address

    @display(description="Kind")
    def kind_name(self, check: Check) -> str:
        return check.get_kind_display()

    @display(description="State", ordering="health", label=STANDING)
    def state(self, check: Check) -> tuple[str, str]:
        return check.health, check.get_health_display()

    @display(description="Certificate ends")
    def certificate_ends(self, check: Check) -> str:
        return f"{check.expires_at:%Y-%m-%d %H:%M} UTC" if check.expires_at else ""

    @display(description="History")
    def page(self, check: Check) -> str:
        return format_html('<a href="{}">Charts and history</a>', reverse("check", args=[check.pk]))

    def _probe(self, request: HttpRequest, obj: Check | None) -> type[Probe] | None:
        return probes.all().get(request.GET.get("kind", "") if obj is None else obj.kind)

    def get_fieldsets(self, request: HttpRequest, obj: Check | None = None) -> Any:
        probe = self._probe(request, obj)
        settings = tuple(PREFIX + name for name in probe.Config.base_fields) if probe else ()
        if not self.has_change_permission(request, obj):
            settings = ("address",)
        clock = ("interval", "timeout", "confirm", "labels")
        if obj is None:
            return (
                (None, {"fields": ("name", "enabled")}), ("What is asked", {"fields": settings}),
                ("When", {"fields": clock}),
            )  # fmt: skip
        return (
            (None, {"fields": ("kind_name", "name", "enabled")}),
            ("What is asked", {"fields": settings}),
            ("When", {"fields": clock}),
            ("How it does", {"fields": tuple(name for name in self.readonly if name != "kind_name")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Check | None = None) -> Any:
        return () if obj is None else (*self.readonly, "address")

    def get_form(self, request: HttpRequest, obj: Check | None = None, change: bool = False, **kwargs: Any) -> Any:
        probe = self._probe(request, obj)
        if probe is not None and self.has_change_permission(request, obj):
            kwargs["form"] = form_of(probe, obj or Check(kind=probe.kind), principal_of(request))
            kwargs["fields"] = None
        return super().get_form(request, obj, change, **kwargs)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Ask for the kind first: its fields depend on it."""
        if self._probe(request, None) is None and self.has_add_permission(request):
            context = {
                **self.admin_site.each_context(request),
                "title": "New check: what is asked?",
                "kinds": probes.kinds(),
                "opts": self.opts,
            }
            return TemplateResponse(request, "admin/choose_kind.html", context)
        return super().add_view(request, form_url, {**(extra_context or {}), "show_save_and_add_another": False})

    def save_model(self, request: HttpRequest, obj: Check, form: Any, change: bool) -> None:
        obj.kind = form.probe.kind
        checks.save_check(by=principal_of(request), check=obj, values=form.settings(), now=timezone.now())

    def delete_model(self, request: HttpRequest, obj: Check) -> None:
        checks.delete_check(by=principal_of(request), check=obj, now=timezone.now())

    @action(description="Ask now", permissions=["operate"])
    def check_now(self, request: HttpRequest, queryset: QuerySet[Check]) -> HttpResponse | None:
        by, now = principal_of(request), timezone.now()
        return self.act_on(
            request, queryset, action="check_now", title="Ask now", done="are asked within a second or two",
            act=lambda check: checks.check_now(by=by, check=check, now=now),
        )  # fmt: skip


@admin.register(CheckChange)
class CheckChangeAdmin(AuditedAdmin[CheckChange]):
    """When which check went up or down, and why: to be read."""

    edit_right = None
    list_display = ("at", "check_row", "shown_health", "reason")
    list_filter = ("health", "at")
    list_select_related = ("check_row",)
    search_fields = ("check_row__name", "reason")
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[CheckChange]:
        visible = Check.objects.all().visible_to(principal_of(request).scope)
        return super().get_queryset(request).filter(check_row__in=visible)

    @display(description="State", ordering="health", label=STANDING)
    def shown_health(self, change: CheckChange) -> tuple[str, str]:
        return change.health, change.get_health_display()


class HeartbeatForm(forms.ModelForm[Heartbeat]):
    """A heartbeat."""

    class Meta:
        model = Heartbeat
        fields = ("name", "slug", "enabled", "period", "cron", "zone", "grace", "confirm", "labels")

    def clean_labels(self) -> dict[str, Any]:
        """An emptied field is no label."""
        return self.cleaned_data["labels"] or {}

    def clean(self) -> dict[str, Any]:
        """Let the verb's own rules judge."""
        values = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                heartbeats.examine(Heartbeat(**values))
            except ValidationError as error:
                for name, texts in error.message_dict.items():
                    self.add_error(name if name in self.fields else None, texts)
        return values


@admin.register(Heartbeat)
class HeartbeatAdmin(AuditedAdmin[Heartbeat]):
    """Heartbeats, how they stand, and the addresses that their jobs call."""

    imported = "slug"
    switched = "Nobody is told when they are late, and their series end."
    form = HeartbeatForm
    list_display = ("name", "slug", "state", "last_ping_at", "expected_at", "duration", "enabled")
    list_filter = ("health", "enabled")
    search_fields = ("name", "slug", "reason")
    prepopulated_fields: ClassVar[dict[str, Any]] = {"slug": ("name",)}
    readonly_fields = (
        "state", "health_at", "reason", "failures", "last_ping_at", "last_success_at", "started_at", "duration",
        "expected_at", "pings", "page",
    )  # fmt: skip
    fieldsets = (
        (None, {"fields": ("name", "slug", "enabled", "labels")}),
        ("When it is expected", {"fields": ("period", "cron", "zone", "grace", "confirm")}),
        ("How it does", {"fields": readonly_fields}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Heartbeat | None = None) -> Any:
        return self.fieldsets[:2] if obj is None else self.fieldsets

    def get_prepopulated_fields(self, request: HttpRequest, obj: Heartbeat | None = None) -> dict[str, Any]:
        return self.prepopulated_fields if obj is None else {}

    def keep(self, request: HttpRequest, row: Heartbeat) -> None:
        heartbeats.save_heartbeat(by=principal_of(request), beat=row, now=timezone.now())

    @display(description="State", ordering="health", label=STANDING)
    def state(self, beat: Heartbeat) -> tuple[str, str]:
        return beat.health, "No call yet" if beat.health == "unknown" else beat.get_health_display()

    @display(description="How to call")
    def page(self, beat: Heartbeat) -> str:
        return format_html('<a href="{}">Addresses, calls and charts</a>', reverse("heartbeat", args=[beat.pk]))

    def save_model(self, request: HttpRequest, obj: Heartbeat, form: Any, change: bool) -> None:
        heartbeats.save_heartbeat(by=principal_of(request), beat=obj, now=timezone.now())

    def delete_model(self, request: HttpRequest, obj: Heartbeat) -> None:
        heartbeats.delete_heartbeat(by=principal_of(request), beat=obj, now=timezone.now())


@admin.register(Ping)
class PingAdmin(AuditedAdmin[Ping]):
    """The calls of heartbeats: to be read."""

    edit_right = None
    list_display = ("at", "heartbeat", "signal", "exit_status", "duration", "agent", "address")
    list_filter = ("signal", "heartbeat", "at")
    list_select_related = ("heartbeat",)
    search_fields = ("heartbeat__name", "body", "agent", "address")
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[Ping]:
        visible = Heartbeat.objects.all().visible_to(principal_of(request).scope)
        return super().get_queryset(request).filter(heartbeat__in=visible)


class SiteForm(forms.ModelForm[Site]):
    """A front end; its origins stand one in a line."""

    origins = forms.CharField(
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Where its pages come from, one in a line, such as https://shop.example.",
    )

    class Meta:
        model = Site
        fields = ("name", "enabled", "origins", "rate")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.instance.pk and isinstance(self.instance.origins, list):
            self.initial["origins"] = "\n".join(self.instance.origins)

    def clean_origins(self) -> list[str]:
        """Return the list, each an origin."""
        try:
            return sites.origins_of(self.cleaned_data["origins"].split())
        except ValidationError as error:
            raise ValidationError(error.message_dict["origins"]) from None


@admin.register(Site)
class SiteAdmin(AuditedAdmin[Site]):
    """Front ends whose pages report how they do."""

    imported = "name"
    switched = "What their pages report is refused."
    form = SiteForm
    list_display = ("name", "shown_origins", "rate", "enabled")
    list_filter = ("enabled",)
    search_fields = ("name",)
    actions = ("renew_key",)
    readonly_fields = ("page",)

    def keep(self, request: HttpRequest, row: Site) -> None:
        sites.save_site(by=principal_of(request), site=row)

    @display(description="Origins")
    def shown_origins(self, site: Site) -> str:
        return ", ".join(site.origins[:3])

    @display(description="How its pages report")
    def page(self, site: Site) -> str:
        return format_html('<a href="{}">Snippet and charts</a>', reverse("frontend"))

    def save_model(self, request: HttpRequest, obj: Site, form: Any, change: bool) -> None:
        sites.save_site(by=principal_of(request), site=obj)

    def delete_model(self, request: HttpRequest, obj: Site) -> None:
        sites.delete_site(by=principal_of(request), site=obj)

    @action(description="Give another key: pages with the old one report no more", permissions=["change"])
    def renew_key(self, request: HttpRequest, queryset: QuerySet[Site]) -> HttpResponse | None:
        by = principal_of(request)
        return self.act_on(
            request, queryset, action="renew_key", title="Give another key", done="have another key",
            note="Pages with the old one report no more.",
            act=lambda site: sites.renew_site_key(by=by, site=site),
        )  # fmt: skip
