"""Scrape jobs and their targets, checks of what is asked from outside, and how the last try of each went."""

from __future__ import annotations

import secrets
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from apps.core.registry import UnknownKind
from apps.core.secrets import EncryptedJSONField
from apps.promql.source import accept, of_scope
from apps.sources.cadence import Plan
from apps.sources.probes import kinds, probes

if TYPE_CHECKING:
    from apps.accounts.rights import Scope

Choices = list[tuple[str, str]]


def schemes() -> Choices:
    """How a target is spoken to."""
    return [("http", "http"), ("https", "https")]


def credentials() -> Choices:
    """How the portal says who it is."""
    return [
        ("none", "None"),
        ("basic", "User name and password"),
        ("bearer", "Bearer token"),
        ("header", "A header of its own"),
    ]


def healths() -> Choices:
    """How a target's last scrape went."""
    return [("unknown", "Not scraped yet"), ("up", "Up"), ("down", "Down")]


class JobManager(models.Manager["ScrapeJob"]):
    """Leaves secrets in the database until one is asked for: one that no key opens must not hide all the others."""

    def get_queryset(self) -> models.QuerySet[ScrapeJob]:
        """Return every job, its secrets deferred."""
        return super().get_queryset().defer("secrets")


class ScrapeJob(models.Model):
    """A scrape_config of Prometheus: where metrics are fetched, how often, with which limits and labels."""

    name = models.CharField(max_length=100, unique=True, help_text="Becomes the label job.")
    enabled = models.BooleanField(default=True, help_text="Switched off, its series end and nothing is fetched.")
    targets = models.JSONField(default=list, blank=True, help_text="Groups of addresses with labels.")
    file_sd = models.JSONField("file discovery", default=list, blank=True)
    http_sd = models.JSONField("HTTP discovery", default=list, blank=True)
    scheme = models.CharField(max_length=5, choices=schemes, default="http")
    metrics_path = models.CharField("path", max_length=500, default="/metrics")
    params = models.JSONField("parameters", default=dict, blank=True, help_text='Of the address: {"module": ["ping"]}.')
    interval = models.DurationField(default=timedelta(seconds=30), help_text="How often each target is asked.")
    timeout = models.DurationField(default=timedelta(seconds=10), help_text="How long one answer may take as a whole.")
    honor_labels = models.BooleanField(
        default=False, help_text="A label that the target itself sets wins over the job's; else it becomes exported_…."
    )
    honor_timestamps = models.BooleanField(
        default=True, help_text="Times that the target gives are kept; else all samples have the time of the scrape."
    )
    follow_redirects = models.BooleanField(default=True)
    sample_limit = models.PositiveIntegerField(
        default=10_000, validators=[MinValueValidator(1)], help_text="A target with more samples is down."
    )
    label_limit = models.PositiveSmallIntegerField(
        default=30, validators=[MinValueValidator(1), MaxValueValidator(30)], help_text="Series with more are refused."
    )
    label_name_limit = models.PositiveSmallIntegerField(
        default=200, validators=[MinValueValidator(1), MaxValueValidator(200)], help_text="Characters of a label name."
    )
    label_value_limit = models.PositiveSmallIntegerField(
        default=1024,
        validators=[MinValueValidator(1), MaxValueValidator(1024)],
        help_text="Bytes of a label value.",
    )
    body_limit = models.PositiveIntegerField(
        default=10_000_000,
        validators=[MinValueValidator(1), MaxValueValidator(100_000_000)],
        help_text="Bytes of an answer, unpacked; a target that sends more is down.",
    )
    relabel = models.JSONField("relabelling of targets", default=list, blank=True)
    metric_relabel = models.JSONField("relabelling of metrics", default=list, blank=True)
    auth = models.CharField("credentials", max_length=10, choices=credentials, default="none")
    auth_name = models.CharField(
        "user or header name", max_length=200, blank=True, default="", help_text="The user, or the name of the header."
    )
    ca = models.TextField("CA certificates", blank=True, default="", help_text="PEM; empty: those of the system.")
    certificate = models.TextField(
        "client certificate", blank=True, default="", help_text="PEM; its key is kept encrypted."
    )
    server_name = models.CharField(
        max_length=253, blank=True, default="", help_text="The name that the target's certificate has, if another."
    )
    insecure = models.BooleanField(
        "accept any certificate", default=False, help_text="Anybody in between can then read and change what is sent."
    )
    secrets = EncryptedJSONField(default=dict, blank=True, editable=False)
    trusted = models.BooleanField(
        "private networks", default=False, editable=False,
        help_text="An administrator saved its addresses: those of private networks and of this machine may be asked.",
    )  # fmt: skip
    discovered = models.JSONField(default=dict, blank=True, editable=False)
    problem = models.TextField(blank=True, default="", editable=False, help_text="Why discovery did not work.")
    version = models.BigIntegerField(default=0, editable=False, help_text="Counts the changes.")

    objects = JobManager()

    class Meta:
        verbose_name = "scrape job"
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="job_has_a_name"),
            models.CheckConstraint(
                condition=Q(interval__gte=timedelta(seconds=1), interval__lte=timedelta(days=1)), name="job_interval"
            ),
            models.CheckConstraint(
                condition=Q(timeout__gt=timedelta(0), timeout__lte=F("interval")), name="job_timeout_within_interval"
            ),
            models.CheckConstraint(
                condition=Q(sample_limit__gte=1, label_limit__gte=1, body_limit__gte=1), name="job_has_limits"
            ),
        )

    def __str__(self) -> str:
        return self.name


