"""Steps that ask before they act (how many alerts, nobody reached, which calendar), that call, and that hand over."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from apps.accounts.hours import Hours, parse_dates, parse_week, parse_zone
from apps.accounts.models import Calendar
from apps.notifications.models import Contact, Delivery
from apps.oncall import escalation, schedules, services
from apps.oncall.escalation import Facts, Progress, advance, outline, round_trip, whole
from apps.oncall.models import Notice, StepTaken
from apps.oncall.steps import Known
from tests.oncall.conftest import BY, Night
from tests.oncall.played import play
from tests.oncall.test_escalation import NOW, notify, repeat, wait

Plan = list[dict[str, Any]]


def step(kind: str, **config: Any) -> dict[str, Any]:
    return {"kind": kind, "config": config}


def unreached(steps: int = 1) -> dict[str, Any]:
    return step("only_if_unreached", steps=steps)


def hand_over(policy: str) -> dict[str, Any]:
    return step("hand_over", policy=policy)


def told(plan: Plan, *, facts: Facts = escalation.NOTHING, unreachable: tuple[int, ...] = ()) -> list[tuple[int, int]]:
    """Play a plan; return (minutes since the start, contact) of everything it tells."""
    stages = play(
        plan,
        start=NOW,
        severity="critical",
        facts=facts,
        reaches=lambda actions, at: any(set(action.asked.contacts) - set(unreachable) for action in actions),
    )
    return [
        (int((stage.at - NOW).total_seconds() // 60), contact)
        for stage in stages
        for action in stage.turn.actions
        for contact in action.asked.contacts
    ]


# --- Many alerts -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("ages", "holds"), [([], False), ([1, 2], False), ([1, 2, 3], True), ([1, 2, 10], False)])
def test_steps_are_for_when_many_alerts_came_in_a_short_time(ages: list[int], holds: bool):
    plan = [step("only_if_more_than", alerts=2, minutes=10, steps=1), notify(1)]
    began = tuple(NOW - timedelta(minutes=age) for age in ages)
    turn = advance(plan, Progress(), now=NOW, severity="info", facts=Facts(began))
    assert bool(turn.actions) == holds
    assert f"{len([age for age in ages if age < 10])} alerts in 10 min" in turn.reason


def test_alerts_of_the_incident_and_those_told_with_it_are_counted(night: Night):
    night.contact("ann")
    chief = night.contact("chief")
    policy = night.policy(
        ("notify", {"contacts": ["ann"]}),
        ("wait", {"minutes": 5}),
        ("only_if_more_than", {"alerts": 2, "minutes": 60, "steps": 1}),
        ("notify", {"contacts": [chief.pk]}),
        ("wait", {"minutes": 5}),
        ("repeat", {"times": 1}),
    )
    night.route(policy=policy, group_by=["service"])
    for name in ("disk", "cpu"):
        night.fire(name)
    night.wait(minutes=8)
    assert night.texts(chief) == ""
    night.fire("net")
    night.wait(minutes=12)
    assert "+disk" in night.texts(chief)


# --- Hours of a calendar ---------------------------------------------------------------------------------------------
OFFICE = Hours(parse_zone("Europe/Berlin"), parse_week("mon-fri 08:00-18:00"), parse_dates("2026-11-24"), "DE")


@pytest.mark.parametrize(
    ("at", "is_within"),
    [
        (datetime(2026, 11, 23, 7, 0, tzinfo=UTC), True),
        (datetime(2026, 11, 23, 6, 0, tzinfo=UTC), False),
        (datetime(2026, 11, 24, 7, 0, tzinfo=UTC), False),  # the calendar's own holiday
        (datetime(2026, 12, 25, 7, 0, tzinfo=UTC), False),  # its country's
    ],
)
@pytest.mark.parametrize("outside", [False, True])
def test_steps_are_for_the_hours_of_a_calendar(at: datetime, is_within: bool, outside: bool):
    plan = [
        step("only_hours", calendar="Office", outside=outside, hours="", zone="UTC", country="", steps=1),
        notify(1),
    ]
    turn = advance(plan, Progress(), now=at, severity="info", facts=Facts(calendars={"Office": OFFICE}))
    assert bool(turn.actions) == (is_within != outside)


def test_a_calendar_that_is_gone_closes_nothing_and_is_named():
    plan = [step("only_hours", calendar="Office", zone="UTC", steps=1), notify(1)]
    turn = advance(plan, Progress(), now=NOW, severity="info")
    assert turn.actions
    assert "the calendar Office is gone" in turn.reason


def test_a_running_escalation_asks_the_calendar_as_it_is_then(night: Night):
    ann, bob = night.contact("ann"), night.contact("bob")
    office = Calendar.objects.create(name="Office", hours="mon-fri 08:00-18:00")
    policy = night.policy(
        ("only_hours", {"calendar": "Office", "steps": 1}),
        ("notify", {"contacts": ["ann"]}),
        ("notify", {"contacts": ["bob"]}),
    )
    night.route(policy=policy)
    night.fire()
    night.wait(minutes=1)
    assert (night.texts(ann), night.texts(bob)) == ("", "30s +disk")
    office.delete()
    night.fire("cpu", severity="critical")
    night.wait(minutes=1)
    assert "+cpu" in night.texts(ann)


# --- Nobody reached --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("plan", "unreachable", "expected"),
    [
        ([notify(1), unreached(), notify(2)], (), [(0, 1)]),
        ([notify(1), unreached(), notify(2)], (1,), [(0, 1), (0, 2)]),
        ([notify(1), unreached(), notify(2), notify(3)], (), [(0, 1), (0, 3)]),
        ([notify(1), wait(5), unreached(2), notify(2), notify(3)], (1,), [(0, 1), (5, 2), (5, 3)]),
        ([unreached(), notify(1)], (), [(0, 1)]),
        ([notify(1), unreached(), repeat(1)], (1,), [(0, 1), (1, 1)]),
        ([notify(1), unreached(), notify(2), unreached(), notify(3)], (1, 2), [(0, 1), (0, 2), (0, 3)]),
    ],
)
def test_steps_are_for_when_nobody_was_reached(plan: Plan, unreachable: tuple[int, ...], expected: Any):
    assert told(plan, unreachable=unreachable) == expected


def test_a_policy_with_a_branch_does_not_page_without_a_breath():
    plan = [notify(1), unreached(), notify(2), repeat(3)]
    assert told(plan, unreachable=(1, 2)) == [(minute, who) for minute in range(4) for who in (1, 2)]


def branch(night: Night, first: tuple[str, dict[str, Any]], *others: tuple[str, dict[str, Any]]) -> Contact:
    night.contact("fall-back", is_fallback=True)
    boss = night.contact("boss")
    then = others or (("notify", {"contacts": ["boss"]}),)
    night.route(policy=night.policy(first, ("only_if_unreached", {"steps": 1}), *then))
    night.fire()
    night.wait(minutes=1)
    return boss


def test_nobody_on_call_takes_the_branch_and_not_the_fallback_contact(night: Night):
    schedules.save_schedule(by=BY, name="Database", layers=[])
    boss = branch(night, ("notify_schedule", {"schedule": "Database"}))
    assert (night.texts(boss), night.texts("fall-back")) == ("30s +disk", "")
    assert "nobody is on call by Database" in night.escalation.reason


def test_all_contacts_failing_takes_the_branch(night: Night):
    ann = night.contact("ann", problem="refused", problem_at=night.now)
    boss = branch(night, ("notify", {"contacts": ["ann"]}))
    assert (night.texts(ann), night.texts(boss)) == ("30s +disk", "30s +disk")


def test_a_message_that_failed_meanwhile_takes_the_branch(night: Night):
    night.contact("ann")
    night.broken.add("ann")
    night.contact("fall-back", is_fallback=True)
    boss = night.contact("boss")
    policy = night.policy(
        ("notify", {"contacts": ["ann"]}),
        ("wait", {"minutes": 5}),
        ("only_if_unreached", {"steps": 1}),
        ("notify", {"contacts": ["boss"]}),
    )
    night.route(policy=policy)
    night.fire()
    night.wait(minutes=10)
    assert night.texts(boss) == "330s +disk"


def test_somebody_reached_leaves_the_branch_out(night: Night):
    night.contact("ann")
    assert night.texts(branch(night, ("notify", {"contacts": ["ann"]}))) == ""


def test_a_branch_that_tells_nobody_either_leaves_it_to_the_fallback_contact(night: Night):
    schedules.save_schedule(by=BY, name="Database", layers=[])
    branch(night, ("notify_schedule", {"schedule": "Database"}), ("wait", {"minutes": 1}))
    assert night.texts("fall-back") == ""
    night.wait(minutes=2)
    assert "+disk" in night.texts("fall-back")


# --- Calls -----------------------------------------------------------------------------------------------------------
def test_a_webhook_is_called_and_counts_as_nobody_told(night: Night):
    ann, hook = night.contact("ann"), night.contact("hook")
    policy = night.policy(("webhook", {"contact": "hook"}), ("wait", {"minutes": 1}), ("notify", {"contacts": ["ann"]}))
    night.route(policy=policy)
    night.broken.add("hook")
    alert = night.fire()
    night.wait(minutes=2)
    call = Delivery.objects.get(purpose="call")
    assert (call.contact, call.state, call.message["status"]) == (hook, "failed", "firing")
    assert night.texts(ann) == "90s +disk"
    taken = StepTaken.objects.get(kind="webhook")
    assert (taken.delivery, taken.reason) == (call, "calls a webhook: hook")
    night.end(alert)
    night.wait(minutes=10)
    assert Delivery.objects.filter(contact=hook).count() == 1
    assert not Notice.objects.filter(contact=hook).exists()


def test_a_policy_that_only_calls_leaves_the_telling_to_the_fallback_contact(night: Night):
    night.contact("fall-back", is_fallback=True)
    hook = night.contact("hook")
    night.route(policy=night.policy(("webhook", {"contact": "hook"})))
    night.fire()
    night.wait(minutes=1)
    assert night.texts("fall-back") == "30s +disk"
    assert Delivery.objects.get(contact=hook).purpose == "call"


def test_a_webhook_that_is_gone_is_named_and_stops_nothing(night: Night):
    ann, hook = night.contact("ann"), night.contact("hook")
    night.route(policy=night.policy(("webhook", {"contact": "hook"}), ("notify", {"contacts": ["ann"]})))
    Contact.objects.filter(pk=hook.pk).delete()
    night.fire()
    night.wait(minutes=1)
    assert night.texts(ann) == "30s +disk"
    assert "it is gone or switched off, nothing is called" in StepTaken.objects.get(kind="webhook").reason


def test_only_a_webhook_can_be_called(night: Night):
    Contact.objects.create(name="mail", kind="email", config={})
    with pytest.raises(ValidationError, match="contact"):
        night.policy(("webhook", {"contact": "mail"}))


# --- Hand over -------------------------------------------------------------------------------------------------------
CHIEFS = [notify(8), wait(5), repeat(1), notify(9)]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ([notify(1), wait(5), hand_over("chiefs"), notify(2)], [(0, 1), (5, 8), (10, 8), (15, 9)]),
        (
            [step("only_severity", severity="critical", steps=1), hand_over("chiefs"), notify(2)],
            [(0, 8), (5, 8), (10, 9)],
        ),
        ([unreached(), wait(1), notify(1), unreached(), hand_over("chiefs"), notify(2)], [(1, 1), (1, 2)]),
        ([hand_over("empty"), notify(2)], [(0, 2)]),
        ([hand_over("gone"), notify(2)], [(0, 2)]),
        ([hand_over("main"), notify(2)], [(0, 2)]),
        ([notify(1), repeat(1), hand_over("chiefs")], [(0, 1), (1, 1), (1, 8), (6, 8), (11, 9)]),
    ],
)
def test_a_policy_hands_over_to_another_and_comes_back_no_more(plan: Plan, expected: Any):
    assert told(whole("main", {"main": plan, "chiefs": CHIEFS, "empty": []})) == expected


def test_policies_that_hand_over_in_a_circle_come_to_an_end():
    policies = {"a": [notify(1), hand_over("b")], "b": [notify(2), hand_over("a"), notify(3)]}
    assert told(whole("a", policies)) == [(0, 1), (0, 2), (0, 3)]
    assert round_trip("a", policies) == ("a", "b", "a")


def test_a_chain_of_hand_overs_has_an_end():
    chain = {f"p{n}": [notify(n), hand_over(f"p{n + 1}")] for n in range(20)}
    assert len(told(whole("p0", chain))) == escalation.MOST_HAND_OVERS + 1
    assert len(round_trip("p0", chain)) == escalation.MOST_HAND_OVERS + 2
    assert not round_trip(f"p{20 - escalation.MOST_HAND_OVERS}", chain)


def test_a_circle_is_refused_when_it_is_saved(night: Night):
    night.contact("ann")
    tell = ("notify", {"contacts": ["ann"]})
    first = night.policy(tell, name="first")
    night.policy(tell, ("hand_over", {"policy": "first"}), name="second")
    steps = [{"kind": "hand_over", "config": {"policy": "second"}}]
    with pytest.raises(ValidationError, match="first → second → first goes in a circle"):
        services.save_policy(by=BY, name="first", steps=steps, policy=first)
    with pytest.raises(ValidationError, match="hand over to its present name"):
        services.save_policy(by=BY, name="other", steps=[notify(Contact.objects.get().pk)], policy=first)
    with pytest.raises(ValidationError, match="used by the policy second"):
        services.delete_policy(by=BY, policy=first)


def test_the_other_policys_steps_are_copied_when_the_escalation_begins(night: Night):
    ann, bob = night.contact("ann"), night.contact("bob")
    chiefs = night.policy(("notify", {"contacts": ["ann"]}), name="chiefs")
    night.route(policy=night.policy(("wait", {"minutes": 5}), ("hand_over", {"policy": "chiefs"})))
    night.fire()
    night.wait(minutes=1)
    services.save_policy(by=BY, name="chiefs", steps=[notify(bob.pk)], policy=chiefs)
    night.wait(minutes=10)
    assert (night.texts(ann), night.texts(bob)) == ("330s +disk", "")
    assert "step 1 of chiefs tells its contacts" in night.escalation.reason


def test_a_policy_that_tells_only_by_handing_over_leaves_the_group_to_it(night: Night):
    night.contact("fall-back", is_fallback=True)
    ann = night.contact("ann")
    night.policy(("notify", {"contacts": ["ann"]}), name="chiefs")
    night.route(policy=night.policy(("hand_over", {"policy": "chiefs"})))
    night.fire()
    night.wait(minutes=1)
    assert (night.texts(ann), night.texts("fall-back")) == ("30s +disk", "")


# --- What was taken --------------------------------------------------------------------------------------------------
def test_each_step_is_written_down_with_who_was_told_and_why(night: Night):
    ann, gone = night.contact("ann"), night.contact("gone")
    policy = night.policy(
        ("notify", {"contacts": ["ann", "gone"]}), ("wait", {"minutes": 5}), ("notify", {"contacts": ["ann"]})
    )
    night.route(policy=policy)
    Contact.objects.filter(pk=gone.pk).delete()
    night.fire()
    night.wait(minutes=6)
    rows = [(row.position, row.kind, row.contacts, row.told) for row in StepTaken.objects.all()]
    assert rows == [(0, "notify", [ann.pk], ["ann"]), (1, "wait", None, []), (2, "notify", [ann.pk], ["ann"])]
    assert "1 of its contacts is gone or switched off" in StepTaken.objects.get(position=0).reason


def test_nobody_left_to_tell_names_the_fallback_contact(night: Night):
    night.contact("fall-back", is_fallback=True)
    gone, ann = night.contact("gone"), night.contact("ann")
    night.route(
        policy=night.policy(
            ("notify", {"contacts": [gone.pk]}), ("wait", {"minutes": 1}), ("notify", {"contacts": [ann.pk]})
        )
    )
    Contact.objects.filter(pk=gone.pk).delete()
    night.fire()
    night.wait(minutes=1)
    taken = StepTaken.objects.get(position=0)
    assert (taken.told, taken.contacts) == (["fall-back"], [])
    assert "gone or switched off: the fall-back contact is told" in taken.reason


# --- In plain words --------------------------------------------------------------------------------------------------
def test_a_policy_is_told_in_plain_words_with_the_time_of_each_step():
    plan = whole("main", {"main": [notify(1), wait(5), unreached(), hand_over("chiefs"), notify(1)], "chiefs": CHIEFS})
    lines = outline(plan, Known({1: "ann", 8: "chief", 9: "boss"}))
    minutes = [None if line.after is None else line.after.total_seconds() / 60 for line in lines]
    assert minutes == [0, 0, 5, 5, 5, 5, 5, 10, 10]
    assert [line.policy for line in lines] == [""] * 5 + ["chiefs"] * 4
    assert lines[5].text == "Notify chief"
    late = outline(whole("main", {"main": [hand_over("chiefs"), notify(1)], "chiefs": CHIEFS}), Known())
    assert late[1].after is None


def test_how_far_back_alerts_are_counted_is_the_longest_that_a_step_asks():
    assert escalation.looks_at([notify(1)]) == timedelta(0)
    assert escalation.looks_at([step("only_if_more_than", alerts=1, minutes=7, steps=1), step("gone")]).seconds == 420
