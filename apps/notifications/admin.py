"""The admin of contacts and deliveries: pick a channel, fill in its fields, send a test, read what became of it."""

import copy
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminEmailInputWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldAdminURLInputWidget,
    UnfoldBooleanSwitchWidget,
)

from apps.accounts.admin import AuditedAdmin, Link, among, to_list, to_row
from apps.accounts.exports import SETTING as PREFIX
from apps.accounts.models import User
from apps.accounts.permissions import Principal, Right, principal_of
from apps.core.registry import UnknownKind, extend
from apps.core.secrets import readable
from apps.notifications import configuration, personal, services, trying, wording
from apps.notifications.channels import Channel, channels
from apps.notifications.models import Contact, Delivery, MessageTemplate, QuietHours, Reply

WIDGETS: dict[type[forms.Widget], type[forms.Widget]] = {
    forms.PasswordInput: UnfoldAdminPasswordWidget,
    forms.Textarea: UnfoldAdminTextareaWidget,
    forms.EmailInput: UnfoldAdminEmailInputWidget,
    forms.URLInput: UnfoldAdminURLInputWidget,
    forms.TextInput: UnfoldAdminTextInputWidget,
    forms.CheckboxInput: UnfoldBooleanSwitchWidget,
}


class SettingsForm(forms.ModelForm[Contact]):
    """A contact with the fields of its channel; a secret is never put into the page, and left blank it stays."""

    channel: ClassVar[type[Channel]] = Channel
    write_only: ClassVar[frozenset[str]] = frozenset()

    class Meta:
        model = Contact
        fields = ("name", "enabled", "is_fallback", "owner", "rate_limit", *services.OPTIONS)

    def settings(self) -> dict[str, Any]:
        """Return what was typed into the channel's fields, as the verb takes it."""
        typed = {name: value for name, value in self.cleaned_data.items() if name.startswith(PREFIX)}
        return {name.removeprefix(PREFIX): value for name, value in typed.items()}

    def clean(self) -> dict[str, Any]:
        """Let the channel's own form judge, and put its words beside the right fields."""
        values = super().clean() or self.cleaned_data
        try:
            configuration.clean(self.channel, self.settings(), readable(self.instance))
        except ValidationError as error:
            for name, texts in error.message_dict.items():
                field = PREFIX + name
                self.add_error(field if field in self.fields else None, texts)
        if values.get("is_fallback") and not values.get("enabled"):
            self.add_error("enabled", "The fall-back contact cannot be switched off: name another one first.")
        draft = copy.copy(self.instance)
        for name in services.OPTIONS:
            setattr(draft, name, values.get(name))
        draft.is_fallback = bool(values.get("is_fallback"))
        try:
            services.check_options(draft)
        except ValidationError as error:
            for name, texts in error.message_dict.items():
                self.add_error(name if name in self.fields else None, texts)
        if self.initial.get("is_fallback") and values.get("is_fallback") is False:
            self.add_error("is_fallback", services.ONE_FALLBACK)
        return values


def settings_form(channel: type[Channel], contact: Contact) -> type[SettingsForm]:
    """Return the form of a contact of that channel: one admin field for each of its settings."""
    fields: dict[str, Any] = {"channel": channel, "write_only": frozenset(PREFIX + name for name in channel.secrets())}
    for name, field in channel.Config().fields.items():
        secret = name in channel.secrets()
        widget = WIDGETS.get(type(field.widget))
        plain = forms.BooleanField if isinstance(field, forms.BooleanField) else forms.CharField
        fields[PREFIX + name] = plain(
            required=False,
            label=field.label or name.replace("_", " ").capitalize(),
            help_text=f"{field.help_text} Stored encrypted; leave blank to keep it." if secret else field.help_text,
            initial="" if secret else field.prepare_value(contact.config.get(name, "")),
            widget=(widget or UnfoldAdminTextInputWidget)(),
        )
    return type("ContactForm", (SettingsForm,), fields)


