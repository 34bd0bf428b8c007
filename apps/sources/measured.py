"""The verbs of data sources and business metrics: saved, deleted and asked at once.

Both are an administrator's: they carry passwords, reach private networks and read what a query asks.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.rights import Principal, Right
from apps.core import live
from apps.core.secrets import merged, readable
from apps.core.tasks import wake
from apps.promql.text import IDENTIFIER
from apps.sources import groups, measuring
from apps.sources.checks import label_problem
from apps.sources.models import BusinessMetric, DataSource
from apps.sources.probes import host_and_port
from apps.sources.servers import Away

STATE: Final = (
    "health", "health_at", "last_at", "last_good_at", "duration", "error", "rows", "omitted", "merged", "shown",
    "due_at", "claim", "claimed_until",
)  # fmt: skip
"""What the portal writes down about a row: no part of its settings, and of no interest to the audit trail."""
OWN: Final = ("job", "instance", "__name__")
TAKEN: Final = ("business_metric_", "ALERTS", "anomaly:", "portal_")


@verb("sources.save_data_source", right=Right.ADMINISTER)
def save_data_source(*, by: Principal, source: DataSource, password: str | None = "", now: datetime) -> DataSource:
    """Write a new or changed data source. `password`: blank or masked leaves it, None removes it.

    Raises ValidationError by field.
    """
    examine_source(source)
    stored = DataSource.objects.select_for_update().filter(pk=source.pk).first() if source.pk else None
    had = {} if stored is None else readable(stored)
    source.secrets = merged(had, {"password": password})
    before = None if stored is None else _audited(stored)
    _save(source, stored, now, is_other=stored is not None and _place(source) != _place(stored))
    after = _audited(source)
    if before is not None:
        before, after = changes(before, after)
        if source.secrets != had:
            after["secrets_changed"] = True
        if not (before or after):
            return source
    record(by=by, verb="sources.save_data_source", target=source, before=before, after=after)
    return source


def examine_source(source: DataSource) -> None:
    """Raise ValidationError, by field, for a data source that could not be measured."""
    problems: dict[str, str] = {}
    if problem := label_problem(source.labels, reserved=(*OWN, "server")):
        problems["labels"] = problem
    if not timedelta(seconds=5) <= source.interval <= timedelta(days=1):
        problems["interval"] = "From 5 seconds to a day."
    problems |= _of_timeout(source)
    try:
        port = measuring.SERVERS[source.kind].PORT
        host, port = host_and_port(source.address, port)
        source.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    except KeyError:
        problems["kind"] = f"There is no kind {source.kind!r}; there are {', '.join(measuring.SERVERS)}."
    except ValueError as error:
        problems["address"] = str(error)
    if source.kind == "postgres" and not (source.user and source.database):
        problems["user" if source.database else "database"] = "PostgreSQL needs a user and a database."
    if source.kind != "postgres" and source.pk and source.metrics.exists():
        problems["kind"] = "Business metrics ask it; only PostgreSQL can be asked."
    if problems:
        raise ValidationError(problems)
    source.full_clean(exclude=["secrets"], validate_constraints=False)


def _place(source: DataSource) -> tuple[Any, ...]:
    return source.kind, source.address, source.name, source.labels


@verb("sources.delete_data_source", right=Right.ADMINISTER)
def delete_data_source(*, by: Principal, source: DataSource, now: datetime) -> None:
    """Delete a data source that no business metric asks: its series end, what is stored of them stays."""
    if names := list(source.metrics.values_list("name", flat=True)[:5]):
        raise ValidationError(f"Business metrics ask {source}: {', '.join(names)}. Delete them first.")
    _delete(source, "sources.delete_data_source", by, now)


@verb("sources.measure_now", right=Right.OPERATE)
def measure_now(*, by: Principal, row: DataSource | BusinessMetric, now: datetime) -> None:
    """Have it measured or asked at once; what was found stands on the row within seconds."""
    if not row.enabled:
        raise ValidationError(f"{row} is switched off: switch it on to have it asked.")
    type(row).objects.filter(pk=row.pk).update(due_at=now)
    wake("sources.measure")
    record(by=by, verb="sources.measure_now", target=row)


@verb("sources.save_business_metric", right=Right.ADMINISTER)
def save_business_metric(*, by: Principal, metric: BusinessMetric, now: datetime) -> BusinessMetric:
    """Write a new or changed business metric. Raises ValidationError by field."""
    examine_metric(metric)
    stored = BusinessMetric.objects.select_for_update().filter(pk=metric.pk).first() if metric.pk else None
    before = None if stored is None else _audited(stored)
    is_other = stored is not None and (stored.name, stored.labels, stored.type) != (
        metric.name, metric.labels, metric.type,
    )  # fmt: skip
    _save(metric, stored, now, is_other=is_other)
    after = _audited(metric)
    if before is not None:
        before, after = changes(before, after)
        if not (before or after):
            return metric
    record(by=by, verb="sources.save_business_metric", target=metric, before=before, after=after)
    return metric


def examine_metric(metric: BusinessMetric) -> None:
    """Raise ValidationError, by field, for a metric that could not be asked."""
    problems: dict[str, str] = {}
    if not IDENTIFIER.fullmatch(metric.name) or metric.name.startswith(TAKEN):
        problems["name"] = "Letters, digits and underscores, such as clinic_bookings_today; not a name of the portal's."
    if problem := label_problem(metric.labels, reserved=OWN):
        problems["labels"] = problem
    if not timedelta(seconds=10) <= metric.interval <= timedelta(days=1):
        problems["interval"] = "From 10 seconds to a day."
    problems |= _of_timeout(metric)
    if not metric.query.strip() or len(metric.query) > 20_000 or "\0" in metric.query:
        problems["query"] = "Write one SELECT of at most 20,000 characters."
    if metric.floor and metric.small == "mean" and not metric.size_column:
        problems["size_column"] = "An average does not say how many people stand behind it: name the column that does."
    if metric.source_id and metric.source.kind != "postgres":
        problems["source"] = "Only PostgreSQL can be asked."
    if problems:
        raise ValidationError(problems)
    metric.full_clean(validate_constraints=False)


def _of_timeout(row: DataSource | BusinessMetric) -> dict[str, str]:
    is_right = timedelta(seconds=1) <= row.timeout <= timedelta(minutes=1)
    return {} if is_right else {"timeout": "From a second to a minute."}


@verb("sources.try_metric", right=Right.ADMINISTER)
def try_metric(*, by: Principal, metric: BusinessMetric) -> tuple[groups.Grouped | None, str]:
    """Ask once as the metric does and store nothing but that it was asked; return (what would be stored, problem)."""
    record(by=by, verb="sources.try_metric", target=metric)
    try:
        return measuring.ask(metric), ""
    except (Away, groups.Unusable) as error:
        return None, str(error)


@verb("sources.delete_business_metric", right=Right.ADMINISTER)
def delete_business_metric(*, by: Principal, metric: BusinessMetric, now: datetime) -> None:
    """Delete a business metric: its series end, what is stored of them stays."""
    _delete(metric, "sources.delete_business_metric", by, now)


def _save(row: Any, stored: Any, now: datetime, *, is_other: bool) -> None:
    """Save with what is known of the row; a row that is something else, or off, ends its series and begins anew."""
    for name in STATE if stored is not None else ():
        if hasattr(row, name):
            setattr(row, name, getattr(stored, name))
    row.claim = row.claimed_until = None
    row.due_at = now
    if stored is not None and (is_other or not row.enabled):
        measuring.end(stored, now=now)
        row.shown, row.error = [], ""
        if isinstance(row, DataSource):
            row.health, row.health_at = "unknown", now
    row.save()
    if row.enabled:
        wake("sources.measure")
    live.publish("checks", row._meta.model_name)


def _delete(row: DataSource | BusinessMetric, name: str, by: Principal, now: datetime) -> None:
    before = _audited(row)
    target = (row._meta.label_lower, str(row.pk), row.name)
    measuring.end(row, now=now)
    row.delete()
    live.publish("checks", row._meta.model_name)
    record(by=by, verb=name, target=target, before=before)


def _audited(row: DataSource | BusinessMetric) -> dict[str, Any]:
    """The row for the audit trail: secrets masked, what was found left out."""
    if isinstance(row, DataSource):
        row.secrets = readable(row)
    return {name: value for name, value in state_of(row).items() if name not in STATE}
