"""What is watched and what was found: rules with levels, alerts, incidents and every transition between states."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import MD5, Coalesce

from apps.accounts.models import Calendar, Team
from apps.alerting import lifecycle, matching
from apps.alerting.lifecycle import Reason, Severity, State
from apps.alerting.recurrence import Times
from apps.alerting.recurrence import parse as parse_rule

if TYPE_CHECKING:
    from apps.accounts.permissions import Scope
    from apps.promql.source import Matcher

Choices = list[tuple[str, str]]

METRIC_NAME = RegexValidator(
    r"^[a-zA-Z_:][a-zA-Z0-9_:]*\Z",
    "A recorded series' name has letters, digits, underscores and colons, and does not start with a digit.",
)


# Choices are functions: a migration then names the function and never changes when a value is added.
def severities() -> Choices:
    """How bad a level or an alert is, mildest first."""
    return [(severity.value, severity.name.capitalize()) for severity in Severity]


def categories() -> Choices:
    """The seed's four types of rules, and what comes from outside without one."""
    return [
        ("performance", "Performance"),
        ("system", "System"),
        ("business", "Business"),
        ("security", "Security"),
        ("custom", "Custom"),
    ]


def comparisons() -> Choices:
    """PromQL's comparison operators; empty means that any result of the expression is a breach."""
    return [("", "any result"), *((sign, sign) for sign in (">", ">=", "<", "<=", "==", "!="))]


def no_data_policies() -> Choices:
    """What an absent series means."""
    return [
        ("ok", "Resolve, with the reason"),
        ("keep", "Keep the last state"),
        ("alert", "A no-data alert"),
        ("fire", "Fire"),
    ]


def error_policies() -> Choices:
    """What an expression that fails means."""
    return [("keep", "Keep the last state"), ("ok", "Resolve"), ("alert", "An error alert"), ("fire", "Fire")]


def states() -> Choices:
    """The states of lifecycle.State."""
    return [(state.value, state.name.capitalize()) for state in State]


def reasons() -> Choices:
    """The reasons of lifecycle.Reason."""
    return [(reason.value, reason.name.capitalize().replace("_", " ")) for reason in Reason]


def sources() -> Choices:
    """Where an alert came from."""
    return [
        ("rule", "Rule"),
        ("posted", "Posted through the API"),
        ("alertmanager", "Told by a Prometheus or an Alertmanager"),
        ("pagerduty", "PagerDuty event"),
    ]


def transition_kinds() -> Choices:
    """What a transition row tells."""
    return [
        ("state", "State"),
        ("severity", "Severity"),
        ("acknowledged", "Acknowledged"),
        ("unacknowledged", "Acknowledgement withdrawn"),
        ("reminder", "Reminder"),
        ("moved", "Moved to another incident"),
        ("flapping", "Flapping"),
    ]


def directions() -> Choices:
    """On which side of what is expected a value is an anomaly."""
    return [("both", "Above and below"), ("above", "Above"), ("below", "Below")]


def alert_key() -> str:
    """Return a new public id of an alert."""
    return f"alert_{secrets.token_hex(10)}"


class RuleGroup(models.Model):
    """Rules that are evaluated together, at the same instants."""

    name = models.CharField(max_length=200, unique=True)
    interval = models.DurationField(
        default=timedelta(seconds=30), help_text="How often its rules are evaluated; ticks are multiples of it."
    )
    enabled = models.BooleanField(default=True, help_text="Switched off, none of its rules is evaluated.")
    on_arrival = models.BooleanField(
        default=False,
        help_text="Evaluated as soon as samples arrive, at most five times a second, besides at its interval.",
    )

    class Meta:
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(
                condition=Q(interval__gte=timedelta(seconds=1)), name="rulegroup_interval_is_a_second"
            ),
        )

    def __str__(self) -> str:
        return self.name