class TargetQuerySet(models.QuerySet["ScrapeTarget"]):
    """Questions about targets."""

    def active(self) -> TargetQuerySet:
        """Return those that are scraped."""
        return self.filter(dropped=False, ended=False)

    def with_job(self) -> TargetQuerySet:
        """Fetch their jobs, too, without the secrets: one that no key opens must not hide all the targets."""
        return self.select_related("job").defer("job__secrets")

    def visible_to(self, scope: Scope) -> TargetQuerySet:
        """Return those whose labels the scope accepts."""
        if not scope.matchers:
            return self
        rows = self.values_list("pk", "labels")
        return self.filter(pk__in=[pk for pk, labels in rows if sees(scope, labels)])


def sees(scope: Scope, labels: dict[str, str]) -> bool:
    """Whether the scope accepts these labels."""
    return accept(of_scope(scope.matchers), labels)


class ScrapeTarget(models.Model):
    """One address of a job after relabelling: clock, lease and the outcome of the last scrape in one row.

    `holder` is the process that keeps what it knows of the target's series; another one takes over when it is late.
    Ended means: taken out of the job; its row goes once its series are marked as ended.
    """

    job = models.ForeignKey(ScrapeJob, on_delete=models.SET_NULL, null=True, related_name="found")
    key = models.CharField(max_length=32, help_text="Digest of labels and address.")
    url = models.TextField("address", blank=True, default="")
    labels = models.JSONField(default=dict)
    discovered = models.JSONField("labels before relabelling", default=dict)
    source = models.CharField(max_length=500, blank=True, default="", help_text="Where it was found.")
    interval = models.DurationField(default=timedelta(seconds=30))
    timeout = models.DurationField(default=timedelta(seconds=10))
    dropped = models.BooleanField(default=False, help_text="Relabelling takes it out.")
    ended = models.BooleanField(default=False)
    due_at = models.DateTimeField(null=True, blank=True)
    holder = models.UUIDField(null=True)
    claimed_until = models.DateTimeField(null=True)
    health = models.CharField(max_length=10, choices=healths, default="unknown")
    health_at = models.DateTimeField("since", null=True)
    last_at = models.DateTimeField("last scrape", null=True)
    duration = models.DurationField(null=True)
    error = models.TextField(blank=True, default="")
    samples = models.IntegerField(default=0, help_text="That the last scrape found.")
    kept = models.IntegerField(default=0, help_text="Of these, after relabelling.")
    added = models.IntegerField("new series", default=0)
    refused = models.IntegerField(default=0, help_text="Lines and series of the last scrape that were refused.")
    problems = models.JSONField(default=list, help_text="The first of them, each with its reason.")

    objects = TargetQuerySet.as_manager()

    class Meta:
        verbose_name = "target"
        ordering = ("job__name", "url")
        indexes = (models.Index(fields=("due_at",), condition=Q(dropped=False), name="target_due"),)
        constraints = (
            models.UniqueConstraint(fields=("job", "key"), name="target_once_in_a_job"),
            models.CheckConstraint(condition=Q(job__isnull=False) | Q(ended=True), name="target_without_job_ends"),
            models.CheckConstraint(condition=~Q(health="down") | ~Q(error=""), name="target_down_has_a_reason"),
        )

    def __str__(self) -> str:
        return self.url or str(self.discovered.get("__address__", self.key))

    @property
    def instance(self) -> str:
        """Return the label instance, by which people know it."""
        return str(self.labels.get("instance", self))

    def shown_labels(self) -> list[tuple[str, Any]]:
        """Return the labels for a page, sorted."""
        return sorted(self.labels.items())


