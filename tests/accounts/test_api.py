"""The API's doors and this room's endpoints."""

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import InterfaceError, OperationalError
from rest_framework.test import APIClient, APIRequestFactory

from apps.accounts import permissions
from apps.accounts.doors import Needs, Nobody, PrincipalThrottle, explain
from apps.accounts.models import AuditEntry, Token
from apps.accounts.rights import Principal, Right
from tests.accounts.conftest import NOW, known

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("rooms_urls")]
TOKENS = "/api/v1/portal/tokens/"


def bearer(text: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


def test_without_a_token_the_answer_is_401_json_with_a_challenge():
    answer = APIClient().get(TOKENS)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert "token" in answer.json()["error"]


def test_with_a_wrong_token_the_answer_is_401_even_for_a_logged_in_person(person):
    client = bearer("wrong")
    client.force_login(person("administrator"))
    assert client.get(TOKENS).status_code == 401


def test_without_the_right_the_answer_is_403_and_names_it(secret):
    answer = bearer(secret("read")).get(TOKENS)
    assert answer.status_code == 403
    assert "administer" in answer.json()["error"]


def test_a_secret_is_in_the_answer_that_issues_it_and_in_no_other(person):
    client = APIClient()
    client.force_login(person("administrator"))
    body = {"name": "agent", "scopes": ["ingest"], "matchers": [["team", "=", "web"]]}
    issued = client.post(TOKENS, body, format="json")
    assert issued.status_code == 201
    assert issued["Cache-Control"] == "no-store"
    text = issued.json()["secret"]
    assert known(text).scope.matchers == (("team", "=", "web"),)
    for answer in (client.get(TOKENS), client.get(f"{TOKENS}{issued.json()['id']}/")):
        assert text not in answer.text
        assert Token.objects.get().digest not in answer.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "x", "scopes": ["read"], "expires": "2030-01-01T00:00:00Z"}, "expires"),
        ({"name": "x", "scopes": ["root"]}, "scopes"),
        ({"name": "x", "scopes": ["read"], "expires_at": NOW.isoformat()}, "expires_at"),
    ],
)
def test_wrong_values_are_told_by_field(secret, body, field):
    answer = bearer(secret("admin")).post(TOKENS, body, format="json")
    assert answer.status_code == 400
    assert field in answer.json()["fields"]
    assert answer.json()["error"].startswith(field)


def test_a_token_of_scope_admin_cannot_issue_one_that_ingests(secret):
    answer = bearer(secret("admin")).post(TOKENS, {"name": "x", "scopes": ["ingest"]}, format="json")
    assert answer.status_code == 403


def test_revoking_ends_a_token(secret):
    client = bearer(secret("admin"))
    text = secret("read", name="victim")
    answer = client.post(f"{TOKENS}{Token.objects.get(name='victim').pk}/revoke/")
    assert answer.status_code == 200
    assert answer.json()["revoked_at"]
    assert AuditEntry.objects.filter(verb="accounts.revoke_token", via="api", actor_kind="token").exists()
    permissions.forget_tokens()
    assert permissions.authenticate(text) is None


def test_a_session_needs_the_csrf_token_to_write(person):
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(person("administrator"))
    answer = client.post(TOKENS, {"name": "x", "scopes": ["read"]}, format="json")
    assert answer.status_code == 403
    assert "CSRF" in answer.json()["error"]


def test_the_audit_trail_is_for_auditors_newest_first_and_filtered(person, secret):
    secret("read")
    client = APIClient()
    client.force_login(person("auditor"))
    found = client.get("/api/v1/portal/audit/", {"verb": "accounts.issue_token"}).json()["results"]
    assert [entry["verb"] for entry in found] == ["accounts.issue_token"]
    ids = [entry["id"] for entry in client.get("/api/v1/portal/audit/").json()["results"]]
    assert ids == sorted(ids, reverse=True)
    client.force_login(person("editor"))
    assert client.get("/api/v1/portal/audit/").status_code == 403


def test_who_sees_only_some_labels_changes_and_audits_nothing_that_concerns_all(secret):
    narrow = bearer(secret("admin", "alerts", matchers=[("team", "=", "web")]))
    assert narrow.get("/api/v1/portal/audit/").status_code == 403
    assert narrow.get("/api/v1/portal/users/me/").json()["rights"] == ["operate", "query", "read", "subscribe"]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nobody_writes_the_audit_trail(secret, method):
    assert getattr(bearer(secret("admin")), method)("/api/v1/portal/audit/").status_code in (403, 405)