class AlertRule(models.Model):
    """A question to the store with levels of bad answers. Its alerts are told apart by the labels of the expression."""

    slug = models.SlugField(
        max_length=100,
        unique=True,
        help_text="Short id of the rule, for example slow-response. Alerts carry it as their type.",
    )
    name = models.CharField(max_length=200, help_text="For people; becomes the label alertname.")
    group = models.ForeignKey(RuleGroup, on_delete=models.PROTECT, related_name="rules")
    type = models.CharField(max_length=20, choices=categories, default="system")
    expression = models.TextField(help_text="PromQL without the comparison; the levels compare its value.")
    pending_period = models.DurationField(
        "for", default=timedelta(0), help_text="How long a level must be breached without a break before it fires."
    )
    keep_firing_for = models.DurationField(
        default=timedelta(0), help_text="How long a level goes on firing after its last breach."
    )
    labels = models.JSONField(default=dict, blank=True, help_text="Labels added to its alerts; Go templates allowed.")
    annotations = models.JSONField(
        default=dict, blank=True, help_text="Texts of its alerts (summary, description, …); Go templates allowed."
    )
    cooldown = models.DurationField(
        default=timedelta(minutes=5),
        help_text="Least time between two firing notices of one alert to one contact, and before an alert that a "
        "person resolved may fire again.",
    )
    no_data_policy = models.CharField(max_length=20, choices=no_data_policies, default="ok")
    error_policy = models.CharField(max_length=20, choices=error_policies, default="keep")
    missing_evaluations = models.PositiveSmallIntegerField(
        default=1, help_text="Evaluations in a row without the series (or any result) before it counts as missing."
    )
    new_series_delay = models.DurationField(
        default=timedelta(0), help_text="How long a series must exist before the rule looks at it."
    )
    schedule = models.ForeignKey(
        Calendar,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Outside these hours nothing begins to fire; what fires stays until it has recovered.",
    )
    detects_flapping = models.BooleanField(
        "detect flapping",
        default=True,
        help_text="Whoever hears of an alert that comes and goes too often is told so once, instead of each time; "
        "critical ones are told in any case.",
    )
    service = models.CharField(
        max_length=100, blank=True, default="", help_text="The service it watches; becomes a label."
    )
    runbook = models.TextField(
        blank=True, default="", help_text="What to do when it fires: one step a line, in order; or a link."
    )
    review_on = models.DateField(
        null=True, blank=True, help_text="When somebody looks whether it is still right; from then on it is due."
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    team = models.ForeignKey(Team, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    saved_although_failed: Collection[str] = ()
    """Names of the unit tests that failed when this instance was saved; of one that was only read nothing is known."""

    class Meta:
        ordering = ("slug",)
        constraints = (
            models.CheckConstraint(condition=Q(pending_period__gte=timedelta(0)), name="alertrule_for_is_no_debt"),
            models.CheckConstraint(condition=Q(keep_firing_for__gte=timedelta(0)), name="alertrule_keep_is_no_debt"),
            models.CheckConstraint(condition=Q(cooldown__gte=timedelta(0)), name="alertrule_cooldown_is_no_debt"),
            models.CheckConstraint(condition=~Q(expression=""), name="alertrule_has_an_expression"),
            models.CheckConstraint(condition=Q(missing_evaluations__gte=1), name="alertrule_misses_once"),
        )

    def __str__(self) -> str:
        return self.name


class RuleLevel(models.Model):
    """One severity of a rule: which values are that bad. Without a threshold every result of the expression is."""

    rule = models.ForeignKey(AlertRule, on_delete=models.CASCADE, related_name="levels")
    severity = models.CharField(max_length=10, choices=severities)
    comparison = models.CharField(max_length=2, choices=comparisons, blank=True, default="")
    threshold = models.FloatField(null=True, blank=True)
    recovery_threshold = models.FloatField(
        null=True, blank=True, help_text="What fires goes on until the value is back behind this, too."
    )
    recovery_expression = models.TextField(
        blank=True, default="", help_text="PromQL: what fires goes on until this has a result with the same labels."
    )

    class Meta:
        ordering = ("rule", "id")
        constraints = (
            models.UniqueConstraint(fields=["rule", "severity"], name="rulelevel_severity_once_a_rule"),
            models.CheckConstraint(
                condition=Q(comparison="", threshold__isnull=True) | (~Q(comparison="") & Q(threshold__isnull=False)),
                name="rulelevel_comparison_has_threshold",
            ),
            models.CheckConstraint(
                condition=Q(recovery_threshold__isnull=True) | Q(threshold__isnull=False),
                name="rulelevel_recovery_has_threshold",
            ),
        )

    def __str__(self) -> str:
        return f"{self.severity} {self.comparison} {self.threshold:g}" if self.threshold is not None else self.severity


class RecordingRule(models.Model):
    """An expression whose result is kept as a series of its own."""

    group = models.ForeignKey(RuleGroup, on_delete=models.PROTECT, related_name="recording_rules")
    name = models.CharField(max_length=200, validators=[METRIC_NAME], help_text="Name of the series it writes.")
    expression = models.TextField()
    labels = models.JSONField(default=dict, blank=True, help_text="Labels added to the series it writes.")
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("name", "id")
        constraints = (
            models.UniqueConstraint(
                F("group"), F("name"), F("labels"), MD5("expression"), name="recordingrule_once_a_group"
            ),
            models.CheckConstraint(condition=~Q(expression=""), name="recordingrule_has_an_expression"),
        )

    def __str__(self) -> str:
        return self.name


class AdaptiveBand(models.Model):
    """What is usual, learned hour by hour: of a rule's expression, or of one of its own. See bands.py.

    Written as series at every evaluation: `anomaly:lower_band`, `anomaly:upper_band` and `anomaly:score`, with the
    labels of the expression and `band`, its slug. The levels of its rule that have no threshold are breached outside.
    """

    slug = models.SlugField(max_length=100, unique=True, help_text="Short id; its series carry it as the label band.")
    rule = models.OneToOneField(
        AlertRule,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="band",
        help_text="The rule whose expression it watches; its levels without a threshold are breached outside the band.",
    )
    group = models.ForeignKey(
        RuleGroup,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="bands",
        help_text="Where it has no rule: the group with which it is evaluated.",
    )
    expression = models.TextField(blank=True, default="", help_text="Where it has no rule: what it watches, in PromQL.")
    direction = models.CharField(max_length=10, choices=directions, default="both")
    width = models.FloatField(
        default=5.0, help_text="Robust standard deviations from what is expected to its edge; less is more sensitive."
    )
    least = models.FloatField(default=0.0, help_text="What deviates less than this is never an anomaly.")
    least_share = models.FloatField(default=0.1, help_text="The same as a share of what is expected: 0.1 is a tenth.")
    warm_up = models.DurationField(
        default=timedelta(days=2), help_text="How long a series must be known before it is judged."
    )
    calendar = models.ForeignKey(
        "accounts.Calendar",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="Its time zone says which hour it is, and its holidays count as Sundays. None: UTC, no holidays.",
    )
    enabled = models.BooleanField(default=True)
    learned_until = models.DateTimeField(null=True, editable=False, help_text="The end of the last hour it knows.")
    revision = models.PositiveBigIntegerField(default=1, editable=False, help_text="Counts what changes its bands.")
    error = models.TextField(blank=True, default="", editable=False)

    class Meta:
        ordering = ("slug",)
        constraints = (
            models.CheckConstraint(
                condition=Q(rule__isnull=False, group__isnull=True, expression="")
                | (Q(rule__isnull=True, group__isnull=False) & ~Q(expression="")),
                name="adaptiveband_of_a_rule_or_its_own",
            ),
            models.CheckConstraint(
                condition=Q(width__gt=0, least__gte=0, least_share__gte=0), name="adaptiveband_has_a_width"
            ),
        )

    def __str__(self) -> str:
        return self.slug

    @property
    def watched(self) -> str:
        """The expression it watches."""
        return self.expression if self.rule is None else self.rule.expression


class BandSeries(models.Model):
    """What a band knows of one series: five weeks by the hour in 12 bytes each, and what feedback taught."""

    band = models.ForeignKey(AdaptiveBand, on_delete=models.CASCADE, related_name="series")
    fingerprint = models.BinaryField(max_length=16)
    labels = models.JSONField(default=dict)
    first_hour = models.IntegerField(help_text="Hours since 1970 of the first that is known.")
    hours = models.BinaryField(help_text="bands.pack")
    widened = models.JSONField(default=dict, help_text="Factor by hour of the week, Monday 0:00 is 0.")
    seen_at = models.DateTimeField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["band", "fingerprint"], name="bandseries_once_a_band"),)

    def __str__(self) -> str:
        return f"{self.band_id}: {self.labels}"


