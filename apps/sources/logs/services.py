"""The verbs of logs: `ingest` is the only way records get in; settings; the log of settings lies in the audit trail."""

import threading
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from time import monotonic
from typing import Any, Final

import numpy as np
from django.core.exceptions import ValidationError
from django.db import transaction

from apps.accounts import audit
from apps.accounts import services as accounts
from apps.accounts.audit import verb
from apps.accounts.permissions import Principal, Right, require
from apps.core import live
from apps.core.telemetry import Counter
from apps.metrics.events import digest_of
from apps.metrics.models import RetentionPolicy
from apps.metrics.services import StoreFull as StoreFull  # noqa: PLC0414  raised here
from apps.metrics.services import ensure_space
from apps.metrics.storage import cursor, database
from apps.promql.source import accept, of_scope
from apps.sources.logs import deletion, learning, store
from apps.sources.logs.columns import Run, part
from apps.sources.logs.masking import masked, masked_attributes
from apps.sources.logs.records import LEVELS, Record
from apps.sources.logs.search import Wanted
from apps.sources.models import LogDeletion, LogIntake, LogShare

AHEAD: Final = timedelta(minutes=10)
RECENT: Final = timedelta(minutes=10)
"""Records older than this are kept and found, but do not count in the series, where they would look like a burst."""
KEPT: Final = timedelta(days=14)
"""How long records are kept where the retention policy has been deleted."""
POLICY: Final = "logs"
REMEMBERED: Final = 5.0
"""Seconds for which a process reuses the settings and what has come today."""
RUN_RECORDS: Final = 20_000

RECORDS: Final = Counter("log_records_total", "Log records by service and level.", ("service", "level"), limit=2_000)
TEMPLATES: Final = Counter(
    "log_template_records_total", "Log records of warnings and worse by template (its id).",
    ("service", "level", "template"), limit=1_000,
)  # fmt: skip
COUNTED_LEVELS: Final = frozenset({"warning", "error", "critical"})
LOST: Final = Counter("portal_log_records_refused_total", "Log records that were refused.", ("reason",))

_RECEIVE: Final = "INSERT INTO metrics_eventreceipt (digest, at) VALUES (%s, %s) ON CONFLICT DO NOTHING"
_SHARE: Final = """
INSERT INTO sources_logshare AS share (day, sender, name, records) VALUES (%s, %s, %s, %s)
ON CONFLICT (day, sender) DO UPDATE SET records = share.records + excluded.records, name = excluded.name
"""


class OverBudget(Exception):
    """So many records came today that no more are taken; `wait`: seconds until they are; `reason`: a key of REASONS."""

    def __init__(self, sentence: str, reason: str, wait: float) -> None:
        super().__init__(sentence)
        self.reason, self.wait = reason, wait


