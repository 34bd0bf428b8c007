"""Heartbeats: their verbs, the calls that come in, and the loop that notices those that do not."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.text import slugify

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.hours import parse_zone
from apps.accounts.permissions import Principal
from apps.accounts.rights import Right
from apps.core import live
from apps.core.telemetry import Reading
from apps.metrics import query, services
from apps.metrics.samples import Samples
from apps.promql.series import STALE
from apps.sources.cadence import check_cron
from apps.sources.checks import label_problem
from apps.sources.models import Heartbeat, Ping
from apps.sources.standing import Standing

BY: Final = Principal.system("sources.heartbeats")
STATE: Final = (
    "health", "health_at", "failures", "reason", "last_ping_at", "last_success_at", "started_at", "duration",
    "expected_at", "deadline_at", "pings",
)  # fmt: skip
MOST_BODY: Final = 10_000
MOST_CALLS: Final = 100
"""Calls that are kept of each heartbeat."""
HELP: Final = {
    "heartbeat_up": "Whether the job called in time and said that all was well.",
    "heartbeat_late": "Whether its call is expected and has not come; it is missed after the grace.",
    "heartbeat_last_success_timestamp_seconds": "When it last said that all was well.",
    "heartbeat_last_duration_seconds": "How long its last run took, from start to end.",
}


# --- Verbs -----------------------------------------------------------------------------------------------------------
@verb("sources.save_heartbeat", right=Right.EDIT)
def save_heartbeat(*, by: Principal, beat: Heartbeat, now: datetime) -> Heartbeat:
    """Write a new or changed heartbeat; a change of when it is expected counts from its last call."""
    stored = Heartbeat.objects.select_for_update().filter(pk=beat.pk).first() if beat.pk else None
    before = None if stored is None else audited(stored)
    beat.slug = beat.slug or slugify(beat.name)
    beat.name = beat.name.strip() or beat.slug
    examine(beat)
    if stored is not None:
        for name in STATE:
            setattr(beat, name, getattr(stored, name))
    if stored is not None and (not beat.enabled or stored.series_labels != beat.series_labels):
        _store(ended(stored), now)
    if not beat.enabled:
        beat.health, beat.health_at, beat.failures, beat.reason = "unknown", now, 0, ""
        beat.started_at = beat.expected_at = beat.deadline_at = None
    elif beat.last_ping_at is not None:
        beat.expected_at, beat.deadline_at = beat.plan.expected(last=beat.last_ping_at, running_since=beat.started_at)
    beat.full_clean(validate_constraints=False)
    beat.save()
    live.publish("checks")
    after = audited(beat)
    if before is not None:
        before, after = changes(before, after)
        if not (before or after):
            return beat
    record(by=by, verb="sources.save_heartbeat", target=beat, before=before, after=after)
    return beat


def examine(beat: Heartbeat) -> None:
    """Raise ValidationError, by field, for what the fields themselves do not see."""
    problems: dict[str, str] = {}
    if problem := label_problem(beat.labels, reserved=("job", "heartbeat", "__name__")):
        problems["labels"] = problem
    for name, read in (("cron", check_cron), ("zone", parse_zone)):
        try:
            if getattr(beat, name):
                read(getattr(beat, name))
        except ValueError as error:
            problems[name] = str(error)
    if not timedelta(minutes=1) <= beat.period <= timedelta(days=366):
        problems["period"] = "From a minute to a year."
    if not timedelta(seconds=30) <= beat.grace <= timedelta(days=366):
        problems["grace"] = "From half a minute to a year."
    if problems:
        raise ValidationError(problems)


def audited(beat: Heartbeat) -> dict[str, Any]:
    """The heartbeat for the audit trail: how it stands left out, and the code, which is a secret."""
    state = state_of(beat)
    return {name: value for name, value in state.items() if name not in (*STATE, "code")}


@verb("sources.delete_heartbeat", right=Right.EDIT)
def delete_heartbeat(*, by: Principal, beat: Heartbeat, now: datetime) -> None:
    """Delete a heartbeat and what is kept of its calls; its series end."""
    before, target = audited(beat), (beat._meta.label_lower, str(beat.pk), beat.slug)
    _store(ended(beat), now)
    live.publish("checks")
    beat.delete()
    record(by=by, verb="sources.delete_heartbeat", target=target, before=before)


# --- Calls -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Call:
    """A call as it came in; `run` ties a start to its end."""

    signal: str
    exit_status: int | None = None
    run: UUID | None = None
    method: str = ""
    agent: str = ""
    address: str = ""
    body: str = ""


def create_by_call(*, slug: str, by: Principal, now: datetime) -> Heartbeat:
    """Make a heartbeat for a job that called by a name that nobody knows; it is expected daily until somebody says."""
    return save_heartbeat(by=by, beat=Heartbeat(name=slug, slug=slug), now=now)


@transaction.atomic
def ping(*, beat: Heartbeat, call: Call, now: datetime) -> None:
    """Take a call: it is stored, and what it says of the job counts at once."""
    beat = Heartbeat.objects.select_for_update().get(pk=beat.pk)
    took = _took(beat, call, now)
    Ping.objects.create(
        heartbeat=beat, at=now, signal=call.signal, exit_status=call.exit_status, run=call.run, duration=took,
        method=call.method, agent=call.agent[:200], address=call.address, body=call.body[:MOST_BODY],
    )  # fmt: skip
    beat.pings += 1
    if beat.pings % MOST_CALLS == 0:
        old = beat.calls.order_by("-id").values_list("pk", flat=True)[MOST_CALLS:]
        Ping.objects.filter(pk__in=list(old)).delete()
    if beat.enabled and call.signal != "log":
        _take(beat, call, took, now)
    beat.save(update_fields=[*STATE])
    live.publish("checks", f"beat-{beat.pk}")


def _take(beat: Heartbeat, call: Call, took: timedelta | None, now: datetime) -> None:
    if call.signal == "start":
        beat.started_at = now
        beat.expected_at, beat.deadline_at = beat.plan.expected(last=now, running_since=now)
        beat.last_ping_at = now
        return
    beat.started_at = None
    beat.last_ping_at = now
    beat.duration = took or beat.duration
    if call.signal == "success":
        beat.last_success_at = now
    status = f" with exit status {call.exit_status}" if call.exit_status else ""
    tail = call.body.strip().splitlines()[-1][:200] if call.body.strip() else ""
    said = f": {tail}" if tail else "."
    beat.expected_at, beat.deadline_at = beat.plan.expected(last=now, running_since=None)
    _judge(beat, "" if call.signal == "success" else f"The job failed{status}{said}", now)


def _took(beat: Heartbeat, call: Call, now: datetime) -> timedelta | None:
    """How long the run took that this call ends; the start of the same run where it is named, else the last one."""
    if call.signal not in ("success", "fail"):
        return None
    if call.run is not None:
        begun = beat.calls.filter(run=call.run, signal="start").values_list("at", flat=True).first()
        return now - begun if begun else None
    return now - beat.started_at if beat.started_at else None


def _judge(beat: Heartbeat, reason: str, now: datetime) -> None:
    """Let one more try count, and say so at once where that changes how it stands."""
    before = Standing(beat.health, beat.failures)
    after = before.after(failed=bool(reason), confirm=beat.confirm)
    if after.health != before.health:
        beat.health_at = now
        live.publish("checks")
    beat.health, beat.failures, beat.reason = after.health, after.failures, reason[:2000].replace("\0", "")
    if before.is_up != after.is_up or before.health == "unknown":
        _store(readings_of(beat, now), now)


# --- The loop --------------------------------------------------------------------------------------------------------
def look_after(*, now: datetime) -> int:
    """Count the calls that did not come, and write the series of all heartbeats; return how many were missed."""
    if not query.collection_on():
        return 0
    late = Heartbeat.objects.filter(enabled=True, deadline_at__lte=now).order_by("pk")
    missed = 0
    with transaction.atomic():
        for beat in late.select_for_update(skip_locked=True):
            _miss(beat, now)
            beat.save(update_fields=[*STATE])
            missed += 1
    beats = Heartbeat.objects.filter(enabled=True).exclude(health="unknown")
    _store([reading for beat in beats for reading in readings_of(beat, now)], now)
    return missed


def _miss(beat: Heartbeat, now: datetime) -> None:
    when = beat.expected_at.strftime("%Y-%m-%d %H:%M UTC") if beat.expected_at else "its time"
    if beat.started_at is not None:
        reason = f"The job started at {when} and has not ended within its grace."
        beat.started_at = None
    else:
        reason = f"The job was expected at {when} and has not called."
    _judge(beat, reason, now)
    if beat.health == "down":
        beat.deadline_at = None  # nothing more can be missed; the next call begins anew
    else:
        beat.expected_at, beat.deadline_at = beat.plan.expected(last=beat.expected_at or now, running_since=None)


def readings_of(beat: Heartbeat, now: datetime) -> list[Reading]:
    """Return its series at this moment."""
    is_late = beat.expected_at is not None and beat.expected_at <= now and beat.started_at is None
    values = {
        "heartbeat_up": float(Standing(beat.health, beat.failures).is_up),
        "heartbeat_late": float(is_late),
    }
    if beat.last_success_at is not None:
        values["heartbeat_last_success_timestamp_seconds"] = beat.last_success_at.timestamp()
    if beat.duration is not None:
        values["heartbeat_last_duration_seconds"] = beat.duration.total_seconds()
    return [Reading(name, value, beat.series_labels, help=HELP[name]) for name, value in values.items()]


def ended(beat: Heartbeat) -> list[Reading]:
    """Return the markers that end its series."""
    return [Reading(name, STALE, beat.series_labels, help=text) for name, text in HELP.items()]


def _store(readings: Iterable[Reading], now: datetime) -> None:
    listed = list(readings)
    if listed:
        services.ingest(samples=Samples.from_readings(listed, now), by=BY, now=now, live="checks")
