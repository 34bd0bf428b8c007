"""The tables of the store and of the collectors; they hold columns of samples and must not know how those are coded.

`Batch` is the append log (one immutable row per ingest), `Block` what compaction makes of it (one immutable row
per window and run of metrics). Their payloads are written and read by binary cursor, never through the ORM.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from apps.accounts.rights import ROLES


class XidField(models.Field[int, int]):
    """The id of the transaction that inserted the row (`xid8`), by which caches ask for what is new.

    Identity order is not commit order: whoever remembers "the last id" misses rows that commit late.
    """

    description = "Inserting transaction"

    def __init__(self, **options: Any) -> None:
        options |= {"editable": False, "db_default": CurrentXid()}
        super().__init__(**options)

    def deconstruct(self) -> Any:
        name, path, args, options = super().deconstruct()
        return name, path, args, {key: options[key] for key in options.keys() - {"editable", "db_default"}}

    def db_type(self, connection: Any) -> str:
        return "xid8"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> int | None:
        return None if value is None else int(value)


class CurrentXid(models.Func):
    """`pg_current_xact_id()` as a column default."""

    function = "pg_current_xact_id"
    arity = 0

    @property
    def output_field(self) -> models.Field[Any, Any]:
        return models.TextField()


class Kind(models.TextChoices):
    """Prometheus' types of metrics."""

    UNKNOWN = "unknown"
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


class RetentionPolicy(models.Model):
    """How long the samples of one category of metrics are kept."""

    DEFAULT = "default"

    category = models.SlugField(max_length=60, unique=True, help_text="What metrics refer to, such as “requests”.")
    description = models.CharField(max_length=200, blank=True, default="")
    raw = models.DurationField(help_text="Samples as they came are kept for this long (days hh:mm:ss).")
    rollup_5m = models.DurationField(
        "5-minute roll-ups",
        null=True,
        blank=True,
        help_text="Least, greatest, sum, count and last of every 5 minutes are kept for this long; empty: none.",
    )
    rollup_1h = models.DurationField(
        "hourly roll-ups", null=True, blank=True, help_text="The same of every hour; empty: none."
    )
    raw_from = models.BigIntegerField(
        null=True, editable=False, help_text="Samples up to this instant (ms) have been deleted; empty: none yet."
    )
    rollup_5m_from = models.BigIntegerField(
        null=True, editable=False, help_text="5-minute roll-ups up to this instant (ms) have been deleted."
    )
    prefixes = models.JSONField(
        default=list,
        blank=True,
        help_text='A new metric whose name begins with one of these joins this policy (longest wins): ["http_"].',
    )

    class Meta:
        verbose_name_plural = "retention policies"
        ordering = ("category",)
        constraints = (
            models.CheckConstraint(condition=Q(raw__gte=timedelta(hours=2)), name="retention_keeps_a_window"),
            models.CheckConstraint(condition=~Q(category=""), name="retention_has_a_category"),
            models.CheckConstraint(
                condition=(Q(rollup_5m=None) | Q(rollup_5m__gte=F("raw")))
                & (Q(rollup_1h=None) | Q(rollup_1h__gte=F("raw"))),
                name="retention_rollups_outlive_raw",
            ),
        )

    def __str__(self) -> str:
        return self.category

    def clean(self) -> None:
        if not isinstance(self.prefixes, list) or not all(isinstance(text, str) and text for text in self.prefixes):
            raise ValidationError({"prefixes": 'A list of texts, such as ["http_", "rpc_"].'})
        for name in ("rollup_5m", "rollup_1h"):
            kept = getattr(self, name)
            if kept is not None and self.raw is not None and kept < self.raw:
                raise ValidationError({name: "Roll-ups answer where samples are gone: keep them at least as long."})


class Metric(models.Model):
    """A metric name with its type, unit and help text."""

    id = models.AutoField(primary_key=True)
    name = models.CharField(max_length=200, unique=True)
    type = models.CharField(max_length=20, choices=Kind.choices, default=Kind.UNKNOWN)
    unit = models.CharField(max_length=40, blank=True, default="")
    help = models.TextField(blank=True, default="")
    retention = models.ForeignKey(RetentionPolicy, on_delete=models.PROTECT, related_name="metrics")
    series_limit = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="The most series it may have had within a day; empty: as many as the series budget gives each.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("name",)
        constraints = (models.CheckConstraint(condition=~Q(name=""), name="metric_has_a_name"),)

    def __str__(self) -> str:
        return self.name


