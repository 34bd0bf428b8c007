"""Who holds many sessions at once is who `get_user` finds for each."""

from datetime import timedelta

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user
from django.contrib.auth.models import Group
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest
from django.utils import timezone

from apps.accounts.models import Team, User
from apps.accounts.permissions import Principal
from apps.accounts.sessions import holders

pytestmark = pytest.mark.django_db


def session_of(user, **changes):
    store = SessionStore()
    store[SESSION_KEY] = str(user.pk)
    store[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    store[HASH_SESSION_KEY] = user.get_session_auth_hash()
    for name, value in changes.items():
        store[name] = value
    store.save()
    return store


def one(name="vic", *, role="viewer"):
    user = User.objects.create_user(name, password=None)
    if role:
        user.groups.add(Group.objects.get_or_create(name=role)[0])
    return user


def alone(key):
    """Who Django says it is, asked for this one."""
    request = HttpRequest()
    request.session = SessionStore(key)
    return Principal.of_user(get_user(request))


def test_each_gets_their_person_with_roles_in_a_fixed_number_of_queries(django_assert_num_queries):
    keys = [session_of(one(f"v{n}", role="viewer" if n % 2 else "operator")).session_key for n in range(12)]
    with django_assert_num_queries(4):
        found = holders(keys)
    assert found == {key: alone(key) for key in keys}
    assert {who.roles for who in found.values()} == {frozenset({"viewer"}), frozenset({"operator"})}


def test_what_a_team_narrows_is_narrowed_here_too():
    mara, vic = one("mara"), one("vic")
    for name, people in (("web", [mara]), ("shop", [mara, vic])):
        Team.objects.create(name=name, matchers=[["team", "=", name]]).members.set(people)
    keys = [session_of(user).session_key for user in (mara, vic)]
    found = holders(keys)
    assert found == {key: alone(key) for key in keys}
    assert found[keys[1]].scope.matchers == (("team", "=", "shop"),)


def locked(user, session):
    User.objects.filter(pk=user.pk).update(is_active=False)


def other_password(user, session):
    user.set_password("another long one")
    user.save()


def ended(user, session):
    session.flush()


def expired(user, session):
    SessionStore.get_model_class().objects.update(expire_date=timezone.now() - timedelta(seconds=1))


def deleted(user, session):
    user.delete()


@pytest.mark.parametrize("end", [locked, other_password, ended, expired, deleted])
def test_what_ends_a_session_ends_it_here_too(end):
    user = one()
    session = session_of(user)
    key = session.session_key
    assert holders([key])[key].name == "vic"
    end(user, session)
    assert holders([key])[key].kind == alone(key).kind == "anonymous"


@pytest.mark.parametrize(
    "changes",
    [
        {BACKEND_SESSION_KEY: "made.up.Backend"},
        {HASH_SESSION_KEY: "0" * 64},
        {HASH_SESSION_KEY: ""},
        {SESSION_KEY: "x"},
    ],
)
def test_a_session_that_says_something_else_is_nobodys(changes):
    key = session_of(one(), **changes).session_key
    assert holders([key])[key].kind == "anonymous"


def test_a_superuser_administers_and_who_is_in_no_group_may_nothing():
    admin = session_of(User.objects.create_superuser("ada", password=None)).session_key
    nobody = session_of(one("n", role="")).session_key
    found = holders([admin, nobody, "", "unknown"])
    assert found[admin].roles == {"administrator"}
    assert not found[nobody].rights
    assert found[""].kind == found["unknown"].kind == "anonymous"