class RuleTest(models.Model):
    """A unit test in promtool's format that stands or falls with a rule, or with a group: it is run on every save."""

    rule = models.ForeignKey(AlertRule, on_delete=models.CASCADE, null=True, blank=True, related_name="tests")
    group = models.ForeignKey(RuleGroup, on_delete=models.CASCADE, null=True, blank=True, related_name="tests")
    name = models.CharField(max_length=200)
    text = models.TextField(
        help_text="YAML as for promtool test rules, without rule_files: the rules are those of the portal."
    )
    is_shipped = models.BooleanField(
        default=False,
        editable=False,
        help_text="As the release has it: it expects the shipped rule, so it does not refuse a change of one.",
    )

    class Meta:
        ordering = ("rule", "group", "name")
        constraints = (
            models.UniqueConstraint(fields=["rule", "name"], name="ruletest_name_once_a_rule"),
            models.UniqueConstraint(fields=["group", "name"], name="ruletest_name_once_a_group"),
            models.CheckConstraint(
                condition=Q(rule__isnull=True, group__isnull=False) | Q(rule__isnull=False, group__isnull=True),
                name="ruletest_of_a_rule_or_a_group",
            ),
        )

    def __str__(self) -> str:
        return self.name


class GroupRun(models.Model):
    """The clock of a group and what its last evaluation found: one row, so that a tick writes nothing per rule.

    `results`: {"rules": {id: {"value", "series", "breached", "error"}}, "recording": {id: {"series", "error"}},
    "alerts": {alert id: value}, "names": [recorded series' names]}; absent keys are their zero.
    """

    group = models.OneToOneField(RuleGroup, on_delete=models.CASCADE, related_name="run")
    due_at = models.DateTimeField()
    evaluated_at = models.DateTimeField(null=True, help_text="The tick it was evaluated for.")
    resumed_at = models.DateTimeField(null=True, help_text="The first tick after the last gap in evaluations.")
    duration = models.DurationField(default=timedelta(0))
    missed = models.BigIntegerField(default=0, help_text="Ticks that were skipped, since the group exists.")
    results = models.JSONField(default=dict)

    class Meta:
        indexes = (models.Index(fields=["due_at"], name="grouprun_due"),)

    def __str__(self) -> str:
        return f"{self.group_id}: {self.evaluated_at}"


