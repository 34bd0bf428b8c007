"""How an escalation goes on, as a pure function, on a simulated clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from apps.oncall.escalation import Progress, advance, looks_at, spelled, tells_somebody
from apps.oncall.steps import Known, clean, steps
from tests.oncall.played import play

KNOWN = Known(
    contacts={1: "phone", 2: "hook"},
    people={1: "anna", 2: "ben"},
    teams={1: "Web"},
    schedules={"Database": "Database"},
    webhooks={2: "hook"},
    calendars={"Office": "Office"},
    policies={"Chiefs": "Chiefs"},
)
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def notify(*contacts: int) -> dict[str, Any]:
    return {"kind": "notify", "config": {"contacts": list(contacts)}}


def wait(minutes: float) -> dict[str, Any]:
    return {"kind": "wait", "config": {"minutes": minutes}}


def repeat(times: int) -> dict[str, Any]:
    return {"kind": "repeat", "config": {"times": times}}


def played(plan: list[dict[str, Any]]) -> list[tuple[float, int]]:
    """Play a plan to its end; return (minutes since the start, contact) of everything it tells."""
    stages = play(plan, start=NOW, severity="critical", most=10_000)
    assert stages[-1].turn.due_at is None, "The plan never ends."
    for stage in stages[:-1]:
        # At the same moment it goes on only to ask what came of what it did.
        assert stage.turn.due_at is not None
        assert stage.turn.due_at > stage.at or (stage.turn.actions and stage.turn.due_at == stage.at)
    return [
        ((stage.at - NOW).total_seconds() / 60, contact)
        for stage in stages
        for action in stage.turn.actions
        for contact in action.asked.contacts
    ]


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ([], []),
        ([notify(1), notify(2)], [(0, 1), (0, 2)]),
        ([notify(1), wait(10), notify(2)], [(0, 1), (10, 2)]),
        ([notify(1), wait(5), repeat(2)], [(0, 1), (5, 1), (10, 1)]),
        ([notify(1), wait(5), repeat(1), notify(2)], [(0, 1), (5, 1), (10, 2)]),
        ([notify(1), repeat(2)], [(0, 1), (1, 1), (2, 1)]),
        ([{"kind": "gone", "config": {}}, notify(1)], [(0, 1)]),
    ],
)
def test_a_plan_is_played_in_order(plan: list[dict[str, Any]], told: list[tuple[float, int]]):
    assert played(plan) == told


@pytest.mark.parametrize(
    ("severity", "told"),
    [("info", [2]), ("warning", [2]), ("error", [1, 2]), ("critical", [1, 2])],
)
def test_steps_are_for_what_is_severe_enough(severity: str, told: list[int]):
    plan = [{"kind": "only_severity", "config": {"severity": "error", "steps": 1}}, notify(1), notify(2)]
    turn = advance(plan, Progress(), now=NOW, severity=severity)
    assert [contact for action in turn.actions for contact in action.asked.contacts] == told
    assert ("leaves out the next 1" in turn.reason) == (told == [2])


@pytest.mark.parametrize(
    ("at", "is_within"),
    [
        (datetime(2026, 11, 23, 7, 0, tzinfo=UTC), True),  # Monday, 8:00 in Berlin
        (datetime(2026, 11, 23, 6, 59, tzinfo=UTC), False),
        (datetime(2026, 11, 23, 17, 0, tzinfo=UTC), False),
        (datetime(2026, 7, 20, 6, 0, tzinfo=UTC), True),  # the same hour there, in summer time
        (datetime(2026, 11, 28, 12, 0, tzinfo=UTC), False),  # Saturday
        (datetime(2026, 12, 25, 12, 0, tzinfo=UTC), False),  # Friday, but Christmas
    ],
)
@pytest.mark.parametrize("outside", [False, True])
def test_steps_are_for_hours_of_the_week_there(at: datetime, is_within: bool, outside: bool):
    hours = {"hours": "mon-fri 08:00-18:00", "zone": "Europe/Berlin", "country": "DE", "outside": outside, "steps": 1}
    turn = advance([{"kind": "only_hours", "config": hours}, notify(1)], Progress(), now=at, severity="info")
    assert bool(turn.actions) == (is_within != outside)


def test_leaving_out_more_steps_than_there_are_comes_to_the_end():
    plan = [{"kind": "only_severity", "config": {"severity": "critical", "steps": 50}}, notify(1)]
    turn = advance(plan, Progress(), now=NOW, severity="info")
    assert (turn.actions, turn.due_at, turn.after) == ((), None, Progress(2, 0))


def test_a_step_of_an_unknown_kind_is_named():
    assert "unknown kind 'gone'" in advance([{"kind": "gone"}], Progress(), now=NOW, severity="info").reason


@pytest.mark.parametrize(
    "step",
    [
        {"kind": "wait", "config": {}},
        {"kind": "only_hours", "config": {"zone": "Mars/Base", "steps": 1}},
        {"kind": "only_if_more_than", "config": {"minutes": "many"}},
        {"kind": "webhook", "config": {"contact": None}},
    ],
)
def test_a_step_whose_settings_cannot_be_read_is_named_and_stops_nothing(step: dict[str, Any]):
    turn = advance([step, notify(1)], Progress(), now=NOW, severity="info")
    assert "cannot be taken and was passed over" in turn.reason
    assert turn.actions
    assert tells_somebody([step, notify(1)], contacts=frozenset({1}), has_route_contacts=False)
    assert looks_at([step]) == timedelta(0)
    assert len(spelled([step], KNOWN)) == 1


any_step = st.one_of(
    st.integers(1, 5).map(notify),
    st.floats(0.01, 100).map(wait),
    st.integers(1, 3).map(repeat),
    st.integers(1, 3).map(lambda steps: {"kind": "only_hours", "config": {"hours": "", "zone": "UTC", "steps": steps}}),
    st.integers(1, 3).map(lambda steps: {"kind": "only_if_unreached", "config": {"steps": steps}}),
    st.just({"kind": "webhook", "config": {"contact": 1}}),
    st.builds(
        lambda severity, steps: {"kind": "only_severity", "config": {"severity": severity, "steps": steps}},
        st.sampled_from(["warning", "critical"]),
        st.integers(1, 3),
    ),
)


@given(st.lists(any_step, max_size=6))
def test_every_plan_ends_and_never_pages_without_a_breath(plan: list[dict[str, Any]]):
    told = played(plan)
    for contact in {contact for _, contact in told}:
        times = [at for at, other in told if other == contact]
        assert times == sorted(times)
        at_once = [step for step in plan if step["kind"] == "notify" and contact in step["config"]["contacts"]]
        assert all(times.count(at) <= 2 * len(at_once) for at in times)


def test_whether_a_plan_would_tell_anybody():
    assert tells_somebody([wait(1), notify(1)], contacts=frozenset({1}), has_route_contacts=False)
    assert not tells_somebody([wait(1), notify(1)], contacts=frozenset({2}), has_route_contacts=True)
    by_route = [{"kind": "notify", "config": {"route_contacts": True}}]
    assert tells_somebody(by_route, contacts=frozenset(), has_route_contacts=True)


@pytest.mark.parametrize(
    ("kind", "data", "problem"),
    [
        ("notify", {}, "tells nobody"),
        ("notify", {"contacts": ["nobody"]}, "nobody"),
        ("notify_person", {"people": []}, "required"),
        ("notify_person", {"people": ["carla"]}, "carla"),
        ("notify_team", {"team": "Nobody"}, "Nobody"),
        ("notify_round_robin", {"people": ["anna"], "team": "Web"}, "either"),
        ("notify_round_robin", {}, "either"),
        ("wait", {}, "required"),
        ("wait", {"minutes": 0}, "greater"),
        ("repeat", {"times": "often"}, "whole number"),
        ("wait", {"minutes": 1, "hours": 2}, "no such setting"),
        ("wait", {"minutes": 10**400}, "too large"),
        ("notify", {"contacts": [{"id": 1}]}, "contacts"),
        ("only_severity", {"severity": "bad", "steps": 1}, "bad"),
        ("only_severity", {"severity": "error", "steps": 0}, "greater"),
        ("only_hours", {"hours": "monday", "zone": "UTC", "steps": 1}, "no line of hours"),
        ("only_hours", {"zone": "Mars", "steps": 1}, "no time zone"),
        ("only_hours", {"zone": "UTC", "country": "XX", "steps": 1}, "no country"),
    ],
)
def test_a_wrong_step_is_refused_in_words(kind: str, data: dict[str, Any], problem: str):
    with pytest.raises(ValidationError, match=problem):
        clean(kind, data, KNOWN)


def test_settings_of_every_kind_are_json_and_survive_a_second_cleaning():
    given_settings: dict[str, dict[str, Any]] = {
        "notify": {"contacts": ["phone"]},
        "notify_person": {"people": ["anna", "ben"], "important": True},
        "notify_round_robin": {"team": "Web"},
        "notify_schedule": {"schedule": "Database"},
        "notify_team": {"team": "Web"},
        "wait": {"minutes": 3},
        "repeat": {"times": 2},
        "only_severity": {"severity": "error", "steps": 2},
        "only_if_more_than": {"alerts": 5, "minutes": 10, "steps": 1},
        "only_if_unreached": {"steps": 2},
        "webhook": {"contact": "hook"},
        "hand_over": {"policy": "Chiefs"},
        "only_hours": {"hours": "mon-fri 08:00-18:00", "zone": "Europe/Berlin", "country": "DE", "steps": 1},
    }
    assert set(given_settings) == set(steps.all())
    for kind, data in given_settings.items():
        once = clean(kind, data, KNOWN)
        assert clean(kind, once, KNOWN) == once
        assert steps.get(kind).describe(once, KNOWN)
