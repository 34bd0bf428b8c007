"""Who is told what and when, from alert to outbox, on a clock that is stepped by hand."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from apps.alerting import services as alerting
from apps.alerting.models import Alert, Transition
from apps.notifications import callbacks
from apps.notifications.incoming import Receipt
from apps.notifications.models import Contact, Delivery
from apps.oncall import escalating, services, settling, telling
from apps.oncall.models import Escalation, Notice, Route
from tests.oncall.conftest import BY, Night


def test_a_contact_is_told_after_the_group_wait_and_of_the_end_likewise(night: Night):
    slack = night.contact("slack")
    night.route("root", slack)
    disk = night.fire()
    night.wait(minutes=2)
    night.end(disk)
    night.wait(minutes=2)
    assert night.texts(slack) == "30s +disk; 150s -disk"


def test_what_comes_within_the_group_wait_is_one_message(night: Night):
    slack = night.contact("slack")
    night.route("root", slack, group_by=["service"])
    night.fire("disk", service="web")
    night.wait(seconds=20)
    night.fire("memory", service="web")
    night.fire("queue", service="mail")
    night.wait(minutes=1)
    assert night.texts(slack) == "30s +disk +memory; 50s +queue"


def test_what_begins_is_taken_up_before_what_ended_and_the_worst_first(night: Night):
    night.route("root", night.contact("slack"))
    storm = [night.fire(f"storm{number}") for number in range(3)]
    night.wait(minutes=1)
    for alert in storm:
        night.end(alert)
    gone = night.fire("gone", severity="critical")
    night.fire("minor", severity="info")
    night.fire("core", severity="error")
    night.end(gone)
    order = []
    while untold := set(Transition.objects.untold().values_list("pk", flat=True)):
        telling.tell(now=night.now, limit=1)
        [taken] = untold - set(Transition.objects.untold().values_list("pk", flat=True))
        order.append(str(Transition.objects.get(pk=taken).alert.type))
    assert order == ["core", "minor", "storm0", "storm1", "storm2", "gone", "gone"]


def test_the_beginnings_of_one_alert_keep_their_order(night: Night):
    night.route("root", night.contact("slack"))
    night.worsen(night.fire("disk"), "critical")
    assert [row.kind for row in Transition.objects.untold().order_by("pk")] == ["state", "severity"]
    telling.tell(now=night.now, limit=1)
    assert night.group.due_at == night.now + timedelta(seconds=30)
    telling.tell(now=night.now, limit=1)
    assert night.group.due_at == night.now


@pytest.mark.parametrize("limit", [1, 200])
def test_whoever_overtakes_the_last_end_of_its_group_does_not_wait_for_the_interval(night: Night, limit: int):
    slack = night.contact("slack")
    night.route("root", slack, group_by=[])
    disk = night.fire("disk")
    night.wait(minutes=1)
    night.end(disk)
    night.fire("memory")
    while telling.tell(now=night.now, limit=limit) == limit:
        pass
    night.wait(minutes=10)
    assert night.texts(slack) == "30s +disk; 90s +memory -disk"


def test_a_late_comer_waits_for_the_group_interval(night: Night):
    slack = night.contact("slack")
    night.route("root", slack, group_by=[])
    night.fire("disk")
    night.wait(minutes=1)
    night.fire("memory")
    night.wait(minutes=6)
    assert night.texts(slack) == "30s +disk; 330s +disk +memory"


def test_what_ended_before_anybody_was_told_is_not_told(night: Night):
    slack = night.contact("slack")
    night.route("root", slack)
    disk = night.fire()
    night.wait(seconds=10)
    night.end(disk)
    night.wait(minutes=5)
    assert night.texts(slack) == ""
    assert night.group.due_at is None


def test_what_goes_on_is_told_again_after_the_repeat_interval(night: Night):
    slack = night.contact("slack")
    night.route("root", slack, repeat_interval=timedelta(minutes=30))
    night.fire()
    night.wait(minutes=61)
    assert night.texts(slack) == "30s +disk; 1830s +disk; 3630s +disk"


def test_an_acknowledged_alert_is_not_repeated_and_its_end_is_told(night: Night):
    slack = night.contact("slack")
    night.route("root", slack, repeat_interval=timedelta(minutes=30))
    disk = night.fire()
    night.wait(minutes=1)
    night.acknowledge(disk)
    night.wait(minutes=60)
    night.end(disk)
    night.wait(minutes=1)
    assert night.texts(slack) == "30s +disk; 3690s -disk"


def test_what_fires_again_within_the_cooldown_is_told_at_its_end(night: Night):
    slack = night.contact("slack")
    night.route("root", slack)
    night.end(_fired(night, minutes=1))
    night.wait(minutes=1)
    night.fire()
    night.wait(minutes=6)
    assert night.texts(slack) == "30s +disk; 90s -disk; 330s +disk"


def test_what_fires_and_ends_within_the_cooldown_is_never_told(night: Night):
    slack = night.contact("slack")
    night.route("root", slack)
    night.end(_fired(night, minutes=1))
    night.wait(minutes=1)
    night.end(_fired(night, minutes=1))
    night.wait(minutes=20)
    assert night.texts(slack) == "30s +disk; 90s -disk"


def test_whoever_was_told_is_told_the_end_though_the_route_has_gone(night: Night):
    slack, mail = night.contact("slack"), night.contact("mail", is_fallback=True)
    night.route("root", mail)
    web = night.route("web", slack, is_root=False, matchers=['service="web"'])
    disk = night.fire(service="web")
    night.wait(minutes=1)
    web.delete()
    night.end(disk)
    night.wait(minutes=1)
    assert night.texts(slack) == "30s +disk; 90s -disk"
    assert night.texts(mail) == ""


def test_a_rule_of_its_own_matchers_keeps_alerts_from_the_root_unless_it_continues(night: Night):
    slack, mail = night.contact("slack"), night.contact("mail")
    night.route("root", mail)
    web = night.route("web", slack, is_root=False, matchers=['service=~"web|db"'])
    night.fire("disk", service="web")
    night.wait(minutes=1)
    assert (night.texts(slack), night.texts(mail)) == ("30s +disk", "")
    web.continue_matching = True
    web.save()
    night.fire("memory", service="db")
    night.wait(minutes=1)
    assert (night.texts(slack), night.texts(mail)) == ("30s +disk; 90s +memory", "90s +memory")


def test_an_escalation_goes_on_until_somebody_acknowledges(night: Night):
    slack, phone, chief = night.contact("slack"), night.contact("phone"), night.contact("chief")
    policy = night.policy(
        ("notify", {"contacts": ["phone"]}), ("wait", {"minutes": 10}), ("notify", {"contacts": ["chief"]}),
        ("wait", {"minutes": 10}), ("repeat", {"times": 2}),
    )  # fmt: skip
    night.route("root", slack, policy=policy)
    disk = night.fire(severity="critical")
    night.wait(minutes=12)
    night.acknowledge(disk)
    night.wait(hours=2)
    assert night.texts(slack) == "30s +disk"
    assert night.texts(phone) == "30s +disk"
    assert night.texts(chief) == "630s +disk"
    assert night.escalation.state == "acknowledged"
    night.end(disk)
    night.wait(minutes=1)
    for contact in (slack, phone, chief):
        assert night.texts(contact).endswith("; 7950s -disk")


def test_an_escalation_goes_round_as_often_as_its_policy_says(night: Night):
    phone = night.contact("phone")
    policy = night.policy(("notify", {"contacts": ["phone"]}), ("wait", {"minutes": 10}), ("repeat", {"times": 2}))
    night.route("root", policy=policy)
    night.fire()
    night.wait(hours=2)
    assert night.texts(phone) == "30s +disk; 630s +disk; 1230s +disk"
    assert night.escalation.state == "finished"


def test_a_running_escalation_keeps_the_policy_it_began_with(night: Night):
    phone, chief = night.contact("phone"), night.contact("chief")
    policy = night.policy(("wait", {"minutes": 10}), ("notify", {"contacts": ["phone"]}))
    night.route("root", policy=policy)
    night.fire()
    night.wait(minutes=1)
    services.save_policy(by=BY, policy=policy, name="night", steps=[notify("chief")])
    night.wait(minutes=20)
    assert (night.texts(phone), night.texts(chief)) == ("630s +disk", "")


def test_alerts_of_one_group_make_one_message_in_each_step(night: Night):
    phone = night.contact("phone")
    policy = night.policy(("notify", {"contacts": ["phone"]}), ("wait", {"minutes": 10}), ("repeat", {"times": 1}))
    night.route("root", group_by=[], policy=policy)
    for name in ("disk", "memory", "queue"):
        night.fire(name)
    night.wait(minutes=11)
    assert night.texts(phone) == "30s +disk +memory +queue; 630s +disk +memory +queue"


def test_a_raised_severity_is_told_at_once_and_starts_the_escalation_over(night: Night):
    slack, phone = night.contact("slack"), night.contact("phone")
    policy = night.policy(("notify", {"contacts": ["phone"]}), ("wait", {"minutes": 60}))
    night.route("root", slack, policy=policy)
    disk = night.fire(severity="warning")
    night.wait(minutes=1)
    night.worsen(disk, "critical")
    night.wait(minutes=1)
    assert night.texts(slack) == "30s +disk; 60s +disk"
    assert night.texts(phone) == "30s +disk; 60s +disk"


def test_something_worse_that_joins_the_incident_starts_the_escalation_over(night: Night):
    phone, boss = night.contact("phone"), night.contact("boss")
    steps: list[tuple[str, dict[str, Any]]] = [
        ("only_severity", {"severity": "critical", "steps": 1}),
        ("notify", {"contacts": [phone.pk]}),
        ("wait", {"minutes": 30}),
        ("notify", {"contacts": [boss.pk]}),
    ]
    night.route("root", policy=night.policy(*steps))
    night.fire("disk", service="shop")
    night.wait(minutes=10)
    assert night.told(phone) == []
    night.fire("cpu", "critical", service="shop")
    night.wait(minutes=1)
    assert night.escalation.severity == "critical"
    assert [said for _, said in night.told(phone)] == ["+cpu +disk"]


def test_what_gets_worse_after_it_was_acknowledged_is_escalated_anew(night: Night):
    phone = night.contact("phone")
    night.route("root", policy=night.policy(("notify", {"contacts": ["phone"]}), ("wait", {"minutes": 60})))
    disk = night.fire(severity="warning")
    night.wait(minutes=1)
    night.acknowledge(disk)
    night.wait(minutes=10)
    night.worsen(disk, "critical")
    night.wait(minutes=1)
    assert [at for at, _ in night.told(phone)] == ["30", "660"]
    disk.refresh_from_db()
    assert disk.acknowledged_at is None
    assert list(Escalation.objects.order_by("pk").values_list("state", flat=True)) == ["acknowledged", "running"]


def test_an_acknowledgement_made_after_it_got_worse_stays(night: Night):
    night.route("root", night.contact("slack"))
    disk = night.fire(severity="warning")
    night.wait(minutes=1)
    night.worsen(disk, "critical")
    night.now += timedelta(seconds=1)
    night.acknowledge(disk)
    night.wait(minutes=1)
    disk.refresh_from_db()
    assert disk.acknowledged_at is not None


@pytest.mark.parametrize(("acknowledged_for", "told"), [(None, ["30"]), (timedelta(minutes=30), ["30", "1860"])])
def test_an_acknowledgement_wears_off_where_the_policy_says_so(
    night: Night, acknowledged_for: timedelta | None, told: list[str]
):
    phone = night.contact("phone")
    steps = ("notify", {"contacts": ["phone"]}), ("wait", {"minutes": 60})
    night.route("root", policy=night.policy(*steps, acknowledged_for=acknowledged_for))
    disk = night.fire()
    night.wait(minutes=1)
    night.acknowledge(disk)
    for _ in range(35):
        night.wait(minutes=1)
    assert [at for at, _ in night.told(phone)] == told


def test_one_made_after_the_policy_came_to_its_end_wears_off_likewise(night: Night):
    phone = night.contact("phone")
    policy = night.policy(("notify", {"contacts": ["phone"]}), acknowledged_for=timedelta(minutes=30))
    night.route("root", policy=policy)
    disk = night.fire()
    night.wait(minutes=1)
    assert night.escalation.state == "finished"
    night.acknowledge(disk)
    for _ in range(35):
        night.wait(minutes=1)
    assert [at for at, _ in night.told(phone)] == ["30", "1860"]


def test_nobody_is_paged_twice_at_the_same_moment_by_route_and_policy(night: Night):
    slack = night.contact("slack")
    policy = night.policy(("notify", {"route_contacts": True, "contacts": ["slack"]}), ("wait", {"minutes": 60}))
    night.route("root", slack, policy=policy)
    night.fire()
    night.wait(minutes=1)
    assert night.texts(slack) == "30s +disk"


@pytest.mark.parametrize("trouble", ["no contacts", "switched off", "no route", "contact gone"])
def test_what_nobody_could_be_told_goes_to_the_fall_back_contact(night: Night, trouble: str):
    admins = night.contact("admins", is_fallback=True)
    match trouble:
        case "no contacts":
            night.route("root")
        case "switched off":
            night.route("root", night.contact("slack", enabled=False))
        case "contact gone":
            gone = night.contact("gone")
            night.route("root", policy=night.policy(("notify", {"contacts": ["gone"]})))
            gone.delete()
    disk = night.fire()
    night.wait(minutes=1)
    night.end(disk)
    night.wait(minutes=1)
    assert night.texts(admins) == "30s +disk; 90s -disk"


def test_a_message_that_fails_for_good_is_told_to_the_fall_back_contact(night: Night):
    slack, admins = night.contact("slack"), night.contact("admins", is_fallback=True)
    night.route("root", slack)
    night.broken = {"slack"}
    disk = night.fire()
    night.wait(minutes=1)
    night.end(disk)
    night.wait(minutes=1)
    assert night.texts(admins) == "30s +disk; 90s -disk"
    assert night.texts(slack) == "30s +disk"  # whom nothing reached, nothing is owed


def test_a_message_that_is_stuck_is_told_to_the_fall_back_contact_after_five_minutes(night: Night):
    slack, admins = night.contact("slack"), night.contact("admins", is_fallback=True)
    night.route("root", slack)
    night.held = {"slack"}
    night.fire()
    night.wait(minutes=6)
    assert night.texts(admins) == "330s +disk"


def test_the_fall_back_contact_is_left_alone_while_somebody_else_was_told(night: Night):
    slack, mail, admins = night.contact("slack"), night.contact("mail"), night.contact("admins", is_fallback=True)
    night.route("root", slack, mail)
    night.broken = {"slack"}
    night.fire()
    night.wait(minutes=10)
    assert night.texts(mail) == "30s +disk"
    assert night.texts(admins) == ""


def test_an_escalation_that_ends_without_telling_anybody_tells_the_fall_back_contact(night: Night):
    admins = night.contact("admins", is_fallback=True)
    night.contact("phone")
    policy = night.policy(("wait", {"minutes": 5}), ("notify", {"contacts": ["phone"]}))
    night.route("root", policy=policy)
    night.fire()
    night.wait(minutes=1)
    Escalation.objects.update(plan={"name": "night", "steps": [{"kind": "wait", "config": {"minutes": 1}}]})
    night.wait(minutes=10)
    assert night.texts(admins) == "330s +disk"


def test_a_transition_that_cannot_be_taken_up_stays_and_stops_no_other(night: Night, monkeypatch: pytest.MonkeyPatch):
    slack = night.contact("slack")
    night.route("root", slack)
    night.fire("disk")
    night.fire("memory")
    whole = telling._take_up

    def fragile(transition: Transition, *args: Any) -> None:
        if transition.alert.type == "disk":
            raise ValueError("broken")
        whole(transition, *args)

    monkeypatch.setattr(telling, "_take_up", fragile)
    with pytest.raises(RuntimeError, match="1 transitions"):
        telling.tell(now=night.now)
    monkeypatch.setattr(telling, "_take_up", whole)
    assert [t.alert.type for t in Transition.objects.untold()] == ["disk"]
    night.wait(minutes=1)
    assert night.texts(slack) == "30s +memory; 30s +disk"


class Killed(Exception):
    """The worker dies at this statement."""


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_at_any_statement_loses_and_doubles_nothing():
    """Every third statement of tell, flush, escalate and settle is made to fail once; the rest goes on afterwards."""
    night = Night()
    slack, phone = night.contact("slack"), night.contact("phone")
    policy = night.policy(("notify", {"contacts": ["phone"]}), ("wait", {"minutes": 10}))
    night.route("root", slack, policy=policy, group_wait=timedelta(0))
    kills = 0
    for rounds, place in enumerate(range(1, 400, 3), start=1):  # noqa: B007 - counted on
        disk = night.fire(f"disk{place}")
        count = 0

        def dies(execute, sql, params, many, context, place=place):
            nonlocal count
            count += 1
            if count == place:
                raise Killed
            return execute(sql, params, many, context)

        with connection.execute_wrapper(dies):
            for work in (telling.tell, telling.flush, escalating.escalate, settling.settle):
                try:
                    with transaction.atomic():
                        work(now=night.now)
                except (Killed, RuntimeError):
                    kills += 1
        night.run()
        said = f"+disk{place}"
        assert [words for _, words in night.told(slack)][-1:] == [said]
        assert [words for _, words in night.told(phone)][-1:] == [said]
        assert Notice.objects.filter(alert=disk).count() == 2
        if count < place:
            break
    assert kills == rounds - 1
    assert Delivery.objects.count() == 2 * rounds


def _fired(night: Night, **span: float) -> Alert:
    alert = night.fire()
    night.wait(**span)
    return alert


def notify(*names: str) -> dict[str, object]:
    return {"kind": "notify", "config": {"contacts": list(names)}}


def test_a_route_that_cannot_be_read_keeps_no_alert_from_the_others(night: Night):
    slack, mail = night.contact("slack"), night.contact("mail")
    night.route("root", slack)
    broken = night.route("web", mail, is_root=False, matchers=['service="web"'])
    Route.objects.filter(pk=broken.pk).update(matchers=['service=~"("'])
    night.fire("disk", service="web")
    night.wait(minutes=1)
    assert night.texts(slack) == "30s +disk"
    assert night.texts(mail) == ""


def test_a_message_names_what_was_changed_shortly_before(night: Night):
    shop = night.contact("shop")
    night.route("root", shop)
    before = night.now - timedelta(minutes=10)
    alerting.note_change(by=BY, title="1.4 deployed", service="shop", at=before, now=night.now)
    night.fire("slow", service="shop")
    night.wait(minutes=1)
    (delivery,) = Delivery.objects.all()
    assert delivery.message["facts"] == [["Changed shortly before", "21:50 UTC shop: 1.4 deployed (test)"]]


def bounced(contact: Contact, now: datetime) -> None:
    """Let the provider say that the last message to the contact did not arrive after all."""
    delivery = Delivery.objects.filter(contact=contact).latest("pk")
    callbacks.note_receipt(delivery=delivery, receipt=Receipt("bounced", "no such user"), recipients=(), now=now)


def test_what_was_sent_and_bounces_an_hour_later_is_told_to_the_fallback_contact(night: Night):
    anna, fallback = night.contact("anna"), night.contact("fallback", is_fallback=True)
    night.route("root", anna)
    night.fire()
    night.wait(hours=1)
    assert night.told(fallback) == []
    bounced(anna, night.now)
    night.wait(seconds=1)
    assert night.texts(fallback) == "3600s +disk"
    night.wait(minutes=10)
    assert len(night.told(fallback)) == 1
    anna.refresh_from_db()
    assert anna.problem == "Came back: no such user"


def test_what_bounces_when_somebody_else_knows_is_told_to_nobody(night: Night):
    anna, ben, fallback = night.contact("anna"), night.contact("ben"), night.contact("fallback", is_fallback=True)
    night.route("root", anna, ben)
    night.fire()
    night.wait(minutes=1)
    bounced(anna, night.now)
    night.wait(minutes=1)
    assert night.told(fallback) == []