class IncidentQuerySet(models.QuerySet["Incident"]):
    """Questions about incidents."""

    def open(self) -> IncidentQuerySet:
        """Return those with an alert that is still wrong."""
        return self.filter(state="open")

    def visible_to(self, scope: Scope) -> IncidentQuerySet:
        """Return those of which the scope may see an alert."""
        if not scope.matchers:
            return self
        return self.filter(pk__in=Alert.objects.visible_to(scope).values("incident"))


def incident_states() -> Choices:
    """An incident is open as long as one of its alerts is active; one that was merged is resolved, too."""
    return [("open", "Open"), ("resolved", "Resolved")]


class Incident(models.Model):
    """Alerts that belong together: what a person works on. An alert that belongs to nothing else has its own."""

    title = models.CharField(max_length=300)
    state = models.CharField(max_length=10, choices=incident_states, default="open")
    severity = models.CharField(max_length=10, choices=severities, help_text="The worst that any of its alerts had.")
    opened_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=200, blank=True, default="")
    cause = models.ForeignKey(
        "Alert", on_delete=models.SET_NULL, null=True, blank=True, related_name="+", help_text="The probable cause."
    )
    reasons = models.JSONField(default=list, blank=True, help_text="Why that is the probable cause: sentences.")
    merged_into = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="absorbed",
        help_text="It took its alerts.",
    )
    is_by_hand = models.BooleanField(
        default=False, help_text="Somebody merged or split it: correlation moves nothing into or out of it any more."
    )

    objects = IncidentQuerySet.as_manager()

    class Meta:
        ordering = ("-opened_at", "-id")
        indexes = (
            models.Index(fields=["-opened_at"], name="incident_newest"),
            models.Index(fields=["id"], condition=Q(state="open"), name="incident_open"),
        )
        constraints = (
            models.CheckConstraint(
                condition=Q(state="open", resolved_at__isnull=True) | Q(state="resolved", resolved_at__isnull=False),
                name="incident_resolved_has_time",
            ),
            models.CheckConstraint(
                condition=Q(acknowledged_at__isnull=True, acknowledged_by="")
                | (Q(acknowledged_at__isnull=False) & ~Q(acknowledged_by="")),
                name="incident_acknowledged_by_someone",
            ),
        )

    def __str__(self) -> str:
        return self.title


def _narrowed(found: Any, scope: Scope) -> Any:
    """Those rows whose `labels` all matchers of the scope accept; an absent label counts as the empty string."""
    for number, (name, op, value) in enumerate(scope.matchers):
        alias = f"scope_{number}"
        text = Coalesce(KeyTextTransform(name, "labels"), models.Value(""), output_field=models.TextField())
        found = found.alias(**{alias: text})
        lookup = {alias: value} if op in ("=", "!=") else {f"{alias}__regex": f"^(?:{value})$"}
        found = found.exclude(**lookup) if op.startswith("!") else found.filter(**lookup)
    return found


class IncidentTrait(models.Model):
    """Something by which new alerts find an open incident: a service, a host, a kind of alert in a cluster."""

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="traits")
    trait = models.CharField(max_length=300)
    seen_at = models.DateTimeField(help_text="When an alert with it last joined.")

    class Meta:
        ordering = ("id",)
        indexes = (models.Index(fields=["trait", "-seen_at"], name="incidenttrait_newest"),)
        constraints = (models.UniqueConstraint(fields=["incident", "trait"], name="incidenttrait_once"),)

    def __str__(self) -> str:
        return self.trait


class AlertQuerySet(models.QuerySet["Alert"]):
    """Questions about alerts."""

    def active(self) -> AlertQuerySet:
        """Return what is wrong now: firing or recovering, acknowledged or not."""
        return self.filter(state__in=("firing", "recovering"))

    def open(self) -> AlertQuerySet:
        """Return what is being watched: active ones and those that are pending."""
        return self.filter(state__in=("pending", "firing", "recovering"))

    def history(self) -> AlertQuerySet:
        """Return everything that ever fired, newest first."""
        return self.filter(fired_at__isnull=False).order_by("-fired_at", "-id")

    def visible_to(self, scope: Scope) -> AlertQuerySet:
        """Return those whose labels all matchers of the scope accept; an absent label counts as the empty string."""
        found: AlertQuerySet = _narrowed(self, scope)
        return found