# --- Checks ----------------------------------------------------------------------------------------------------------
def check_healths() -> Choices:
    """How a check stands."""
    return [("unknown", "Not asked yet"), ("up", "Up"), ("failing", "Failing, not confirmed"), ("down", "Down")]


class CheckQuerySet(models.QuerySet["Check"]):
    """Questions about checks."""

    def visible_to(self, scope: Scope) -> CheckQuerySet:
        """Return those whose series the scope accepts."""
        if not scope.matchers:
            return self
        return self.filter(pk__in=[check.pk for check in self if sees(scope, check.series_labels)])


class CheckManager(models.Manager.from_queryset(CheckQuerySet)):  # type: ignore[misc]
    """Leaves secrets in the database until one is asked for: one that no key opens must not hide all the others."""

    def get_queryset(self) -> CheckQuerySet:
        """Return every check, its secrets deferred."""
        return CheckQuerySet(self.model, using=self._db).defer("secrets")


class Check(models.Model):
    """Something that is asked from outside, again and again: settings, clock, lease and last outcome in one row."""

    name = models.CharField(max_length=100, unique=True, help_text="Becomes the label check.")
    kind = models.CharField(max_length=40, choices=kinds)
    enabled = models.BooleanField(default=True, help_text="Switched off, its series end and nothing is asked.")
    config = models.JSONField(default=dict, blank=True, editable=False)
    secrets = EncryptedJSONField(default=dict, blank=True, editable=False)
    labels = models.JSONField(
        default=dict, blank=True, help_text='Of its series: {"service": "shop"}; names as in PromQL.'
    )
    interval = models.DurationField(default=timedelta(minutes=1), help_text="How often it is asked.")
    timeout = models.DurationField(default=timedelta(seconds=10), help_text="How long the answer may take as a whole.")
    confirm = models.PositiveSmallIntegerField(
        "failures to be down",
        default=2,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="So many failures in a row make it down; before that it is failing, and nobody is told.",
    )
    trusted = models.BooleanField(
        "private networks", default=False, editable=False,
        help_text="An administrator saved its settings: private networks and this machine may be asked.",
    )  # fmt: skip
    health = models.CharField(max_length=10, choices=check_healths, default="unknown", editable=False)
    health_at = models.DateTimeField("since", null=True, editable=False)
    failures = models.PositiveIntegerField("failures in a row", default=0, editable=False)
    last_at = models.DateTimeField("last asked", null=True, editable=False)
    duration = models.DurationField(null=True, editable=False)
    error = models.TextField(blank=True, default="", editable=False, help_text="Why the last try failed.")
    certificate = models.JSONField(null=True, editable=False, help_text="The certificate that the server showed.")
    shown = models.JSONField(default=list, editable=False, help_text="Series that the last round wrote.")
    due_at = models.DateTimeField(null=True, editable=False)
    claim = models.UUIDField(null=True, editable=False)
    claimed_until = models.DateTimeField(null=True, editable=False)

    objects = CheckManager()

    class Meta:
        ordering = ("name",)
        indexes = (models.Index(fields=("due_at",), condition=Q(enabled=True), name="check_due"),)
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="check_has_a_name"),
            models.CheckConstraint(
                condition=Q(interval__gte=timedelta(seconds=5), interval__lte=timedelta(days=1)), name="check_interval"
            ),
            models.CheckConstraint(
                condition=Q(timeout__gte=timedelta(seconds=1), timeout__lte=F("interval")),
                name="check_timeout_within_interval",
            ),
            models.CheckConstraint(condition=Q(confirm__gte=1), name="check_confirm_at_least_one"),
            models.CheckConstraint(
                condition=~Q(health__in=["down", "failing"]) | ~Q(error=""), name="check_down_has_a_reason"
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def address(self) -> str:
        """What is asked, for people and as the label instance."""
        try:
            return probes.get(self.kind).address_of(self.config)
        except (UnknownKind, KeyError):
            return ""

    @property
    def series_labels(self) -> dict[str, str]:
        """The labels of its series; its own come first, so that they cannot hide which check it is."""
        return {**self.labels, "job": "checks", "check": self.name, "instance": self.address}

    @property
    def expires_at(self) -> datetime | None:
        """When the certificate that the server showed ends."""
        text = (self.certificate or {}).get("not_after")
        return datetime.fromisoformat(text) if text else None


class CheckChange(models.Model):
    """A check went up or down: its history."""

    check_row = models.ForeignKey(Check, on_delete=models.CASCADE, related_name="changes")
    at = models.DateTimeField()
    health = models.CharField(max_length=10, choices=check_healths)
    reason = models.TextField(blank=True, default="")

    class Meta:
        ordering = ("-at", "-id")
        indexes = (models.Index(fields=("check_row", "-at", "-id"), name="check_changes"),)

    def __str__(self) -> str:
        return f"{self.check_row_id} {self.health}"


# --- Heartbeats ------------------------------------------------------------------------------------------------------
def signals() -> Choices:
    """What a ping says."""
    return [("success", "Success"), ("start", "Started"), ("fail", "Failed"), ("log", "Log only")]


class HeartbeatQuerySet(models.QuerySet["Heartbeat"]):
    """Questions about heartbeats."""

    def visible_to(self, scope: Scope) -> HeartbeatQuerySet:
        """Return those whose series the scope accepts."""
        if not scope.matchers:
            return self
        return self.filter(pk__in=[beat.pk for beat in self if sees(scope, beat.series_labels)])


class Heartbeat(models.Model):
    """A job that should call now and then: it is down when it does not, or says that it failed.

    `deadline_at` is when it counts as missed: the time it is expected, and the grace. A job that said it started has to
    end within the grace.
    """

    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=100, unique=True, help_text="Becomes the label heartbeat, and part of its URL.")
    code = models.UUIDField(unique=True, default=uuid.uuid4, editable=False, help_text="Who knows it may ping.")
    enabled = models.BooleanField(default=True, help_text="Paused, nothing is expected, and its series end.")
    labels = models.JSONField(default=dict, blank=True, help_text='Of its series: {"service": "shop"}.')
    period = models.DurationField(default=timedelta(days=1), help_text="How often it calls.")
    cron = models.CharField(
        max_length=100, blank=True, default="", help_text="Instead of the period: when it calls, such as 0 3 * * *."
    )
    zone = models.CharField("time zone", max_length=64, default="UTC", help_text="Of the cron expression.")
    grace = models.DurationField(default=timedelta(hours=1), help_text="How much later it may call, or how long run.")
    confirm = models.PositiveSmallIntegerField(
        "failures to be down",
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="So many failures or missed calls in a row make it down.",
    )
    health = models.CharField(max_length=10, choices=check_healths, default="unknown", editable=False)
    health_at = models.DateTimeField("since", null=True, editable=False)
    failures = models.PositiveIntegerField("failures in a row", default=0, editable=False)
    reason = models.TextField(blank=True, default="", editable=False, help_text="Why it is not up.")
    last_ping_at = models.DateTimeField("last call", null=True, editable=False)
    last_success_at = models.DateTimeField(null=True, editable=False)
    started_at = models.DateTimeField("running since", null=True, editable=False)
    duration = models.DurationField("last run took", null=True, editable=False)
    expected_at = models.DateTimeField(null=True, editable=False)
    deadline_at = models.DateTimeField(null=True, editable=False)
    pings = models.PositiveIntegerField("calls", default=0, editable=False)

    objects = HeartbeatQuerySet.as_manager()

    class Meta:
        ordering = ("name", "pk")
        indexes = (models.Index(fields=("deadline_at",), condition=Q(enabled=True), name="heartbeat_deadline"),)
        constraints = (
            models.CheckConstraint(condition=~Q(slug=""), name="heartbeat_has_a_slug"),
            models.CheckConstraint(
                condition=Q(period__gte=timedelta(minutes=1), period__lte=timedelta(days=366)), name="heartbeat_period"
            ),
            models.CheckConstraint(
                condition=Q(grace__gte=timedelta(seconds=30), grace__lte=timedelta(days=366)), name="heartbeat_grace"
            ),
            models.CheckConstraint(
                condition=~Q(health__in=["down", "failing"]) | ~Q(reason=""), name="heartbeat_down_has_a_reason"
            ),
        )

    def __str__(self) -> str:
        return self.name or self.slug

    @property
    def series_labels(self) -> dict[str, str]:
        """The labels of its series; its own come first, so that they cannot hide which heartbeat it is."""
        return {**self.labels, "job": "heartbeats", "heartbeat": self.slug}

    @property
    def plan(self) -> Plan:
        """When it is expected."""
        return Plan(self.period, self.grace, self.cron, self.zone)


