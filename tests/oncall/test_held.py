"""Messages that are held back: later in somebody's order, in quiet hours, outside of business hours."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from apps.accounts.models import Calendar, User
from apps.accounts.rights import Principal
from apps.alerting import services as alerting
from apps.alerting.models import Alert
from apps.notifications import personal
from apps.notifications.models import Contact, Delivery, QuietHours
from apps.oncall.models import Notice
from tests.oncall.conftest import BY, START, Night

MINUTE = timedelta(minutes=1)


@pytest.fixture
def anna(night: Night) -> User:
    night.contact("fallback", is_fallback=True)
    return User.objects.create_user("anna")


def page(night: Night, *people: User, **config: Any) -> None:
    config = {"people": [person.pk for person in people], **config}
    night.route(policy=night.policy(("notify_person", config), ("wait", {"minutes": 60})))


def sleep(person: User, hours: str = "mon-sun 21:00-06:00", **values: Any) -> QuietHours:
    return QuietHours.objects.create(person=person, hours=hours, zone="UTC", **values)


def states(contact: str) -> list[str]:
    return [f"{row.state}: {row.error}" for row in Delivery.objects.filter(contact_name=contact).order_by("pk")]


# --- A person's order ------------------------------------------------------------------------------------------------
def in_order(night: Night, anna: User) -> None:
    night.contact("mail", owner=anna, important_after=None)
    night.contact("push", owner=anna, default_after=None)
    night.contact("sms", owner=anna, default_after=None, important_after=3 * MINUTE)
    night.contact("call", owner=anna, default_after=None, important_after=8 * MINUTE)


def left(contact: str) -> list[int]:
    """Seconds after the start at which messages to the contact left."""
    found = Delivery.objects.filter(contact_name=contact, state="sent").order_by("pk")
    return [int((row.created_at - START).total_seconds()) for row in found]


def test_a_default_message_goes_by_the_default_list(night: Night, anna: User):
    in_order(night, anna)
    page(night, anna)
    night.fire()
    night.wait(minutes=20)
    assert (left("mail"), left("push"), left("sms"), left("call")) == ([30], [], [], [])


def test_an_important_message_goes_by_the_important_list_one_after_the_other(night: Night, anna: User):
    in_order(night, anna)
    page(night, anna, important=True)
    alert = night.fire()
    night.wait(minutes=20)
    assert (left("mail"), left("push"), left("sms"), left("call")) == ([], [30], [210], [510])
    night.end(alert)
    night.wait(minutes=5)
    told = [night.texts(name) for name in ("mail", "push", "sms", "call")]
    assert told == ["", "30s +disk; 1230s -disk", "210s +disk; 1230s -disk", "510s +disk; 1230s -disk"]


def test_an_acknowledgement_stops_the_rest_of_the_list(night: Night, anna: User):
    in_order(night, anna)
    page(night, anna, important=True)
    alert = night.fire()
    night.wait(minutes=4)
    night.acknowledge(alert)
    night.wait(minutes=20)
    assert (left("push"), left("sms"), left("call")) == ([30], [210], [])
    assert states("call") == ["cancelled: Acknowledged by anna before it was told."]
    night.end(alert)
    night.wait(minutes=5)
    assert "-disk" not in night.texts("call")
    assert night.texts("fallback") == ""


def test_what_is_over_before_a_contact_was_told_is_not_told_there(night: Night, anna: User):
    in_order(night, anna)
    page(night, anna, important=True)
    alert = night.fire()
    night.wait(minutes=1)
    night.end(alert)
    night.wait(minutes=20)
    assert night.texts("push") == "30s +disk; 90s -disk"
    assert (left("sms"), left("call")) == ([], [])
    assert states("sms") == ["cancelled: It was over before it was told."]


# --- Quiet hours -----------------------------------------------------------------------------------------------------
def test_quiet_hours_hold_a_message_back_until_they_end(night: Night, anna: User):
    night.contact("mail", owner=anna)
    sleep(anna)
    page(night, anna)
    night.fire()
    night.wait(minutes=1)
    assert states("mail") == ["held: Held back: quiet hours until Tue 06:00 (UTC)"]
    night.wait(hours=9)
    assert left("mail") == [8 * 3600]
    assert "held back since Mon 22:00" in Notice.objects.get(contact_name="mail").reason


def test_what_is_bad_enough_disturbs_all_the_same(night: Night, anna: User):
    night.contact("mail", owner=anna)
    sleep(anna)
    page(night, anna)
    night.fire(severity="critical")
    night.wait(minutes=1)
    assert left("mail") == [30]


def test_what_gets_worse_is_told_at_once_and_not_again_in_the_morning(night: Night, anna: User):
    night.contact("mail", owner=anna)
    sleep(anna)
    night.route("root", Contact.objects.get(name="mail"))
    disk = night.fire()
    night.wait(minutes=10)
    night.worsen(disk, "critical")
    night.wait(hours=1)
    assert left("mail") == [600]
    night.wait(hours=9)
    assert states("mail")[0] == "cancelled: Told in the meantime."


def test_nobody_is_woken_for_what_is_over_in_the_morning(night: Night, anna: User):
    night.contact("mail", owner=anna)
    sleep(anna)
    page(night, anna)
    alert = night.fire()
    night.wait(hours=1)
    night.end(alert)
    night.wait(hours=9)
    assert states("mail") == ["cancelled: It was over before it was told."]
    assert not Notice.objects.filter(contact_name="mail", kind="resolved").exists()


def test_an_end_in_quiet_hours_is_told_in_the_morning(night: Night, anna: User):
    night.contact("mail", owner=anna)
    sleep(anna, "mon-sun 23:00-06:00")
    page(night, anna)
    alert = night.fire()
    night.wait(minutes=90)
    night.end(alert)
    night.wait(hours=9)
    assert left("mail") == [30, 8 * 3600]


def test_the_escalation_goes_on_at_once_past_who_sleeps(night: Night, anna: User):
    night.contact("mail", owner=anna)
    ben = User.objects.create_user("ben")
    night.contact("ben-mail", owner=ben)
    sleep(anna)
    people = [{"people": [person.pk]} for person in (anna, ben)]
    wait = ("wait", {"minutes": 30})
    night.route(policy=night.policy(("notify_person", people[0]), wait, ("notify_person", people[1]), wait))
    night.fire()
    night.wait(minutes=1)
    assert left("ben-mail") == [30]
    assert left("fallback") == []
    night.wait(hours=9)
    assert left("mail") == [8 * 3600]
    assert left("fallback") == []


def test_where_everybody_sleeps_the_fallback_is_told(night: Night, anna: User):
    night.contact("mail", owner=anna)
    sleep(anna)
    page(night, anna)
    night.fire()
    night.wait(minutes=1)
    assert left("fallback") == [30]
    assert "nobody had heard of it: the fall-back contact is told" in night.escalation.reason


def test_a_route_to_somebody_asleep_leaves_it_to_the_fallback_after_five_minutes(night: Night, anna: User):
    mail = night.contact("mail", owner=anna)
    sleep(anna)
    night.route("root", mail)
    night.fire()
    night.wait(hours=9)
    assert left("fallback") == [330]
    assert left("mail") == [8 * 3600]


def test_in_turn_passes_over_who_sleeps(night: Night, anna: User):
    night.contact("mail", owner=anna)
    ben = User.objects.create_user("ben")
    night.contact("ben-mail", owner=ben)
    sleep(anna)
    night.route(policy=night.policy(("notify_round_robin", {"people": [anna.pk, ben.pk]}), ("wait", {"minutes": 60})))
    night.fire()
    night.wait(minutes=1)
    assert left("ben-mail") == [30]
    assert "anna is passed over (held back: quiet hours until tue 06:00 (utc))" in night.escalation.reason


def test_several_that_were_held_are_told_in_one(night: Night, anna: User):
    mail = night.contact("mail", owner=anna)
    sleep(anna)
    night.route("root", mail, group_by=["..."])
    gone = night.fire("one")
    night.fire("two")
    night.fire("three", severity="error")
    night.wait(hours=1)
    night.end(gone)
    night.wait(hours=9)
    [digest] = Delivery.objects.filter(contact=mail, state="sent")
    assert digest.message["title"] == "[ERROR] Digest: 2 still wrong"
    assert [item["title"] for item in digest.message["alerts"]] == ["three is bad", "two is bad"]
    assert states("mail").count("cancelled: It was over before it was told.") == 1


# --- Business hours --------------------------------------------------------------------------------------------------
def office(night: Night, name: str = "team", **values: Any) -> Contact:
    calendar, _ = Calendar.objects.get_or_create(name="Office", zone="UTC", hours="mon-fri 08:00-18:00")
    return night.contact(name, calendar=calendar, **values)


def test_what_is_not_critical_waits_for_one_digest_in_the_morning(night: Night, anna: User):
    night.route("root", office(night), group_by=["..."])
    gone = night.fire("one")
    night.fire("two")
    night.wait(hours=1)
    night.end(gone)
    night.wait(hours=1)
    again = night.fire("one")
    night.wait(hours=1)
    night.end(again)
    night.wait(hours=10)
    [digest] = Delivery.objects.filter(contact_name="team", state="sent")
    assert left("team") == [10 * 3600]
    assert digest.message["title"] == "[WARNING] Digest: 1 still wrong, 2 came and went"
    assert digest.message["body"].splitlines() == [
        "Held back since Mon 22:00 (UTC): 1 still wrong and 2 came and went.",
        "Still wrong: two.",
        "Came and went: one ×2.",
    ]
    assert [item["status"] for item in digest.message["alerts"]] == ["firing", "resolved", "resolved"]
    carried = Delivery.objects.filter(contact_name="team", carrier=digest)
    assert {row.error for row in carried} == {"Told in the digest of 08:00 UTC."}
    assert left("fallback") == []
    two = night.fire("two")
    night.end(two)
    night.wait(minutes=10)
    assert night.texts("team").endswith("-two")
    assert "-one" not in night.told("team")[-1][1]


def test_what_has_all_come_and_gone_is_told_too(night: Night, anna: User):
    night.route("root", office(night))
    alert = night.fire("one")
    night.wait(hours=1)
    night.end(alert)
    night.wait(hours=10)
    [digest] = Delivery.objects.filter(contact_name="team", state="sent")
    assert digest.message["title"] == "[RESOLVED] Digest: 1 came and went"
    assert digest.message["status"] == "resolved"


def test_critical_does_not_wait_for_the_office(night: Night, anna: User):
    night.route("root", office(night))
    alert = night.fire(severity="critical")
    night.wait(minutes=5)
    night.end(alert)
    night.wait(minutes=5)
    assert left("team") == [30, 330]


def test_new_hours_are_heeded_while_a_message_waits(night: Night, anna: User):
    night.contact("mail", owner=anna)
    sleep(anna)
    page(night, anna)
    night.fire()
    night.wait(hours=1)
    personal.save_quiet_hours(by=Principal.of_user(anna), person=anna, hours="", now=night.now)
    night.wait(minutes=1)
    assert left("mail") == [3600]


def test_where_each_group_is_an_alert_of_its_own_nothing_is_put_together(night: Night, anna: User):
    pager = office(night, "pager")
    Contact.objects.filter(pk=pager.pk).update(kind="pagerduty")
    night.route("root", pager, group_by=["..."])
    gone = night.fire("one")
    night.fire("two")
    night.fire("three")
    night.wait(hours=1)
    night.end(gone)
    night.wait(hours=10)
    sent = Delivery.objects.filter(contact_name="pager", state="sent")
    assert sorted(row.message["alerts"][0]["title"] for row in sent) == ["three is bad", "two is bad"]
    assert len({row.message["group_key"] for row in sent}) == 2
    assert "cancelled: It was over before it was told." in states("pager")


def test_what_is_silenced_meanwhile_waits_for_the_end_of_that(night: Night, anna: User):
    night.contact("mail", owner=anna)
    sleep(anna)
    page(night, anna)
    night.fire()
    night.wait(hours=1)
    alerting.silence(
        by=BY, now=night.now, matchers=['alertname="disk"'], ends_at=START + timedelta(hours=9), comment="night work"
    )
    night.wait(hours=10)
    assert left("mail") == [9 * 3600]


# --- Fail-over -------------------------------------------------------------------------------------------------------
def test_the_failover_is_told_the_same_in_place_of_who_could_not_be(night: Night, anna: User):
    mail = night.contact("mail")
    night.route("root", night.contact("sms", failover=mail))
    night.broken = {"sms"}
    alert = night.fire()
    night.wait(minutes=1)
    failed, stood_in = Delivery.objects.order_by("pk")
    assert (stood_in.contact_name, stood_in.stands_in_for, stood_in.state) == ("mail", failed, "sent")
    assert stood_in.message["title"] == failed.message["title"]
    assert stood_in.message["reason"] == "in place of sms, which could not be told"
    night.end(alert)
    night.wait(minutes=1)
    assert night.texts("mail") == "30s +disk; 90s -disk"
    assert night.texts("fallback") == ""


def test_the_fallback_comes_after_the_last_failover(night: Night, anna: User):
    third = night.contact("third")
    second = night.contact("second", failover=third)
    night.route("root", night.contact("first", failover=second))
    night.broken = {"first", "second", "third"}
    night.fire()
    night.wait(minutes=1)
    for _ in range(3):
        night.run()
    assert "+disk" in night.texts("first")
    assert [night.texts(name) for name in ("second", "third", "fallback")] != [""] * 3
    rows = Delivery.objects.order_by("pk")
    assert [row.contact_name for row in rows] == ["first", "second", "third", "fallback"]


def test_a_failover_that_is_off_or_goes_round_is_passed_over(night: Night, anna: User):
    first, second = night.contact("first"), night.contact("second", enabled=False)
    Contact.objects.filter(pk=first.pk).update(failover=second)
    Contact.objects.filter(pk=second.pk).update(failover=first)
    night.route("root", first)
    night.broken = {"first"}
    night.fire()
    night.wait(minutes=1)
    assert night.texts("second") == ""
    assert night.texts("fallback") == "30s +disk"


def test_an_end_that_does_not_arrive_is_told_by_the_failover(night: Night, anna: User):
    mail = night.contact("mail")
    night.route("root", night.contact("sms", failover=mail))
    alert = night.fire()
    night.wait(minutes=1)
    night.broken = {"sms"}
    night.end(alert)
    night.wait(minutes=1)
    assert night.texts("mail") == "90s -disk"


# --- Random nights ---------------------------------------------------------------------------------------------------
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["fire", "fire", "end", "acknowledge", "worsen", "wait", "wait"]),
        st.integers(0, 3),
        st.integers(1, 400),
    ),
    max_size=14,
)


@pytest.mark.slow
@settings(
    max_examples=15,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(EVENTS, st.booleans())
def test_nothing_held_is_lost_and_nothing_wrong_is_untold_in_random_nights(
    db: None, events: list[tuple[str, int, int]], important: bool
):
    with transaction.atomic():
        _random_night(events, important=important)
        transaction.set_rollback(True)


def _random_night(events: list[tuple[str, int, int]], *, important: bool) -> None:
    night = Night()
    night.contact("fallback", is_fallback=True)
    anna, ben = User.objects.create_user("anna"), User.objects.create_user("ben")
    night.contact("sms", owner=anna, important_after=3 * MINUTE)
    night.contact("mail", owner=ben)
    sleep(anna, "mon-sun 21:00-06:00")
    sleep(ben, "mon-sun 23:00-05:00", disturbed_from="error")
    in_turn = ("notify_round_robin", {"people": [anna.pk, ben.pk], "important": important})
    night.route(
        "root",
        office(night),
        policy=night.policy(in_turn, ("wait", {"minutes": 10}), ("repeat", {"times": 2})),
        group_by=["..."],
    )
    alerts: list[Alert] = []
    for what, which, minutes in events:
        alive = Alert.objects.active().order_by("pk")
        chosen = list(alive)[which] if which < len(alive) else None
        if what == "fire":
            alerts.append(night.fire(f"kind{which}"))
        elif what == "wait":
            night.wait(minutes=minutes)
        elif chosen is not None and what == "end":
            night.end(chosen)
        elif chosen is not None and what == "acknowledge" and chosen.acknowledged_at is None:
            night.acknowledge(chosen)
        elif chosen is not None and what == "worsen" and chosen.severity == "warning":
            night.worsen(chosen, "critical")
    night.wait(hours=24)
    assert not Delivery.objects.held().filter(due_at__lte=night.now).exists()
    assert not Delivery.objects.exclude(held_for="").filter(state="cancelled", error="").exists()
    for alert in Alert.objects.active().filter(acknowledged_at=None):
        assert Notice.objects.filter(alert=alert, kind="firing", delivery__state="sent").exists()
    assert not Notice.objects.unsettled().exclude(delivery__state="held").exists()
    for notice in Notice.objects.filter(kind="resolved", delivery__state="sent"):
        assert Notice.objects.filter(
            alert=notice.alert, contact=notice.contact, kind="firing", delivery__state="sent", pk__lt=notice.pk
        ).exists()
