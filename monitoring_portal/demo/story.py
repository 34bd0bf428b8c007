"""Writes the clinic into a new portal: its people, what watches it, a week of samples, and what went wrong in it.

Everything goes through the verbs that people and programs use. It may run again at any time: rows are made once, and
samples are filled in from the newest one on.
"""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import numpy as np

from apps.accounts import services as accounts
from apps.accounts.models import User
from apps.accounts.permissions import Principal
from apps.alerting import services as alerting
from apps.alerting.models import Alert, Service
from apps.core.telemetry import Reading
from apps.metrics import compaction, query
from apps.metrics import services as metrics
from apps.metrics.models import CollectorSetting
from apps.metrics.samples import Samples
from apps.notifications import sending
from apps.notifications import services as notifications
from apps.oncall import escalating, schedules, telling
from apps.oncall import services as oncall
from apps.oncall.models import Policy, Route
from apps.promql.source import Matcher
from apps.sources import checks, heartbeats, sites
from apps.sources import services as sources
from apps.sources.heartbeats import Call
from apps.sources.logs import services as logs
from apps.sources.logs import upkeep
from apps.sources.models import Check, CheckChange, Heartbeat, ScrapeJob, Site
from monitoring_portal.demo import clinic, diary

BY: Final = Principal.system("demo", via="command")
PAST: Final = timedelta(days=7)
STEP: Final = 30
PART: Final = timedelta(hours=6)
PER_REQUEST: Final = 10_000
"""Log records that are handed over at once."""
LEAD: Final = timedelta(seconds=90)
"""So far ahead the past is filled in: the portal's own rules look back a minute as soon as they run."""
PORT: Final = 39_100
"""Where the clinic answers scrapes and checks, on this machine alone; another where that is taken."""
PEOPLE: Final = (
    ("mara", "Mara Lind", "operator"),
    ("jonas", "Jonas Weiss", "operator"),
    ("ines", "Ines Duarte", "editor"),
)
SERVICES: Final = (("database", ()), ("cache", ()), ("payments", ("database",)), ("records", ("database",)),
                   ("booking", ("database", "cache")))  # fmt: skip
CHECKS: Final = (("Clinic website", "/", "booking"), ("Online booking", "/booking", "booking"),
                 ("Payments", "/payments", "payments"))  # fmt: skip
HOST: Final = ("cpu", "meminfo", "loadavg", "diskstats", "filesystem", "netdev", "netclass", "stat", "netstat",
               "sockstat", "vmstat")  # fmt: skip
Progress = Callable[[str], None]
Step = tuple[float, Callable[[datetime], None]]
"""When something happens (s), and what writes it as of then."""


def write(progress: Progress, *, now: datetime) -> None:
    """Make what is missing, fill in samples up to now."""
    begin = time.monotonic()
    is_new = not Site.objects.filter(name="clinic").exists()
    if is_new:
        progress("Demo: writing the clinic's people, services, checks and contacts")
        _people(now)
        _rows(now)
    point_at(PORT, now=now)
    since = _newest(now) or now - PAST
    if now - since > timedelta(minutes=1):
        progress(f"Demo: filling in {max(1, round((now - since) / timedelta(hours=1)))} hours of samples")
        fill(since=since, until=now + LEAD)
    if is_new:
        progress("Demo: telling what went wrong in the week")
        _past(now)
    progress(f"Demo: the clinic is there ({time.monotonic() - begin:.1f} s)")


def catch_up(*, now: datetime) -> float:
    """Fill in what was missed while the portal started; return until when (s) all is told, which may lie ahead."""
    since = _newest(now + LEAD)
    if since is not None and timedelta(0) < now - since < PART:
        fill(since=since, until=now)
    return (_newest(now + LEAD) or now).timestamp()


# --- samples ---------------------------------------------------------------------------------------------------------
def _newest(now: datetime) -> datetime | None:
    """When the newest sample of the clinic was taken."""
    wanted = (Matcher("__name__", "=", "pg_settings_max_connections"), Matcher("job", "=", "clinic-db"))
    found = query.select(wanted, int((now - 2 * PAST).timestamp() * 1000), int(now.timestamp() * 1000))
    return datetime.fromtimestamp(int(found.ts.max()) / 1000, tz=UTC) if len(found.ts) else None


