"""Who is told, when: policies, routes, the groups in which alerts are told, running escalations, and who was told."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from apps.accounts.hours import parse_week, parse_zone
from apps.accounts.models import Calendar, User
from apps.alerting.models import Alert, AlertRule, Incident, severities
from apps.core.secrets import EncryptedJSONField
from apps.notifications.models import Contact, Delivery
from apps.oncall.rotation import Booked, Source
from apps.oncall.rotation import Layer as Turns
from apps.oncall.rotation import Override as Span
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


def rotations() -> Choices:
    """What the length of a turn is counted in, or where turns stand."""
    return [("daily", "Days"), ("weekly", "Weeks"), ("calendar", "As a calendar says")]


def weekdays() -> list[tuple[int, str]]:
    """Days of the week, Monday is 0."""
    return list(enumerate(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")))


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

    @property
    def policies(self) -> list[str]:
        """Names of the other policies that hand over to this one, by its name as it is stored."""
        stored = list(Policy.objects.filter(pk=self.pk).values_list("name", flat=True))
        named = Policy.objects.filter(steps__kind="hand_over", steps__config__policy__in=stored).exclude(pk=self.pk)
        return list(named.distinct().values_list("name", flat=True))

    def clean(self) -> None:
        """Refuse another name while a policy hands over to this one."""
        is_renamed = self.pk and not Policy.objects.filter(pk=self.pk, name=self.name).exists()
        if is_renamed and (users := self.policies):
            raise ValidationError({"name": f"{', '.join(users)} hand over to its present name: change those first."})


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

    `plan` is the policy as it was when this began, {"name", "steps": [{"kind", "config"}, …]} with the steps of those
    that it hands over to (see `oncall.escalation`): editing a policy never disturbs a page in flight.
    """

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="escalations")
    group = models.ForeignKey(NotificationGroup, on_delete=models.SET_NULL, null=True, related_name="escalations")
    policy = models.ForeignKey(Policy, on_delete=models.SET_NULL, null=True, related_name="escalations")
    plan = models.JSONField()
    position = models.PositiveSmallIntegerField(default=0, help_text="The step that comes next, counted from 0.")
    rounds = models.PositiveSmallIntegerField(default=0, help_text="How often it has started over.")
    turns = models.JSONField(default=dict, help_text="Who was told by steps in turn, as {position:round: person}.")
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


class RoundRobin(models.Model):
    """Who had the last turn of a step that tells people in turn; `key` is that of `oncall.turns`."""

    key = models.CharField(max_length=40, unique=True)
    last = models.PositiveIntegerField(help_text="The person who was told last.")
    at = models.DateTimeField()

    class Meta:
        ordering = ("-at",)

    def __str__(self) -> str:
        return self.key


class StepTaken(models.Model):
    """A step that an escalation has taken: what it said, and whom it told or called. One that is held is none yet.

    `contacts` are the ids of those whom a step that tells somebody chose, the fall-back contact in their place not
    counted; `told` are the names of those who were told by it, which whoever knew already was not.
    """

    escalation = models.ForeignKey(Escalation, on_delete=models.CASCADE, related_name="taken")
    position = models.PositiveSmallIntegerField(help_text="Of the step in the plan, counted from 0.")
    rounds = models.PositiveSmallIntegerField(default=0)
    kind = models.CharField(max_length=40)
    reason = models.TextField()
    contacts = models.JSONField(null=True)
    told = models.JSONField(default=list)
    delivery = models.ForeignKey(Delivery, on_delete=models.SET_NULL, null=True, related_name="steps_taken")
    at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        verbose_name_plural = "steps taken"

    def __str__(self) -> str:
        return f"Step {self.position + 1} of {self.escalation_id}"


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

    def repeated(
        self,
        *,
        contact: Contact,
        delivery: Delivery,
        kind: str,
        reason: str,
        at: datetime,
        settled_at: datetime | None = None,
    ) -> Notice:
        """Return the notice that a contact was told of the same alert, in the same group, by that delivery."""
        return Notice(
            alert=self.alert,
            contact=contact,
            contact_name=contact.name,
            delivery=delivery,
            group=self.group,
            escalation=self.escalation,
            kind=kind,
            identity=self.identity,
            severity=self.severity,
            reason=reason[:200],
            at=at,
            settled_at=settled_at,
        )


