"""What somebody answers to a message is done to the alerts that it told of."""

from typing import Any

import pytest

from apps.accounts.models import AuditEntry, User
from apps.accounts.rights import Principal, Right
from apps.alerting.models import Alert, Silence
from apps.notifications.models import Delivery, Reply
from apps.notifications.replies import reply
from apps.oncall import replies
from tests.oncall.conftest import Night

BY_LINK = Principal("contact", "1", "ops (by link)", frozenset({Right.OPERATE}))


def answer(night: Night, action: str, by: Principal = BY_LINK) -> Reply:
    given = reply(by=by, delivery=Delivery.objects.earliest("pk"), action=action, now=night.now)
    replies.take(now=night.now)
    night.run()
    given.refresh_from_db()
    return given


@pytest.fixture
def paged(night: Night) -> Night:
    """A night in which ops was told of one alert and a policy waits to ask boss."""
    ops, boss = night.contact("ops"), night.contact("boss")
    steps: list[tuple[str, dict[str, Any]]] = [
        ("notify", {"contacts": [ops.pk]}),
        ("wait", {"minutes": 30}),
        ("notify", {"contacts": [boss.pk]}),
    ]
    night.route("root", policy=night.policy(*steps))
    night.fire()
    night.wait(minutes=1)
    return night


def test_acknowledging_stops_the_escalation_and_says_so(paged: Night):
    given = answer(paged, "acknowledge")
    alert = Alert.objects.get()
    assert (given.was_done, alert.acknowledged_by) == (True, "ops (by link)")
    assert "Nobody else is paged" in given.outcome
    assert paged.escalation.state == "acknowledged"
    assert AuditEntry.objects.filter(verb="alerting.acknowledge", actor_name="ops (by link)").exists()


def test_resolving_ends_the_alert_and_everybody_hears_of_it(paged: Night):
    assert answer(paged, "resolve").was_done
    paged.wait(minutes=6)
    assert Alert.objects.get().state == "resolved"
    assert paged.texts("ops").endswith("-disk")


def test_silencing_lasts_an_hour(paged: Night):
    assert answer(paged, "silence").was_done
    assert (Silence.objects.get().ends_at - paged.now).total_seconds() == 3600


def test_escalating_asks_the_next_one_now(paged: Night):
    assert answer(paged, "escalate").was_done
    assert paged.texts("boss").endswith("+disk")


def test_an_answer_that_comes_too_late_says_so(paged: Night):
    paged.end(Alert.objects.get())
    given = answer(paged, "acknowledge")
    assert "wrong any more" in given.outcome


def test_the_rights_of_today_count(paged: Night):
    person = User.objects.create_user("olga")
    by = Principal("user", str(person.pk), "olga", frozenset({Right.OPERATE}))
    given = answer(paged, "acknowledge", by)
    assert not given.was_done
    assert "may not do this" in given.outcome
    assert Alert.objects.get().acknowledged_at is None


def test_where_nothing_escalates_that_is_said(night: Night):
    night.route("root", night.contact("ops"))
    night.fire()
    night.wait(minutes=1)
    given = answer(night, "escalate")
    assert (given.was_done, "no policy is on its way" in given.outcome) == (False, True)


def test_each_answer_is_handled_once(paged: Night):
    answer(paged, "acknowledge")
    assert replies.take(now=paged.now) == 0
