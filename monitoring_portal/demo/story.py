"""Writes the clinic into a new portal: its people, what watches it, a week of samples, and what went wrong in it.

Everything goes through the verbs that people and programs use. It may run again at any time: rows are made once, and
samples are filled in from the newest one on.
"""

import math
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import numpy as np

from apps.accounts import services as accounts
from apps.accounts.models import User
from apps.accounts.permissions import Principal
from apps.alerting import evaluation
from apps.alerting import services as alerting
from apps.alerting.models import Alert, GroupRun, Service
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
from apps.sources import measured as measured_sources
from apps.sources import services as sources
from apps.sources.heartbeats import Call
from apps.sources.logs import services as logs
from apps.sources.logs import upkeep
from apps.sources.models import BusinessMetric, Check, CheckChange, DataSource, Heartbeat, ScrapeJob, Site
from monitoring_portal.demo import clinic, desk, diary

BY: Final = Principal.system("demo", via="command")
PAST: Final = timedelta(days=7)
STEP: Final = 30
FINE: Final = 15
"""Seconds between two samples of a series: of the week, and of its last day, which goes on in what is scraped."""
LAST: Final = timedelta(days=1)
PART: Final = timedelta(hours=6)
PER_REQUEST: Final = 10_000
"""Log records that are handed over at once."""
LEAD: Final = timedelta(minutes=4)
"""So far ahead the past is filled in: the portal's own rules look back a minute as soon as they run, and a slow machine
takes its time until the first scrape."""
PORT: Final = 39_100
"""Where the clinic answers scrapes and checks, on this machine alone; another where that is taken."""
PEOPLE: Final = (
    ("mara", "Mara Lind", "operator"),
    ("jonas", "Jonas Weiss", "operator"),
    ("ines", "Ines Duarte", "editor"),
    ("vera", "Vera Blum", "viewer"),
)
SERVICES: Final = (("database", ()), ("cache", ()), ("payments", ("database",)), ("records", ("database",)),
                   ("booking", ("database", "cache")))  # fmt: skip
CHECKS: Final = (("Clinic website", "/", "booking"), ("Online booking", "/booking", "booking"),
                 ("Payments", "/payments", "payments"))  # fmt: skip
LATE: Final = "Lab results import"
HOST: Final = ("cpu", "meminfo", "loadavg", "diskstats", "filesystem", "netdev", "netclass", "stat", "netstat",
               "sockstat", "vmstat")  # fmt: skip
BEATS: Final = (("Nightly backup", 1440), (LATE, 30), ("Insurance export", 60))
"""Heartbeats and how many minutes lie between two calls."""
LASTS: Final = 95
"""Seconds that such a job takes."""
GRACE: Final = timedelta(minutes=10)
ARCHIVE: Final[dict[str, Any]] = {
    "slug": "archive-fills-up",
    "name": "Archive fills up",
    "type": "system",
    "group": "clinic",
    "service": "records",
    "interval": 60,
    "expression": 'node_filesystem_avail_bytes{mountpoint="/srv/archive"} '
    '/ clamp_min(-deriv(node_filesystem_avail_bytes{mountpoint="/srv/archive"}[6h]), 1) / 86400',
    "pending_period": 0,
    "levels": [
        {"severity": "warning", "comparison": "<", "threshold": clinic.ENOUGH},
        {"severity": "critical", "comparison": "<", "threshold": 1.0},
    ],
    "annotations": {
        "summary": '{{ $labels.mountpoint }} of {{ $labels.instance }} is full in {{ $value | printf "%.1f" }} days',
        "description": "At the pace of the last six hours; scans are no longer filed once it is.",
    },
    "runbook": "1. What grew? `du -xh --max-depth=2 /srv/archive | sort -h | tail`\n"
    "2. Are new disks on their way? Look at the silences that are planned.\n"
    "3. Until then move the scans of closed cases to the second archive.",
}
Progress = Callable[[str], None]
Step = tuple[float, Callable[[datetime], None]]
"""When something happens (s), and what writes it as of then."""


def write(progress: Progress, *, now: datetime, password: str | None = None) -> None:
    """Make what is missing, fill in samples up to now. `password`: of the clinic's people; without one none logs in."""
    begin = time.monotonic()
    is_new = not Site.objects.filter(name="clinic").exists()
    if is_new:
        progress("Demo: writing the clinic's people, services, checks and contacts")
        _people(now, password)
        _rows(now)
    point_at(port(), now=now)
    since = _newest(now) or now - PAST
    if now - since > timedelta(minutes=1):
        progress(f"Demo: filling in {max(1, round((now - since) / timedelta(hours=1)))} hours of samples")
        fill(since=since, until=now + LEAD)
    if is_new:
        progress("Demo: telling what went wrong in the week")
        _past(now)
    record(since=since, until=now)
    if is_new and password:
        names = ", ".join(f"{name} ({role})" for name, _, role in PEOPLE)
        progress(f"Demo: {names} log in with the password of admin, too")
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


