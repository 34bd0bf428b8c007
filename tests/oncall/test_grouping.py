"""Routing, timing and what a contact is told, as tables and properties."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alerting.matching import MatcherError, parse_matcher
from apps.oncall.grouping import (
    Decision,
    Event,
    RouteSpec,
    Standing,
    Timers,
    Told,
    decide,
    due_after,
    group_key,
    group_labels,
    matching,
    page,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ('service="web"', {"service": "web"}, True),
        ("service=web", {"service": "web"}, True),
        ('service!="web"', {}, True),
        ('service=~"web|db"', {"service": "db"}, True),
        ('service=~"web"', {"service": "webshop"}, False),
        ('service!~"web.*"', {"service": "webshop"}, False),
        ('text="a \\"b\\" \\\\"', {"text": 'a "b" \\'}, True),
        ('service=""', {}, True),
    ],
)
def test_matchers_are_alertmanagers(text: str, labels: dict[str, str], holds: bool):
    assert parse_matcher(text).matches(labels.get(parse_matcher(text).name, "")) is holds


@pytest.mark.parametrize("text", ["", "service", '="web"', 'service="web', 'service=~"("', "5=x"])
def test_a_matcher_that_cannot_be_read_says_so(text: str):
    with pytest.raises(MatcherError):
        parse_matcher(text)


def test_the_first_route_that_matches_wins_unless_it_continues():
    web = (parse_matcher('service="web"'),)
    routes = [RouteSpec(1, web, continue_matching=True), RouteSpec(2, web), RouteSpec(3, web), RouteSpec(4, ())]
    assert matching(routes, {"service": "web"}) == [1, 2]
    assert matching(routes, {"service": "db"}) == [4]


def test_group_keys_are_stable_and_escape_values():
    labels = {"service": 'we"b', "alertname": "Disk", "empty": ""}
    assert group_labels(["service", "alertname", "empty", "none"], labels) == {"alertname": "Disk", "service": 'we"b'}
    assert group_labels(["..."], labels) == {"alertname": "Disk", "service": 'we"b'}
    assert group_key("route:1", {"a": 'x"y'}) == 'route:1/{a="x\\"y"}'


TIMERS = Timers(timedelta(seconds=30), timedelta(minutes=5), 4 * HOUR)


@pytest.mark.parametrize(
    ("event", "planned", "flushed", "expected"),
    [
        (Event.JOINED, None, None, 30),
        (Event.JOINED, 10, None, 10),
        (Event.JOINED, 14_000, -60, 240),
        (Event.JOINED, 14_000, -600, 30),
        (Event.RESOLVED, 14_000, -60, 240),
        (Event.ALL_RESOLVED, 14_000, -60, 30),
        (Event.RAISED, 14_000, -60, 0),
    ],
)
def test_when_a_group_is_told(event: Event, planned: int | None, flushed: int | None, expected: int):
    def at(seconds: int | None) -> datetime | None:
        return None if seconds is None else NOW + timedelta(seconds=seconds)

    due = due_after(event, due_at=at(planned), flushed_at=at(flushed), now=NOW, timers=TIMERS)
    assert due == at(expected)


def ago(minutes: float, rank: int = 1, *, is_over: bool = False) -> Told:
    return Told(NOW - timedelta(minutes=minutes), rank, is_over)


def standing(**fields: object) -> Standing:
    values = {"alert": 1, "is_firing": True, "rank": 1, "cooldown": timedelta(minutes=5), **fields}
    told = values.get("told")
    if isinstance(told, Told) and "identity_told_at" not in values:
        values["identity_told_at"] = told.at
    return Standing(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "first notification +1"),
        ({"is_acknowledged": True}, " "),
        ({"identity_told_at": NOW - timedelta(minutes=4)}, " "),
        ({"identity_told_at": NOW - timedelta(minutes=5)}, "first notification +1"),
        ({"told": ago(4)}, " "),
        ({"told": ago(61)}, "repeat interval elapsed +1"),
        ({"told": ago(61), "is_acknowledged": True}, " "),
        ({"told": ago(1), "rank": 3}, "severity raised +1"),
        ({"told": ago(1), "rank": 3, "is_acknowledged": True}, "severity raised +1"),
        ({"told": ago(1, 3), "rank": 1}, " "),
        ({"is_firing": False}, " "),
        ({"is_firing": False, "told": ago(1)}, "all alerts resolved -1"),
        ({"is_firing": False, "told": ago(1, is_over=True)}, " "),
    ],
)
def test_what_a_contact_is_told_of_one_alert(known: dict[str, object], said: str):
    decision = decide([standing(**known)], now=NOW, repeat=HOUR)
    assert f"{decision.reason} {_said(decision)}" == said


def test_news_that_falls_into_the_cooldown_waits_for_its_end():
    told_at = NOW - timedelta(minutes=2)
    waiting = decide([standing(identity_told_at=told_at)], now=NOW, repeat=HOUR)
    assert waiting == Decision(next_at=told_at + timedelta(minutes=5))
    assert page([standing(identity_told_at=told_at)], now=NOW).next_at == told_at + timedelta(minutes=5)


def test_a_page_repeats_what_is_known_only_after_the_cooldown():
    assert page([standing(told=ago(4))], now=NOW).firing == ()
    assert page([standing(told=ago(6))], now=NOW).firing == (1,)
    assert page([standing(told=ago(0), cooldown=timedelta(0))], now=NOW).firing == ()
    assert page([standing(is_acknowledged=True)], now=NOW).firing == ()


def test_who_is_no_receiver_is_told_of_the_end_alone():
    both = [standing(told=ago(90)), standing(alert=2, is_firing=False, told=ago(90))]
    decision = decide(both, now=NOW, repeat=HOUR, is_receiver=False)
    assert (decision.firing, decision.still, decision.resolved) == ((), (1,), (2,))


def _said(decision: Decision) -> str:
    return " ".join([*(f"+{n}" for n in decision.firing), *(f"-{n}" for n in decision.resolved)])


minutes = st.integers(0, 600).map(lambda n: timedelta(minutes=n))
toldest = st.none() | st.builds(Told, minutes.map(lambda span: NOW - span), st.integers(0, 3), st.booleans())


@st.composite
def crowds(draw: st.DrawFn) -> list[Standing]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        told = draw(toldest)
        earlier = draw(st.none() | minutes.map(lambda span: NOW - span))
        last = max((at for at in (earlier, told.at if told else None) if at), default=None)
        found.append(
            Standing(
                alert=number,
                is_firing=draw(st.booleans()),
                rank=draw(st.integers(0, 3)),
                is_acknowledged=draw(st.booleans()),
                told=told,
                identity_told_at=last,
                cooldown=draw(minutes),
            )
        )
    return found


@given(crowds(), st.booleans())
def test_an_end_is_told_exactly_to_those_who_know_the_beginning(crowd: list[Standing], is_receiver: bool):
    decision = decide(crowd, now=NOW, repeat=HOUR, is_receiver=is_receiver)
    owed = {s.alert for s in crowd if not s.is_firing and s.told and not s.told.is_over}
    assert set(decision.resolved) == owed


@given(crowds())
def test_nothing_untold_is_forgotten_and_the_cooldown_holds(crowd: list[Standing]):
    decision = decide(crowd, now=NOW, repeat=HOUR)
    for s in crowd:
        is_raised = s.told is not None and s.rank > s.told.rank
        cools = s.identity_told_at is not None and s.identity_told_at + s.cooldown > NOW
        if s.alert in decision.firing:
            assert s.is_firing
            assert is_raised or not cools
        elif s.is_firing and s.told is None and not s.is_acknowledged:
            assert cools
            assert decision.next_at is not None
            assert decision.next_at <= (s.identity_told_at or NOW) + s.cooldown
    if decision.next_at is not None:
        assert decision.next_at >= NOW
    assert not set(decision.firing) & set(decision.still)


def test_labels_longer_than_an_index_takes_name_their_group_by_a_digest():
    key = group_key("route:1", {"path": "x" * 5000})
    assert len(key) < 100
    assert key == group_key("route:1", {"path": "x" * 5000})
    assert key != group_key("route:1", {"path": "x" * 5001})


EVENTS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["flip", "mute", "unmute", "acknowledge", "worse", ""])))


@given(EVENTS, st.integers(0, 400))
def test_whoever_was_told_firing_is_told_resolved_once_whatever_was_muted(events, cooldown):
    """One contact and three alerts, looked at after every event; each end counts for the firings told before it."""
    standings = {n: Standing(n, False, 1, cooldown=timedelta(seconds=cooldown)) for n in range(3)}
    owed: set[int] = set()
    for number, (alert, event) in enumerate([*events, *((n, "end") for n in range(3))]):
        before = standings[alert]
        match event:
            case "flip" if before.is_firing:
                standings[alert] = replace(before, is_firing=False)
            case "flip":
                standings[alert] = replace(before, is_firing=True, told=None, is_acknowledged=False, rank=1)
            case "end":
                standings[alert] = replace(before, is_firing=False)
            case "mute" | "unmute":
                standings[alert] = replace(before, is_muted=event == "mute")
            case "acknowledge":
                standings[alert] = replace(before, is_acknowledged=True)
            case "worse":
                standings[alert] = replace(before, rank=3)
        at = NOW + timedelta(seconds=60 * number)
        found = decide(list(standings.values()), now=at, repeat=timedelta(minutes=3))
        assert not any(standings[n].is_muted or not standings[n].is_firing for n in found.firing)
        assert set(found.resolved) == {n for n in owed if not standings[n].is_firing}
        owed = (owed | set(found.firing)) - set(found.resolved)
        for n, standing in standings.items():
            told, told_at = standing.told, standing.identity_told_at
            if n in found.firing:
                told, told_at = Told(at, standing.rank), at
            elif n in found.resolved and told is not None:
                told = replace(told, is_over=True)
            standings[n] = replace(standing, told=told, identity_told_at=told_at, was_muted=standing.is_muted)
    assert not owed