# --- Who is on call --------------------------------------------------------------------------------------------------
class Schedule(models.Model):
    """Who is on call when: layers of people who take turns, and overrides above them."""

    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(blank=True, default="")
    zone = models.CharField("time zone", max_length=64, default="UTC", help_text="Such as Europe/Berlin.")
    owner = models.ForeignKey(
        User,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="schedules",
        help_text="Told of gaps in the days to come, by their own contacts. Empty: the fall-back contact is.",
    )
    holidays = models.ForeignKey(
        Calendar,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="schedules",
        help_text="The calendar whose holidays the fairness report counts. Empty: none.",
    )

    class Meta:
        ordering = ("name",)
        constraints = (models.CheckConstraint(condition=~Q(name=""), name="schedule_has_a_name"),)

    def __str__(self) -> str:
        return self.name

    @property
    def policies(self) -> list[str]:
        """Names of the policies with a step that names this schedule, as it is stored."""
        stored = Schedule.objects.filter(pk=self.pk).values_list("name", flat=True)
        named = Policy.objects.filter(steps__kind="notify_schedule", steps__config__schedule__in=list(stored))
        return list(named.distinct().values_list("name", flat=True))

    def clean(self) -> None:
        """Refuse a zone that is none, and another name while a policy uses this one."""
        try:
            parse_zone(self.zone)
        except ValueError as error:
            raise ValidationError({"zone": str(error)}) from None
        is_renamed = self.pk and not Schedule.objects.filter(pk=self.pk, name=self.name).exists()
        if is_renamed and (users := self.policies):
            raise ValidationError({"name": f"Used by {', '.join(users)} under its present name: change those first."})