class Ping(models.Model):
    """One call of a heartbeat; the newest are kept."""

    heartbeat = models.ForeignKey(Heartbeat, on_delete=models.CASCADE, related_name="calls")
    at = models.DateTimeField()
    signal = models.CharField(max_length=10, choices=signals)
    exit_status = models.PositiveSmallIntegerField(null=True)
    run = models.UUIDField(null=True, help_text="The run that it belongs to (rid).")
    duration = models.DurationField(null=True)
    method = models.CharField(max_length=10, blank=True, default="")
    agent = models.CharField(max_length=200, blank=True, default="")
    address = models.CharField(max_length=60, blank=True, default="")
    body = models.TextField(blank=True, default="")

    class Meta:
        ordering = ("-id",)
        indexes = (models.Index(fields=("heartbeat", "-id"), name="ping_of_heartbeat"),)

    def __str__(self) -> str:
        return f"{self.signal} of {self.heartbeat_id}"


# --- Front ends ------------------------------------------------------------------------------------------------------
def public_key() -> str:
    """Return a new key of a site; it stands in its pages, so it is no secret."""
    return secrets.token_urlsafe(12)


class SiteQuerySet(models.QuerySet["Site"]):
    """Questions about front ends."""

    def visible_to(self, scope: Scope) -> SiteQuerySet:
        """Return those whose series the scope accepts."""
        if not scope.matchers:
            return self
        return self.filter(pk__in=[site.pk for site in self if sees(scope, {"site": site.name})])