_OPEN = Q(state__in=("pending", "firing", "recovering"))


class Alert(models.Model):
    """One finding from its first breach to its end; a later breach of the same series is a new alert.

    `fingerprint` is the identity: 16 bytes of blake2b over the labels of the expression (without the severity, so that
    one that gets worse stays the same alert), or over what was posted. `version` is what compare-and-swap compares.
    """

    key = models.CharField(max_length=60, unique=True, default=alert_key, editable=False)
    rule = models.ForeignKey(AlertRule, on_delete=models.SET_NULL, null=True, blank=True, related_name="alerts")
    source = models.CharField(max_length=20, choices=sources, default="rule")
    type = models.CharField(max_length=100, help_text="Slug of its rule, or what was posted.")
    category = models.CharField(max_length=20, choices=categories)
    fingerprint = models.BinaryField(max_length=16)
    labels = models.JSONField(default=dict)
    annotations = models.JSONField(default=dict)
    state = models.CharField(max_length=12, choices=states)
    severity = models.CharField(max_length=10, choices=severities)
    levels = models.JSONField(
        default=dict, help_text="Where each level of its rule stands: {severity: [state, since]}."
    )
    value = models.FloatField(null=True, blank=True, help_text="The value at its last transition.")
    threshold = models.FloatField(null=True, blank=True, help_text="The threshold of its severity.")
    message = models.TextField(blank=True, default="")
    service = models.CharField(max_length=100, blank=True, default="")
    metadata = models.JSONField(default=dict, blank=True)
    count = models.PositiveIntegerField(default=1, help_text="How often it was posted.")
    pending_at = models.DateTimeField(null=True, blank=True)
    fired_at = models.DateTimeField(null=True, blank=True)
    recovering_at = models.DateTimeField(null=True, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True, help_text="When it ended, fired or not.")
    resolve_reason = models.CharField(max_length=20, choices=reasons, blank=True, default="")
    resolved_by = models.CharField(max_length=200, blank=True, default="")
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=200, blank=True, default="")
    ends_at = models.DateTimeField(null=True, blank=True, help_text="When one from outside ends by itself.")
    seen_at = models.DateTimeField(help_text="When it was last posted or last changed.")
    held_until = models.DateTimeField(
        null=True, blank=True, help_text="Resolved by a person while still wrong: nothing fires anew before this time."
    )
    absent_since = models.DateTimeField(null=True, blank=True, help_text="The first evaluation that missed its series.")
    changes = models.JSONField(
        default=list, blank=True, help_text="Of late: when it began, ended or changed its severity."
    )
    flapping_since = models.DateTimeField(
        null=True, blank=True, help_text="It comes and goes so often that this is told once, until it has ceased."
    )
    remembered_until = models.DateTimeField(
        null=True, blank=True, help_text="How long its end counts when the next of its series is asked for flapping."
    )
    incident = models.ForeignKey(Incident, on_delete=models.PROTECT, null=True, blank=True, related_name="alerts")
    placement = models.CharField(
        max_length=300, blank=True, default="", help_text="Why it is in its incident; empty where it opened it."
    )
    version = models.PositiveBigIntegerField(default=1, editable=False)

    objects = AlertQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = (
            models.Index(fields=["rule"], condition=_OPEN, name="alert_open_by_rule"),
            models.Index(fields=["-fired_at", "-id"], condition=Q(fired_at__isnull=False), name="alert_history"),
            models.Index(fields=["ends_at"], condition=_OPEN & Q(ends_at__isnull=False), name="alert_ends"),
            models.Index(fields=["rule", "held_until"], condition=Q(held_until__isnull=False), name="alert_held"),
            models.Index(fields=["resolved_at"], condition=Q(state="inactive"), name="alert_inactive"),
            models.Index(fields=["service"], condition=_OPEN, name="alert_open_by_service"),
            models.Index(
                fields=["remembered_until"], condition=Q(remembered_until__isnull=False), name="alert_remembered"
            ),
            models.Index(fields=["rule"], condition=Q(flapping_since__isnull=False), name="alert_flapping"),
        )
        constraints = (
            models.UniqueConstraint(
                fields=["rule", "fingerprint"], condition=_OPEN & Q(source="rule"), name="alert_open_once_a_rule"
            ),
            models.UniqueConstraint(
                fields=["source", "fingerprint"], condition=_OPEN & ~Q(source="rule"), name="alert_open_once_a_source"
            ),
            models.CheckConstraint(
                condition=~(_OPEN & Q(source="rule")) | Q(rule__isnull=False), name="alert_open_has_its_rule"
            ),
            models.CheckConstraint(
                condition=(_OPEN & Q(resolved_at__isnull=True, resolve_reason="", resolved_by=""))
                | (~_OPEN & Q(resolved_at__isnull=False) & ~Q(resolve_reason="")),
                name="alert_ended_has_time_and_reason",
            ),
            models.CheckConstraint(
                condition=(
                    Q(state__in=("pending", "inactive"), fired_at__isnull=True, incident__isnull=True)
                    | Q(state__in=("firing", "recovering", "resolved"), fired_at__isnull=False, incident__isnull=False)
                ),
                name="alert_fired_has_time_and_incident",
            ),
            models.CheckConstraint(
                condition=~Q(state="recovering") | Q(recovering_at__isnull=False), name="alert_recovering_has_time"
            ),
            models.CheckConstraint(
                condition=Q(acknowledged_at__isnull=True, acknowledged_by="")
                | (Q(acknowledged_at__isnull=False, fired_at__isnull=False) & ~Q(acknowledged_by="")),
                name="alert_acknowledged_by_someone",
            ),
            models.CheckConstraint(
                condition=Q(held_until__isnull=True) | Q(resolve_reason="manual"), name="alert_held_by_a_person"
            ),
            models.CheckConstraint(condition=Q(count__gte=1), name="alert_was_seen"),
        )

    def __str__(self) -> str:
        return self.message or f"{self.type} {self.key}"

    @property
    def is_active(self) -> bool:
        """Whether it is wrong now."""
        return self.state in lifecycle.ACTIVE

    @property
    def is_held_back(self) -> bool:
        """Whether its comings and goings are not told: it flaps, and is not critical."""
        return self.flapping_since is not None and self.severity != Severity.CRITICAL

    @property
    def routing_labels(self) -> dict[str, str]:
        """What matchers see: its own labels, and alertname, type, category, severity, service where it has none."""
        extra = {"type": self.type, "category": self.category, "severity": self.severity, "service": self.service}
        named = {"alertname": self.type, **{name: value for name, value in extra.items() if value}}
        return named | {name: str(value) for name, value in self.labels.items()}


