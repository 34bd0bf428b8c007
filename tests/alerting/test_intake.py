"""Alerts as others tell them: what each protocol's bodies mean, and what becomes of a batch."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.models import AuditEntry
from apps.accounts.rights import Principal, Right, Scope
from apps.alerting import intake, services
from apps.alerting.lifecycle import Reason, Severity
from apps.alerting.models import Alert, Incident, Transition

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BY = Principal("token", "7", "prometheus", frozenset({Right.OPERATE}))
LASTS = timedelta(minutes=5)


def body(*alerts: dict[str, Any]) -> bytes:
    return orjson.dumps(list(alerts))


def firing(**labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": "Down", **labels}}


def tell(*alerts: dict[str, Any], now: datetime = NOW, by: Principal = BY) -> services.Taken:
    batch = intake.posted_alerts(body(*alerts))
    return services.take_in(by=by, reports=batch.reports, source="alertmanager", lasts=LASTS, now=now)


# --- Reading --------------------------------------------------------------------------------------------------------
def test_an_alert_is_read_with_its_label_set_as_given():
    alert = {
        "labels": {"alertname": "Down", "severity": "page", "service": "db", "empty": ""},
        "annotations": {"summary": "It is down"},
        "startsAt": "2026-11-23T11:00:00.123456789+01:00",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
    }
    (report,) = intake.posted_alerts(body(alert)).reports
    assert report.labels == {"alertname": "Down", "severity": "page", "service": "db"}
    assert (report.type, report.severity, report.message) == ("Down", Severity.CRITICAL, "It is down")
    assert (report.service, report.metadata) == ("db", {"generatorURL": "http://prometheus/graph"})
    assert (report.starts_at, report.ends_at) == (datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC), None)


@pytest.mark.parametrize(
    ("word", "severity"),
    [("critical", "critical"), ("Page", "critical"), ("high", "error"), ("ticket", "warning"), ("none", "info"),
     ("", "warning"), ("purple", "warning")],
)  # fmt: skip
def test_foreign_words_for_severity_have_a_meaning(word, severity):
    assert intake.severity_of(word) == severity


# Each sentence is what Alertmanager 0.25 answers, up to its JSON library's own words.
@pytest.mark.parametrize(
    ("text", "status", "code", "said"),
    [
        (b"", 422, 602, "alerts in body is required"),
        (b"[", 400, 400, 'parsing alerts body from "" failed, because'),
        (b"{}", 400, 400, "json: cannot unmarshal object into Go value of type models.PostableAlerts"),
        (b"[3]", 400, 400, "json: cannot unmarshal number into Go value of type models.PostableAlert"),
        (b"[{}]", 422, 602, "0.labels in body is required"),
        (b'[{"labels":{"a":1}}]', 400, 400, "cannot unmarshal number into Go struct field Alert.labels of type string"),
        (b'[{"labels":{"a":"b"},"startsAt":"nonsense"}]', 400, 400, 'parsing time "nonsense"'),
        (b'[{"labels":{"a":"b"},"endsAt":12}]', 400, 400, "12 is no time"),
    ],
)
def test_a_body_that_is_no_list_of_alerts_is_refused_whole(text, status, code, said):
    with pytest.raises(intake.Unreadable, match=said.replace("(", r"\(")) as caught:
        intake.posted_alerts(text)
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize(
    ("alert", "said"),
    [
        ({"labels": {}}, "at least one label pair required"),
        ({"labels": {"a": ""}}, "at least one label pair required"),
        ({"labels": {"a-b": "c"}}, 'invalid label set: invalid name "a-b"'),
        ({"labels": {"a": "b"}, "annotations": {"1": "x"}}, 'invalid annotations: invalid name "1"'),
        (
            {"labels": {"a": "b"}, "startsAt": "2026-11-29T00:00:00Z", "endsAt": "2026-11-28T00:00:00Z"},
            "start time must be before end time",
        ),
        ({"labels": {"a": "b" * 20_000}}, "label set too large: 20001 bytes, at most 16000 are kept with an alert"),
        ({"labels": {"a": "b"}, "annotations": {"c": "d" * 70_000}}, "alert too large"),
    ],
)
def test_one_alert_that_cannot_be_taken_leaves_the_others(alert, said):
    batch = intake.posted_alerts(body(firing(), alert))
    assert len(batch.reports) == 1
    assert batch.problems[1].startswith(said)


def test_a_label_of_a_thousand_characters_is_kept():
    (report,) = intake.posted_alerts(body(firing(path="x" * 1000))).reports
    assert report.labels["path"] == "x" * 1000


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
)


@given(ANYTHING)
def test_no_json_breaks_a_reader(value):
    try:
        text = orjson.dumps([value, {"labels": value}, {"labels": {"a": "b"}, "startsAt": value}])
    except (TypeError, ValueError):
        return  # integers beyond 64 bits, half a surrogate pair
    for read in (intake.posted_alerts, intake.webhook_alerts):
        try:
            read(text)
            read(orjson.dumps({"alerts": [value], "payload": value}))
        except intake.Unreadable:
            pass
    for read_event in (intake.change_event, lambda text: intake.event(text, sender="", fresh_key="k")):
        with pytest.raises(intake.InvalidEvent):
            read_event(text)


def test_a_webhook_says_what_fires_and_what_is_over():
    alert = {"labels": {"alertname": "A"}, "status": "firing", "endsAt": "2026-11-23T13:00:00Z"}
    ended = {"labels": {"alertname": "B"}, "status": "resolved", "endsAt": "2026-11-23T11:00:00Z"}
    batch = intake.webhook_alerts(orjson.dumps({"version": "4", "alerts": [alert, ended]}))
    assert [report.is_over(NOW) for report in batch.reports] == [False, True]
    assert batch.reports[0].ends_at is None  # a webhook is not repeated: what it says of the end would come too early


@pytest.mark.parametrize("text", [b"[]", b"{}", b'{"alerts": 3}', b'{"version": "9", "alerts": []}', b"nonsense"])
def test_what_is_no_webhook_is_refused(text):
    with pytest.raises(intake.Unreadable):
        intake.webhook_alerts(text)


# --- A batch --------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_an_alert_begins_with_incident_transition_and_one_audit_entry():
    taken = tell({**firing(instance="a"), "startsAt": "2026-11-23T11:58:00Z"}, firing(instance="b"))
    assert len(taken.begun) == 2
    alert = Alert.objects.get(labels__instance="a")
    assert (alert.state, alert.source, alert.fired_at, alert.ends_at) == (
        "firing", "alertmanager", NOW - timedelta(minutes=2), NOW + LASTS,
    )  # fmt: skip
    assert alert.incident is not None
    assert alert.incident.title == "Down"
    assert Transition.objects.untold().count() == 2
    (entry,) = AuditEntry.objects.filter(verb="alerting.take_in")
    assert (entry.actor_name, (entry.after or {})["begun"]) == ("prometheus", 2)


@pytest.mark.django_db
def test_a_repeat_only_moves_the_end_and_is_no_news():
    tell(firing())
    Transition.objects.all().delete()
    taken = tell({**firing(), "annotations": {"summary": "Still"}}, now=NOW + timedelta(minutes=1))
    assert (taken.begun, taken.repeated, taken.ended) == ([], 1, 0)
    alert = Alert.objects.get()
    assert (alert.count, alert.ends_at, alert.message) == (2, NOW + timedelta(minutes=1) + LASTS, "Still")
    assert not Transition.objects.exists()
    assert AuditEntry.objects.filter(verb="alerting.take_in").count() == 1


@pytest.mark.django_db
def test_one_that_is_over_ends_and_one_that_never_was_is_nothing():
    tell(firing(instance="a"))
    ended = {**firing(instance="a"), "endsAt": "2026-11-23T11:59:00Z"}
    taken = tell(ended, {**ended, "labels": {"alertname": "Never"}})
    assert taken.ended == 1
    alert = Alert.objects.get()
    assert (alert.state, alert.resolve_reason) == ("resolved", Reason.POSTED)
    assert Incident.objects.get().state == "resolved"


@pytest.mark.django_db
def test_an_alert_that_nobody_repeats_ends_by_itself():
    tell(firing())
    services.expire(by=Principal.system("test"), now=NOW + LASTS - timedelta(seconds=1))
    assert Alert.objects.active().exists()
    services.expire(by=Principal.system("test"), now=NOW + LASTS)
    assert Alert.objects.get().resolve_reason == Reason.EXPIRED


@pytest.mark.django_db
def test_the_same_label_set_fires_anew_as_a_new_alert():
    tell(firing())
    tell({**firing(), "endsAt": "2026-11-23T11:59:00Z"})
    assert len(tell(firing()).begun) == 1
    assert Alert.objects.count() == 2


@pytest.mark.django_db
def test_of_two_reports_of_one_alert_in_a_batch_the_later_counts():
    taken = tell({**firing(), "annotations": {"summary": "old"}}, {**firing(), "annotations": {"summary": "new"}})
    assert [alert.message for alert in taken.begun] == ["new"]


@pytest.mark.django_db
def test_what_a_person_resolved_rests_until_the_cooldown_is_over():
    (alert,) = tell(firing()).begun
    services.resolve(by=BY, alert=alert, now=NOW)
    assert tell(firing(), now=NOW + timedelta(minutes=1)).begun == []
    assert len(tell(firing(), now=NOW + timedelta(minutes=6)).begun) == 1


@pytest.mark.django_db
def test_a_sender_with_a_narrow_scope_speaks_only_of_what_it_covers():
    narrow = Principal("token", "8", "team", frozenset({Right.OPERATE}), Scope((("team", "=", "web"),)))
    taken = tell(firing(team="web"), firing(team="db"), by=narrow)
    assert len(taken.begun) == 1
    assert list(taken.refused) == [1]


@pytest.mark.django_db
def test_thousands_take_as_many_statements_as_a_few(django_assert_max_num_queries):
    many = [firing(instance=str(number)) for number in range(1000)]
    with django_assert_max_num_queries(25):
        assert len(tell(*many).begun) == 1000
    with django_assert_max_num_queries(10):
        assert tell(*many).repeated == 1000
    with django_assert_max_num_queries(20):
        assert tell(*({**one, "endsAt": "2026-11-23T11:00:00Z"} for one in many)).ended == 1000


@pytest.mark.django_db
def test_while_the_portal_was_away_nobody_could_repeat():
    tell(firing())
    services.shift_ends(gap=timedelta(hours=1), now=NOW + timedelta(hours=1))
    services.expire(by=Principal.system("test"), now=NOW + timedelta(hours=1))
    assert Alert.objects.active().exists()


# --- PagerDuty ------------------------------------------------------------------------------------------------------
def an_event(action: str = "trigger", **fields: Any) -> bytes:
    payload = {"summary": "Disk is full", "source": "db1", "severity": "error", "component": "postgres"}
    return orjson.dumps({"routing_key": "k", "event_action": action, "payload": payload, "dedup_key": "disk", **fields})


def test_a_trigger_is_an_alert_whose_identity_is_its_key():
    event = intake.event(an_event(), sender="7", fresh_key="fresh")
    assert event.report is not None
    assert event.report.labels == {
        "alertname": "Disk is full", "severity": "error", "instance": "db1", "component": "postgres",
    }  # fmt: skip
    other = intake.event(
        an_event(payload={"summary": "x", "source": "y", "severity": "info"}), sender="7", fresh_key=""
    )
    assert event.fingerprint == other.fingerprint
    assert event.fingerprint != intake.event(an_event(), sender="8", fresh_key="").fingerprint
    assert intake.event(an_event(dedup_key=None), sender="7", fresh_key="fresh").dedup_key == "fresh"


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (b"{", 1),
        (b"[]", 1),
        (b"{}", 1),
        (an_event("explode"), 1),
        (an_event("resolve", dedup_key=None), 1),
        (an_event(dedup_key="x" * 256), 1),
        (an_event(payload={}), 3),
        (an_event(payload={"summary": "x", "source": "y", "severity": "bad"}), 1),
        (an_event(payload={"summary": "x", "source": "y", "severity": "info", "timestamp": "soon"}), 1),
        (an_event(payload={"summary": "x", "source": "y", "severity": "info", "custom_details": "z" * 70_000}), 1),
    ],
)
def test_an_event_that_is_none_says_all_that_is_wrong(text, errors):
    with pytest.raises(intake.InvalidEvent) as caught:
        intake.event(text, sender="", fresh_key="k")
    assert len(caught.value.errors) == errors


@pytest.mark.django_db
def test_a_severity_that_rises_is_the_same_alert_and_news():
    def trigger(severity: str) -> services.Taken:
        payload = {"summary": "Disk is full", "source": "db1", "severity": severity}
        report = intake.event(an_event(payload=payload), sender="7", fresh_key="").report
        assert report is not None
        return services.take_in(by=BY, reports=[report], source="pagerduty", lasts=LASTS, now=NOW)

    trigger("warning")
    assert trigger("critical").repeated == 1
    assert Alert.objects.get().severity == "critical"
    assert Incident.objects.get().severity == "critical"
    assert Transition.objects.untold().filter(kind="severity", before="warning", after="critical").count() == 1