class Site(models.Model):
    """A front end whose pages report how they do; `key` stands in them for all to see."""

    name = models.SlugField(max_length=60, unique=True, help_text="Becomes the label site.")
    key = models.CharField(max_length=40, unique=True, default=public_key, editable=False)
    enabled = models.BooleanField(default=True, help_text="Switched off, its reports are refused.")
    origins = models.JSONField(default=list, help_text='Where its pages come from: ["https://shop.example"].')
    rate = models.PositiveIntegerField(
        default=50,
        validators=[MinValueValidator(1), MaxValueValidator(10_000)],
        help_text="Beacons a second that one web process takes; those beyond are refused and counted.",
    )

    objects = SiteQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = (models.CheckConstraint(condition=~Q(name=""), name="site_has_a_name"),)

    def __str__(self) -> str:
        return self.name


# --- Databases and caches, and what queries say of the business -------------------------------------------------------
def server_kinds() -> Choices:
    """Servers that can be measured and asked."""
    return [("postgres", "PostgreSQL"), ("redis", "Redis or Valkey")]


def tls_modes() -> Choices:
    """How far a connection is encrypted."""
    return [
        ("prefer", "If the server offers it (Redis: no)"),
        ("require", "Always, with any certificate"),
        ("verify-full", "Always, and the certificate must fit"),
    ]


class DataSourceQuerySet(models.QuerySet["DataSource"]):
    """Questions about data sources."""

    def visible_to(self, scope: Scope) -> DataSourceQuerySet:
        """Return those whose series the scope accepts."""
        if not scope.matchers:
            return self
        return self.filter(pk__in=[row.pk for row in self if sees(scope, row.series_labels)])


class DataSourceManager(models.Manager.from_queryset(DataSourceQuerySet)):  # type: ignore[misc]
    """Leaves secrets in the database until one is asked for: one that no key opens must not hide all the others."""

    def get_queryset(self) -> DataSourceQuerySet:
        """Return every data source, its secrets deferred."""
        return DataSourceQuerySet(self.model, using=self._db).defer("secrets")


