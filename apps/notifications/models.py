"""Contacts (configured channels), deliveries (outbox and log of what left, in one table), templates and replies."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from apps.accounts.hours import MIDNIGHT, Hours, parse_week, parse_zone
from apps.accounts.models import Calendar
from apps.core.secrets import EncryptedJSONField
from apps.notifications import holding, restraint
from apps.notifications.channels import Channel, Sender, channels, kinds
from apps.notifications.message import SEVERITIES
from apps.notifications.wording import Wording

Choices = list[tuple[str, str]]
log = logging.getLogger(__name__)

NO_TIME: Final = timedelta(0)


def purposes() -> Choices:
    """Why a message is sent."""
    return [
        ("firing", "Firing"),
        ("resolved", "Resolved"),
        ("renewal", "Renewal"),
        ("test", "Test"),
        ("reminder", "Reminder"),
        ("update", "Update"),
        ("call", "Call by an escalation"),
    ]


def delivery_states() -> Choices:
    """How far a delivery has come."""
    return [
        ("queued", "Queued"),
        ("held", "Held back"),
        ("sent", "Sent"),
        ("failed", "Failed"),
        ("cancelled", "Cancelled"),
    ]


def holds() -> Choices:
    """Why a message is or was held back."""
    return [
        ("", "Not held back"),
        (holding.ORDER, "Later in the person's order"),
        (holding.QUIET, "Quiet hours"),
        (holding.HOURS, "Outside of business hours"),
    ]


def severities() -> Choices:
    """How bad something is, the mildest first."""
    return [(severity, severity) for severity in SEVERITIES]


def origins() -> Choices:
    """Who wrote a contact."""
    return [("", "A person"), ("environment", "Environment variables"), ("shipped", "Shipped default")]


def check_limits(text: str) -> None:
    """Refuse a limit that cannot be read."""
    try:
        restraint.parse(text)
    except ValueError as error:
        raise ValidationError(str(error)) from None


def reply_actions() -> Choices:
    """What somebody may answer to a message."""
    return [
        ("acknowledge", "Acknowledge"),
        ("escalate", "Escalate"),
        ("silence", "Silence for an hour"),
        ("resolve", "Resolve"),
    ]


def receipt_states() -> Choices:
    """What the provider told of a message that was handed over."""
    return [
        ("underway", "Under way"),
        ("delivered", "Delivered"),
        ("complained", "Called spam"),
        ("partly", "Not to everybody"),
        ("unanswered", "Not answered"),
        ("failed", "Not delivered"),
        ("bounced", "Bounced"),
    ]


def reply_ways() -> Choices:
    """How an answer came."""
    return [("link", "Link in a message"), ("sms", "Text message"), ("button", "Button in a chat")]


class ContactQuerySet(models.QuerySet["Contact"]):
    """Questions about contacts."""

    def enabled(self) -> ContactQuerySet:
        """Return those that messages may go to."""
        return self.filter(enabled=True)

    def working(self) -> ContactQuerySet:
        """Return enabled ones whose last message did not meet a lasting problem."""
        return self.filter(enabled=True, problem="")


class ContactManager(models.Manager.from_queryset(ContactQuerySet)):  # type: ignore[misc]
    """Leaves secrets in the database until one is asked for: one that no key opens must not hide all the others."""

    def get_queryset(self) -> ContactQuerySet:
        """Return every contact, its secrets deferred."""
        return ContactQuerySet(self.model, using=self._db).defer("secrets")


class Contact(models.Model):
    """Somewhere a message can go: a channel with its settings. `config` is shown, `secrets` never again."""

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField("channel", max_length=40, choices=kinds)
    config = models.JSONField(default=dict, blank=True, editable=False)
    secrets = EncryptedJSONField(default=dict, blank=True, editable=False)
    enabled = models.BooleanField(default=True, help_text="Switched off, it is told nothing and what waits is dropped.")
    is_fallback = models.BooleanField(
        "fall-back contact",
        default=False,
        help_text="Told what no other contact could be told. There is one at most.",
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="contacts",
        help_text="The person whose contact it is; empty for a team's.",
    )
    rate_limit = models.CharField(
        max_length=100,
        blank=True,
        default="",
        validators=[check_limits],
        help_text="Messages in a time, such as 5/15m, 11/1h; what is over it is told in one. Empty: the channel's "
        "own (SMS 5/15m, 11/1h; telephone 3/15m, 7/1h; others none). none: no limit.",
    )
    failover = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="stood_in_for",
        verbose_name="fail-over contact",
        help_text="Told in its place what it could not be told, before the fall-back contact is.",
    )
    calendar = models.ForeignKey(
        Calendar,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="contacts",
        verbose_name="business calendar",
        help_text="Outside of its hours messages wait for one digest at the next opening. Empty: told at once.",
    )
    at_once_from = models.CharField(
        max_length=10,
        choices=severities,
        default="critical",
        help_text="What is at least so severe does not wait for the business calendar.",
    )
    default_after = models.DurationField(
        "default list",
        null=True,
        blank=True,
        default=NO_TIME,
        help_text="A person's contact: how long after a step asked for the person it is told, unless somebody "
        "acknowledges before. Empty: it is not told.",
    )
    important_after = models.DurationField(
        "important list",
        null=True,
        blank=True,
        default=NO_TIME,
        help_text="The same for steps that are important.",
    )
    origin = models.CharField(max_length=20, choices=origins, blank=True, default="", editable=False)
    problem = models.TextField(blank=True, default="", editable=False, help_text="Why messages do not arrive.")
    problem_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_ok_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="When a message last left.")

    objects = ContactManager()

    class Meta:
        ordering = ("name",)
        constraints = (
            models.UniqueConstraint(fields=["is_fallback"], condition=Q(is_fallback=True), name="contact_one_fallback"),
            models.CheckConstraint(
                condition=Q(problem="", problem_at__isnull=True) | (~Q(problem="") & Q(problem_at__isnull=False)),
                name="contact_problem_has_time",
            ),
            models.CheckConstraint(condition=~Q(name=""), name="contact_has_a_name"),
            models.CheckConstraint(condition=~Q(failover=models.F("pk")), name="contact_is_not_its_own_failover"),
            models.CheckConstraint(
                condition=Q(is_fallback=False) | Q(calendar=None), name="contact_fallback_waits_for_no_calendar"
            ),
            models.CheckConstraint(
                condition=(Q(default_after=None) | Q(default_after__gte=NO_TIME))
                & (Q(important_after=None) | Q(important_after__gte=NO_TIME)),
                name="contact_is_told_after_no_debt",
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def channel(self) -> type[Channel]:
        """The plug-in that carries its messages; `UnknownKind` when its file is gone."""
        return channels.get(self.kind)

    @property
    def limits(self) -> restraint.Limits:
        """How many messages it gets in which time."""
        return restraint.parse(self.rate_limit or self.channel.limits)

    def rules(self) -> list[holding.Rule]:
        """Return what holds its messages back: its calendar, its person's quiet hours; the fall-back contact nothing.

        A rule that cannot be read any more (a time zone that is gone) holds nothing back.
        """
        if self.is_fallback:
            return []
        found = []
        try:
            if self.calendar is not None:
                found.append(holding.Rule(holding.HOURS, self.calendar.times, self.at_once_from))
        except ValueError as error:
            log.error("The business calendar of contact %s is passed over: %s", self.pk, error)
        try:
            quiet = QuietHours.objects.filter(person=self.owner_id).first() if self.owner_id else None
            if quiet is not None:
                found.append(quiet.rule)
        except ValueError as error:
            log.error("The quiet hours of contact %s are passed over: %s", self.pk, error)
        return found

    def open_channel(self, sender: Sender) -> Channel:
        """Return the channel with this contact's settings, secrets included."""
        values: dict[str, Any] = {**self.config, **(self.secrets or {})}
        return self.channel(values, sender)


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    """Questions about deliveries."""

    def queued(self) -> DeliveryQuerySet:
        """Return those that have not left yet."""
        return self.filter(state="queued")

    def held(self) -> DeliveryQuerySet:
        """Return those that are held back: on-call lets them go when they are due, or drops them with a reason."""
        return self.filter(state="held")


