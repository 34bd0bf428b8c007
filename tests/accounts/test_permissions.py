"""Who is asking: tokens, their cache and throttle, sessions, page guards, fast lane and sockets."""

import time
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.backends.db import SessionStore
from django.test import AsyncClient
from django.utils import timezone

from apps.accounts import fastauth, permissions, services
from apps.accounts.models import Token, User
from apps.accounts.permissions import Throttled, authenticate, secret_in
from apps.accounts.rights import ROLES, SCOPES, Right
from tests.accounts.conftest import ROOT, known

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock(monkeypatch):
    """Let a test move this process's clock on: clock(11)."""
    offset = [0.0]
    real = time.monotonic

    class Time:
        @staticmethod
        def monotonic():
            return real() + offset[0]

    monkeypatch.setattr(permissions, "time", Time)
    return lambda seconds: offset.__setitem__(0, offset[0] + seconds)


@pytest.mark.parametrize(
    ("authorization", "api_key", "expected"),
    [
        ("Bearer s", "", "s"),
        ("bearer  s ", "", "s"),
        ("Token s", "", "s"),
        ("Basic YW5uOnM6dA==", "", "s:t"),
        ("Basic !!", "", ""),
        ("", "s", "s"),
        ("Bearer s", "t", "s"),
        ("Digest x", "t", "t"),
        ("", "", None),
    ],
)
def test_a_secret_comes_in_any_of_the_usual_headers(authorization, api_key, expected):
    assert secret_in(authorization, api_key) == expected


def test_a_token_is_its_scopes_its_matchers_and_the_address_it_came_from(secret):
    text = secret("read", matchers=[("team", "=", "web")])
    principal = known(text, address="192.0.2.7")
    assert principal.rights == SCOPES["read"]
    assert principal.scope.matchers == (("team", "=", "web"),)
    assert (principal.kind, principal.address, principal.via) == ("token", "192.0.2.7", "api")


def test_wrong_expired_revoked_and_orphaned_tokens_are_nobody(secret, person):
    past = timezone.now() - timedelta(minutes=1)
    expired = secret("read", name="expired")
    Token.objects.filter(name="expired").update(expires_at=past)
    revoked = secret("read", name="revoked")
    services.revoke_token(by=ROOT, token=Token.objects.get(name="revoked"), now=past)
    orphaned = secret("read", owner=person("viewer", is_active=False))
    assert [authenticate(text) for text in ("wrong", "", expired, revoked, orphaned)] == [None] * 5


def test_a_token_never_does_more_than_its_owner(secret, person):
    assert known(secret("read", "alerts", owner=person("viewer"))).rights == {Right.READ, Right.SUBSCRIBE}


def test_an_answer_is_reused_for_ten_seconds_and_no_longer(secret, clock, django_assert_num_queries):
    text = secret("read")
    authenticate(text)
    Token.objects.update(revoked_at=timezone.now())  # as another process would
    with django_assert_num_queries(0):
        assert authenticate(text)
    clock(permissions.CACHED + 0.1)
    assert authenticate(text) is None


def test_revoking_in_this_process_works_at_once(secret, django_capture_on_commit_callbacks):
    text = secret("read")
    assert authenticate(text)
    with django_capture_on_commit_callbacks(execute=True):
        services.revoke_token(by=ROOT, token=Token.objects.get(), now=timezone.now())
    assert authenticate(text) is None


def test_expiry_is_exact_in_spite_of_the_cache(secret, clock):
    text = secret("read")
    Token.objects.update(expires_at=timezone.now() + timedelta(seconds=5))
    assert authenticate(text)
    clock(5.1)
    Token.objects.update(expires_at=timezone.now())
    assert authenticate(text) is None


def test_the_last_use_is_written_once_a_minute(secret):
    authenticate(secret("read"))
    first = Token.objects.get().last_used_at
    assert first is not None
    assert not Token.objects.all().note_use(first + timedelta(seconds=30))
    assert Token.objects.all().note_use(first + timedelta(seconds=61))


