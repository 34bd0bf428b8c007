"""The secret address by which a person's calendar subscribes to who is on call: a token that can do nothing else."""

from dataclasses import replace
from datetime import datetime
from typing import Final

from django.db.models import QuerySet

from apps.accounts import services as accounts
from apps.accounts.audit import record, verb
from apps.accounts.models import Token, User
from apps.accounts.rights import Principal, Right

SCOPE: Final = "calendar"


def subscription(person: User | int) -> Token | None:
    """Return the token of the person's address, if there is one."""
    return _alive(person).order_by("-id").first()


@verb("oncall.subscribe", right=Right.READ)
def subscribe(*, by: Principal, person: User, now: datetime) -> str:
    """Make the person's address anew and return its secret, which nothing shows again; the former one ends."""
    _end(by, person, now)
    # Whoever may read may have their calendar read the same; to hand out tokens at large is for administrators.
    issuer = replace(by, rights=by.rights | {Right.ADMINISTER})
    token, secret = accounts.issue_token(
        by=issuer, name=f"Calendar of {person.username}"[:100], scopes=[SCOPE], expires_at=None, owner=person, now=now
    )
    record(by=by, verb="oncall.subscribe", target=token)
    return secret


@verb("oncall.unsubscribe", right=Right.READ)
def unsubscribe(*, by: Principal, person: User, now: datetime) -> None:
    """End the person's address: calendars that use it are refused from then on."""
    ended = _end(by, person, now)
    record(by=by, verb="oncall.unsubscribe", target=person, after={"ended": ended})


def _end(by: Principal, person: User, now: datetime) -> int:
    issuer = replace(by, rights=by.rights | {Right.ADMINISTER})
    tokens = list(_alive(person))
    for token in tokens:
        accounts.revoke_token(by=issuer, token=token, now=now)
    return len(tokens)


def _alive(person: User | int) -> QuerySet[Token]:
    return Token.objects.filter(owner=person, scopes=[SCOPE], revoked_at__isnull=True)
