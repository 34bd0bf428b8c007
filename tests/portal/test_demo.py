"""The demo's clinic: one curve however it is asked, everything made once, no way to real data or real people."""

import itertools
import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from redis import Redis, ResponseError

from apps.accounts.models import User
from apps.alerting import evaluation
from apps.alerting.models import Alert, Change
from apps.dashboards import document, measured_panels
from apps.dashboards.models import Dashboard
from apps.dashboards.panels import PANELS, TABLES
from apps.metrics import query
from apps.metrics.models import CollectorSetting
from apps.notifications.models import Delivery
from apps.oncall import schedules
from apps.oncall.models import Schedule
from apps.promql.source import Matcher
from apps.sources import measuring
from apps.sources.models import BusinessMetric, Check, DataSource, Heartbeat, ScrapeJob
from apps.sources.servers import Access, Away, postgres, redis
from monitoring_portal import setup, supervisor
from monitoring_portal.celery import configure
from monitoring_portal.demo import clinic, desk, role, story
from monitoring_portal.embedded import Refused

OPEN = {
    ("certificate-expiry", "firing", "mara"), ("archive-fills-up", "firing", "jonas"),
    ("heartbeat-missed", "firing", "jonas"),
}  # fmt: skip
"""What the demo begins with: the shipped rules and one of its own found it."""
OF_THE_LIVING = {"portal"}
"""Dashboards of what the portal's processes tell of themselves, once they run."""
OWN = {"pg-connections", "pg-transactions", "pg-cache", "redis-commands", "redis-memory"}
"""Panels of the portal's own servers, as well."""
NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def test_counters_never_fall_and_every_value_is_a_number():
    t = np.arange(NOW.timestamp() - clinic.WEEK, NOW.timestamp(), 900)
    seen = set()
    for name, labels, values in [*clinic.series(t), *clinic.standing(t, t[-1]), *clinic.recorded(t, t[-1])]:
        assert np.isfinite(values).all(), name
        seen.add((name, *sorted(labels.items())))
        if name.endswith(("_total", "_bucket", "_sum", "duration_seconds_count")):
            assert (np.diff(values) >= 0).all(), (name, labels)
            assert values[0] >= 0
    assert len(seen) > 400


def test_events_are_the_same_however_the_time_is_cut():
    begin, end = NOW.timestamp() - 7200, NOW.timestamp()
    cuts = [begin, *sorted(random.Random(3).uniform(begin, end) for _ in range(5)), end]
    whole = sorted(map(str, clinic.events(begin, end)))
    parts = sorted(str(one) for a, b in itertools.pairwise(cuts) for one in clinic.events(a, b))
    assert len(whole) > 50
    assert parts == whole


def test_a_trouble_lasts_as_long_as_its_area_says_and_begins_once_a_week():
    t = np.arange(clinic.BORN, clinic.BORN + 2 * clinic.WEEK, 60.0)
    for trouble in clinic.TROUBLES:
        assert trouble.share(t).sum() * 60 == pytest.approx(2 * trouble.length, abs=120)
        assert trouble.area(t)[-1] == pytest.approx(2 * trouble.length)
        assert len(list(trouble.begins(t[0], t[-1]))) == 2


def test_a_target_shows_each_series_once():
    lines = [
        line for line in story.exposition(NOW.timestamp(), NOW.timestamp()).splitlines() if not line.startswith("#")
    ]
    assert len({line[: line.rindex("}")] for line in lines}) == len(lines) > 400
    # A scrape would add what is missing, and the series would not go on.
    assert not [line for line in lines if 'job="' not in line or 'instance="' not in line]


