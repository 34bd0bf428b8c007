"""What somebody answers to a message is done to the alerts that it told of."""

from datetime import timedelta
from typing import Any

import pytest

from apps.accounts.models import AuditEntry, User
from apps.accounts.rights import Principal, Right
from apps.alerting import services as alerting
from apps.alerting.models import Alert, Silence, Transition
from apps.notifications.models import Contact, Delivery, Reply
from apps.notifications.replies import reply
from apps.oncall import replies
from apps.oncall.models import Notice
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


def test_an_answer_is_about_all_that_the_message_says_still_fires(night: Night):
    night.route("root", night.contact("ops"), group_interval=timedelta(minutes=1))
    for service in ("first", "second"):
        night.fire("disk", service=service)
        night.wait(minutes=2)
    last = Delivery.objects.latest("pk")
    assert last.message["body"] == "Alerts: 1 firing, 1 still firing."
    given = reply(by=BY_LINK, delivery=last, action="acknowledge", now=night.now)
    replies.take(now=night.now)
    given.refresh_from_db()
    assert "2 alerts" in given.outcome
    assert not Alert.objects.filter(acknowledged_at=None).exists()


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


# --- Messages that are rewritten -------------------------------------------------------------------------------------
@pytest.fixture
def chat(night: Night) -> Night:
    """A night in which a chat that rewrites its messages was told of two alerts, and a mailbox, too."""
    bot = Contact.objects.create(name="bot", kind="slack_bot", config={"channel": "#night"})
    night.route("root", bot, night.contact("hook"))
    night.fire("disk")
    night.fire("cpu")
    night.wait(minutes=1)
    return night


def updates() -> list[tuple[str, str, list[str]]]:
    """Return (contact, reason, who took each alert on) of what was rewritten."""
    found = Delivery.objects.filter(purpose="update").order_by("pk")
    return [
        (each.contact_name, each.message["reason"], [item["acknowledged_by"] for item in each.message["alerts"]])
        for each in found
    ]


def test_an_acknowledgement_is_written_into_the_message_that_told_of_it(chat: Night):
    notices = Notice.objects.count()
    chat.acknowledge(Alert.objects.get(type="disk"))
    chat.run()
    assert updates() == [("bot", "acknowledged by anna", ["anna"])]
    assert Delivery.objects.get(purpose="update").message["status"] == "update"
    assert Notice.objects.count() == notices


def test_what_came_of_an_answer_is_written_into_the_message_and_the_rewritten_one_is_answered_likewise(chat: Night):
    told = Delivery.objects.filter(contact_name="bot").earliest("pk")
    reply(by=BY_LINK, delivery=told, action="silence", now=chat.now)
    replies.take(now=chat.now)
    chat.run()
    [(_, reason, _)] = updates()
    assert reason == "ops (by link): Silenced for an hour: 1 alert."
    again = Delivery.objects.get(purpose="update")
    given = reply(by=BY_LINK, delivery=again, action="resolve", now=chat.now)
    replies.take(now=chat.now)
    given.refresh_from_db()
    assert given.was_done


def test_one_that_has_not_left_is_replaced_by_the_next(chat: Night):
    chat.held.add("bot")
    for _ in range(2):
        chat.acknowledge(Alert.objects.get(type="disk"))
        chat.run()
        alerting.unacknowledge(by=BY_LINK, alert=Alert.objects.get(type="disk"), now=chat.now)
        chat.run()
    assert updates() == [("bot", "nobody has taken it on", [""])]


def test_a_message_that_cannot_be_rewritten_holds_up_nothing(chat: Night, monkeypatch: pytest.MonkeyPatch):
    def explode(*args: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("apps.oncall.renewal._rewrite", explode)
    chat.acknowledge(Alert.objects.get(type="disk"))
    chat.run()
    assert not Transition.objects.untold().exists()


def test_an_answer_leaves_alone_what_the_message_says_somebody_has_taken_on(night: Night):
    night.route("root", night.contact("ops"), group_interval=timedelta(minutes=1))
    first = night.fire("disk", service="first")
    night.wait(minutes=2)
    night.acknowledge(first)
    night.fire("disk", service="second")
    night.wait(minutes=2)
    last = Delivery.objects.latest("pk")
    assert len(last.message["alerts"]) == 2
    reply(by=BY_LINK, delivery=last, action="escalate", now=night.now)
    replies.take(now=night.now)
    first.refresh_from_db()
    assert first.acknowledged_by == "anna"