def began() -> float:
    """Return when the demo was first written (s)."""
    return User.objects.get(username=PEOPLE[0][0]).date_joined.timestamp()


def fill(*, since: datetime, until: datetime) -> None:
    """Store every series from since to the last step before until through the back-fill, a few hours at a time."""
    begin = began()
    until = datetime.fromtimestamp(until.timestamp() // STEP * STEP, tz=UTC)  # samples and events end together
    for first, last, t in _parts(since, until):
        rows = [*clinic.series(t), *clinic.standing(t, begin), *_checked(t)]
        metrics.backfill(samples=_samples(rows, t), by=BY, now=until, source="the demo's past")
        happened = list(clinic.events(first.timestamp(), last.timestamp()))
        if happened:
            labels = [{"__name__": name, **own} for name, own, _, _ in happened]
            times, values = [int(at * 1000) for *_, at, _ in happened], [value for *_, value in happened]
            metrics.backfill(samples=Samples.of(labels, times, values), by=BY, now=until, source="the demo's events")
        while compaction.compact_log(now=until):
            pass
        write_lines(since=first.timestamp(), until=last.timestamp(), now=until)
    upkeep.tend(now=until + upkeep.PACK_AFTER)


def record(*, since: datetime, until: datetime) -> None:
    """Store what rules and heartbeats would have written. Only after the past: they take nothing older."""
    begin = began()
    for _, _, t in _parts(since, until):
        rows = [*clinic.recorded(t, begin), *_called(t)]
        metrics.backfill(samples=_samples(rows, t), by=BY, now=until, source="the demo's past")
    while compaction.compact_log(now=until):
        pass


def _parts(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime, clinic.Values]]:
    """Cut a span into parts: begin, end, and its steps (s), of which there is at least one."""
    day = until - LAST
    while since < until:
        step = STEP if since < day else FINE
        end = min(since + PART, day if since < day else until)
        t = np.arange(since.timestamp() // step * step + step, end.timestamp() + 0.5, step)
        if len(t):
            yield since, end, t
        since = end


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


def _called(t: clinic.Values) -> Iterable[clinic.Row]:
    """What the heartbeats would have told."""
    is_up = np.where((t >= _missed()) & (t < began() + clinic.RESULTS), 0.0, 1.0)
    for beat in Heartbeat.objects.filter(name__in=[name for name, _ in BEATS]):
        yield "heartbeat_up", beat.series_labels, is_up if beat.name == LATE else np.ones(len(t))


# --- rows ------------------------------------------------------------------------------------------------------------
def _people(now: datetime, password: str | None) -> None:
    for name, full, role in PEOPLE:
        first, last = full.split()
        user = User.objects.create_user(
            name, f"{name}@clinic.example", password, first_name=first, last_name=last, date_joined=now
        )
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
    for name, minutes in BEATS:
        beat = Heartbeat(name=name, period=timedelta(minutes=minutes), grace=GRACE)
        heartbeats.save_heartbeat(by=BY, beat=beat, now=now - PAST)
    alerting.silence(
        by=BY, matchers=['service="records"'], starts_at=now + timedelta(hours=20), ends_at=now + timedelta(hours=22),
        comment="New disks for the archive", now=now,
    )  # fmt: skip
    alerting.ship_rule(ARCHIVE, by=BY, now=now - PAST)
    sites.save_site(by=BY, site=Site(name="clinic", origins=["https://clinic.example"]))


def port() -> int:
    """Return where the clinic has answered so far, or where it can: its checks' series carry the address."""
    job = ScrapeJob.objects.filter(name="clinic").first()
    if job is not None:
        return int(job.targets[0]["targets"][0].rpartition(":")[2])
    with socket.socket() as line:
        try:
            line.bind(("127.0.0.1", PORT))
        except OSError:
            line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


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
        check = Check.objects.get(name=name)
        url = f"http://127.0.0.1:{port}{path}"
        if check.config.get("url") != url:
            checks.save_check(by=BY, check=check, values={**check.config, "url": url}, now=now)


# --- the past --------------------------------------------------------------------------------------------------------
def _past(now: datetime) -> None:
    """What happened in the week, in the order in which it happened."""
    since = (now - PAST).timestamp()
    happened: list[Step] = []
    for trouble in clinic.TROUBLES:
        for begin in trouble.begins(since, now.timestamp()):
            happened += moments(trouble, begin)
    for name, minutes in BEATS:
        beat, every = Heartbeat.objects.get(name=name), 60 * minutes
        last = now.timestamp() // every * every
        calls = range(12, -1, -1)
        if name == LATE:  # it has been missing for an hour, more or less
            calls = range(14, 2, -1)
            happened += _opened(_missed() + 15, "heartbeat-missed", "jonas", 360)
        happened += [(last - number * every, _call(beat)) for number in calls]
    crossed = began() - (14 * clinic.DAY - clinic.CERTIFICATE) + 60
    happened += _opened(crossed, "certificate-expiry", "mara", 4_300)
    left = (clinic.ENOUGH * clinic.ARCHIVE_A_DAY - clinic.ARCHIVE_LEFT) / clinic.ARCHIVE_A_DAY
    happened += _opened(began() - left * clinic.DAY + 120, ARCHIVE["slug"], "jonas", 1_500)
    for at, title in ((now - timedelta(days=2, hours=3), "records 4.1.0"), (now - timedelta(hours=5), "booking 2.9.0")):
        happened.append((at.timestamp(), _deployed(title)))
    for moment, step in sorted((each for each in happened if each[0] <= now.timestamp()), key=lambda each: each[0]):
        step(datetime.fromtimestamp(moment, tz=UTC))
    heartbeats.look_after(now=now)


def _missed() -> float:
    """When the laboratory's import was missed (s): two calls before the demo began did not come."""
    every = 60 * dict(BEATS)[LATE]
    return began() // every * every - 2 * every + LASTS + GRACE.total_seconds()


def _opened(at: float, slug: str, by: str, after: float) -> list[Step]:
    """The steps of what a rule finds then and is still so: found, told, and taken by somebody some seconds later."""

    def find(moment: datetime) -> None:
        if slug == "heartbeat-missed":
            heartbeats.look_after(now=moment)
        evaluation.evaluate(now=moment + timedelta(seconds=20))
        GroupRun.objects.all().delete()  # the portal did not run meanwhile: no tick was missed
        deliver(moment)

    def take(moment: datetime) -> None:
        for alert in Alert.objects.open().filter(type=slug):
            alerting.acknowledge(by=_person(by), alert=alert, now=moment)
        deliver(moment)

    return [(at, find), (at + after, take)]


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
        deliver(at)

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
        for signal, seconds in (("start", 0), ("success", LASTS)):
            moment = at + timedelta(seconds=seconds)
            heartbeats.ping(beat=beat, call=Call(signal, address="192.0.2.7", agent="curl/8.5.0"), now=moment)

    return call


def _turned(health: str, reason: str, at: datetime) -> None:
    CheckChange.objects.create(check_row=Check.objects.get(name="Payments"), at=at, health=health, reason=reason)


def measured(addresses: Mapping[str, str], *, now: datetime) -> None:
    """Let the portal measure its own PostgreSQL and Valkey as servers of the clinic, which answer at these addresses
    (by kind), and ask the front desk's database what goes on in the house.
    """
    for kind, address in addresses.items():
        row = DataSource.objects.filter(name=f"clinic-desk-{kind}").first()
        if row is not None and row.address == address:
            continue
        row = row or DataSource(
            name=f"clinic-desk-{kind}", kind=kind, user=desk.READER, labels={"service": "booking"},
            database=desk.DATABASE if kind == "postgres" else "",
        )  # fmt: skip
        row.address = address
        measured_sources.save_data_source(by=BY, source=row, password=desk.password(), now=now)
    for name, says, asks, more in desk.METRICS:
        if not BusinessMetric.objects.filter(name=name).exists():
            source = DataSource.objects.get(name="clinic-desk-postgres")
            made = BusinessMetric(
                name=name, help=says, query=asks, source=source, interval=timedelta(minutes=1), **more
            )  # fmt: skip
            measured_sources.save_business_metric(by=BY, metric=made, now=now)


def push_events(*, since: float, until: float, now: datetime) -> None:
    """Tell the portal what happened since then, as the clinic's application would (s)."""
    readings = [
        Reading(name, value, labels, timestamp_ms=int(at * 1000))
        for name, labels, at, value in clinic.events(since, until)
    ]
    metrics.record_events(readings=readings, by=BY, now=now)
    write_lines(since=since, until=until, now=now)


def exposition(at: float, began: float) -> str:
    """The clinic's series as a target shows them: as of the next step, with its time.

    So what is scraped lies on the very steps that were filled in, however late the scrape is: an odd sample between
    two steps would make a `rate` over a minute fall.
    """
    at, lines = math.ceil(at / FINE) * FINE, []
    moment = np.full(1, at)
    shown = sorted([*clinic.series(moment), *clinic.standing(moment, began)], key=lambda row: row[0])
    for name, rows in groupby(shown, key=lambda row: row[0]):
        lines += [f"# TYPE {name} counter"] if name.endswith("_total") else []
        for _, labels, values in rows:
            inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
            lines.append(f"{name}{{{inner}}} {float(np.broadcast_to(values, 1)[0])!r} {at * 1000}")
    return "\n".join([*lines, ""])
