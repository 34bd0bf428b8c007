"""Rights, roles, token scopes and the principal that carries them: plain values, without clock or database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

import re2
from django.core.exceptions import PermissionDenied

from apps.core.text import exactly

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser

    from apps.accounts.models import User

Via = Literal["page", "admin", "api", "command", "task", "environment"]
ActorKind = Literal["user", "token", "system", "contact", "anonymous"]
Matcher = tuple[str, str, str]
"""(label name, one of = != =~ !~, value)"""
OPERATORS: Final = ("=", "!=", "=~", "!~")
LONGEST_VALUE: Final = 1_000


class Right(StrEnum):
    """One thing that somebody may do; routes, verbs and admin pages name the one they need."""

    READ = "read"  # see pages, alerts, rules, contacts without their secrets
    SUBSCRIBE = "subscribe"  # see who is on call, in a calendar that subscribes
    QUERY = "query"  # evaluate expressions over the store
    INGEST = "ingest"  # write samples and events
    BACKFILL = "backfill"  # write samples of the past
    OPERATE = "operate"  # acknowledge, resolve, post alerts, send tests
    EDIT = "edit"  # rules, routes, policies, dashboards
    ADMINISTER = "administer"  # users, roles, tokens, secrets of contacts, retention, deletion
    AUDIT = "audit"  # read and export the audit trail


_READ: Final = frozenset({Right.READ, Right.SUBSCRIBE, Right.QUERY})
ALL_RIGHTS: Final = frozenset(Right)

ROLES: Final[dict[str, frozenset[Right]]] = {
    "viewer": _READ,
    "operator": _READ | {Right.OPERATE},
    "editor": _READ | {Right.OPERATE, Right.EDIT},
    "administrator": ALL_RIGHTS,
    "auditor": _READ | {Right.AUDIT},
}
"""The roles of SPEC K1; each is a group of that name, and a person with several has the union."""

SCOPES: Final[dict[str, frozenset[Right]]] = {
    "ingest": frozenset({Right.INGEST}),
    "read": frozenset({Right.READ, Right.SUBSCRIBE}),
    "calendar": frozenset({Right.SUBSCRIBE}),
    "query": frozenset({Right.QUERY}),
    "alerts": frozenset({Right.OPERATE}),
    "backfill": frozenset({Right.BACKFILL}),
    "admin": _READ | {Right.EDIT, Right.ADMINISTER, Right.AUDIT},
}
"""What each scope of a token allows (SPEC K2)."""

SHORTEST: Final = 16
"""Letters under which a secret from the environment is called guessable."""

NARROWED: Final = frozenset({Right.READ, Right.SUBSCRIBE, Right.QUERY, Right.INGEST, Right.OPERATE})
"""What remains to who sees only some labels: rules, retention and people concern all of them."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which series, alerts and rows may be seen: those whose labels all matchers accept. Empty: everything."""

    matchers: tuple[Matcher, ...] = ()


EVERYTHING: Final = Scope()
_QUIET: Final = re2.Options()
_QUIET.log_errors = False


def is_matcher(matcher: Any) -> bool:
    """Tell whether this is [label, operator, value] with a regular expression (RE2) that can be used."""
    if not (isinstance(matcher, list | tuple) and len(matcher) == 3 and all(isinstance(p, str) for p in matcher)):
        return False
    name, operator, value = matcher
    if not name or operator not in OPERATORS or len(value) > LONGEST_VALUE or "\0" in value:
        return False
    try:
        re2.compile(value if operator.endswith("~") else "", _QUIET)
    except re2.error:
        return False
    return True


def scope_of_teams(teams: Iterable[Sequence[Matcher]]) -> Scope:
    """Return what somebody sees who is in all of these teams, each given by its matchers; one without narrows nothing.

    Teams that each name values of one label, the same for all, add up. Otherwise the matchers of all of them hold:
    somebody may see less than each team for itself does, never more.
    """
    narrowing = list(dict.fromkeys(tuple((n, o, v) for n, o, v in team) for team in teams if team))
    singles = [team[0] for team in narrowing if len(team) == 1 and team[0][1] in ("=", "=~")]
    if len(narrowing) > 1 and len(singles) == len(narrowing) and len({name for name, _, _ in singles}) == 1:
        values = sorted(f"(?:{value})" if operator == "=~" else exactly(value) for _, operator, value in singles)
        return Scope(((singles[0][0], "=~", "|".join(values)),))
    return Scope(tuple(dict.fromkeys(matcher for team in narrowing for matcher in team)))


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a token may write: series that speak within a day, samples a second. None: no limit of its own."""

    series: int | None = None
    samples_per_second: int | None = None


UNLIMITED: Final = Quota()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts, from where, with which rights, seeing what. `id` is empty for system and anonymous;
    a contact is whoever reads a team's messages and answers them by their link.

    `roles` and `teams` (their keys) are a person's; a token has scopes instead, a quota, and none of its owner's roles.
    """

    kind: ActorKind
    id: str
    name: str
    rights: frozenset[Right] = field(default_factory=frozenset)
    scope: Scope = EVERYTHING
    address: str = ""
    via: Via = "page"
    roles: frozenset[str] = frozenset()
    quota: Quota = UNLIMITED
    teams: frozenset[int] = frozenset()

    def can(self, right: Right) -> bool:
        """Tell whether this principal has the right."""
        return right in self.rights

    def at(self, *, address: str, via: Via) -> Principal:
        """Return the same principal acting from that address through that door."""
        if self.address == address and self.via == via:
            return self
        return replace(self, address=address, via=via)

    @staticmethod
    def system(name: str, via: Via = "task") -> Principal:
        """Return the portal itself acting in the part of that name (`alerting.evaluate`), with every right."""
        return Principal("system", "", name, ALL_RIGHTS, via=via)

    @staticmethod
    def anonymous(*, address: str = "", via: Via = "page") -> Principal:
        """Return somebody who did not say who they are: no rights."""
        return Principal("anonymous", "", "anonymous", address=address, via=via)

    @staticmethod
    def of_user(user: User | AnonymousUser, address: str = "", via: Via = "page") -> Principal:
        """Return the person as a principal; roles and teams are read once per instance (one query a request)."""
        if not user.is_authenticated:
            return Principal.anonymous(address=address, via=via)
        scope = user.scope
        rights = user.rights & NARROWED if scope.matchers else user.rights
        name = user.get_username()
        return Principal("user", str(user.pk), name, rights, scope, address, via, user.roles, teams=user.member_of)


class Forbidden(PermissionDenied):
    """Somebody asked for what they may not do; pages answer 403 with the error page, the API with JSON."""


def require(principal: Principal, right: Right) -> None:
    """Raise `Forbidden`, naming the right, unless the principal has it."""
    if right not in principal.rights:
        raise Forbidden(f"{principal.name} may not do this: it needs the right to {right.value}.")


def rights_of_roles(names: Iterable[str]) -> frozenset[Right]:
    """Return the union of the rights of these groups; groups that are no roles bring none."""
    return frozenset().union(*(ROLES.get(name, frozenset()) for name in names))


def rights_of_scopes(names: set[str] | list[str]) -> frozenset[Right]:
    """Return the union of the rights of these token scopes; unknown ones bring none."""
    return frozenset().union(*(SCOPES.get(name, frozenset()) for name in names))