class TransitionQuerySet(models.QuerySet["Transition"]):
    """Questions about transitions."""

    def untold(self) -> TransitionQuerySet:
        """Return those that nobody has been told of yet."""
        return self.filter(told_at__isnull=True)

    def visible_to(self, scope: Scope) -> TransitionQuerySet:
        """Return those of alerts that the scope may see."""
        if not scope.matchers:
            return self
        return self.filter(alert__in=Alert.objects.visible_to(scope).values("pk"))


class Transition(models.Model):
    """One change of one alert, written in the transaction of the change: history, outbox and API answer in one row.

    `told_at` is empty for what somebody upstairs has to look at; what concerns nobody (pending and back) is born told.
    `before` and `after` are states for kind state, severities for kind severity, incidents' ids for kind moved.
    """

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="transitions")
    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, null=True, related_name="transitions")
    at = models.DateTimeField()
    kind = models.CharField(max_length=20, choices=transition_kinds, default="state")
    before = models.CharField(max_length=12, blank=True, default="")
    after = models.CharField(max_length=12, blank=True, default="")
    reason = models.CharField(max_length=20, choices=reasons)
    severity = models.CharField(max_length=10, choices=severities)
    value = models.FloatField(null=True)
    by = models.CharField(max_length=200, help_text="The person, token or loop that did it.")
    detail = models.TextField(blank=True, default="", help_text="What the reason leaves unsaid.")
    told_at = models.DateTimeField(null=True)
    claim = models.UUIDField(null=True)
    claimed_until = models.DateTimeField(null=True)

    objects = TransitionQuerySet.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        indexes = (
            models.Index(fields=["alert", "id"], name="transition_of_alert"),
            models.Index(fields=["id"], condition=Q(told_at__isnull=True), name="transition_untold"),
            models.Index(fields=["-at", "-id"], name="transition_newest"),
        )
        constraints = (
            models.CheckConstraint(
                condition=Q(claim__isnull=True, claimed_until__isnull=True)
                | Q(claim__isnull=False, claimed_until__isnull=False),
                name="transition_claim_has_end",
            ),
        )

    def __str__(self) -> str:
        return f"{self.before or 'new'} → {self.after}"


# --- Changes: what was done beside what went wrong -------------------------------------------------------------------
def change_kinds() -> Choices:
    """What was changed."""
    return [("deployment", "Deployment"), ("configuration", "Configuration"), ("other", "Other")]


def change_key() -> str:
    """Return a new public id of a change."""
    return f"change_{secrets.token_hex(10)}"


class ChangeQuerySet(models.QuerySet["Change"]):
    """Questions about changes."""

    def visible_to(self, scope: Scope) -> ChangeQuerySet:
        """Return those whose labels (service, kind) all matchers of the scope accept."""
        found: ChangeQuerySet = _narrowed(self, scope)
        return found


