"""Who would be told: the preview names the same people at the same times as the night that then happens."""

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from apps.accounts.models import Calendar, User
from apps.accounts.rights import EVERYTHING, Scope
from apps.alerting import services as alerting
from apps.notifications.models import Contact, Delivery, QuietHours
from apps.oncall.foresight import dry_run, labels_of, moment_of, who_would_be_told
from apps.oncall.models import RoundRobin
from tests.oncall.conftest import BY, START, Night
from tests.oncall.played import play
from tests.oncall.test_api import ROOT, Caller
from tests.oncall.test_escalation import NOW, notify, repeat, wait


def foreseen(labels: dict[str, str]) -> list[tuple[int, str]]:
    found = who_would_be_told(labels, at=START, scope=EVERYTHING)
    return [
        (int((step.at - START).total_seconds()), name)
        for way in found.ways
        for step in way.steps
        for name in step.contacts
    ]


def happened() -> list[tuple[int, str]]:
    rows = Delivery.objects.filter(purpose="firing").order_by("created_at", "contact_name")
    return [(int((row.created_at - START).total_seconds()), row.contact_name) for row in rows]


def test_a_dry_run_takes_every_step_on_a_simulated_clock():
    stages = play([notify(1), wait(5), repeat(1), notify(2)], start=NOW, severity="critical")
    told = [((stage.at - NOW).total_seconds(), [a.asked.contacts for a in stage.turn.actions]) for stage in stages]
    assert told == [(0, [(1,)]), (300, [(1,)]), (600, [(2,)])]


def test_a_dry_run_that_goes_on_is_cut():
    stages = play([notify(1), wait(5), repeat(100)], start=NOW, severity="critical", most=10)
    assert len(stages) == 10
    assert stages[-1].turn.due_at is not None


@pytest.mark.parametrize("severity", ["warning", "critical"])
def test_what_was_foreseen_happens(night: Night, severity: str):
    ann, bob, chief = night.contact("ann"), night.contact("bob"), night.contact("chief")
    policy = night.policy(
        ("notify", {"route_contacts": True}),
        ("wait", {"minutes": 10}),
        ("notify", {"contacts": [bob.pk]}),
        ("wait", {"minutes": 20}),
        ("notify", {"contacts": [chief.pk]}),
    )
    night.route("root", night.contact("mail"))
    night.route("bad", ann, is_root=False, matchers=['severity="critical"'], policy=policy)
    told = foreseen({"alertname": "disk", "severity": severity})
    assert Delivery.objects.count() == 0
    night.fire("disk", severity=severity)
    night.wait(hours=1)
    assert list(dict.fromkeys(told)) == happened()


def test_a_policy_that_tells_nobody_and_a_missing_route_name_the_fallback(night: Night):
    night.contact("fall-back", is_fallback=True)
    assert foreseen({"alertname": "disk"}) == [(30, "fall-back")]
    gone = night.contact("gone")
    policy = night.policy(("wait", {"minutes": 1}), ("notify", {"contacts": [gone.pk]}))
    night.route("root", policy=policy)
    Contact.objects.filter(pk=gone.pk).delete()
    told = foreseen({"alertname": "disk"})
    assert told[0] == (30, "fall-back")
    night.fire()
    night.wait(minutes=30)
    assert set(happened()) <= set(told)


def test_a_policy_without_anybody_says_who_is_told_in_the_end(night: Night):
    night.contact("fall-back", is_fallback=True)
    run = dry_run(night.policy(("wait", {"minutes": 1})), at=START, severity="critical")
    assert run.steps[-1].contacts == ("fall-back",)


def test_what_is_silenced_then_says_so(night: Night):
    night.route("root", night.contact("ann"))
    alerting.silence(
        by=BY, now=START, matchers=['service="db"'], starts_at=START + timedelta(hours=1),
        ends_at=START + timedelta(hours=2), comment="night work",
    )  # fmt: skip
    labels = {"service": "db"}
    muted = [
        who_would_be_told(labels, at=START + timedelta(hours=hours), scope=EVERYTHING).muted for hours in (0, 1, 2)
    ]
    assert [bool(text) for text in muted] == [False, True, False]


def test_whoever_sees_a_part_asks_for_that_part_only(night: Night):
    night.route("root", night.contact("ann"))
    scope = Scope((("team", "=", "web"),))
    assert who_would_be_told({"team": "web"}, at=START, scope=scope).contacts == ("ann",)
    with pytest.raises(ValidationError, match='team="web"'):
        who_would_be_told({"team": "db"}, at=START, scope=scope)


