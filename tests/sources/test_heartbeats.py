"""When a job is expected, what its calls mean, and what is told when they do not come."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from apps.accounts import services as accounts
from apps.core.lanes import Request
from apps.metrics import query
from apps.sources import heartbeats, ping_api
from apps.sources.cadence import Plan, check_cron
from apps.sources.heartbeats import Call
from apps.sources.models import Heartbeat, Ping
from tests.sources.conftest import ADMIN, NOW

HOUR = timedelta(hours=1)


# --- Pure ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cron", "zone", "last", "expected"),
    [
        ("", "UTC", "2026-03-28T12:00", "2026-03-29T12:00"),
        ("0 3 * * *", "UTC", "2026-03-28T12:00", "2026-03-29T03:00"),
        ("0 3 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00"),  # the clocks go forward at two
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00"),  # half past two does not exist
        ("0 3 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T02:00"),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", "2028-02-29T00:00"),
    ],
)
def test_the_next_call_is_expected_by_the_clock_on_the_wall(cron, zone, last, expected):
    plan = Plan(timedelta(days=1), HOUR, cron, zone)
    at = datetime.fromisoformat(last).replace(tzinfo=UTC)
    assert plan.next_after(at) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_a_job_that_runs_has_to_end_within_its_grace():
    plan = Plan(timedelta(days=1), HOUR)
    assert plan.expected(last=NOW, running_since=NOW) == (NOW, NOW + HOUR)
    assert plan.expected(last=NOW, running_since=None)[1] == NOW + timedelta(hours=25)


@pytest.mark.parametrize("text", ["", "x", "* * * *", "61 * * * *", "0 0 30 2 *"])
def test_a_wrong_expression_is_refused(text):
    with pytest.raises(ValueError, match=r"\."):
        check_cron(text)


@pytest.mark.parametrize(
    ("rest", "meaning"),
    [
        ([], ("success", None)), (["start"], ("start", None)), (["fail"], ("fail", None)), (["log"], ("log", None)),
        (["0"], ("success", 0)), (["137"], ("fail", 137)), (["256"], None), (["what"], None), (["fail", "x"], None),
    ],
)  # fmt: skip
def test_what_stands_behind_the_name_says_how_it_went(rest, meaning):
    assert ping_api.signal_of(rest) == meaning


# --- Calls ---------------------------------------------------------------------------------------------------------
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping_api, "RATE", 1_000_000)


def made(**values: object) -> Heartbeat:
    beat = Heartbeat(**{"name": "Backup", "period": HOUR, "grace": timedelta(minutes=5), **values})
    return heartbeats.save_heartbeat(by=ADMIN, beat=beat, now=NOW)


def call(path: str, *, query: bytes = b"", body: bytes = b"", method: str = "GET"):
    captured = {"path": path}
    request = Request(method, f"/ping/{path}", query, body, captured=captured, address="192.0.2.1")
    return ping_api.ping(ADMIN, request)


def told(beat: Heartbeat, signal: str, minutes: float, **more: Any) -> Heartbeat:
    heartbeats.ping(beat=beat, call=Call(signal, **more), now=NOW + timedelta(minutes=minutes))
    return Heartbeat.objects.get(pk=beat.pk)


def shown(minutes: float) -> dict[str, float]:
    return {value.name: value.value for value in query.latest((), at=NOW + timedelta(minutes=minutes))}


def test_curl_one_liners_of_healthchecks_work():
    beat = made()
    for path, method, body in (
        (f"{beat.code}", "GET", b""), (f"{beat.code}/start", "POST", b""), (f"{beat.code}/log", "POST", b"step 2"),
        (f"{beat.code}/fail", "POST", b"disk full\nno space"), (f"{beat.code}/0", "HEAD", b""),
    ):  # fmt: skip
        answer = call(path, method=method, body=body)
        assert (answer.status, answer.body) == (200, b"OK")
    assert list(beat.calls.values_list("signal", flat=True)) == ["success", "fail", "log", "start", "success"]
    assert Heartbeat.objects.get().health == "up"


def test_a_call_of_nobody_does_no_harm_and_says_so():
    assert call(str(uuid.uuid4())).body == b"OK (not found)"
    assert call("nonsense").status == 404
    assert call(f"{made().code}/no-such").status == 400
    assert call(f"{Heartbeat.objects.get().code}", query=b"rid=1").status == 400


def test_a_key_and_a_slug_find_the_heartbeat_or_make_it():
    _, key = accounts.issue_token(by=ADMIN, name="cron", scopes=["ingest"], expires_at=None, now=NOW)
    assert call(f"{key}/backup").status == 404
    assert call(f"{key}/backup", query=b"create=1").status == 403
    made()
    assert call(f"{key}/backup").body == b"OK"
    assert call(f"{key}/backup/1").body == b"OK"
    assert Heartbeat.objects.get().health == "down"
    assert call("wrong/backup").status == 404


def test_a_failure_is_known_at_once_with_the_last_words_of_the_job():
    beat = told(made(), "success", 0)
    assert shown(0)["heartbeat_up"] == 1
    beat = told(beat, "fail", 1, exit_status=2, body="one\nNo space left on device\n")
    assert beat.health == "down"
    assert beat.reason == "The job failed with exit status 2: No space left on device"
    assert shown(1)["heartbeat_up"] == 0


def test_a_call_that_does_not_come_is_late_then_missed_then_down():
    beat = told(made(confirm=2), "success", 0)
    assert heartbeats.look_after(now=NOW + timedelta(minutes=62)) == 0
    assert shown(62)["heartbeat_late"] == 1
    assert heartbeats.look_after(now=NOW + timedelta(minutes=66)) == 1
    beat.refresh_from_db()
    assert (beat.health, shown(66)["heartbeat_up"]) == ("failing", 1)
    assert heartbeats.look_after(now=NOW + timedelta(minutes=126)) == 1
    beat.refresh_from_db()
    assert beat.health == "down"
    assert "has not called" in beat.reason
    assert shown(126)["heartbeat_up"] == 0
    assert heartbeats.look_after(now=NOW + timedelta(hours=9)) == 0
    assert told(beat, "success", 600).health == "up"


def test_a_job_that_starts_and_never_ends_is_missed():
    beat = told(made(), "success", 0)
    beat = told(beat, "start", 30)
    heartbeats.look_after(now=NOW + timedelta(minutes=36))
    beat.refresh_from_db()
    assert (beat.health, beat.started_at) == ("down", None)
    assert "has not ended" in beat.reason


@pytest.mark.parametrize("signal", ["fail", "success"])
def test_a_job_that_has_just_called_is_not_late(signal):
    told(told(made(), "start", 0), signal, 4)
    assert shown(4)["heartbeat_late"] == 0


def test_a_run_is_timed_by_its_own_start():
    one, other = uuid.uuid4(), uuid.uuid4()
    beat = told(made(), "start", 0, run=one)
    told(beat, "start", 2, run=other)
    told(beat, "success", 3, run=one)
    assert Ping.objects.filter(signal="success").get().duration == timedelta(minutes=3)


def test_only_the_newest_calls_are_kept(monkeypatch):
    monkeypatch.setattr(heartbeats, "MOST_CALLS", 5)
    beat = made()
    for minute in range(12):
        told(beat, "success", minute)
    assert 5 <= Ping.objects.count() < 10


def test_a_paused_heartbeat_expects_nothing_and_its_series_end():
    beat = told(made(), "success", 0)
    beat.enabled = False
    heartbeats.save_heartbeat(by=ADMIN, beat=beat, now=NOW + timedelta(minutes=1))
    assert heartbeats.look_after(now=NOW + timedelta(days=1)) == 0
    assert "heartbeat_up" not in shown(2)
    assert told(beat, "success", 3).health == "unknown"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cron": "61 * * * *"}, "cron"), ({"zone": "Mars/Olympus"}, "zone"), ({"period": timedelta(0)}, "period"),
        ({"grace": timedelta(0)}, "grace"), ({"labels": {"heartbeat": "x"}}, "labels"), ({"slug": "a b"}, "slug"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(change, field):
    with pytest.raises(ValidationError) as refused:
        made(**change)
    assert field in refused.value.message_dict


def test_uptime_kumas_push_url_is_understood():
    beat = made()
    for status, words in ((b"status=up&msg=fine", b'{"ok":true}'), (b"status=down&msg=broken", b'{"ok":true}')):
        request = Request("GET", "/api/push/x", status, captured={"code": str(beat.code)})
        assert ping_api.push(ADMIN, request).body == words
    assert Heartbeat.objects.get().reason == "The job failed: broken"
