"""Who is told, when: policies, routes, the groups in which alerts are told, running escalations, and who was told."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import models
from django.db.models import Q

from apps.alerting.models import Alert, AlertRule, Incident, severities
from apps.notifications.models import Contact, Delivery
from apps.oncall.steps import kinds

Choices = list[tuple[str, str]]

NO_TIME = timedelta(0)


def escalation_states() -> Choices:
    """How an escalation stands."""
    return [
        ("running", "Running"),
        ("acknowledged", "Stopped by an acknowledgement"),
        ("resolved", "Stopped: nothing is wrong any more"),
        ("finished", "Ran to the end of its policy"),
        ("replaced", "Started anew"),
    ]


def notice_kinds() -> Choices:
    """What somebody was told."""
    return [("firing", "Firing"), ("resolved", "Resolved")]


def group_by_default() -> list[str]:
    """One message for each rule."""
    return ["alertname"]


class Policy(models.Model):
    """An escalation policy: steps in order, until someone acknowledges. A running escalation keeps its own copy."""

    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(blank=True, default="")
    acknowledged_for = models.DurationField(
        null=True,
        blank=True,
        help_text="What goes on for so long after it was acknowledged is escalated anew. Empty: never.",
    )

    class Meta:
        ordering = ("name",)
        verbose_name = "escalation policy"
        verbose_name_plural = "escalation policies"
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="policy_has_a_name"),
            models.CheckConstraint(
                condition=Q(acknowledged_for=None) | Q(acknowledged_for__gte=timedelta(minutes=1)),
                name="policy_acknowledged_for_a_minute",
            ),
        )

    def __str__(self) -> str:
        return self.name


class Step(models.Model):
    """One step of a policy: the kind of plug-in and its settings."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="steps")
    position = models.PositiveSmallIntegerField()
    kind = models.CharField(max_length=40, choices=kinds)
    config = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ("policy", "position")
        constraints = (
            models.UniqueConstraint(
                fields=["policy", "position"], name="step_position_once_a_policy", deferrable=models.Deferrable.DEFERRED
            ),
        )

    def __str__(self) -> str:
        return f"{self.position}. {self.kind}"


class RouteQuerySet(models.QuerySet["Route"]):
    """Questions about routes."""

    def in_order(self) -> RouteQuerySet:
        """Return them as they are tried: by position, the root last whatever its position says."""
        return self.order_by("is_root", "position", "id")


class Route(models.Model):
    """Which alerts go where, how they are bundled and how often they are told. The first match wins."""

    name = models.CharField(max_length=100, unique=True)
    position = models.PositiveIntegerField(default=0, help_text="Routes are tried in this order; the root is last.")
    enabled = models.BooleanField(default=True)
    matchers = models.JSONField(
        default=list, blank=True, help_text='All of them must hold, each like severity="critical" or service=~"db|web".'
    )
    continue_matching = models.BooleanField(
        "continue", default=False, help_text="Alerts that match are offered to the next routes too."
    )
    group_by = models.JSONField(
        default=group_by_default,
        blank=True,
        help_text="Alerts with the same values of these labels are told in one message; '...' keeps each by itself.",
    )
    group_wait = models.DurationField(
        default=timedelta(seconds=30), help_text="How long the first alert waits for others to be told together."
    )
    group_interval = models.DurationField(
        default=timedelta(minutes=5), help_text="Least time between two messages about the same group."
    )
    repeat_interval = models.DurationField(
        default=timedelta(hours=4), help_text="After this long what still fires unacknowledged is told again."
    )
    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, null=True, blank=True, related_name="routes")
    contacts = models.ManyToManyField(Contact, blank=True, related_name="routes")
    is_root = models.BooleanField(default=False, editable=False)

    objects = RouteQuerySet.as_manager()

    class Meta:
        ordering = ("is_root", "position", "id")
        constraints = (
            models.UniqueConstraint(fields=["is_root"], condition=Q(is_root=True), name="route_one_root"),
            models.CheckConstraint(
                condition=Q(is_root=False) | Q(matchers=[], continue_matching=False, enabled=True),
                name="route_root_matches_everything",
            ),
            models.CheckConstraint(condition=Q(group_wait__gte=NO_TIME), name="route_group_wait_is_no_debt"),
            models.CheckConstraint(
                condition=Q(group_interval__gte=timedelta(seconds=1)), name="route_group_interval_is_a_second"
            ),
            models.CheckConstraint(
                condition=Q(repeat_interval__gte=timedelta(minutes=1)), name="route_repeat_interval_is_a_minute"
            ),
        )

    def __str__(self) -> str:
        return self.name