class Change(models.Model):
    """A deployment or another change, as who made it told it. `ident` is the teller's own id of it, kept once."""

    key = models.CharField(max_length=60, unique=True, default=change_key, editable=False)
    at = models.DateTimeField(help_text="When it was made.")
    kind = models.CharField(max_length=20, choices=change_kinds, default="deployment")
    title = models.CharField(max_length=300)
    service = models.CharField(max_length=100, blank=True, default="")
    author = models.CharField(max_length=200, blank=True, default="", help_text="Who made it, as it was told.")
    link = models.CharField(max_length=2000, blank=True, default="")
    details = models.JSONField(default=dict, blank=True)
    labels = models.JSONField(default=dict, blank=True, editable=False)
    teller = models.CharField(max_length=60, editable=False)
    ident = models.CharField(max_length=200, null=True, blank=True, editable=False)
    created_by = models.CharField(max_length=200, help_text="The person or token that told of it.")
    created_at = models.DateTimeField()

    objects = ChangeQuerySet.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        indexes = (models.Index(fields=["-at", "-id"], name="change_newest"),)
        constraints = (
            models.UniqueConstraint(fields=["teller", "ident"], name="change_once_a_teller"),
            models.CheckConstraint(condition=~Q(title=""), name="change_has_a_title"),
        )

    def __str__(self) -> str:
        return self.title


# --- Quiet: what is wrong and nobody is paged for --------------------------------------------------------------------
class Recurring(models.Model):
    """From `starts_at` to `ends_at`; with a `recurrence` only for `duration` from each of its occurrences on."""

    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(help_text="Nothing is quiet for ever.")
    recurrence = models.CharField(
        max_length=500, blank=True, default="", help_text="RRULE, for example FREQ=WEEKLY;BYDAY=SA,SU."
    )
    duration = models.DurationField(null=True, blank=True, help_text="How long each occurrence lasts.")
    time_zone = models.CharField(max_length=64, default="UTC", help_text="Whose clock the recurrence follows.")

    class Meta:
        abstract = True

    @property
    def times(self) -> Times:
        """When it holds."""
        if not self.recurrence or self.duration is None:
            return Times(self.starts_at, self.ends_at)
        rule = parse_rule(self.recurrence)
        return Times(self.starts_at, self.ends_at, rule, self.time_zone, self.duration)

    def state(self, now: datetime) -> str:
        """Alertmanager's pending, active or expired; between two occurrences it is pending."""
        if now >= self.ends_at:
            return "expired"
        return "pending" if self.times.holds_until(now) is None else "active"


def _span_is_sound(name: str) -> tuple[models.CheckConstraint, ...]:
    return (
        models.CheckConstraint(condition=Q(ends_at__gte=F("starts_at")), name=f"{name}_ends_after_it_starts"),
        models.CheckConstraint(
            condition=Q(recurrence="", duration__isnull=True) | (~Q(recurrence="") & Q(duration__gt=timedelta(0))),
            name=f"{name}_recurrence_has_duration",
        ),
    )


class SilenceQuerySet(models.QuerySet["Silence"]):
    """Questions about silences."""

    def current(self, now: datetime) -> SilenceQuerySet:
        """Return those that are not over: active ones and those that will be."""
        return self.filter(ends_at__gt=now)

    def visible_to(self, scope: Scope) -> SilenceQuerySet:
        """Return those that can mute nothing beyond the scope: they hold all of its matchers."""
        if not scope.matchers:
            return self
        return self.filter(matchers__contains=matching.to_json(matching.of_scope(scope.matchers)))