def test_what_is_scraped_lies_on_the_steps_that_were_filled_in_whenever_it_is_scraped():
    text = story.exposition(NOW.timestamp() + 0.0164, NOW.timestamp())
    at = {float(line.rpartition(" ")[2]) / 1000 for line in text.splitlines() if not line.startswith("#")}
    assert at == {NOW.timestamp() + story.FINE}
    shown = next(line for line in text.splitlines() if line.startswith("node_disk_io_time_seconds_total"))
    name, _, value = next(row for row in clinic.series(np.array([*at])) if row[0] == "node_disk_io_time_seconds_total")
    assert float(shown.split()[-2]) == np.broadcast_to(value, 1)[0], name


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_story_is_told_once_and_a_second_start_fills_only_the_gap(monkeypatch):
    configure()
    setup.load_defaults(now=NOW)
    monkeypatch.setattr(story, "PAST", timedelta(days=2))
    story.write(lambda text: None, now=NOW)
    alerts, told = Alert.objects.count(), Delivery.objects.count()
    ended = Alert.objects.filter(state="resolved")
    assert {(alert.type, alert.acknowledged_by) for alert in ended} == {("slow-bookings", "jonas")}
    for seconds in range(20, 200, 20):  # as the portal does once it runs
        evaluation.evaluate(now=NOW + timedelta(seconds=seconds))
    assert set(Alert.objects.exclude(state="resolved").values_list("type", "state", "acknowledged_by")) == OPEN
    assert told > 0
    assert Change.objects.filter(title__contains="2.8.0").exists()
    later = NOW + timedelta(minutes=30)
    said: list[str] = []
    story.write(said.append, now=later)
    assert (Alert.objects.count(), Delivery.objects.count()) == (alerts, told)
    assert (Check.objects.count(), Heartbeat.objects.count(), ScrapeJob.objects.count()) == (3, 3, 1)
    assert Schedule.objects.get().layers.get().people
    assert not CollectorSetting.objects.get(kind="cpu").enabled
    span = (int((NOW - timedelta(days=2)).timestamp() * 1000), int(later.timestamp() * 1000))
    found = query.select((Matcher("__name__", "=", "node_load1"),), *span)
    assert set(np.diff(found.ts)) == {30_000, 15_000}
    filled = story.catch_up(now=later)
    assert filled == (later + story.LEAD).timestamp()
    wanted, ahead = (Matcher("__name__", "=", "user_active"),), (span[0], int(filled * 1000))
    before = len(query.select(wanted, *ahead).ts)
    role.live_on(since=later.timestamp(), told=filled, now=later + timedelta(seconds=60))
    role.live_on(since=later.timestamp(), told=filled, now=later + timedelta(minutes=5))
    assert len(query.select(wanted, *ahead).ts) == before
    booked = query.select((Matcher("__name__", "=", "user_active"),), *(t + 300_000 for t in span))
    assert booked.ts.max() > later.timestamp() * 1000
    mara = Client()
    mara.force_login(User.objects.get(username="mara"))
    assert empty_panels(mara, until=NOW) == []
    # What is scraped goes on as the same series: it gets no label that the past has not.
    job = ScrapeJob.objects.get()
    assert (job.honor_labels, [group["labels"] for group in job.targets]) == (True, [{}])
    assert not [row for row in schedules.standings(Schedule.objects.all(), NOW) if row.problem]


def empty_panels(client: Client, *, until: datetime) -> list[str]:
    """Return every chart and table of the pages and of the shipped dashboards that has nothing to show."""
    end = int(until.timestamp() * 1000)
    span = f"from={end - 3_600_000}&to={end}"
    panels = [key for key in (*PANELS, *measured_panels.PANELS) if key not in OWN]
    asked = [f"/monitoring/data/?{span}&panel={key}" for key in panels]
    asked += [f"/monitoring/data/?{span}&panel=check-duration&check={row.pk}" for row in Check.objects.all()]
    found = [
        address.rpartition("=")[2] for address in asked
        if not any(one.get("series") for one in client.get(address).json()["panels"].values())
    ]  # fmt: skip
    found += [name for name in TABLES if not client.get(f"/monitoring/data/?{span}&table={name}").json()["rows"]]
    for row in Dashboard.objects.exclude(slug__in=OF_THE_LIVING):
        for panel in row.document["panels"]:
            if panel["kind"] in document.MEASURING:
                answer = client.get(f"/monitoring/dashboards/{row.slug}/data/?{span}&panel={panel['id']}").json()
                shown = answer["panels"][panel["id"]]
                found += [] if shown.get("series") or shown.get("rows") else [f"{row.slug} {panel['id']}"]
    return found


