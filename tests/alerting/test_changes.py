"""Changes: how they are told, who sees them, and what stands beside an alert."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from django.core.exceptions import ValidationError

from apps.accounts.permissions import EVERYTHING, Scope
from apps.accounts.rights import Principal, Right
from apps.alerting import changes, services
from apps.alerting.changes import Happening
from apps.alerting.models import Change
from tests.wiring.lanes import Said, ask, token

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BY = Principal("user", "1", "ann", frozenset({Right.OPERATE, Right.EDIT}))
pytestmark = pytest.mark.django_db


def note(title: str, minutes_ago: float = 10, **kw: Any) -> Change:
    return services.note_change(by=BY, title=title, at=NOW - timedelta(minutes=minutes_ago), now=NOW, **kw)


def titles(**kw: Any) -> list[str]:
    found = changes.happenings(since=NOW - timedelta(hours=1), until=NOW, **{"scope": EVERYTHING, **kw})
    return [one.title for one in found]


def test_the_same_id_of_the_same_teller_is_one_change():
    assert note("shop 1.4", ident="17") == note("shop 1.4 again", ident="17")
    assert titles() == ["shop 1.4"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"title": " "}, "title"),
        ({"kind": "magic"}, "kind"),
        ({"service": "x" * 101}, "service"),
        ({"link": "javascript:alert(1)"}, "link"),
        ({"details": {"a": "x" * 20_000}}, "details"),
        ({"at": NOW + timedelta(hours=1)}, "at"),
    ],
)
def test_what_cannot_be_a_change_says_which_field(fields, name):
    with pytest.raises(ValidationError) as caught:
        services.note_change(**{"by": BY, "title": "x", "now": NOW, **fields})
    assert list(caught.value.message_dict) == [name]


def test_changes_of_the_same_service_stand_first():
    at = [NOW - timedelta(minutes=minute) for minute in (1, 2, 3)]
    found = [
        Happening(at[0], "deployment", "new", "web"),
        Happening(at[1], "deployment", "mine", "db"),
        Happening(at[2], "configuration", "old"),
    ]
    assert [one.title for one in changes.nearest(found, {"db", ""}, limit=2)] == ["mine", "new"]


def test_only_what_was_changed_within_the_hour_before_stands_beside_an_alert():
    note("long ago", minutes_ago=90)
    note("before", minutes_ago=30, service="db")
    note("after", minutes_ago=1)
    found = changes.before(NOW - timedelta(minutes=5), {"db"}, scope=EVERYTHING)
    assert [one.line for one in found] == ["db: before (ann)"]


def test_the_portals_own_configuration_is_a_change_without_its_values(world):
    services.save_group(by=BY, group=world.group("night"), now=NOW)
    since = datetime.now(UTC) - timedelta(minutes=5)
    (one,) = changes.happenings(since=since, until=since + timedelta(minutes=10), scope=EVERYTHING)
    assert (one.kind, one.title, one.by) == ("configuration", "Group “night” saved", "ann")


def test_a_narrow_scope_sees_its_services_and_no_configuration(world):
    services.save_group(by=BY, group=world.group("night"), now=NOW)
    note("mine", service="web")
    note("other", service="db")
    scope = Scope((("service", "=", "web"),))
    assert titles(scope=scope) == ["mine"]
    since = datetime.now(UTC) - timedelta(minutes=5)
    assert changes.happenings(since=since, until=since + timedelta(minutes=10), scope=scope) == []


def test_a_narrow_scope_speaks_only_of_its_services():
    narrow = Principal("token", "3", "ci", frozenset({Right.OPERATE}), Scope((("service", "=", "web"),)))
    with pytest.raises(ValidationError, match="may not speak of"):
        services.note_change(by=narrow, title="db 2", service="db", now=NOW)


def test_old_changes_are_forgotten():
    note("old", minutes_ago=401 * 24 * 60)
    note("new")
    assert services.forget_changes(by=Principal.system("test"), now=NOW) == 1
    assert titles() == ["new"]


# --- The doors ------------------------------------------------------------------------------------------------------
ADDRESS = "/api/v1/portal/changes"


def post(value: Any, path: str = ADDRESS, scope: str = "alerts") -> Said:
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return ask(path, token(scope), method="POST", body=body)


def test_a_deployment_is_told_and_listed():
    assert post({"service": "shop", "version": "1.4", "link": "https://ci.example/1"}).status == 201
    (one,) = ask(ADDRESS, token("read"), {"service": "shop"}).json["changes"]
    assert (one["title"], one["kind"], one["link"]) == ("shop 1.4", "deployment", "https://ci.example/1")
    assert ask(ADDRESS, token("query"), {}).status == 403
    assert post({"title": "x"}, scope="read").status == 403


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"nonsense", "no JSON"),
        ([], "One to 1000 changes"),
        ([{"title": "fine"}, {"title": 3}], "Change 1: title: a text is expected."),
        ({"colour": "red"}, "no field 'colour'"),
        ({"title": "x", "at": "soon"}, "'soon' is no time"),
        ({"title": "x", "details": []}, None),
        ({"title": "x", "kind": "magic"}, "kind: 'magic' is none of"),
        (3, "an object is expected"),
    ],
)
def test_a_body_that_is_no_change_is_refused_with_a_sentence(body, said):
    answer = post(body)
    assert answer.status == (201 if said is None else 400)
    assert said is None or said in answer.json["error"]
    assert Change.objects.count() == (said is None)  # all or none


def test_pagerdutys_change_events_are_changes():
    payload = {"summary": "Build 7", "source": "ci", "timestamp": "2026-11-23T11:00:00Z"}
    event = {"payload": payload, "links": [{"href": "https://ci.example/7"}]}
    assert post(event, "/v2/change/enqueue").status == 202
    change = Change.objects.get()
    assert (change.title, change.service, change.link) == ("Build 7", "ci", "https://ci.example/7")
    assert post({"payload": {}}, "/v2/change/enqueue").json["errors"] == ["'payload.summary' is missing or blank"]
