"""Who holds these sessions now, many at once: pages that stay open are asked about again and again.

What `django.contrib.auth.get_user` finds for one request, in four queries for all of them.
"""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from apps.accounts.models import Team, User
from apps.accounts.rights import Principal

Held = dict[str, object]


def holders(keys: Iterable[str]) -> dict[str, Principal]:
    """Return who acts by each session: anonymous where it has ended, its password was changed or the person locked."""
    wanted = set(keys)
    rows = SessionStore.get_model_class().objects.filter(session_key__in=wanted, expire_date__gt=timezone.now())
    store = SessionStore()
    held: dict[str, Held] = {row.session_key: store.decode(row.session_data) for row in rows}
    people = _people(_person(each) for each in held.values())
    found = {key: _holder(each, people.get(_person(each))) for key, each in held.items()}
    return {key: found.get(key) or Principal.anonymous() for key in wanted}


def _person(held: Held) -> int:
    text = str(held.get(SESSION_KEY, ""))
    return int(text) if text.isdecimal() and len(text) < 19 else 0


def _people(keys: Iterable[int]) -> dict[int, User]:
    """The active people of these keys, with their roles and teams."""
    people = {user.pk: user for user in User.objects.filter(pk__in=set(keys), is_active=True)}
    names: dict[int, list[str]] = {key: [] for key in people}
    for key, name in User.groups.through.objects.filter(user_id__in=people).values_list("user_id", "group__name"):
        names[key].append(name)
    teams: dict[int, dict[int, Any]] = {key: {} for key in people}
    theirs = Team.objects.filter(members__in=people).order_by()
    for key, team, matchers in theirs.values_list("members", "pk", "matchers"):
        if key in teams:
            teams[key][team] = matchers
    for key, user in people.items():
        user.remember(names[key], teams[key])
    return people


def _holder(held: Held, user: User | None) -> Principal | None:
    """The person, where the session is theirs: by a known backend, and logged in with the password of today."""
    if user is None or held.get(BACKEND_SESSION_KEY) not in settings.AUTHENTICATION_BACKENDS:
        return None
    signed = str(held.get(HASH_SESSION_KEY, ""))
    hashes = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    if not signed or not any(constant_time_compare(signed, each) for each in hashes):
        return None
    return Principal.of_user(user)