class Silence(Recurring):
    """Nobody is paged for alerts that all matchers accept; they are evaluated, shown and resolved as ever."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    matchers = models.JSONField(help_text='Alertmanager\'s: [{"name", "value", "isRegex", "isEqual"}, …].')
    until_resolved = models.BooleanField(
        default=False, help_text="Ends as soon as nothing that it mutes is wrong any more, at the latest at its end."
    )
    comment = models.TextField(help_text="Why nobody has to know.")
    created_by = models.CharField(max_length=200)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    remind_at = models.DateTimeField(null=True, blank=True, help_text="When its author is told that it will end.")
    reminded_at = models.DateTimeField(null=True, blank=True)

    objects = SilenceQuerySet.as_manager()

    class Meta:
        ordering = ("ends_at", "id")
        indexes = (
            models.Index(fields=["ends_at"], name="silence_ends"),
            models.Index(
                fields=["remind_at"],
                condition=Q(remind_at__isnull=False, reminded_at__isnull=True),
                name="silence_to_remind",
            ),
        )
        constraints = (
            *_span_is_sound("silence"),
            models.CheckConstraint(condition=~Q(matchers=[]), name="silence_has_matchers"),
        )

    def __str__(self) -> str:
        return f"{self.spelled} by {self.created_by}"[:300]

    @property
    def parsed(self) -> tuple[Matcher, ...]:
        """Its matchers."""
        return matching.from_json(self.matchers)

    @property
    def spelled(self) -> str:
        """Its matchers as people write them."""
        return matching.spelled(self.parsed)


class ServiceQuerySet(models.QuerySet["Service"]):
    """Questions about services."""

    def visible_to(self, scope: Scope) -> ServiceQuerySet:
        """Return those whose name (as the label service) and team (as the label team) the scope accepts."""
        if not scope.matchers:
            return self
        wanted = matching.of_scope(scope.matchers)
        rows = self.select_related(None).values_list("pk", "name", "team__name")
        seen = [pk for pk, name, team in rows if matching.accept(wanted, {"service": name, "team": team or ""})]
        return self.filter(pk__in=seen)


class Service(models.Model):
    """Something that runs: alerts name it by their label service, and it fails when what it depends on fails."""

    name = models.CharField(max_length=100, unique=True, help_text="As alerts have it in their label service.")
    description = models.CharField(max_length=300, blank=True, default="")
    team = models.ForeignKey("accounts.Team", on_delete=models.SET_NULL, null=True, blank=True, related_name="services")
    depends_on = models.ManyToManyField(
        "self", symmetrical=False, blank=True, related_name="depended_on_by", help_text="What it cannot work without."
    )
    fails_at = models.CharField(
        max_length=10,
        choices=severities,
        default="critical",
        help_text="An alert this bad means that it has failed: pages of what depends on it are held back.",
    )

    objects = ServiceQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = (models.CheckConstraint(condition=~Q(name=""), name="service_has_a_name"),)

    def __str__(self) -> str:
        return self.name


class MaintenanceWindowQuerySet(models.QuerySet["MaintenanceWindow"]):
    """Questions about maintenance windows."""

    def current(self, now: datetime) -> MaintenanceWindowQuerySet:
        """Return those that are not over."""
        return self.filter(ends_at__gt=now)

    def visible_to(self, scope: Scope) -> MaintenanceWindowQuerySet:
        """Return those of services that the scope sees, and those whose matchers hold all of the scope's."""
        if not scope.matchers:
            return self
        held = Q(matchers__contains=matching.to_json(matching.of_scope(scope.matchers)))
        return self.filter(held | Q(service__in=Service.objects.visible_to(scope)))


class MaintenanceWindow(Recurring):
    """Planned work on a service or on whatever matchers accept: nobody is paged for it; what outlives it is told."""

    name = models.CharField(max_length=200)
    description = models.TextField(blank=True, default="")
    service = models.ForeignKey(
        Service, on_delete=models.CASCADE, null=True, blank=True, related_name="maintenance_windows"
    )
    matchers = models.JSONField(default=list, blank=True, help_text="Instead of, or beside, a service.")
    excluded_from_sla = models.BooleanField(
        "excluded from SLA", default=False, help_text="Its time does not count against objectives."
    )
    created_by = models.CharField(max_length=200, editable=False)
    created_at = models.DateTimeField(editable=False)
    updated_at = models.DateTimeField(editable=False)

    objects = MaintenanceWindowQuerySet.as_manager()

    class Meta:
        ordering = ("starts_at", "id")
        indexes = (models.Index(fields=["ends_at"], name="maintenancewindow_ends"),)
        constraints = (
            *_span_is_sound("maintenancewindow"),
            models.CheckConstraint(
                condition=Q(service__isnull=False) | ~Q(matchers=[]), name="maintenancewindow_of_something"
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def parsed(self) -> tuple[Matcher, ...]:
        """Its matchers, those of its service among them."""
        own = matching.from_json(self.matchers)
        return own if self.service is None else (matching.equals("service", self.service.name), *own)


class Inhibition(models.Model):
    """While an alert matches the source, nobody is paged for those that match the target and agree in `equal`."""

    name = models.CharField(max_length=100, unique=True)
    source_matchers = models.JSONField(help_text="The alert that explains the others.")
    target_matchers = models.JSONField(help_text="The alerts that nobody needs to hear of then.")
    equal = models.JSONField(
        default=list, blank=True, help_text="Labels that both must have in common; absent is like empty."
    )
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ("name",)
        verbose_name = "inhibition rule"
        constraints = (
            models.CheckConstraint(
                condition=~Q(source_matchers=[]) & ~Q(target_matchers=[]), name="inhibition_has_both_sides"
            ),
        )

    def __str__(self) -> str:
        return self.name


class QuietChange(models.Model):
    """Somebody changed what is quiet: on-call looks again at whatever it holds back, and deletes the row."""

    at = models.DateTimeField()
    what = models.CharField(max_length=200)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return self.what