# --- The front desk's servers ----------------------------------------------------------------------------------------
@pytest.fixture
def gates(monkeypatch, transactional_db):
    """The demo's two gates over the servers of the test run, with a database of its own for the front desk."""
    if not str(connection.get_connection_params().get("host")).startswith("/"):
        pytest.skip("The servers of this run have no socket.")
    monkeypatch.setattr(desk, "DATABASE", "clinic_of_a_test")
    monkeypatch.setattr(desk, "READER", "reader_of_a_test")
    desk.make()
    opened = role.open_gates()
    yield {kind: made.address for kind, made in opened.items()}
    for made in opened.values():
        made.shutdown()
        made.server_close()
    with desk.connected("postgres") as line:
        line.execute("DROP DATABASE clinic_of_a_test WITH (FORCE)")
        line.execute("DROP OWNED BY reader_of_a_test")
        line.execute("DROP ROLE reader_of_a_test")


@pytest.mark.slow
def test_the_demo_measures_its_own_servers_and_asks_its_front_desk(gates):
    now = timezone.now()
    desk.make()
    desk.live_on(now)
    desk.live_on(now + timedelta(minutes=1))
    story.measured(gates, now=now)
    story.measured(gates, now=now)
    measuring.rounds_of(8).run(now=timezone.now())
    assert list(DataSource.objects.values_list("kind", "health", "error")) == [
        ("postgres", "up", ""), ("redis", "up", "")
    ]  # fmt: skip
    told = {row.name: row for row in BusinessMetric.objects.all()}
    assert {row.error for row in told.values()} == {""}
    assert (told["clinic_beds_free"].rows, told["clinic_appointments_today"].omitted) == (4, 1)
    assert told["clinic_waiting_minutes"].rows > 0


@pytest.mark.slow
def test_a_gate_lets_in_one_user_who_can_only_look(gates):
    rights = Access(gates["postgres"], database=desk.DATABASE, user=desk.READER, password=desk.password())
    with postgres.connect(rights) as line, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        line.execute("CREATE TABLE x ()")
    with postgres.connect(rights) as line:
        line.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            line.execute("INSERT INTO bed VALUES ('x', 1, true)")
    owner = str(connection.get_connection_params()["user"])
    for refused in (
        replace(rights, password="guessed"), replace(rights, user=owner),
        replace(rights, database=str(connection.settings_dict["NAME"])),
    ):  # fmt: skip
        with pytest.raises(Away):
            postgres.connect(refused)
    keeper = Access(gates["redis"], user=desk.READER, password=desk.password())
    assert redis.measure(keeper)
    for refused in (replace(keeper, password="guessed"), replace(keeper, user="default"), replace(keeper, user="")):
        with pytest.raises(Away):
            redis.measure(refused)
    host, port = gates["redis"].split(":")
    for protocol in (2, 3):
        with Redis(host, int(port), username=desk.READER, password=desk.password(), protocol=protocol) as line:
            assert line.ping()
            for command in ("FLUSHALL", "KEYS *", "CONFIG GET dir"):
                with pytest.raises(ResponseError, match="only INFO"):
                    line.execute_command(*command.split())


def test_a_demo_turns_to_a_folder_of_its_own_and_reaches_nobody(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {"PORTAL_DATA": str(tmp_path / "data"), "ALERT_EMAIL_TO": "boss@clinic.example"})
    supervisor.become_demo(tmp_path)
    assert os.environ["PORTAL_DATA"] == str(tmp_path / "data-demo")
    assert os.environ["ALERT_EMAIL_TO"] == ""
    assert os.environ["EMAIL_BACKEND"].endswith("dummy.EmailBackend")


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_a_demo_refuses_servers_that_hold_something_else(monkeypatch, tmp_path, name):
    monkeypatch.setattr(os, "environ", {name: "x://elsewhere"})
    with pytest.raises(Refused, match=name):
        supervisor.become_demo(tmp_path)