class DataSource(models.Model):
    """A database or cache server other than the portal's own: measured itself, and asked by business metrics."""

    name = models.SlugField(max_length=60, unique=True, help_text="Becomes the label server.")
    kind = models.CharField(max_length=20, choices=server_kinds, default="postgres")
    enabled = models.BooleanField(
        "measured", default=True, help_text="Switched off, its series end; business metrics may still ask it."
    )
    address = models.CharField(max_length=300, help_text="Host and port, such as db.example.org:5432.")
    database = models.CharField(
        max_length=100,
        blank=True,
        default="",
        help_text="PostgreSQL: whose tables are measured and asked.",
    )
    user = models.CharField(
        max_length=100, blank=True, default="",
        help_text="PostgreSQL: one with pg_monitor, and rights to read what business metrics ask, no more.",
    )  # fmt: skip
    tls = models.CharField("TLS", max_length=12, choices=tls_modes, default="prefer")
    secrets = EncryptedJSONField(default=dict, blank=True, editable=False)
    labels = models.JSONField(
        default=dict, blank=True, help_text='Of its series: {"service": "shop"}; names as in PromQL.'
    )
    interval = models.DurationField(default=timedelta(seconds=30), help_text="How often it is measured.")
    timeout = models.DurationField(default=timedelta(seconds=10), help_text="How long each statement may take.")
    health = models.CharField(max_length=10, choices=healths, default="unknown", editable=False)
    health_at = models.DateTimeField("since", null=True, editable=False)
    last_at = models.DateTimeField("last measured", null=True, editable=False)
    last_good_at = models.DateTimeField("last answer", null=True, editable=False)
    duration = models.DurationField(null=True, editable=False)
    error = models.TextField(blank=True, default="", editable=False, help_text="Why the last try failed.")
    shown = models.JSONField(default=list, editable=False, help_text="Series that the last round wrote.")
    due_at = models.DateTimeField(null=True, editable=False)
    claim = models.UUIDField(null=True, editable=False)
    claimed_until = models.DateTimeField(null=True, editable=False)

    objects = DataSourceManager()

    class Meta:
        verbose_name = "data source"
        ordering = ("name",)
        indexes = (models.Index(fields=("due_at",), condition=Q(enabled=True), name="data_source_due"),)
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="data_source_has_a_name"),
            models.CheckConstraint(
                condition=Q(interval__gte=timedelta(seconds=5), interval__lte=timedelta(days=1)),
                name="data_source_interval",
            ),
            models.CheckConstraint(
                condition=Q(timeout__gte=timedelta(seconds=1), timeout__lte=timedelta(minutes=1)),
                name="data_source_timeout",
            ),
            models.CheckConstraint(condition=~Q(health="down") | ~Q(error=""), name="data_source_down_has_a_reason"),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def series_labels(self) -> dict[str, str]:
        """The labels of its series; its own come first, so that they cannot hide which server it is."""
        return {**self.labels, "job": "databases", "server": self.name, "instance": self.address}


def small_groups() -> Choices:
    """What becomes of groups of fewer people than the floor."""
    return [
        ("omit", "Left out and counted"),
        ("sum", 'Added up as "other" (counts and sums)'),
        ("mean", 'Averaged by their size as "other" (averages)'),
    ]


class BusinessMetricQuerySet(models.QuerySet["BusinessMetric"]):
    """Questions about business metrics."""

    def visible_to(self, scope: Scope) -> BusinessMetricQuerySet:
        """Return those whose own series the scope accepts."""
        if not scope.matchers:
            return self
        return self.filter(pk__in=[row.pk for row in self if sees(scope, row.series_labels)])