@admin.register(Contact)
class ContactAdmin(AuditedAdmin[Contact]):
    """Contacts, their problems, and a button that sends a test."""

    imported = "name"
    formed_by = "kind"
    edit_right = Right.ADMINISTER
    switched = "What waits for them is dropped."
    assigned = ("owner",)
    list_display = ("name", "kind", "address", "state", "last_ok_at", "is_fallback", "origin")
    list_filter = ("kind", "enabled", ("problem", admin.EmptyFieldListFilter), "origin", "owner")
    search_fields = ("name", "problem")
    list_select_related = ("owner",)
    actions = ("send_test",)
    actions_detail = ("send_test_now",)
    readonly = ("kind_name", "state", "problem", "problem_at", "last_ok_at", "origin", "log")

    def keep(self, request: HttpRequest, row: Contact) -> None:
        services.save_contact(
            by=principal_of(request),
            now=timezone.now(),
            contact=Contact.objects.get(pk=row.pk),
            name=row.name,
            kind=row.kind,
            values=row.config,
            enabled=row.enabled,
            is_fallback=row.is_fallback,
            owner=row.owner,
            rate_limit=row.rate_limit,
        )

    # --- what is shown ---
    @display(description="To")
    def address(self, contact: Contact) -> str:
        try:
            return contact.channel.address(contact.config)
        except UnknownKind as error:
            return str(error)

    @display(description="Channel")
    def kind_name(self, contact: Contact) -> str:
        return contact.get_kind_display()

    @display(description="State", label={"works": "success", "problem": "danger", "off": "warning", "untried": "info"})
    def state(self, contact: Contact) -> str:
        if not contact.enabled:
            return "off"
        if contact.problem:
            return "problem"
        return "works" if contact.last_ok_at else "untried"

    @display(description="Deliveries")
    def log(self, contact: Contact) -> str:
        url = reverse("admin:notifications_delivery_changelist")
        return format_html('<a href="{}?contact__id__exact={}">What it was told</a>', url, contact.pk)

    # --- the form: first the channel, then its fields ---
    def _channel(self, request: HttpRequest, obj: Contact | None) -> type[Channel] | None:
        """Return the contact's channel, or the one that was chosen for a new one."""
        return channels.all().get(request.GET.get("kind", "") if obj is None else obj.kind)

    def get_fieldsets(self, request: HttpRequest, obj: Contact | None = None) -> Any:
        channel = self._channel(request, obj)
        settings = tuple(PREFIX + name for name in channel.Config.base_fields) if channel else ()
        if not self.has_change_permission(request, obj):
            settings = ("address",)
        who = ("name", "enabled", "is_fallback", "owner", "rate_limit")
        when = (
            ("Who stands in, and when it is told", {"fields": ("failover", "calendar", "at_once_from")}),
            ("In its person's order", {"fields": ("default_after", "important_after")}),
        )
        if obj is None:
            return ((None, {"fields": who}), ("Settings", {"fields": settings}), *when)
        return (
            (None, {"fields": ("kind_name", *who)}),
            ("Settings", {"fields": settings}),
            *when,
            ("How it does", {"fields": ("state", "problem", "problem_at", "last_ok_at", "origin", "log")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Contact | None = None) -> Any:
        return () if obj is None else (*self.readonly, "address")

    def get_form(self, request: HttpRequest, obj: Contact | None = None, change: bool = False, **kwargs: Any) -> Any:
        channel = self._channel(request, obj)
        if channel is not None and self.has_change_permission(request, obj):
            kwargs["form"] = settings_form(channel, obj or Contact(kind=channel.kind))
            kwargs["fields"] = None
        return super().get_form(request, obj, change, **kwargs)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Ask for the channel first: its fields depend on it."""
        if self._channel(request, None) is None and self.has_add_permission(request):
            context = {
                **self.admin_site.each_context(request),
                "title": "New contact: which channel?",
                "kinds": channels.kinds(),
                "opts": self.opts,
            }
            return TemplateResponse(request, "admin/choose_kind.html", context)
        return super().add_view(request, form_url, {**(extra_context or {}), "show_save_and_add_another": False})

    # --- what is written ---
    def save_model(self, request: HttpRequest, obj: Contact, form: Any, change: bool) -> None:
        values = form.cleaned_data
        contact = services.save_contact(
            by=principal_of(request),
            now=timezone.now(),
            contact=Contact.objects.get(pk=obj.pk) if change else None,
            name=values["name"],
            kind=form.channel.kind,
            values=form.settings(),
            enabled=values["enabled"],
            is_fallback=values["is_fallback"],
            owner=values["owner"],
            rate_limit=values["rate_limit"],
            options={name: values[name] for name in services.OPTIONS},
        )
        obj.__dict__.update(contact.__dict__)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Contacts have no relations of their own to save."""

    def delete_model(self, request: HttpRequest, obj: Contact) -> None:
        services.delete_contact(by=principal_of(request), contact=obj, now=timezone.now())

    def has_delete_permission(self, request: HttpRequest, obj: Contact | None = None) -> bool:
        """The fall-back contact stays until another one takes its place."""
        return super().has_delete_permission(request, obj) and not (obj is not None and obj.is_fallback)

    # --- tests ---
    @action(description="Send test", permissions=["operate"])
    def send_test(self, request: HttpRequest, queryset: QuerySet[Contact]) -> HttpResponse | None:
        by, now = principal_of(request), timezone.now()
        return self.act_on(
            request, queryset, action="send_test", title="Send test", done="are sent a test",
            note="Each is sent a message now.", act=lambda contact: services.send_test(by=by, contact=contact, now=now),
        )  # fmt: skip

    @action(description="Send test", permissions=["operate"], url_path="send-test")
    def send_test_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        contact = self.get_object(request, object_id)
        back = reverse("admin:notifications_contact_change", args=[object_id])
        if contact is not None:
            if (
                page := self.ask(request, title="Send test", question=f"Send a test to {contact}?", back=back)
            ) is not None:
                return page
            self._test(request, contact)
        return HttpResponseRedirect(back)

    def _test(self, request: HttpRequest, contact: Contact) -> None:
        try:
            delivery = services.send_test(by=principal_of(request), contact=contact, now=timezone.now())
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
            return
        url = reverse("admin:notifications_delivery_change", args=[delivery.pk])
        text = format_html('A test to {} is on its way: <a href="{}">see what becomes of it</a>.', contact.name, url)
        self.message_user(request, text)


@admin.register(MessageTemplate)
class MessageTemplateAdmin(AuditedAdmin[MessageTemplate]):
    """People's own words, with a preview of a past alert beneath the form."""

    imported = "name"
    switched = "The next less specific template counts, or the portal's own words."
    list_display = ("name", "shown_kind", "shown_severity", "state", "enabled")
    list_filter = ("enabled", "kind", "severity", ("problem", admin.EmptyFieldListFilter))
    search_fields = ("name", "title", "body")
    fields = ("name", "enabled", "kind", "severity", "title", "body", "document", "state", "problem", "problem_at")
    readonly_fields = ("state", "problem", "problem_at")
    change_form_outer_after_template = "notifications/template_preview.html"

    class form(forms.ModelForm[MessageTemplate]):  # noqa: N801 - Django's name
        """Refuses what could not be told, beside the field that is wrong."""

        class Meta:
            widgets: ClassVar[dict[str, Any]] = {
                "title": UnfoldAdminTextareaWidget({"rows": 2, "class": "portal-template"}),
                "body": UnfoldAdminTextareaWidget({"rows": 10, "class": "portal-template"}),
                "document": UnfoldAdminTextareaWidget({"rows": 8, "class": "portal-template"}),
            }

        def clean(self) -> dict[str, Any]:
            """Let the wording judge."""
            values = super().clean() or self.cleaned_data
            draft = wording.Wording(*(values.get(name, "") for name in ("title", "body", "document", "kind")))
            for field, sentence in wording.faults(draft).items():
                self.add_error(field, sentence)
            return values

    def keep(self, request: HttpRequest, row: MessageTemplate) -> None:
        by, stored = principal_of(request), MessageTemplate.objects.get(pk=row.pk)
        services.save_message_template(by=by, now=timezone.now(), template=stored, values={"enabled": row.enabled})

    @display(description="Channel", ordering="kind")
    def shown_kind(self, template: MessageTemplate) -> str:
        return template.get_kind_display() or "Every channel"

    @display(description="Severity", ordering="severity")
    def shown_severity(self, template: MessageTemplate) -> str:
        return template.get_severity_display() or "Every severity"

    @display(description="State", label={"in use": "success", "problem": "danger", "off": "warning"})
    def state(self, template: MessageTemplate) -> str:
        return "problem" if template.problem else "in use" if template.enabled else "off"

    def save_model(self, request: HttpRequest, obj: MessageTemplate, form: Any, change: bool) -> None:
        stored = MessageTemplate.objects.get(pk=obj.pk) if change else None
        by = principal_of(request)
        saved = services.save_message_template(
            by=by, now=timezone.now(), template=stored, values={**vars(obj), **form.cleaned_data}
        )
        obj.__dict__.update(saved.__dict__)
        for sentence in wording.lint(saved.wording):
            self.message_user(request, sentence, messages.WARNING)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Templates have no relations."""

    def delete_model(self, request: HttpRequest, obj: MessageTemplate) -> None:
        services.delete_message_template(by=principal_of(request), template=obj)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Offer past alerts for the preview."""
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **self._examples(request)})

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Offer past alerts for the preview."""
        return super().add_view(request, form_url, {**(extra_context or {}), **self._examples(request)})

    def _examples(self, request: HttpRequest) -> dict[str, Any]:
        return {
            "examples": trying.examples(principal_of(request).scope) if self.has_add_permission(request) else [],
            "variables": wording.VARIABLES,
        }


@admin.register(QuietHours)
class QuietHoursAdmin(AuditedAdmin[QuietHours]):
    """When people are not to be disturbed. Everybody has a page of their own for it: /monitoring/me/."""

    edit_right = Right.ADMINISTER
    list_display = ("person", "hours", "zone", "disturbed_from")
    list_filter = ("disturbed_from",)
    list_select_related = ("person",)
    search_fields = ("person__username",)
    fields = ("person", "hours", "zone", "disturbed_from")

    def get_readonly_fields(self, request: HttpRequest, obj: QuietHours | None = None) -> Any:
        return () if obj is None else ("person",)

    def save_model(self, request: HttpRequest, obj: QuietHours, form: Any, change: bool) -> None:
        saved = personal.save_quiet_hours(
            by=principal_of(request),
            person=obj.person,
            hours=obj.hours,
            zone=obj.zone,
            disturbed_from=obj.disturbed_from,
            now=timezone.now(),
        )
        obj.pk = saved.pk if saved else None

    def delete_model(self, request: HttpRequest, obj: QuietHours) -> None:
        personal.save_quiet_hours(by=principal_of(request), person=obj.person, hours="", now=timezone.now())


@action(description="Send a test to the person", permissions=["operate"])
def test_people(page: AuditedAdmin[User], request: HttpRequest, queryset: QuerySet[User]) -> HttpResponse | None:
    """Send a test to the first contact of each list of the people; beside the actions of the page of people."""

    def act(person: User) -> None:
        found = personal.try_out(by=principal_of(request), person=person, now=timezone.now(), send=True)
        told = ", ".join(one.contact_name for one in found.deliveries)
        page.message_user(request, f"A test to {person} is on its way: {told}.")

    return page.act_on(
        request, queryset, action="test_people", title="Send a test", act=act, done="are sent a test",
        note="The first contact of each of their lists is sent a message now.",
    )  # fmt: skip


extend(User, "actions", test_people)


def channel_kinds() -> list[str]:
    """The kinds of channels; for filters."""
    return list(channels.all())


@admin.register(Delivery)
class DeliveryAdmin(AuditedAdmin[Delivery]):
    """The delivery log: who was told what, when, by which provider id; to be read only."""

    edit_right = None
    actions = ("send_again",)
    list_display = (
        "id",
        "created_at",
        "contact_name",
        "kind",
        "title",
        "purpose",
        "shown_state",
        "receipt",
        "attempts",
        "error",
    )
    list_display_links = ("id", "title")
    list_filter = (
        "state", "receipt", "purpose", among("kind", "channel", channel_kinds), "contact", "created_at",
    )  # fmt: skip
    search_fields = ("contact_name", "error", "provider_id")
    list_per_page = 50
    ordering = ("-id",)
    fields = (
        "key", "contact_name", "kind", "purpose", "shown_state", "title", "text", "group_key",
        "created_at", "due_at", "attempts", "finished_at", "error", "provider_id", "held_for", "carrier",
        "stands_in_for", "receipt", "receipt_at", "receipt_text", "recipients",
    )  # fmt: skip
    readonly_fields = ("title", "text", "shown_state")

    COLOURS: ClassVar[dict[str, str]] = {
        "Sent": "success",
        "Queued": "info",
        "Held back": "info",
        "Failed": "danger",
        "Cancelled": "warning",
    }

    @action(description="Send again", permissions=["operate"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> HttpResponse | None:
        by, now = principal_of(request), timezone.now()
        return self.act_on(
            request, queryset.select_related("contact"), action="send_again", title="Send again", done="are sent again",
            note="Each goes out once more as it was written then, to the same contact.",
            act=lambda delivery: services.send_again(by=by, delivery=delivery, now=now),
        )  # fmt: skip

    @display(description="Message")
    def title(self, delivery: Delivery) -> str:
        return str(delivery.message.get("title", ""))

    @display(description="Text")
    def text(self, delivery: Delivery) -> str:
        return str(delivery.message.get("body", ""))

    @display(description="State", label=COLOURS)
    def shown_state(self, delivery: Delivery) -> str:
        return delivery.get_state_display()


@admin.register(Reply)
class ReplyAdmin(AuditedAdmin[Reply]):
    """What people answered to messages, and what came of it; to be read only."""

    edit_right = None
    list_display = ("at", "who", "action", "via", "delivery", "outcome")
    list_filter = ("action", "via")
    list_select_related = ("delivery",)
    search_fields = ("who", "outcome")
    list_per_page = 50


# --- From row to row ----------------------------------------------------------------------------------------------
def _delivery_links(delivery: Delivery, who: Principal) -> list[Link]:
    found = [to_row(delivery.contact, "Its contact")] if delivery.contact is not None else []
    found += [to_row(delivery.carrier, "In whose message it was told")] if delivery.carrier is not None else []
    found += [to_row(delivery.stands_in_for, "In whose place it went")] if delivery.stands_in_for is not None else []
    return [*found, to_list("Answers", Reply, delivery__id__exact=delivery.pk)]


def _contact_links(contact: Contact, who: Principal) -> list[Link]:
    return [
        to_list("What it was told", Delivery, contact__id__exact=contact.pk),
        to_list("What failed", Delivery, contact__id__exact=contact.pk, state__exact="failed"),
    ]


extend(Delivery, "links", _delivery_links)
extend(Contact, "links", _contact_links)
extend(Reply, "links", lambda reply, _: [to_row(reply.delivery, "What it answers")])
extend(User, "links", lambda person, _: [to_list("Contacts", Contact, owner__id__exact=person.pk)])