class ImportedCalendar(models.Model):
    """A calendar that is kept elsewhere: an .ics file, or the address of one, whose events name who is on call.

    `content` is the last that could be read; `turns` are [begin, end, id of the person], `unmatched` the names of
    events that are nobody's. The address lets whoever knows it read the calendar: it is a secret.
    """

    name = models.CharField(max_length=100, unique=True)
    zone = models.CharField(
        "time zone", max_length=64, default="UTC", help_text="Of events that name none and of whole days."
    )
    secrets = EncryptedJSONField(default=dict, blank=True, editable=False)
    host = models.CharField(max_length=253, blank=True, default="", editable=False, help_text="Where it is fetched.")
    content = models.TextField(blank=True, default="", editable=False)
    etag = models.CharField(max_length=300, blank=True, default="", editable=False)
    turns = models.JSONField(default=list, editable=False)
    unmatched = models.JSONField(default=list, editable=False)
    remarks = models.JSONField(default=list, editable=False, help_text="What of it could not be understood.")
    read_until = models.DateTimeField(null=True, editable=False, help_text="How far ahead its events are known.")
    fetched_at = models.DateTimeField(null=True, editable=False, help_text="When it was last read without a problem.")
    due_at = models.DateTimeField(null=True, editable=False, help_text="When it is fetched and read again.")
    problem = models.TextField(blank=True, default="", editable=False)

    class Meta:
        ordering = ("name",)
        indexes = (models.Index(fields=["due_at"], name="importedcalendar_due"),)
        constraints = (models.CheckConstraint(condition=~Q(name=""), name="importedcalendar_has_a_name"),)

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse a zone that is none."""
        try:
            parse_zone(self.zone)
        except ValueError as error:
            raise ValidationError({"zone": str(error)}) from None

    @property
    def booked(self) -> tuple[tuple[datetime, datetime, int], ...]:
        """What its events mean, in order."""
        return tuple((datetime.fromisoformat(a), datetime.fromisoformat(b), who) for a, b, who in self.turns)


class Layer(models.Model):
    """People who take turns by the clock on a wall; of two layers that have somebody the later one wins."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="layers")
    position = models.PositiveSmallIntegerField(default=1, help_text="The last layer that has somebody wins.")
    name = models.CharField(max_length=100)
    people = models.JSONField(default=list, blank=True, help_text="Those who take turns, in order.")
    rotation = models.CharField(max_length=10, choices=rotations, default="weekly")
    every = models.PositiveSmallIntegerField(default=1, help_text="How many days or weeks a turn lasts.")
    hand_over = models.TimeField("hand-over", default=time(9, 0), help_text="Time of day in the time zone.")
    weekday = models.PositiveSmallIntegerField(choices=weekdays, default=0, help_text="Weekly turns begin on it.")
    zone = models.CharField(
        "time zone", max_length=64, blank=True, default="", help_text="Such as Asia/Tokyo. Empty: the schedule's."
    )
    hours = models.TextField(
        blank=True, default="", help_text="One line each, such as mon-fri 08:00-18:00. Empty: around the clock."
    )
    calendar = models.ForeignKey(
        ImportedCalendar,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="layers",
        help_text="Whose events say who is on call, where the rotation is: as a calendar says.",
    )
    starts_at = models.DateTimeField(help_text="The first of the people is on call then.")
    ends_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("schedule", "position", "id")
        constraints = (
            models.CheckConstraint(
                condition=Q(ends_at__isnull=True) | Q(ends_at__gt=models.F("starts_at")),
                name="layer_ends_after_its_start",
            ),
            models.CheckConstraint(condition=Q(every__gte=1, every__lte=366), name="layer_turns_are_of_a_year_at_most"),
            models.CheckConstraint(condition=Q(weekday__lte=6), name="layer_weekday_is_one"),
            models.CheckConstraint(
                condition=Q(rotation="calendar", calendar__isnull=False)
                | (~Q(rotation="calendar") & Q(calendar__isnull=True)),
                name="layer_has_its_calendar",
            ),
        )

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse, by field, what does not mean anything."""
        problems: dict[str, str] = {}
        for name, read in (("zone", parse_zone), ("hours", parse_week)):
            try:
                if getattr(self, name):
                    read(getattr(self, name))
            except ValueError as error:
                problems[name] = str(error)
        if self.every is not None and not 1 <= self.every <= 366:
            problems["every"] = "From 1 to 366."
        if self.ends_at and self.starts_at and self.ends_at <= self.starts_at:
            problems["ends_at"] = "It has to end after it starts."
        is_list = isinstance(self.people, list) and all(type(person) is int for person in self.people)
        if not is_list or User.objects.filter(pk__in=self.people).count() < len(set(self.people)):
            problems["people"] = "Somebody named here does not exist."
        if (self.rotation == "calendar") != (self.calendar_id is not None):
            problems["calendar"] = "A rotation by a calendar needs one; the others have none."
        if problems:
            raise ValidationError(problems)

    @property
    def turns(self) -> Source:
        """What the row means; ValueError where it means nothing."""
        if self.calendar is not None:
            ends_at = self.ends_at or datetime.max.replace(tzinfo=UTC)
            cut = ((max(begin, self.starts_at), min(after, ends_at), who) for begin, after, who in self.calendar.booked)
            return Booked(self.name, tuple(one for one in cut if one[0] < one[1]), self.calendar.read_until)
        return Turns(
            name=self.name,
            people=tuple(self.people),
            starts_at=self.starts_at,
            zone=parse_zone(self.zone or self.schedule.zone),
            hand_over=self.hand_over,
            days=self.every * (7 if self.rotation == "weekly" else 1),
            weekday=self.weekday if self.rotation == "weekly" else None,
            ends_at=self.ends_at,
            week=parse_week(self.hours),
        )


class Override(models.Model):
    """Somebody who is on call whatever the layers say; the one made last wins. A swap is two of them."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="overrides")
    person = models.ForeignKey(User, on_delete=models.CASCADE, related_name="overrides")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    by = models.CharField(max_length=200, blank=True, default="", editable=False, help_text="Who made it.")
    reason = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        ordering = ("id",)
        indexes = (models.Index(fields=["schedule", "ends_at"], name="override_of_schedule"),)
        constraints = (
            models.CheckConstraint(
                condition=Q(ends_at__gt=models.F("starts_at")), name="override_ends_after_its_start"
            ),
        )

    def __str__(self) -> str:
        return f"{self.person} for {self.schedule}"

    def clean(self) -> None:
        """Refuse one that is over before it begins."""
        if self.starts_at and self.ends_at and self.ends_at <= self.starts_at:
            raise ValidationError({"ends_at": "It has to end after it starts."})

    @property
    def span(self) -> Span:
        """What the row means."""
        return Span(self.starts_at, self.ends_at, self.person_id, self.by, self.reason)


# --- What is wrong in the days to come -------------------------------------------------------------------------------
def finding_kinds() -> Choices:
    """What is found of a schedule in the days to come."""
    return [
        ("gap", "Nobody is on call"),
        ("unreachable", "Somebody on call cannot be told"),
        ("double", "Somebody is on call twice"),
        ("clash", "Two overrides disagree"),
    ]


class CoverageFinding(models.Model):
    """Something of a schedule's next days that somebody should see to; told once, and again when it grows.

    `subject` tells findings of one kind apart: why nobody is on call, or who it is about. The row goes when it is over.
    """

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="findings")
    kind = models.CharField(max_length=20, choices=finding_kinds)
    subject = models.CharField(max_length=300)
    text = models.TextField()
    starts_at = models.DateTimeField(help_text="When it is first so.")
    hours = models.FloatField(help_text="For how long altogether.")
    told_hours = models.FloatField(null=True, help_text="For how long when it was told; empty: it has not been told.")
    found_at = models.DateTimeField()
    told_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("starts_at", "id")
        constraints = (models.UniqueConstraint(fields=["schedule", "kind", "subject"], name="coveragefinding_once"),)

    def __str__(self) -> str:
        return f"{self.schedule}: {self.text}"