class Series(models.Model):
    """One set of labels of one metric. Ids are never used again; only compaction writes `first_at` and `last_at`."""

    id = models.BigAutoField(primary_key=True)
    metric = models.ForeignKey(Metric, on_delete=models.PROTECT, related_name="series", db_index=False)
    fingerprint = models.BinaryField(unique=True, help_text="128 bits of blake2b over the sorted labels.")
    labels = models.JSONField(help_text="All labels but the name.")
    first_at = models.DateTimeField(null=True, editable=False)
    last_at = models.DateTimeField(null=True, editable=False)
    gone_at = models.DateTimeField(null=True, editable=False, help_text="Since when no sample of it is left.")
    token = models.BigIntegerField(
        null=True, editable=False, help_text="Id of the token that wrote it first; empty: the portal or a person."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    xid = XidField()

    class Meta:
        verbose_name_plural = "series"
        indexes = (
            models.Index(fields=("metric", "id"), name="series_metric_id"),
            models.Index(fields=("xid",), name="series_xid"),
            models.Index(fields=("gone_at",), condition=Q(gone_at__isnull=False), name="series_gone"),
        )

    def __str__(self) -> str:
        labels = ", ".join(f'{name}="{value}"' for name, value in sorted(self.labels.items()))
        return f"{self.metric}{{{labels}}}"


class Batch(models.Model):
    """One ingest: the append log. Inserted once, read and deleted by compaction; times are milliseconds since 1970."""

    id = models.BigAutoField(primary_key=True)
    received_at = models.DateTimeField(editable=False)
    samples = models.IntegerField(editable=False)
    t_min = models.BigIntegerField(editable=False)
    t_max = models.BigIntegerField(editable=False)
    series_min = models.BigIntegerField(editable=False)
    series_max = models.BigIntegerField(editable=False)
    bad_at = models.DateTimeField(null=True, editable=False, help_text="When its checksum was first found wrong.")
    payload = models.BinaryField(editable=False)

    class Meta:
        verbose_name_plural = "batches"

    def __str__(self) -> str:
        return f"batch {self.pk} ({self.samples} samples)"


class Block(models.Model):
    """About 64k samples of a run of metrics in one window; immutable. The later `round` wins where two overlap."""

    id = models.BigAutoField(primary_key=True)
    level = models.SmallIntegerField(editable=False)
    resolution = models.IntegerField(default=0, editable=False, help_text="Seconds of a roll-up; 0 is raw.")
    field = models.SmallIntegerField(
        default=0, editable=False, help_text="Which number of each bucket it holds (rollups.FIELDS, from 1); 0 is raw."
    )
    retention = models.ForeignKey(RetentionPolicy, on_delete=models.PROTECT, db_index=False, editable=False)
    shard = models.SmallIntegerField(default=0, editable=False)
    window = models.BigIntegerField(editable=False, help_text="Its start, in milliseconds since 1970.")
    round = models.BigIntegerField(editable=False, help_text="The later round wins where two blocks hold one instant.")
    t_min = models.BigIntegerField(editable=False)
    t_max = models.BigIntegerField(editable=False)
    metric_min = models.IntegerField(editable=False)
    metric_max = models.IntegerField(editable=False)
    series_min = models.BigIntegerField(editable=False)
    series_max = models.BigIntegerField(editable=False)
    samples = models.IntegerField(editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    crc = models.BigIntegerField(editable=False, help_text="crc32 of directory and payload.")
    bad_at = models.DateTimeField(null=True, editable=False, help_text="When its checksum was first found wrong.")
    directory = models.BinaryField(editable=False)
    payload = models.BinaryField(editable=False)

    class Meta:
        indexes = (
            models.Index(fields=("window", "resolution", "metric_min", "metric_max"), name="block_window"),
            models.Index(fields=("bad_at",), condition=Q(bad_at__isnull=False), name="block_bad"),
        )
        constraints = (
            models.CheckConstraint(condition=Q(level__in=(0, 1)), name="block_level"),
            models.CheckConstraint(condition=Q(resolution__in=(0, 300, 3600)), name="block_resolution"),
            models.CheckConstraint(
                condition=Q(resolution=0, field=0) | (Q(resolution__gt=0) & Q(field__gt=0)), name="block_field"
            ),
            models.CheckConstraint(condition=Q(t_min__gte=F("window"), t_max__gte=F("t_min")), name="block_times"),
        )

    def __str__(self) -> str:
        return f"block {self.pk} (level {self.level}, {self.samples} samples)"


class RolledWindow(models.Model):
    """A window of raw samples whose roll-ups stand, made from all rounds up to one; without it raw samples stay."""

    window = models.BigIntegerField(primary_key=True, editable=False, help_text="Its start, in ms since 1970.")
    round = models.BigIntegerField(editable=False, help_text="The highest round among the blocks it was made from.")
    made_at = models.DateTimeField(editable=False)

    def __str__(self) -> str:
        return f"roll-ups of window {self.window}"


class EventReceipt(models.Model):
    """That an event of this name and id was stored: its sender may send it again, and it still counts once."""

    digest = models.UUIDField(primary_key=True, editable=False)
    at = models.DateTimeField(editable=False, db_index=True)

    def __str__(self) -> str:
        return f"event {self.digest}"


LARGEST: Final = 2**63 - 1


class Tombstone(models.Model):
    """Samples that must go: hidden from reads at once, left out when their rows are rewritten (`burial`).

    Only what was stored before counts: rows of the log up to `batch`, blocks up to `round`. What is written afterwards,
    for the same series and times too, stays.
    """

    series = models.JSONField(editable=False, help_text="Ids of the series.")
    series_min = models.BigIntegerField(default=0, editable=False)
    series_max = models.BigIntegerField(default=LARGEST, editable=False)
    t_min = models.BigIntegerField(editable=False)
    t_max = models.BigIntegerField(editable=False)
    batch = models.BigIntegerField(default=LARGEST, editable=False, help_text="The last row of the log it covers.")
    round = models.BigIntegerField(default=LARGEST, editable=False, help_text="The last round of blocks it covers.")
    blocks = models.IntegerField(default=0, db_default=0, editable=False, help_text="Rows that were rewritten for it.")
    samples = models.BigIntegerField(default=0, db_default=0, editable=False, help_text="Samples that were left out.")
    by = models.CharField(max_length=200, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    applied_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = (models.CheckConstraint(condition=Q(t_max__gte=F("t_min")), name="tombstone_times"),)
        indexes = (models.Index(fields=("id",), condition=Q(applied_at=None), name="tombstone_open"),)

    def __str__(self) -> str:
        return f"tombstone {self.pk} ({len(self.series)} series)"


class SeriesBudget(models.Model):
    """How many series there may be: one row. Those that spoke within a day count."""

    id = models.SmallIntegerField(primary_key=True, default=1, editable=False)
    series = models.PositiveIntegerField(
        "series in all", default=1_000_000, help_text="Beyond it new series are refused, sample by sample."
    )
    per_token = models.PositiveIntegerField(
        "series of a token", default=200_000, help_text="Of each token that has no limit of its own."
    )
    per_metric = models.PositiveIntegerField(
        "series of a metric", default=200_000, help_text="Of each metric that has no limit of its own."
    )

    class Meta:
        verbose_name = "series budget"
        verbose_name_plural = "series budget"
        constraints = (models.CheckConstraint(condition=Q(id=1), name="series_budget_is_one_row"),)

    def __str__(self) -> str:
        return f"{self.series} series"


class Census(models.Model):
    """When the series were last counted: one row. Series inserted by transactions before `since` are in them."""

    id = models.SmallIntegerField(primary_key=True, default=1, editable=False)
    counted_at = models.DateTimeField(editable=False)
    since = models.BigIntegerField(editable=False)

    class Meta:
        constraints = (models.CheckConstraint(condition=Q(id=1), name="census_is_one_row"),)

    def __str__(self) -> str:
        return f"census of {self.counted_at:%Y-%m-%d %H:%M}"


class SeriesCount(models.Model):
    """How many series, as the last census counted them: `live` have samples, `active` spoke within a day."""

    live = models.IntegerField(editable=False)
    active = models.IntegerField(editable=False)
    new_hour = models.IntegerField("new in an hour", editable=False)
    new_day = models.IntegerField("new in a day", editable=False)
    ended_hour = models.IntegerField("ended in an hour", editable=False)
    ended_day = models.IntegerField("ended in a day", editable=False)

    class Meta:
        abstract = True


class MetricCount(SeriesCount):
    """The series of one metric."""

    metric = models.OneToOneField(Metric, on_delete=models.CASCADE, primary_key=True, related_name="counted")

    def __str__(self) -> str:
        return f"{self.live} series of metric {self.pk}"


class TokenCount(SeriesCount):
    """The series that one token wrote first; 0 stands for the portal itself and people."""

    token = models.BigIntegerField(primary_key=True)

    def __str__(self) -> str:
        return f"{self.live} series of token {self.pk}"


class PushGroups(models.QuerySet["PushGroup"]):
    """Questions about pushed groups."""

    def expired(self, now: datetime) -> "PushGroups":
        """Those whose time to live has passed since the last push."""
        return self.filter(ttl__isnull=False, pushed_at__isnull=False, pushed_at__lt=now - F("ttl"))


class PushGroup(models.Model):
    """Metrics that a batch job pushed by the Pushgateway's paths: shown at each tick until the group goes."""

    key = models.BinaryField(unique=True, editable=False, help_text="128 bits of its labels.")
    labels = models.JSONField(editable=False)
    families = models.JSONField(editable=False, help_text="By name: type, help, unit and samples (`push_groups`).")
    samples = models.IntegerField(default=0, editable=False)
    pushed_at = models.DateTimeField(null=True, editable=False)
    failed_at = models.DateTimeField(null=True, editable=False, help_text="When a push was last refused.")
    error = models.TextField(blank=True, default="", editable=False, help_text="Why that was.")
    pushed_by = models.CharField(max_length=200, editable=False)
    ttl = models.DurationField(
        "time to live",
        null=True,
        blank=True,
        help_text="How long it lives after its last push (days hh:mm:ss); empty: until it is deleted.",
    )

    objects = PushGroups.as_manager()

    class Meta:
        ordering = ("-pushed_at", "id")
        constraints = (
            models.CheckConstraint(
                condition=Q(ttl=None) | Q(ttl__gte=timedelta(seconds=1)), name="push_group_lives_a_second"
            ),
        )

    def __str__(self) -> str:
        labels = ", ".join(f'{name}="{value}"' for name, value in self.labels.items())
        return f"{{{labels}}}"


class DeltaTotals(models.Model):
    """What the deltas of one sender have come to, series by series (`accumulation`): written with their samples."""

    key = models.BinaryField(unique=True, editable=False, help_text="128 bits of its resource and scope.")
    totals = models.BinaryField(editable=False)
    updated_at = models.DateTimeField(editable=False, db_index=True)

    class Meta:
        verbose_name_plural = "delta totals"

    def __str__(self) -> str:
        return f"totals {self.pk}"


OF_TOKENS = "token"
"""The budget of whoever asks with a token, as if it were a role."""


def budget_roles() -> list[tuple[str, str]]:
    """Choices of `QueryBudget.role`: the roles, and tokens."""
    return [*((role, role) for role in ROLES), (OF_TOKENS, "token (any)")]


class QueryBudget(models.Model):
    """What one query of somebody in a role may cost; of several roles the largest of each number counts."""

    role = models.CharField(max_length=20, unique=True, choices=budget_roles)
    series = models.PositiveIntegerField(help_text="Series that it may read, as many as its selectors match.")
    samples = models.PositiveBigIntegerField(
        help_text="Samples that it may read. Memory does not grow with it: much is read piece by piece."
    )
    points = models.PositiveIntegerField(help_text="Values that its answer may have.")
    seconds = models.PositiveSmallIntegerField(help_text="How long it may take, waiting and reading included.")

    class Meta:
        ordering = ("role",)
        constraints = (
            models.CheckConstraint(condition=~Q(role=""), name="budget_has_a_role"),
            models.CheckConstraint(condition=Q(series__gte=1, samples__gte=1, points__gte=1), name="budget_allows_one"),
            models.CheckConstraint(condition=Q(seconds__gte=1, seconds__lte=600), name="budget_ends_in_ten_minutes"),
        )

    def __str__(self) -> str:
        return self.role


class CollectionSwitch(models.Model):
    """Whether the collectors run: one row."""

    id = models.SmallIntegerField(primary_key=True, default=1, editable=False)
    on = models.BooleanField(default=True)
    changed_at = models.DateTimeField(null=True, editable=False)
    changed_by = models.CharField(max_length=200, blank=True, default="", editable=False)

    class Meta:
        verbose_name = "collection switch"
        verbose_name_plural = "collection switch"
        constraints = (models.CheckConstraint(condition=Q(id=1), name="collection_switch_is_one_row"),)

    def __str__(self) -> str:
        return "on" if self.on else "off"


class CollectorSetting(models.Model):
    """One collector: whether and how often it runs, and how its last run went."""

    kind = models.CharField(max_length=60, unique=True)
    enabled = models.BooleanField(default=True)
    every = models.DurationField()
    config = models.JSONField(default=dict, blank=True)
    due_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_at = models.DateTimeField(null=True, blank=True, editable=False)
    duration = models.DurationField(null=True, blank=True, editable=False)
    error = models.TextField(blank=True, default="", editable=False)
    claimed_until = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("kind",)
        constraints = (
            models.CheckConstraint(condition=Q(every__gte=timedelta(seconds=1)), name="collector_every_a_second"),
        )

    def __str__(self) -> str:
        return self.kind
