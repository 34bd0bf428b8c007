"""A previewed rule sends as many messages as the same rule did live: same routes, groups, timers and cooldown."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts.models import Calendar
from apps.alerting.models import AlertRule
from apps.alerting.plans import rule_plan
from apps.alerting.preview import Preview, Span, preview
from apps.notifications.models import Contact, Delivery
from apps.oncall import escalating, services, telling
from apps.oncall.models import Notice, Route
from apps.oncall.preview import notifications
from tests.alerting.conftest import SETUP, START, World, forget
from tests.alerting.test_preview import TICK, fill

restart = forget
"""The fixture, by a name of its own here."""


class Undo(Exception):
    pass


def route(**timers: int) -> Route:
    contact = Contact.objects.create(name="Ann", kind="webhook", config={"url": "https://ann.example/"})
    spans = {name: timedelta(seconds=seconds) for name, seconds in timers.items()}
    values = {"name": "root", "group_by": ["alertname"], **spans}
    return services.save_route(by=SETUP, route=Route(is_root=True, position=0), values=values, contacts=[contact])


def lived(world: World, ticks: int) -> list[Any]:
    """Every message that the live rule caused: when, why, how many pieces of news."""
    for _ in range(ticks):
        world.tick()
        now = START + TICK * round((world.now - START) / TICK)
        for loop in (telling.tell, telling.flush, escalating.escalate):
            loop(now=now)
        Delivery.objects.queued().update(state="sent", finished_at=now, attempts=1)
    told: dict[int, list[Any]] = {}
    for notice in Notice.objects.order_by("pk"):
        row = told.setdefault(notice.delivery_id or 0, [notice.at, notice.reason, 0, 0])
        row[2 if notice.kind == "firing" else 3] += 1
    return sorted(tuple(row) for row in told.values())


def both_ways(world: World, histories: dict[str, str], rule_values: dict[str, Any], timers: dict[str, int]) -> Any:
    route(**timers)
    world.group()
    ticks = fill(world, histories)
    world.rule(**rule_values, levels=[("warning", ">", 70.0), ("critical", ">", 80.0)])
    wanted = lived(world, ticks)
    *_, found = preview(rule_plan(AlertRule.objects.get()), Span(START, START + TICK * ticks), by=SETUP)
    assert isinstance(found, Preview)
    told = notifications(found)
    assert sorted((m.at, m.reason[:200], m.firing, m.resolved) for m in told.messages) == wanted
    return told


letters = st.text(alphabet="17789-", min_size=14, max_size=14)


@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(
    letters,
    letters,
    st.fixed_dictionaries({"pending_period": st.sampled_from([0, 20]), "cooldown": st.sampled_from([0, 30, 60])}),
    st.fixed_dictionaries(
        {"group_wait": st.sampled_from([0, 20]), "group_interval": st.sampled_from([10, 40]),
         "repeat_interval": st.sampled_from([60, 600])}
    ),
)  # fmt: skip
def test_a_preview_counts_the_messages_that_were_sent_live(
    db: None,
    restart: Any,
    one: str,
    other: str,
    rule: dict[str, Any],
    timers: dict[str, int],
) -> None:
    restart()
    try:
        with transaction.atomic():
            world = World()
            world.now = START + timedelta(seconds=2)
            both_ways(world, {"a": one, "b": other}, rule, timers)
            raise Undo
    except Undo:
        restart()


@pytest.mark.django_db
def test_what_flaps_is_told_once_that_it_does_and_once_that_it_has_ceased(restart: Any) -> None:
    restart()
    world = World()
    world.now = START + timedelta(seconds=2)
    timers = {"group_wait": 0, "group_interval": 10, "repeat_interval": 3600}
    told = both_ways(world, {"a": "18" * 14 + "1" * 24}, {"cooldown": 0, "missing_evaluations": 1}, timers)
    reasons = [message.reason.partition(":")[0] for message in told.messages]
    assert reasons.count("flapping") == 1
    after = reasons[reasons.index("flapping") + 1 :]
    assert after == ["all alerts resolved"]
    restart()


@pytest.mark.django_db
def test_what_business_hours_hold_back_counts_as_one_digest(restart: Any) -> None:
    restart()
    world = World()
    world.now = START + timedelta(seconds=2)
    route(group_wait=0, group_interval=60, repeat_interval=3600)
    office = Calendar.objects.create(name="Office", zone="UTC", hours="mon-sun 14:00-23:59")
    Contact.objects.update(calendar=office)
    world.group()
    ticks = fill(world, {"a": "1888111188881111", "b": "1118881111111111"})
    world.rule(levels=[("warning", ">", 70.0)], cooldown=0)
    *_, found = preview(rule_plan(AlertRule.objects.get()), Span(START, START + timedelta(hours=3)), by=SETUP)
    assert isinstance(found, Preview)
    assert ticks
    [digest] = notifications(found).messages
    assert (digest.at, digest.reason) == (
        START + timedelta(hours=2),
        "Held back: outside of business hours until Mon 14:00 (UTC)",
    )
    assert digest.firing >= 2
    restart()