class RuleTarget(models.Model):
    """A rule's own contacts or policy: its alerts go there and to no route."""

    rule = models.OneToOneField(AlertRule, on_delete=models.CASCADE, related_name="target")
    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, null=True, blank=True, related_name="rule_targets")
    contacts = models.ManyToManyField(Contact, blank=True, related_name="rule_targets")

    class Meta:
        verbose_name = "own contacts and policy"
        verbose_name_plural = "own contacts and policy"

    def __str__(self) -> str:
        return f"Target of {self.rule}"


class NotificationGroupQuerySet(models.QuerySet["NotificationGroup"]):
    """Questions about groups."""

    def due(self, now: datetime) -> NotificationGroupQuerySet:
        """Return those that have something to tell or to look at."""
        return self.filter(due_at__lte=now)


class NotificationGroup(models.Model):
    """Alerts that are told together, as `key` says: one per route (or rule) and values of its group_by labels.

    It keeps its own copy of the timers, so that it can finish what it began after its route was changed or deleted.
    """

    key = models.TextField(unique=True)
    route = models.ForeignKey(Route, on_delete=models.SET_NULL, null=True, related_name="groups")
    target = models.ForeignKey(RuleTarget, on_delete=models.SET_NULL, null=True, related_name="groups")
    receiver = models.CharField(max_length=120, help_text="Name of its route or rule.")
    labels = models.JSONField(default=dict)
    group_wait = models.DurationField()
    group_interval = models.DurationField()
    repeat_interval = models.DurationField()
    alerts = models.ManyToManyField(Alert, through="GroupMember", related_name="notification_groups")
    opened_at = models.DateTimeField(help_text="When it last began to hold an alert.")
    flushed_at = models.DateTimeField(null=True, help_text="When it was last told, since it was opened.")
    due_at = models.DateTimeField(null=True, help_text="When it is looked at next; empty when it holds nothing.")
    reason = models.CharField(max_length=200, blank=True, default="", help_text="What its last message was for.")

    objects = NotificationGroupQuerySet.as_manager()

    class Meta:
        ordering = ("-opened_at", "-id")
        indexes = (
            models.Index(fields=["due_at"], condition=Q(due_at__isnull=False), name="notificationgroup_due"),
            models.Index(fields=["-opened_at", "-id"], name="notificationgroup_newest"),
        )

    def __str__(self) -> str:
        return self.key


class GroupMember(models.Model):
    """An alert in a group, until everybody who was told that it fired has been told that it ended."""

    group = models.ForeignKey(NotificationGroup, on_delete=models.CASCADE, related_name="members")
    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="memberships")
    joined_at = models.DateTimeField()
    held_by = models.CharField(
        max_length=300, blank=True, default="", help_text="Why nobody was told of it when its group was last told."
    )
    held_until = models.DateTimeField(null=True, help_text="When that is over; empty: when another alert ends.")

    class Meta:
        ordering = ("id",)
        indexes = (models.Index(fields=["group"], condition=~Q(held_by=""), name="groupmember_held"),)
        constraints = (models.UniqueConstraint(fields=["group", "alert"], name="groupmember_once"),)

    def __str__(self) -> str:
        return f"{self.alert_id} in {self.group_id}"


