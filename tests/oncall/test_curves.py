"""The curve of an alert goes along with a message that can draw it, and never holds one up."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from apps.alerting.models import Alert
from apps.core.telemetry import Reading
from apps.metrics import query
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery
from apps.oncall import book, curves
from apps.oncall.grouping import Decision
from tests.house.rows import make
from tests.oncall.conftest import BY, START, Night


@pytest.fixture(autouse=True)
def allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "ALLOWANCE", curves.Allowance(60, 1))


@pytest.fixture
def mail(db: None) -> Contact:
    return Contact.objects.create(name="mail", kind="email", config={"to": ["a@example.com"]})


def an_alert(night: Night, expression: str = "memoryUsage", **labels: str) -> Alert:
    """An hour of values of two hosts, the first of which breaches."""
    for minute in range(60):
        at = night.now - timedelta(minutes=60 - minute)
        readings = [Reading("memoryUsage", 40.0 + minute, {"host": "a"}), Reading("memoryUsage", 7.0, {"host": "b"})]
        metrics.ingest(samples=Samples.from_readings(readings, at=at), by=BY, now=night.now)
    rule = make("alerting.alertrule", name="Memory", expression=expression)
    return make(
        "alerting.alert",
        rule=rule,
        labels={"host": "a", **labels},
        value=99.0,
        threshold=90.0,
        fired_at=START,
        seen_at=START,
    )


def told(contact: Contact) -> Message:
    return Message.from_json(Delivery.objects.get(contact=contact).message)


def tell(night: Night, alert: Alert, *contacts: Contact) -> None:
    night.now += timedelta(minutes=1)
    mine = book.Book(None, {alert.pk: alert}, book.Quiet(night.now), night.now)
    for contact in contacts:
        mine.send(contact, Decision((alert.pk,), (), (), "first notification"))


def test_an_email_gets_the_values_of_exactly_the_alert_and_a_webhook_none(night: Night, mail: Contact):
    alert, hook = an_alert(night), night.contact("hook")
    tell(night, alert, mail, hook)
    curve = told(mail).curve
    assert curve is not None
    assert len(curve.values) == curves.POINTS
    assert (curve.title, curve.unit, curve.threshold) == ("Memory", "percent", 90.0)
    assert {value for value in curve.values if value is not None} <= {40.0 + minute for minute in range(60)}
    assert curve.since == int(START.timestamp())
    assert told(hook).curve is None


def test_the_message_says_the_value_with_its_unit_for_how_long_and_where_to_look(night: Night, mail: Contact):
    alert = an_alert(night)
    tell(night, alert, mail)
    message = told(mail)
    [item] = message.alerts
    facts = dict(item.facts)
    assert facts["Value"] == "99 % (threshold 90 %)"
    assert facts["Since"].endswith("22:00:00 UTC, for 1 min")
    assert (item.value, item.threshold, item.unit, item.name) == (99.0, 90.0, "percent", "Memory")
    assert [name for name, _ in message.links] == [f"Incident #{alert.incident_id}", "Chart", "Silence"]


def broken(*_: Any, **__: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT no_such_column")


def hopeless(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize("failing", [broken, hopeless])
def test_a_curve_that_cannot_be_read_never_stops_the_message(
    night: Night, mail: Contact, monkeypatch: pytest.MonkeyPatch, failing: Any
):
    alert = an_alert(night)
    monkeypatch.setattr(query, "query_range", failing)
    tell(night, alert, mail)
    assert told(mail).curve is None


@pytest.mark.parametrize("expression", ["memoryUsage +", "no_such_metric", "count_values('x', memoryUsage) / 0"])
def test_an_expression_without_values_is_no_curve(night: Night, mail: Contact, expression: str):
    tell(night, an_alert(night, expression), mail)
    assert told(mail).curve is None


def test_a_storm_is_told_and_not_drawn(night: Night, mail: Contact, monkeypatch: pytest.MonkeyPatch):
    alert = an_alert(night)
    monkeypatch.setattr(curves, "ALLOWANCE", curves.Allowance(0, 1000))
    tell(night, alert, mail)
    assert told(mail).curve is None


def test_numbers_that_json_has_no_word_for_do_not_stop_a_message(night: Night, mail: Contact):
    alert = an_alert(night)
    alert.value, alert.threshold = float("inf"), float("nan")
    tell(night, alert, mail)
    [item] = told(mail).alerts
    assert (item.value, item.threshold) == (None, None)
