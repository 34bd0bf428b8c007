"""The clock: leases keep runs apart, failures are recorded, pushes and wake-ups go out once per transaction."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.db import transaction

from apps.core import live, tasks
from apps.core.models import Loop

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def spec(monkeypatch):
    ran = []

    def make(*, lease=30.0, error=None):
        def body(*, now):
            ran.append(now)
            if error:
                raise error

        made = tasks.LoopSpec("test.loop", body, 1.0, "fast", lease, fallback=True)
        monkeypatch.setitem(tasks.LOOPS, "test.loop", made)
        return made, ran

    return make


@pytest.mark.django_db
def test_a_run_is_written_down_in_its_row(spec):
    spec()
    assert tasks.run("test.loop", now=NOW)
    row = Loop.objects.get(name="test.loop")
    assert (row.runs, row.failures, row.error, row.claimed_until) == (1, 0, "", None)
    assert row.started_at
    assert row.finished_at
    assert row.finished_at >= row.started_at


@pytest.mark.django_db
def test_a_held_lease_makes_the_tick_do_nothing(spec):
    held, ran = spec()
    assert tasks.claim(held)
    assert not tasks.run("test.loop", now=NOW)
    assert ran == []


@pytest.mark.django_db
def test_a_dead_holders_lease_ends(spec):
    held, ran = spec()
    tasks.claim(held)
    Loop.objects.update(claimed_until=NOW.replace(year=2020))
    assert tasks.run("test.loop", now=NOW)
    assert ran == [NOW]


@pytest.mark.django_db
def test_a_loop_without_lease_may_run_twice_at_once(spec):
    shared, _ = spec(lease=None)
    assert tasks.claim(shared)
    assert tasks.claim(shared)


@pytest.mark.django_db
def test_a_failing_body_is_recorded_and_the_lease_is_given_back(spec):
    spec(error=RuntimeError("the disk is on fire"))
    assert tasks.run("test.loop", now=NOW)
    row = Loop.objects.get(name="test.loop")
    assert row.failures == 1
    assert "the disk is on fire" in row.error
    assert row.claimed_until is None


@pytest.mark.django_db
def test_loops_that_stood_still_are_named_for_the_fallback(spec):
    spec()
    assert "test.loop" in tasks.stale(3600.0)
    tasks.run("test.loop", now=NOW)
    assert "test.loop" not in tasks.stale(3600.0)
    Loop.objects.update(finished_at=NOW.replace(year=2020), started_at=NOW.replace(year=2020))
    assert "test.loop" in tasks.stale(3600.0)


@pytest.mark.django_db
def test_a_loop_that_has_not_had_its_time_since_the_start_is_not_missed(spec):
    seldom, _ = spec()
    assert "test.loop" not in tasks.stale(2.9 * seldom.every)
    assert "test.loop" in tasks.stale(3.0 * seldom.every)


@pytest.mark.django_db(transaction=True)
def test_a_transaction_pushes_each_topic_and_id_once_and_a_rolled_back_one_nothing():
    listener = redis.Redis.from_url(settings.REDIS_URL).pubsub()
    listener.subscribe("live:mine", "live:yours")  # other tests of this run push to topics of their own
    assert [listener.get_message(timeout=5)["type"] for _ in range(2)] == ["subscribe", "subscribe"]
    try:
        with transaction.atomic():
            live.publish("mine", 1)
            raise LookupError
    except LookupError:
        pass
    with transaction.atomic():
        live.publish("mine", 2)
        live.publish("mine", 2)
        live.publish("yours", "host")
    messages = [listener.get_message(timeout=5) for _ in range(2)]
    assert [message["channel"] for message in messages] == [b"live:mine", b"live:yours"]
    assert b'"id":"2"' in messages[0]["data"]
    assert listener.get_message(timeout=0.2) is None
    listener.close()


@pytest.fixture
def sent(monkeypatch):
    """Names of the tasks that were handed to the broker."""
    names = []
    monkeypatch.setattr(current_app, "send_task", lambda name, **options: names.append(name))
    monkeypatch.setattr(tasks, "_away_until", float("-inf"))
    return names


@pytest.mark.django_db(transaction=True)
def test_a_transaction_wakes_each_loop_once_unless_it_is_rolled_back(spec, sent):
    spec()
    with transaction.atomic():
        undone = transaction.savepoint()
        tasks.wake("test.loop")
        transaction.savepoint_rollback(undone)
        with transaction.atomic():
            tasks.wake("test.loop")
        tasks.wake("test.loop")
        tasks.wake("other.loop")
        assert sent == []
    assert sent == ["test.loop", "other.loop"]


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_away_is_not_asked_by_each_transaction_anew(spec, sent, monkeypatch):
    asked = []

    def away(name, **options):
        asked.append(name)
        raise ConnectionError("nobody there")

    monkeypatch.setattr(current_app, "send_task", away)
    tasks.wake("test.loop")
    tasks.wake("test.loop")
    assert asked == ["test.loop"]
    monkeypatch.setattr(tasks, "AWAY", 0.0)
    monkeypatch.setattr(tasks, "_away_until", float("-inf"))
    tasks.wake("test.loop")
    tasks.wake("test.loop")
    assert asked == ["test.loop"] * 3


@pytest.mark.django_db
def test_who_asks_for_a_loop_that_runs_gets_one_more_run(spec):
    asked, ran = spec()
    body = asked.body

    def ask_meanwhile(*, now):
        body(now=now)
        if len(ran) == 1:
            assert tasks.claim(asked) is None

    tasks.LOOPS["test.loop"] = replace(asked, body=ask_meanwhile)
    assert tasks.run("test.loop", now=NOW)
    assert len(ran) == 2
    assert not Loop.objects.get(name="test.loop").asked


def nothing(*, now: datetime) -> None:
    """A loop without work."""


def test_what_is_announced_wakes_who_wants_to_know_at_most_every_gap(monkeypatch):
    rung: list[str] = []
    monkeypatch.setattr(tasks, "_send", rung.append)
    monkeypatch.setattr(tasks, "_bells", {})
    monkeypatch.setattr(tasks, "GAP", 0.05)
    monkeypatch.setitem(tasks.LOOPS, "test.bell", tasks.LoopSpec("test.bell", nothing, 1, "fast", None, False, "rain"))
    for _ in range(5):
        tasks.announce("rain")
    tasks.announce("snow")
    assert rung == ["test.bell"]
    timer = tasks._bells["test.bell"]._timer
    assert timer is not None
    timer.join()
    assert rung == ["test.bell", "test.bell"]


def test_a_gate_that_says_no_keeps_a_loop_asleep(monkeypatch):
    rung: list[str] = []
    monkeypatch.setattr(tasks, "_send", rung.append)
    monkeypatch.setattr(tasks, "_bells", {})
    spec = tasks.LoopSpec("test.bell", nothing, 1, "fast", None, False, "rain", lambda: False)
    monkeypatch.setitem(tasks.LOOPS, "test.bell", spec)
    tasks.announce("rain")
    assert rung == []


def test_a_process_runs_what_it_wakes_of_its_own_queues(monkeypatch):
    ran = []
    monkeypatch.setattr(tasks, "run", lambda name, now: ran.append(name))
    monkeypatch.setitem(tasks.LOOPS, "test.here", tasks.LoopSpec("test.here", nothing, 1, "fast", None, False))
    here = tasks.Here({"fast"}, 1)
    assert here.takes("test.here")
    assert not here.takes("unknown")
    here._pool.shutdown(wait=True)
    assert ran == ["test.here"]
