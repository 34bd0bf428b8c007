"""What was changed, beside what went wrong: deployments and other changes that were told, and the portal's own.

Reads only. A change of the portal's configuration is an audit entry; here it is a line without its values, so that who
may not read the trail still sees that somebody moved a threshold. Who sees only some labels sees none of those.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from apps.accounts.audit import VERBS
from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Scope
from apps.alerting.models import Change

BEFORE: Final = timedelta(hours=1)
"""How long before something began to fire a change may have caused it."""
MOST: Final = 50
CONFIGURES: Final = re.compile(r"(?:alerting|oncall|notifications|metrics|sources)\.(?:save|delete|import|switch)_\w+")


@dataclass(frozen=True)
class Happening:
    """One change as pages, charts and messages show it; `key` is empty for one of the portal's own."""

    at: datetime
    kind: str
    title: str
    service: str = ""
    by: str = ""
    link: str = ""
    key: str = ""

    @property
    def line(self) -> str:
        """What changed, in one line."""
        where = f"{self.service}: " if self.service and self.service not in self.title else ""
        return f"{where}{self.title}{f' ({self.by})' if self.by else ''}"


def happenings(*, since: datetime, until: datetime, scope: Scope, limit: int = MOST) -> list[Happening]:
    """Return what was changed from `since` up to `until`, newest first, as far as the scope may see it."""
    told = Change.objects.visible_to(scope).filter(at__gte=since, at__lte=until).order_by("-at", "-id")[:limit]
    found = [
        Happening(row.at, row.kind, row.title, row.service, row.author or row.created_by, row.link, row.key)
        for row in told
    ]
    if not scope.matchers:
        entries = AuditEntry.objects.filter(at__gte=since, at__lte=until, verb__in=_verbs()).exclude(
            actor_kind="system"
        )
        found += [_configured(entry) for entry in entries.order_by("-at", "-id")[:limit]]
    return sorted(found, key=lambda one: one.at, reverse=True)[:limit]


def _verbs() -> list[str]:
    """The verbs by which people configure the portal, as far as they are loaded: an index finds their entries."""
    return [name for name in VERBS if CONFIGURES.fullmatch(name)]


def before(
    began_at: datetime, services: Iterable[str], *, scope: Scope, until: datetime | None = None, limit: int = 5
) -> list[Happening]:
    """Return what was changed within BEFORE of the moment it began, of the same services first, then the newest."""
    found = happenings(since=began_at - BEFORE, until=until or began_at, scope=scope)
    return nearest(found, services, limit=limit)


def nearest(found: Sequence[Happening], services: Iterable[str], *, limit: int) -> list[Happening]:
    """Return those of these services first; each part newest first."""
    mine = {service for service in services if service}
    return sorted(found, key=lambda one: (one.service not in mine, -one.at.timestamp()))[:limit]


_DONE: Final = {"save": "saved", "delete": "deleted", "import": "imported", "switch": "switched"}


def _configured(entry: AuditEntry) -> Happening:
    verb, _, what = entry.verb.partition(".")[2].partition("_")
    title = f"{what.replace('_', ' ').capitalize()} “{entry.target_label}” {_DONE.get(verb, verb)}"
    return Happening(entry.at, "configuration", title, "", entry.actor_name)