def test_guessing_is_slowed_down_while_a_token_that_works_goes_on(secret, clock):
    text, fresh = secret("read"), secret("query")
    assert authenticate(text, address="a")
    for _ in range(permissions.FAILURES):
        assert authenticate("guess", address="a") is None
    with pytest.raises(Throttled) as wait:
        authenticate(fresh, address="a")
    assert 0 < wait.value.retry_after <= permissions.WINDOW
    clock(permissions.CACHED + 1)
    assert authenticate(text, address="a")
    assert authenticate(fresh, address="b")
    clock(permissions.WINDOW)
    assert authenticate(fresh, address="a")


def test_a_persons_rights_are_one_query_a_request(person, django_assert_num_queries):
    user = User.objects.get(pk=person("editor").pk)
    with django_assert_num_queries(1):
        assert user.rights == user.rights == ROLES["editor"]


@pytest.mark.parametrize("path", ["/sync/", "/async/"])
@pytest.mark.parametrize(
    ("role", "accept", "status"),
    [
        (None, "text/html", 302),
        (None, "application/json", 401),
        ("viewer", "text/html", 403),
        ("operator", "text/html", 200),
    ],
)
def test_a_page_asks_for_its_right(client, person, rooms_urls, path, role, accept, status):
    if role:
        client.force_login(person(role))
    client.raise_request_exception = False
    answer = client.get(path + "?a=1", headers={"accept": accept})
    assert answer.status_code == status
    if status == 302:
        assert answer["Location"] == f"/login/?next={path}%3Fa%3D1"


@pytest.mark.parametrize(
    ("came_from", "leads_to"),
    [("http://testserver/alerts/?a=1", "/alerts/%3Fa%3D1"), ("https://evil.example/alerts/", "/"), ("", "/")],
)
def test_a_button_pressed_after_the_log_in_ended_leads_back_to_its_page(client, rooms_urls, came_from, leads_to):
    answer = client.post("/sync/", headers={"accept": "text/html", "referer": came_from})
    assert answer["Location"] == f"/login/?next={leads_to}"


def test_an_async_page_works_under_asgi(person, rooms_urls):
    client = AsyncClient()
    user = person("operator")
    client.force_login(user)
    answer = async_to_sync(client.get)("/async/")
    assert answer.status_code == 200
    assert answer.content.decode() == user.username


def lane(method="GET", **headers):
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": "/metrics", "headers": pairs, "client": ("192.0.2.9", 1)}


def refused(scope, right=Right.READ):
    _, refusal = fastauth.identify(scope, right)
    assert refusal is not None
    return refusal


def test_the_fast_lane_lets_in_who_may_and_tells_the_others_why(secret, person):
    principal, refusal = fastauth.identify(lane(authorization=f"Bearer {secret('read')}"), Right.READ)
    assert refusal is None
    assert principal.address == "192.0.2.9"
    table = [
        (lane(), 401),
        (lane(authorization="Bearer wrong"), 401),
        (lane(x_api_key=secret("ingest")), 403),
        (lane(cookie="sessionid=stolen"), 401),
    ]
    for scope, status in table:
        refusal = refused(scope)
        assert refusal.status == status
        assert refusal.sentence


def test_too_many_wrong_tokens_on_the_fast_lane_are_told_to_wait(secret):
    for _ in range(permissions.FAILURES):
        fastauth.identify(lane(x_api_key="guess"), Right.READ)
    refusal = refused(lane(x_api_key="guess"))
    assert refusal.status == 429
    assert refusal.retry_after > 0


def test_a_session_counts_on_the_fast_lane_for_reading_only(client, person):
    client.force_login(person("operator"))
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    assert fastauth.identify(lane(cookie=cookie), Right.READ)[1] is None
    assert refused(lane("POST", cookie=cookie), Right.OPERATE).status == 401
    SessionStore(client.cookies["sessionid"].value).flush()
    assert refused(lane(cookie=cookie)).status == 401


def test_who_asks_is_found_once_a_request_and_again_after_a_login_or_with_roles_read_anew(person, rf):
    request = rf.get("/admin/")
    request.user = person("viewer")
    who = permissions.principal_of(request)
    assert permissions.principal_of(request) is who
    request.user.groups.clear()
    request.user.forget_rights()
    assert permissions.principal_of(request).rights == frozenset()
    request.user = person("editor")
    assert permissions.principal_of(request).can(Right.EDIT)