def fill(*, since: datetime, until: datetime) -> None:
    """Store every series from since to the last step before until through the back-fill, a few hours at a time."""
    until = datetime.fromtimestamp(until.timestamp() // STEP * STEP, tz=UTC)  # samples and events end together
    while since < until:
        end = min(since + PART, until)
        t = np.arange(since.timestamp() // STEP * STEP + STEP, end.timestamp() + 0.5, STEP)
        if len(t):
            rows = [*clinic.series(t), *clinic.recorded(t), *_checked(t)]
            metrics.backfill(samples=_samples(rows, t), by=BY, now=until, source="the demo's past")
        happened = list(clinic.events(since.timestamp(), end.timestamp()))
        if happened:
            labels = [{"__name__": name, **own} for name, own, _, _ in happened]
            times, values = [int(at * 1000) for *_, at, _ in happened], [value for *_, value in happened]
            metrics.backfill(samples=Samples.of(labels, times, values), by=BY, now=until, source="the demo's events")
        while compaction.compact_log(now=until):
            pass
        write_lines(since=since.timestamp(), until=end.timestamp(), now=until)
        since = end
    upkeep.tend(now=until + upkeep.PACK_AFTER)


def write_lines(*, since: float, until: float, now: datetime) -> None:
    """Hand over what the clinic's services logged since then (s)."""
    written = sorted(diary.lines(since, until), key=lambda record: record.at)
    for begin in range(0, len(written), PER_REQUEST):
        logs.ingest(records=written[begin : begin + PER_REQUEST], by=BY, now=now)


def _samples(rows: list[clinic.Row], t: clinic.Values) -> Samples:
    """Whole columns as samples: one key for all the times of a series."""
    labels = [{"__name__": name, **own} for name, own, _ in rows]
    return Samples(
        keys=[key for one in labels for key in [tuple(one.items())] * len(t)],
        labels_of=lambda index: labels[index // len(t)],
        ts=np.tile((t * 1000).astype(np.int64), len(rows)),
        v=np.concatenate([np.broadcast_to(values, t.shape) for _, _, values in rows]).astype(np.float64),
    )


def _checked(t: clinic.Values) -> Iterable[clinic.Row]:
    """What the checks would have found."""
    for row in Check.objects.filter(name__in=[name for name, _, _ in CHECKS]):
        own = row.series_labels
        is_up = 1 - (clinic.PAYMENTS.share(t) if row.name == "Payments" else 0 * t)
        yield "check_up", own, is_up
        yield "probe_success", own, is_up
        yield "probe_duration_seconds", own, 0.02 + 0.02 * clinic.busy(t)


# --- rows ------------------------------------------------------------------------------------------------------------
def _people(now: datetime) -> None:
    for name, full, role in PEOPLE:
        first, last = full.split()
        user = User.objects.create_user(name, email=f"{name}@clinic.example", first_name=first, last_name=last)
        accounts.set_roles(by=BY, user=user, roles=[role])
        notifications.save_contact(
            by=BY, now=now, name=f"{full}'s mail", kind="email", values={"to": [f"{name}@clinic.example"]}, owner=user
        )


def _rows(now: datetime) -> None:
    for setting in CollectorSetting.objects.filter(kind__in=HOST):
        setting.enabled = False  # this machine's figures are no part of the clinic's
        accounts.save_object(by=BY, obj=setting)
    made: dict[str, Service] = {}
    for name, parents in SERVICES:
        made[name] = alerting.save_service(
            by=BY, values={"name": name}, depends_on=[made[parent] for parent in parents], now=now
        )
    contact = notifications.save_contact(
        by=BY, now=now, name="Clinic on call", kind="email", values={"to": ["oncall@clinic.example"]}
    )
    Route.objects.get(is_root=True).contacts.add(contact)
    ids = list(User.objects.filter(username__in=["mara", "jonas"]).order_by("username").values_list("pk", flat=True))
    layer: dict[str, Any] = {"name": "Week by week", "people": ids, "starts_at": now - timedelta(days=28)}
    schedules.save_schedule(by=BY, name="Clinic IT", zone="Europe/Berlin", layers=[layer])
    oncall.save_policy(
        by=BY,
        name="Clinic nights",
        description="Whoever has the week, then everybody.",
        steps=[
            {"kind": "notify_schedule", "config": {"schedule": "Clinic IT"}},
            {"kind": "wait", "config": {"minutes": 10}},
            {"kind": "notify", "config": {"route_contacts": True, "fallback": True}},
        ],
        policy=Policy.objects.filter(name="Clinic nights").first(),
    )
    for name, path, service in CHECKS:
        check = Check(name=name, kind="http", labels={"service": service}, interval=timedelta(seconds=30))
        checks.save_check(by=BY, check=check, values={"url": f"http://127.0.0.1:{PORT}{path}"}, now=now)
    for name, minutes in (("Nightly backup", 1440), ("Lab results import", 30), ("Insurance export", 60)):
        beat = Heartbeat(name=name, period=timedelta(minutes=minutes), grace=timedelta(minutes=10))
        heartbeats.save_heartbeat(by=BY, beat=beat, now=now - PAST)
    alerting.silence(
        by=BY, matchers=['service="records"'], starts_at=now + timedelta(hours=20), ends_at=now + timedelta(hours=22),
        comment="New disks for the archive", now=now,
    )  # fmt: skip
    sites.save_site(by=BY, site=Site(name="clinic", origins=["https://clinic.example"]))


def point_at(port: int, *, now: datetime) -> None:
    """Let the scrape job and the checks ask the clinic where it answers."""
    job = ScrapeJob.objects.filter(name="clinic").first() or ScrapeJob(name="clinic")
    # No labels of its own: what is scraped must go on where the filled-in past ends, as the same series.
    wanted = [{"targets": [f"127.0.0.1:{port}"], "labels": {}}]
    if job.targets != wanted:
        job.targets, job.honor_labels = wanted, True
        job.interval, job.timeout = timedelta(seconds=15), timedelta(seconds=5)
        sources.save_job(by=BY, job=job, now=now)
    for name, path, _ in CHECKS:
        check = Check.objects.filter(name=name).first()
        url = f"http://127.0.0.1:{port}{path}"
        # One that was renamed or deleted belongs to whoever plays with the demo.
        if check is not None and check.config.get("url") != url:
            checks.save_check(by=BY, check=check, values={**check.config, "url": url}, now=now)


# --- the past --------------------------------------------------------------------------------------------------------
def _past(now: datetime) -> None:
    """What happened in the week, in the order in which it happened."""
    since = (now - PAST).timestamp()
    happened: list[Step] = []
    for trouble in clinic.TROUBLES:
        for begin in trouble.begins(since, now.timestamp()):
            happened += moments(trouble, begin)
    for name, every in (("Nightly backup", 86_400), ("Lab results import", 1800), ("Insurance export", 3600)):
        beat = Heartbeat.objects.get(name=name)
        last = now.timestamp() // every * every
        calls = range(12, 0, -1) if name == "Lab results import" else range(12, -1, -1)
        happened += [(last - number * every, _call(beat)) for number in calls]
    for at, title in ((now - timedelta(days=2, hours=3), "records 4.1.0"), (now - timedelta(hours=5), "booking 2.9.0")):
        happened.append((at.timestamp(), _deployed(title)))
    happened.append(((now - timedelta(minutes=44)).timestamp(), _late_results))
    for moment, step in sorted((each for each in happened if each[0] <= now.timestamp()), key=lambda each: each[0]):
        step(datetime.fromtimestamp(moment, tz=UTC))
    heartbeats.look_after(now=now)


def moments(trouble: clinic.Trouble, begin: float) -> list[Step]:
    """The steps of a trouble that begins then: told, taken, mended, each with its time (s)."""

    def tell(at: datetime) -> None:
        alerting.post_alert(
            by=BY, type=trouble.kind, severity=trouble.severity, message=trouble.words, service=trouble.service,
            ends_at=at + timedelta(days=1), now=at,
        )  # fmt: skip
        if trouble is clinic.PAYMENTS:
            _turned("down", "Status 503.", at)
        deliver(at)

    def take(at: datetime) -> None:
        for alert in _open(trouble):
            alerting.acknowledge(by=_person(trouble.taken_by), alert=alert, now=at)

    def mend(at: datetime) -> None:
        for alert in _open(trouble):
            alerting.resolve(by=_person(trouble.taken_by), alert=alert, now=at)
        if trouble is clinic.PAYMENTS:
            _turned("up", "", at)
        deliver(at)

    steps: list[Step] = [(begin + 120, tell), (begin + 540, take), (begin + trouble.length + 60, mend)]
    if trouble.cause:
        steps.append((begin - 480, _deployed(trouble.cause, trouble.service)))
    if trouble.cure:
        steps.append((begin + trouble.length - 90, _deployed(trouble.cure, trouble.service)))
    return steps


def deliver(at: datetime) -> None:
    """Let the rooms above tell what is to be told, as their loops do."""
    for seconds in (0, 60):
        moment = at + timedelta(seconds=seconds)
        telling.tell(now=moment)
        telling.flush(now=moment)
        escalating.escalate(now=moment)
    sending.drain(clock=lambda: at + timedelta(seconds=61))


def _open(trouble: clinic.Trouble) -> list[Any]:
    return list(Alert.objects.open().filter(type=trouble.kind))


def _person(name: str) -> Principal:
    return Principal.of_user(User.objects.get(username=name))


def _deployed(title: str, service: str = "") -> Callable[[datetime], None]:
    def note(at: datetime) -> None:
        words = title if "deployed" in title or ":" in title else f"{title} deployed"
        alerting.note_change(
            by=BY, title=words, service=service or title.split(maxsplit=1)[0], author="ines", at=at, now=at
        )

    return note


def _call(beat: Heartbeat) -> Callable[[datetime], None]:
    def call(at: datetime) -> None:
        for signal, seconds in (("start", 0), ("success", 95)):
            moment = at + timedelta(seconds=seconds)
            heartbeats.ping(beat=beat, call=Call(signal, address="192.0.2.7", agent="curl/8.5.0"), now=moment)

    return call


def _turned(health: str, reason: str, at: datetime) -> None:
    CheckChange.objects.create(check_row=Check.objects.get(name="Payments"), at=at, health=health, reason=reason)


def _late_results(at: datetime) -> None:
    alert = alerting.post_alert(
        by=BY, type="lab-results-late", severity="warning", service="records", ends_at=at + timedelta(days=1), now=at,
        message="Laboratory results of this morning have not arrived; the import waits for the laboratory",
    )  # fmt: skip
    deliver(at)
    alerting.acknowledge(by=_person("jonas"), alert=alert, now=at + timedelta(minutes=6))


def push_events(*, since: float, until: float, now: datetime) -> None:
    """Tell the portal what happened since then, as the clinic's application would (s)."""
    readings = [
        Reading(name, value, labels, timestamp_ms=int(at * 1000))
        for name, labels, at, value in clinic.events(since, until)
    ]
    metrics.record_events(readings=readings, by=BY, now=now)
    write_lines(since=since, until=until, now=now)


def exposition(at: float) -> str:
    """The clinic's series as a target shows them, each with the time it is true of.

    Without it the time of the scrape, some milliseconds earlier, could put a counter before a smaller filled-in one.
    """
    stamp = round(at * 1000)
    at, lines = stamp / 1000, []
    for name, rows in groupby(sorted(clinic.series(np.full(1, at)), key=lambda row: row[0]), key=lambda row: row[0]):
        lines += [f"# TYPE {name} counter"] if name.endswith("_total") else []
        for _, labels, values in rows:
            inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
            lines.append(f"{name}{{{inner}}} {float(np.broadcast_to(values, 1)[0])!r} {stamp}")
    return "\n".join([*lines, ""])