class EscalationQuerySet(models.QuerySet["Escalation"]):
    """Questions about escalations."""

    def running(self) -> EscalationQuerySet:
        """Return those that have steps before them."""
        return self.filter(state="running")


class Escalation(models.Model):
    """A policy on its way for one incident.

    `plan` is the policy as it was when this began, {"name", "steps": [{"kind", "config"}, …]}: editing a policy never
    disturbs a page in flight.
    """

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="escalations")
    group = models.ForeignKey(NotificationGroup, on_delete=models.SET_NULL, null=True, related_name="escalations")
    policy = models.ForeignKey(Policy, on_delete=models.SET_NULL, null=True, related_name="escalations")
    plan = models.JSONField()
    position = models.PositiveSmallIntegerField(default=0, help_text="The step that comes next, counted from 0.")
    rounds = models.PositiveSmallIntegerField(default=0, help_text="How often it has started over.")
    severity = models.CharField(max_length=10, choices=severities)
    state = models.CharField(max_length=20, choices=escalation_states, default="running")
    reason = models.TextField(blank=True, default="", help_text="What it did last, or why it stopped.")
    due_at = models.DateTimeField(null=True, help_text="When the next step is taken.")
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    objects = EscalationQuerySet.as_manager()

    class Meta:
        ordering = ("-started_at", "-id")
        indexes = (
            models.Index(fields=["due_at"], condition=Q(state="running"), name="escalation_due"),
            models.Index(fields=["-started_at", "-id"], name="escalation_newest"),
        )
        constraints = (
            models.UniqueConstraint(
                fields=["incident", "policy"], condition=Q(state="running"), name="escalation_one_runs"
            ),
            models.CheckConstraint(
                condition=Q(state="running", due_at__isnull=False, ended_at__isnull=True)
                | (~Q(state="running") & Q(due_at__isnull=True, ended_at__isnull=False)),
                name="escalation_running_is_due",
            ),
        )

    def __str__(self) -> str:
        return f"{self.plan.get('name', '')} for {self.incident}"


class NoticeQuerySet(models.QuerySet["Notice"]):
    """Questions about notices."""

    def unsettled(self) -> NoticeQuerySet:
        """Return those of which it is not known yet whether the message arrived or somebody else has to be told."""
        return self.filter(settled_at__isnull=True)


class Notice(models.Model):
    """One contact was told one thing of one alert, by that delivery. Who was told "firing" is owed a "resolved".

    `identity` is that of the alert (its rule and labels), the same when it fires again: the cooldown counts by it.
    """

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="notices")
    contact = models.ForeignKey(Contact, on_delete=models.SET_NULL, null=True, related_name="notices")
    contact_name = models.CharField(max_length=100)
    delivery = models.ForeignKey(Delivery, on_delete=models.SET_NULL, null=True, related_name="notices")
    group = models.ForeignKey(NotificationGroup, on_delete=models.SET_NULL, null=True, related_name="notices")
    escalation = models.ForeignKey(Escalation, on_delete=models.SET_NULL, null=True, related_name="notices")
    kind = models.CharField(max_length=10, choices=notice_kinds)
    identity = models.CharField(max_length=80)
    severity = models.CharField(max_length=10, choices=severities)
    reason = models.CharField(max_length=200)
    at = models.DateTimeField()
    settled_at = models.DateTimeField(null=True, help_text="When it was certain that somebody knows, or nobody can.")

    objects = NoticeQuerySet.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        indexes = (
            models.Index(fields=["alert", "contact"], name="notice_of_alert"),
            models.Index(fields=["contact", "identity", "-at"], condition=Q(kind="firing"), name="notice_cooldown"),
            models.Index(fields=["id"], condition=Q(settled_at__isnull=True), name="notice_unsettled"),
            models.Index(fields=["-at", "-id"], name="notice_newest"),
        )
        constraints = (
            models.UniqueConstraint(
                fields=["alert", "contact", "group"], condition=Q(kind="resolved"), name="notice_resolved_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind}: {self.alert_id} to {self.contact_name}"