class Delivery(models.Model):
    """One message to one contact: outbox row until it has left, then the record of it.

    `key` goes to the receiver as idempotency key. `claim` is the sender that works on it until `claimed_until` by the
    database's clock; a dead sender's row simply comes back. `contact_name` outlives the contact.
    """

    key = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    contact = models.ForeignKey(Contact, on_delete=models.SET_NULL, null=True, related_name="deliveries")
    contact_name = models.CharField(max_length=100)
    kind = models.CharField("channel", max_length=40)
    message = models.JSONField()
    purpose = models.CharField(max_length=20, choices=purposes)
    group_key = models.TextField(blank=True, default="", help_text="What the message is about; its order is kept.")
    state = models.CharField(max_length=10, choices=delivery_states, default="queued")
    created_at = models.DateTimeField()
    due_at = models.DateTimeField(help_text="Not before this time.")
    attempts = models.PositiveIntegerField(default=0)
    claim = models.UUIDField(null=True)
    claimed_until = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True, help_text="When it was sent, failed for good or was cancelled.")
    error = models.TextField(blank=True, default="", help_text="Why the last try failed.")
    provider_id = models.CharField(max_length=300, blank=True, default="")
    receipt = models.CharField(
        max_length=12,
        choices=receipt_states,
        blank=True,
        default="",
        help_text="What the provider told afterwards; what nobody read has failed, though it was sent.",
    )
    receipt_at = models.DateTimeField(null=True)
    receipt_text = models.TextField(blank=True, default="")
    recipients = models.JSONField(default=dict, help_text="What was told of each recipient, where that is known.")
    carrier = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        related_name="carried",
        help_text="The delivery in whose message this one was told: the contact's limit, or a digest.",
    )
    held_for = models.CharField(
        max_length=10, choices=holds, blank=True, default="", help_text="Why it is or was held back."
    )
    stands_in_for = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        related_name="stand_ins",
        help_text="The delivery in whose place this one was told to the fail-over contact.",
    )

    objects = DeliveryQuerySet.as_manager()

    earlier = ""
    """The provider's id of what this one rewrites, looked up by the sender; no column."""

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "deliveries"
        indexes = (
            models.Index(fields=["provider_id"], condition=~Q(provider_id=""), name="delivery_provider_id"),
            models.Index(fields=["receipt_at"], condition=Q(state="failed"), name="delivery_came_back"),
            models.Index(fields=["contact", "id"], condition=Q(state="queued"), name="delivery_queue"),
            models.Index(fields=["due_at"], condition=Q(state="queued"), name="delivery_due"),
            models.Index(fields=["due_at", "contact"], condition=Q(state="held"), name="delivery_held"),
            models.Index(fields=["contact", "-id"], name="delivery_of_contact"),
            models.Index(fields=["contact", "finished_at"], condition=Q(state="sent"), name="delivery_sent"),
        )
        constraints = (
            models.CheckConstraint(
                condition=Q(state__in=("queued", "held"), finished_at__isnull=True)
                | (~Q(state__in=("queued", "held")) & Q(finished_at__isnull=False, claim__isnull=True)),
                name="delivery_finished_has_time",
            ),
            models.CheckConstraint(
                condition=~Q(state="held") | (Q(claim__isnull=True) & ~Q(held_for="") & ~Q(error="")),
                name="delivery_held_has_reason",
            ),
            models.CheckConstraint(
                condition=Q(claim__isnull=True, claimed_until__isnull=True)
                | Q(claim__isnull=False, claimed_until__isnull=False),
                name="delivery_claim_has_end",
            ),
            models.CheckConstraint(condition=~Q(state="sent") | Q(attempts__gte=1), name="delivery_sent_was_tried"),
            models.CheckConstraint(condition=~Q(state="failed") | ~Q(error=""), name="delivery_failed_has_reason"),
        )

    def __str__(self) -> str:
        return f"{self.purpose} to {self.contact_name}"