@dataclass(frozen=True, slots=True)
class Written:
    """How many records were stored, and (index, reason) of those that were not."""

    accepted: int
    rejected: tuple[tuple[int, str], ...] = ()
    is_repeated: bool = False
    """The request had been stored before under its key."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for records now: settings, how long they are kept, how many came today by sender."""

    intake: LogIntake
    kept: timedelta
    shares: Mapping[str, int]

    def check(self, records: int, by: Principal, now: datetime) -> None:
        """Raise OverBudget where so many more would be too many, of all or of a token."""
        tomorrow = (now.astimezone(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        wait = min(3_600.0, (tomorrow - now).total_seconds())
        if sum(self.shares.values()) + records > (most := self.intake.records_per_day):
            sentence = f"{most} log records came today, as many as may; an administrator can allow more (log intake)."
            raise OverBudget(sentence, "log_budget", wait)
        if by.kind == "token" and self.shares.get(sender_of(by), 0) + records > (most := self.intake.per_token):
            sentence = (
                f"{by.name} brought {most} log records today, as many as a token may; an administrator can allow more "
                "(log intake)."
            )
            raise OverBudget(sentence, "log_share", wait)


_terms: dict[str, tuple[float, Terms]] = {}
_lock: Final = threading.Lock()


def forget() -> None:
    """Ask the database again for settings and templates."""
    with _lock:
        _terms.clear()
    learning.forget()


def terms(now: datetime) -> Terms:
    """Return what holds now; remembered for some seconds."""
    name, clock = database(), monotonic()
    with _lock:
        found = _terms.get(name)
    if found is not None and clock - found[0] < REMEMBERED:
        return found[1]
    made = Terms(intake(), kept(), dict(LogShare.objects.filter(day=_day(now)).values_list("sender", "records")))
    with _lock:
        _terms[name] = clock, made
    return made


def intake() -> LogIntake:
    """Return the settings."""
    return LogIntake.objects.filter(pk=1).first() or LogIntake()


def kept() -> timedelta:
    """Return how long records are kept: the retention policy `logs`."""
    policy = RetentionPolicy.objects.filter(category=POLICY).first()
    return policy.raw if policy is not None else KEPT


def sender_of(by: Principal) -> str:
    """Return under what a sender's records are counted."""
    return f"{by.kind} {by.id}".strip()


def _day(now: datetime) -> date:
    return now.astimezone(UTC).date()


def ingest(*, records: Sequence[Record], by: Principal, now: datetime, key: str = "") -> Written:
    """Store records; what cannot be stored is refused one by one, never the whole.

    Refused are records more than 10 minutes ahead of `now`, older than records are kept, of a service that is one too
    many, and those whose labels (service, level) the sender's scope does not accept. `key`: a request that was stored
    under it within a week is accepted again and changes nothing. Stored means: committed on return, or in the
    transaction of the caller. Raises StoreFull, OverBudget.
    """
    require(by, Right.INGEST)
    ensure_space()
    holding = terms(now)
    holding.check(len(records), by, now)
    places, rejected = _good(records, by, now, holding.kept)
    kept_records = [records[place] for place in places]
    if holding.intake.masks:
        kept_records = [_masked(record) for record in kept_records]
    templates = learning.templates_of(kept_records)
    rejected += [(places[index], "service_limit") for index in np.flatnonzero(templates == 0).tolist()]
    good = np.flatnonzero(templates)
    is_new = True
    with transaction.atomic():
        if key:
            with cursor() as cur:  # who comes second waits here until the first has committed
                cur.execute(_RECEIVE, [digest_of("log", f"{by.kind} {by.id} {key}"), now])
                is_new = cur.rowcount == 1
        if is_new and len(good):
            run = part(_run(kept_records, templates), good)
            for some in _split(run):
                store.insert(some, now=now)
            live.publish("logs")
            with cursor() as cur:  # last, for others of this sender wait for it until the commit
                cur.execute(_SHARE, [_day(now), sender_of(by), by.name[:200], len(run)])
            transaction.on_commit(lambda: _count(run, kept_records, good.tolist(), by, now), robust=True)
    for reason, count in Tally(reason for _, reason in rejected).items():
        LOST.inc(count, reason=reason)
    return Written(len(records) - len(rejected), tuple(sorted(rejected)), not is_new)


def _good(
    records: Sequence[Record], by: Principal, now: datetime, keeps: timedelta
) -> tuple[list[int], list[tuple[int, str]]]:
    """(places of records that may be stored, (place, reason) of the others)."""
    latest = int((now + AHEAD).timestamp() * 1000)
    earliest = int((now - keeps).timestamp() * 1000)
    matchers = of_scope(by.scope.matchers)
    places, rejected = [], []
    for place, record in enumerate(records):
        if record.at > latest:
            rejected.append((place, "too_far_ahead"))
        elif record.at < earliest:
            rejected.append((place, "too_old_log"))
        elif matchers and not accept(matchers, {"service": record.service, "level": record.level}):
            rejected.append((place, "out_of_scope"))
        else:
            places.append(place)
    return places, rejected


def _masked(record: Record) -> Record:
    message = masked(record.message)
    attributes = masked_attributes(record.attributes) if record.attributes else ""
    if message == record.message and attributes == record.attributes:
        return record
    return replace(record, message=message, attributes=attributes)


def _run(records: Sequence[Record], templates: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Run:
    return Run(
        np.array([record.at for record in records], dtype=np.int64),
        templates,
        [record.host for record in records],
        [record.message for record in records],
        [record.attributes for record in records],
    )


def _split(run: Run) -> list[Run]:
    """Cut a run by hours, and large ones into several."""
    hours = store.hours_of(run.at)
    if len(run) <= RUN_RECORDS and hours.min() == hours.max():
        return [run]
    runs = []
    for hour in np.unique(hours).tolist():
        places = np.flatnonzero(hours == hour)
        runs += [part(run, places[begin : begin + RUN_RECORDS]) for begin in range(0, len(places), RUN_RECORDS)]
    return runs


def _count(run: Run, records: Sequence[Record], places: Sequence[int], by: Principal, now: datetime) -> None:
    """Let the series count what was stored, after the commit."""
    since = int((now - RECENT).timestamp() * 1000)
    recent = [
        (place, ident)
        for place, ident, at in zip(places, run.template.tolist(), run.at.tolist(), strict=True)
        if at >= since
    ]
    for (service, level), count in Tally((records[place].service, records[place].level) for place, _ in recent).items():
        for each in LEVELS:
            RECORDS.touch(service=service, level=each)  # at zero, so that the first error is an increase
        RECORDS.inc(count, service=service, level=level)
    for (place, ident), count in Tally(_sorted(records, recent)).items():
        TEMPLATES.inc(count, service=place[0], level=place[1], template=str(ident))
    with _lock:
        if (found := _terms.get(database())) is not None:
            terms_now, sender = found[1], sender_of(by)
            shares = {**terms_now.shares, sender: terms_now.shares.get(sender, 0) + len(run)}
            _terms[database()] = found[0], replace(terms_now, shares=shares)


def _sorted(records: Sequence[Record], recent: Sequence[tuple[int, int]]) -> list[tuple[tuple[str, str], int]]:
    return [
        ((records[place].service, records[place].level), ident)
        for place, ident in recent
        if records[place].level in COUNTED_LEVELS
    ]


@verb("sources.export_logs", right=Right.READ)
def export_logs(*, by: Principal, asked: Mapping[str, Any], lines: Sequence[Any]) -> Sequence[Any]:
    """Hand on log records that leave the portal as a file, and write down who took how many of which."""
    target = ("sources.logrun", "", "log records")
    audit.record(by=by, verb="sources.export_logs", target=target, after={**asked, "records": len(lines)})
    return lines


@verb("sources.save_log_intake", right=Right.ADMINISTER)
def save_log_intake(*, by: Principal, settings: LogIntake) -> LogIntake:
    """Save how logs are taken in. Raises ValidationError by field."""
    if settings.records_per_day < 1_000:
        raise ValidationError({"records_per_day": "At least 1,000."})
    if settings.stored_bytes < 10_000_000:
        raise ValidationError({"stored_bytes": "At least 10,000,000."})
    if settings.per_token < 1_000:
        raise ValidationError({"per_token": "At least 1,000."})
    accounts.save_object(by=by, obj=settings)
    transaction.on_commit(forget)
    return settings


@verb("sources.delete_logs", right=Right.ADMINISTER)
def delete_logs(*, by: Principal, wanted: Wanted, now: datetime) -> LogDeletion:
    """Have the log records deleted that are stored now and wanted; `deletion.carry_out` does it, and proves it.

    What comes afterwards stays, whatever its time. Raises BadSearch, ValidationError.
    """
    wanted.checked()
    if not deletion.names_something(wanted):
        raise ValidationError("Say which: a service, levels, a template, a host, a text, or from when or to when.")
    row = deletion.begin(wanted, by=by, now=now)
    asked = {name: value for name, value in {**row.wanted, "scope": row.scope}.items() if value}
    audit.record(by=by, verb="sources.delete_logs", target=row, after=asked)
    return row