class BusinessMetric(models.Model):
    """A figure that a query gives: one read-only statement on a schedule, columns as labels, one of numbers as value.

    Groups of fewer people than the floor are never stored. `last_good_at` is when the query last gave its figures.
    """

    name = models.CharField(max_length=100, unique=True, help_text="Of its series, such as clinic_bookings_today.")
    help = models.CharField(max_length=300, blank=True, default="", help_text="What it says, in a sentence.")
    type = models.CharField(
        max_length=10, choices=[("gauge", "Gauge"), ("counter", "Counter")], default="gauge",
        help_text="A counter only grows, such as all bookings ever.",
    )  # fmt: skip
    enabled = models.BooleanField(default=True, help_text="Switched off, its series end and nothing is asked.")
    source = models.ForeignKey(DataSource, on_delete=models.PROTECT, related_name="metrics", verbose_name="data source")
    query = models.TextField(help_text="One SELECT. It runs in a read-only transaction and ends at the time-out.")
    value_column = models.CharField("column of the value", max_length=63, default="value")
    size_column = models.CharField(
        "column of the group's size", max_length=63, blank=True, default="",
        help_text="How many people stand behind a row; empty: the value is that number. It becomes no label.",
    )  # fmt: skip
    floor = models.PositiveIntegerField(
        "least people in a group",
        default=5,
        validators=[MaxValueValidator(1_000_000)],
        help_text="A row of fewer people is never stored. 0 where rows are not about people.",
    )
    small = models.CharField("smaller groups", max_length=4, choices=small_groups, default="omit")
    most_rows = models.PositiveIntegerField(
        default=100,
        validators=[MinValueValidator(1), MaxValueValidator(1_000)],
        help_text="A query that gives more has failed.",
    )
    labels = models.JSONField(
        default=dict, blank=True, help_text='Of its series: {"service": "clinic"}; names as in PromQL.'
    )
    interval = models.DurationField(default=timedelta(minutes=5), help_text="How often it is asked.")
    timeout = models.DurationField(default=timedelta(seconds=10), help_text="When the server gives the query up.")
    last_at = models.DateTimeField("last asked", null=True, editable=False)
    last_good_at = models.DateTimeField("last answer", null=True, editable=False)
    duration = models.DurationField(null=True, editable=False)
    error = models.TextField(blank=True, default="", editable=False, help_text="Why the last try failed.")
    rows = models.PositiveIntegerField(default=0, editable=False, help_text="That the last answer had.")
    omitted = models.PositiveIntegerField("groups left out", default=0, editable=False)
    merged = models.PositiveIntegerField("groups merged", default=0, editable=False)
    shown = models.JSONField(default=list, editable=False, help_text="Series that the last round wrote.")
    due_at = models.DateTimeField(null=True, editable=False)
    claim = models.UUIDField(null=True, editable=False)
    claimed_until = models.DateTimeField(null=True, editable=False)

    objects = BusinessMetricQuerySet.as_manager()

    class Meta:
        verbose_name = "business metric"
        ordering = ("name",)
        indexes = (models.Index(fields=("due_at",), condition=Q(enabled=True), name="business_metric_due"),)
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="business_metric_has_a_name"),
            models.CheckConstraint(
                condition=Q(interval__gte=timedelta(seconds=10), interval__lte=timedelta(days=1)),
                name="business_metric_interval",
            ),
            models.CheckConstraint(
                condition=Q(timeout__gte=timedelta(seconds=1), timeout__lte=timedelta(minutes=1)),
                name="business_metric_timeout",
            ),
            models.CheckConstraint(
                condition=Q(most_rows__gte=1, most_rows__lte=1_000), name="business_metric_most_rows"
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def series_labels(self) -> dict[str, str]:
        """The labels that all of its series have."""
        return {**self.labels, "job": "business"}


def log_levels() -> Choices:
    """How bad a log record is."""
    return [(level, level) for level in ("debug", "info", "warning", "error", "critical")]


class LogTemplateQuerySet(models.QuerySet["LogTemplate"]):
    """Questions about templates."""

    def visible_to(self, scope: Scope) -> LogTemplateQuerySet:
        """Return those whose labels (service and level) the scope accepts."""
        if not scope.matchers:
            return self
        seen = Q(pk=None)
        for service, level in self.order_by().values_list("service", "level").distinct():
            if sees(scope, {"service": service, "level": level}):
                seen |= Q(service=service, level=level)
        return self.filter(seen)


class LogTemplate(models.Model):
    """What messages of one service and level have in common, with <…> where values stand; its id never changes."""

    service = models.CharField(max_length=100, editable=False)
    level = models.CharField(max_length=8, choices=log_levels, editable=False)
    pattern = models.TextField(editable=False)
    digest = models.UUIDField(
        unique=True, editable=False, help_text="Of service, level and the pattern that it began with."
    )
    first_at = models.DateTimeField("first seen", editable=False)
    last_at = models.DateTimeField("last seen", editable=False, db_index=True)
    records = models.BigIntegerField(default=0, editable=False, help_text="As of the last packing, minutes ago.")

    objects = LogTemplateQuerySet.as_manager()

    class Meta:
        verbose_name = "log template"
        ordering = ("service", "level", "id")
        indexes = (models.Index(fields=("service", "level"), name="log_template_group"),)

    def __str__(self) -> str:
        return self.pattern[:200]


class LogRun(models.Model):
    """Log records that came together, or were packed together later: columns, written and read by binary cursor."""

    id = models.BigAutoField(primary_key=True)
    received_at = models.DateTimeField(editable=False, help_text="When the last of them came.")
    is_young = models.BooleanField(default=True, editable=False, help_text="As it came, not packed with others yet.")
    t_min = models.BigIntegerField(editable=False, help_text="Milliseconds since 1970.")
    t_max = models.BigIntegerField(editable=False)
    records = models.IntegerField(editable=False)
    size = models.BigIntegerField(editable=False, help_text="Bytes of its texts before they were packed.")
    stored = models.BigIntegerField(editable=False, help_text="Bytes that it takes.")
    bad_at = models.DateTimeField(null=True, editable=False, help_text="When its checksum was first found wrong.")
    templates = ArrayField(models.BigIntegerField(), editable=False, help_text="Ids of its templates, each once.")
    tally = models.BinaryField(editable=False)
    payload = models.BinaryField(editable=False)

    class Meta:
        verbose_name = "log run"
        indexes = (
            models.Index(fields=("t_max",), name="log_run_time"),
            models.Index(fields=("received_at",), name="log_run_received"),
            models.Index(fields=("t_min",), condition=Q(is_young=True), name="log_run_young"),
        )
        constraints = (
            models.CheckConstraint(condition=Q(t_max__gte=F("t_min")), name="log_run_times"),
            models.CheckConstraint(condition=Q(records__gte=1), name="log_run_holds_records"),
        )

    def __str__(self) -> str:
        return f"log run {self.pk} ({self.records} records)"


class LogIntake(models.Model):
    """How log records are taken in and how many: one row. How long they are kept: the retention policy logs."""

    id = models.SmallIntegerField(primary_key=True, default=1, editable=False)
    masks = models.BooleanField(
        "black out secrets and persons",
        default=True,
        help_text="E-mail addresses, card numbers, tokens and the values of names such as password never get stored.",
    )
    records_per_day = models.PositiveBigIntegerField(
        default=20_000_000,
        validators=[MinValueValidator(1_000)],
        help_text="Beyond it senders are answered 429 until the day (UTC) is over.",
    )
    per_token = models.PositiveBigIntegerField(
        "records of a token a day",
        default=5_000_000,
        validators=[MinValueValidator(1_000)],
        help_text="One sender cannot use up the day of all: beyond it this token is answered 429 until midnight (UTC).",
    )
    stored_bytes = models.PositiveBigIntegerField(
        "bytes on disk",
        default=5_000_000_000,
        validators=[MinValueValidator(10_000_000)],
        help_text="Beyond it the oldest records go before their time, which the audit trail tells.",
    )
    own_level = models.CharField(
        "of the portal's own log",
        max_length=8,
        choices=log_levels,
        default="warning",
        help_text="What the portal's processes log is taken in from this level on.",
    )

    class Meta:
        verbose_name = "log intake"
        verbose_name_plural = "log intake"
        constraints = (
            models.CheckConstraint(condition=Q(id=1), name="log_intake_is_one_row"),
            models.CheckConstraint(
                condition=Q(records_per_day__gte=1_000, stored_bytes__gte=10_000_000), name="log_intake_takes_some"
            ),
        )

    def __str__(self) -> str:
        return f"{self.records_per_day} records a day"


class LogShare(models.Model):
    """How many log records a sender brought on a day (UTC)."""

    id = models.BigAutoField(primary_key=True)
    day = models.DateField(editable=False)
    sender = models.CharField(max_length=60, editable=False, help_text="Its kind and id.")
    name = models.CharField(max_length=200, editable=False)
    records = models.BigIntegerField(editable=False)

    class Meta:
        verbose_name = "log share"
        ordering = ("-day", "-records")
        constraints = (models.UniqueConstraint(fields=("day", "sender"), name="one_log_share_of_a_sender_and_day"),)

    def __str__(self) -> str:
        return f"{self.name} on {self.day}"


class LogDeletion(models.Model):
    """A deletion of log records on request: what it is about, and how far it is."""

    id = models.BigAutoField(primary_key=True)
    wanted = models.JSONField(editable=False, help_text="Which records: a filter, times in ms since 1970.")
    scope = models.JSONField(default=list, editable=False, help_text="The matchers of whoever asked: no other went.")
    by = models.CharField(max_length=200, editable=False)
    created_at = models.DateTimeField(editable=False)
    last = models.BigIntegerField(editable=False, help_text="The last run that may hold what was stored before it.")
    reached = models.BigIntegerField(default=0, editable=False, help_text="The last run that was looked through.")
    runs = models.IntegerField(default=0, editable=False, help_text="Runs that were rewritten or went as a whole.")
    records = models.BigIntegerField(default=0, editable=False, help_text="Records that are gone.")
    applied_at = models.DateTimeField(null=True, editable=False, help_text="When nothing of it was stored any more.")

    class Meta:
        verbose_name = "log deletion"
        ordering = ("-id",)
        indexes = (models.Index(fields=("id",), condition=Q(applied_at=None), name="open_log_deletion"),)

    def __str__(self) -> str:
        return f"log deletion {self.pk}"