def template_kinds() -> Choices:
    """The channels that a template can be for."""
    return [("", "Every channel"), *kinds()]


def template_severities() -> Choices:
    """The severities that a template can be for."""
    return [("", "Every severity"), *((severity, severity.capitalize()) for severity in SEVERITIES)]


class MessageTemplate(models.Model):
    """People's own words for messages; the most specific one that is enabled counts (see `wording.choose`)."""

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField("channel", max_length=40, choices=template_kinds, blank=True, default="")
    severity = models.CharField(max_length=10, choices=template_severities, blank=True, default="")
    title = models.TextField(blank=True, default="", help_text="Empty: the portal's own title.")
    body = models.TextField(blank=True, default="", help_text="Empty: the portal's own text, with every alert.")
    document = models.TextField(
        blank=True,
        default="",
        help_text="E-mail: HTML in place of the list of alerts, each value escaped. Webhook: the whole body as JSON. "
        "Other channels: leave it empty.",
    )
    enabled = models.BooleanField(default=True)
    problem = models.TextField(
        blank=True, default="", editable=False, help_text="Why it could not be used; the portal's own words were told."
    )
    problem_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("kind", "severity", "name")
        constraints = (
            models.UniqueConstraint(
                fields=["kind", "severity"],
                condition=Q(enabled=True),
                name="template_once_a_place",
                violation_error_message="There is an enabled template for this channel and severity already: "
                "change that one, or switch it off.",
            ),
            models.CheckConstraint(
                condition=Q(problem="", problem_at__isnull=True) | (~Q(problem="") & Q(problem_at__isnull=False)),
                name="template_problem_has_time",
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def wording(self) -> Wording:
        """What it says, as a value."""
        return Wording(self.title, self.body, self.document, self.kind, self.severity, self.pk or 0)


class QuietHours(models.Model):
    """When a person is not to be disturbed, and by what they are all the same."""

    person = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="quiet_hours")
    zone = models.CharField("time zone", max_length=64, default="UTC", help_text="Such as Europe/Berlin.")
    hours = models.TextField(
        default="mon-sun 22:00-07:00", help_text="One line each, such as mon-sun 22:00-07:00 or sat-sun 00:00-24:00."
    )
    disturbed_from = models.CharField(
        max_length=10,
        choices=severities,
        default="critical",
        help_text="What is at least so severe is told all the same.",
    )

    class Meta:
        ordering = ("person__username",)
        verbose_name_plural = "quiet hours"

    def __str__(self) -> str:
        return f"Quiet hours of {self.person}"

    def clean(self) -> None:
        """Refuse, by field, what does not mean anything, and hours that never end."""
        problems: dict[str, str] = {}
        try:
            week = parse_week(self.hours)
            minutes = {day * MIDNIGHT + at for day, spans in enumerate(week) for a, b in spans for at in range(a, b)}
            if not minutes:
                problems["hours"] = "Write at least one line such as mon-sun 22:00-07:00."
            elif len(minutes) == 7 * MIDNIGHT:
                problems["hours"] = "Quiet hours that never end would keep you from being told at all."
        except ValueError as error:
            problems["hours"] = str(error)
        try:
            parse_zone(self.zone)
        except ValueError as error:
            problems["zone"] = str(error)
        if problems:
            raise ValidationError(problems)

    @property
    def rule(self) -> holding.Rule:
        """What the row means; ValueError where it means nothing."""
        return holding.Rule(holding.QUIET, Hours(parse_zone(self.zone), parse_week(self.hours)), self.disturbed_from)


class Reply(models.Model):
    """An answer to a message, once for each action: on-call claims those that nobody has handled.

    `who` is a name for people; `who_kind` and `who_id` say whose rights it is done with, looked at anew when it is.
    """

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="replies")
    action = models.CharField(max_length=20, choices=reply_actions)
    via = models.CharField(max_length=10, choices=reply_ways)
    who = models.CharField(max_length=200)
    who_kind = models.CharField(max_length=20)
    who_id = models.CharField(max_length=40, blank=True, default="")
    at = models.DateTimeField()
    handled_at = models.DateTimeField(null=True)
    was_done = models.BooleanField(default=False)
    outcome = models.TextField(blank=True, default="", help_text="What came of it, as a sentence.")

    class Meta:
        ordering = ("-at", "-id")
        verbose_name_plural = "replies"
        indexes = (models.Index(fields=["id"], condition=Q(handled_at__isnull=True), name="reply_unhandled"),)
        constraints = (
            models.UniqueConstraint(fields=["delivery", "action"], name="reply_once_an_action"),
            models.CheckConstraint(
                condition=Q(handled_at__isnull=True, outcome="") | (Q(handled_at__isnull=False) & ~Q(outcome="")),
                name="reply_handled_has_outcome",
            ),
        )

    def __str__(self) -> str:
        return f"{self.action} by {self.who}"