@pytest.mark.parametrize("text", ['a=~"b"', "nothing", '9="x"'])
def test_what_is_no_label_is_refused(text: str):
    with pytest.raises(ValidationError):
        labels_of(text)


def test_labels_and_times_are_read_as_people_write_them():
    assert labels_of('service="db", severity=critical') == {"service": "db", "severity": "critical"}
    assert moment_of("2026-11-23T22:00", now=START) == START
    assert moment_of("", now=START) == START
    for wrong in ("soon", "0001-01-01", "9999-12-31T23:59+00:00"):
        with pytest.raises(ValidationError):
            moment_of(wrong, now=START)


def test_the_api_answers_and_refuses_in_words(client: Client, night: Night):
    ann = night.contact("ann")
    policy = night.policy(("notify", {"contacts": [ann.pk]}), ("wait", {"minutes": 5}), ("repeat", {"times": 1}))
    night.route("root", policy=policy)
    reader = Caller(client, "read")
    told = client.get(f"{ROOT}/who-would-be-told/", {"labels": "service=db"}, headers=reader.headers)
    assert told.json()["contacts"] == ["ann"]
    wrong = client.get(f"{ROOT}/who-would-be-told/", {"labels": "severity=odd"}, headers=reader.headers)
    assert wrong.status_code == 400
    assert "odd" in wrong.content.decode()
    run = reader("get", f"policies/{policy.pk}/dry-run").json()
    assert [step["contacts"] for step in run["steps"]] == [["ann"], ["ann"], []]


def test_the_page_answers_the_question_and_escapes_it(client: Client, night: Night, django_user_model: type[User]):
    night.route("root", night.contact("ann"))
    client.force_login(django_user_model.objects.create_superuser("root", "root@example.com", "a-long-passphrase"))
    page = "/monitoring/alerts/"
    shown = client.get(page, {"tab": "notifications", "labels": 'service="<b>"'})
    assert shown.status_code == 200
    assert "told 30 s after it fires" in shown.content.decode()
    assert "<b>&quot;" not in shown.content.decode()
    refused = client.get(page, {"tab": "notifications", "labels": "nothing"})
    assert "is no matcher" in refused.content.decode()


def test_foresight_knows_orders_quiet_hours_and_business_hours(night: Night):
    anna, ben = User.objects.create_user("anna"), User.objects.create_user("ben")
    night.contact("anna-push", owner=anna)
    night.contact("anna-sms", owner=anna, important_after=timedelta(minutes=3))
    night.contact("ben-mail", owner=ben)
    night.contact("last", is_fallback=True)
    QuietHours.objects.create(person=ben, hours="mon-sun 21:00-06:00", zone="UTC")
    office = Calendar.objects.create(name="Office", zone="UTC", hours="mon-fri 08:00-18:00")
    team = night.contact("team", calendar=office)
    steps = [("notify_person", {"people": [one.pk], "important": True}) for one in (ben, anna)]
    policy = night.policy(steps[0], ("wait", {"minutes": 30}), steps[1], ("wait", {"minutes": 30}))
    night.route("root", team, policy=policy)
    told = [
        (int((step.at - START).total_seconds()), step.contacts)
        for step in who_would_be_told({"severity": "warning"}, at=START, scope=EVERYTHING).ways[0].steps
        if step.contacts
    ]
    assert told == [
        (30, ("anna-push",)),
        (210, ("anna-sms",)),
        (8 * 3600, ("ben-mail",)),
        (10 * 3600, ("team",)),
    ]
    loud = who_would_be_told({"severity": "critical"}, at=START, scope=EVERYTHING).ways[0].steps
    assert [step.contacts for step in loud if step.contacts] == [
        ("team",), ("ben-mail",), ("anna-push",), ("anna-sms",),
    ]  # fmt: skip


def test_a_dry_run_knows_whose_turn_it_is_and_keeps_none(night: Night):
    people = [User.objects.create_user(name) for name in ("anna", "ben")]
    for one in people:
        night.contact(f"{one}-mail", owner=one)
    in_turn = ("notify_round_robin", {"people": [one.pk for one in people]})
    policy = night.policy(in_turn, ("wait", {"minutes": 5}), ("repeat", {"times": 2}))
    run = dry_run(policy, at=START, severity="warning")
    assert [step.contacts[0] for step in run.steps if step.contacts] == ["anna-mail", "ben-mail", "anna-mail"]
    assert not RoundRobin.objects.exists()