def test_everybody_may_ask_who_they_are(person, secret):
    me = bearer(secret("query")).get("/api/v1/portal/users/me/").json()
    assert (me["kind"], me["rights"]) == ("token", ["query"])
    client = APIClient()
    client.force_login(person())
    assert client.get("/api/v1/portal/users/me/").json()["rights"] == []
    assert APIClient().get("/api/v1/portal/users/me/").status_code == 401


def permitted(permission, method, principal):
    request = APIRequestFactory().generic(method, "/api/x/")
    request.user, request.auth = AnonymousUser(), principal
    try:
        return permission().has_permission(request, None)
    except Exception:
        return False


@pytest.mark.parametrize(
    ("permission", "rights", "get", "post"),
    [
        (Needs(Right.READ), {Right.READ}, True, False),
        (Needs(Right.READ, Right.EDIT), {Right.READ}, True, False),
        (Needs(Right.READ, Right.EDIT), {Right.READ, Right.EDIT}, True, True),
        (Needs(Right.QUERY), {Right.QUERY}, True, True),
        (Nobody, set(Right), False, False),
    ],
)
def test_needs_tells_reading_from_writing(permission, rights, get, post):
    principal = Principal("token", "1", "t", frozenset(rights))
    assert (permitted(permission, "GET", principal), permitted(permission, "POST", principal)) == (get, post)


def test_an_error_that_quotes_half_a_character_can_be_sent():
    answer = explain(ValidationError({"kind": "'\ud800' is no choice."}), {})
    assert answer is not None
    assert "is no choice" in answer.data["error"].encode().decode()


@pytest.mark.parametrize("error", [OperationalError("gone"), InterfaceError("closed")])
def test_without_the_database_the_answer_is_503_and_says_when_to_come_back(error):
    answer = explain(error, {})
    assert answer is not None
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")


def test_an_unforeseen_error_is_500_json_and_is_logged(caplog):
    answer = explain(RuntimeError("boom"), {})
    assert answer is not None
    assert answer.status_code == 500
    assert "boom" not in str(answer.data)
    assert "boom" in caplog.text


def test_a_token_that_asks_too_often_is_told_to_wait(secret, monkeypatch):
    cache.clear()  # ids come again after a flush
    monkeypatch.setattr(PrincipalThrottle, "THROTTLE_RATES", {"principal": "2/min"})
    client = bearer(secret("read"))
    answers = [client.get("/api/v1/portal/users/me/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2]["Retry-After"]) > 0


def test_without_redis_nobody_is_throttled_and_it_is_asked_once_a_pause(secret, settings, monkeypatch, caplog):
    monkeypatch.setattr(PrincipalThrottle, "away_until", float("-inf"))
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "unix:///nonexistent/redis.sock?db=1",
        }
    }
    client = bearer(secret("read"))
    assert [client.get("/api/v1/portal/users/me/").status_code for _ in range(3)] == [200] * 3
    assert caplog.text.count("not throttled") == 1


def test_a_team_and_a_calendar_are_written_through_the_api_and_audited(person):
    client = APIClient()
    who = person("administrator")
    client.force_login(who)
    team = client.post("/api/v1/portal/teams/", {"name": "Night", "members": [who.username]}, format="json")
    assert (team.status_code, team.json()["members"]) == (201, [who.username])
    client.patch(f"/api/v1/portal/teams/{team.json()['id']}/", {"members": []}, format="json")
    made = {"name": "Office", "zone": "Europe/Berlin", "hours": "mon-fri 08:00-18:00"}
    calendar = client.post("/api/v1/portal/calendars/", made, format="json")
    assert calendar.status_code == 201
    wrong = client.patch(f"/api/v1/portal/calendars/{calendar.json()['id']}/", {"zone": "Mars"}, format="json")
    assert (wrong.status_code, list(wrong.json()["fields"])) == (400, ["zone"])
    verbs = list(AuditEntry.objects.order_by("id").values_list("verb", flat=True))[-4:]
    assert verbs == ["accounts.team.add", "accounts.team.change", "accounts.team.change", "accounts.calendar.add"]
