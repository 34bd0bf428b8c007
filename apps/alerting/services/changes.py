"""Changes are told by those who make them: a deployment script, a person, PagerDuty's change events."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from django.core.exceptions import ValidationError

from apps.accounts.audit import record, state_of, verb
from apps.accounts.permissions import Principal, Right
from apps.alerting.models import Change, change_key, change_kinds
from apps.core import live
from apps.core.text import storable
from apps.promql.source import Matcher

KEPT: Final = timedelta(days=400)
"""A year and a bit: this season is compared with the last one."""
AHEAD: Final = timedelta(minutes=10)
MOST_DETAILS: Final = 16_000
AT_ONCE: Final = 1000


@verb("alerting.note_change", right=Right.OPERATE)
def note_change(
    *,
    by: Principal,
    title: str,
    kind: str = "deployment",
    service: str = "",
    at: datetime | None = None,
    author: str = "",
    link: str = "",
    details: Mapping[str, Any] | None = None,
    ident: str = "",
    now: datetime,
) -> Change:
    """Keep that something was changed. The same `ident` of the same teller is the same change, kept once."""
    title, service, author = storable(title).strip(), storable(service).strip(), storable(author).strip()
    about = dict(details or {})
    _check(title, kind, service, link, about, ident, at, now)
    labels = {"service": service, "kind": kind}
    for name, op, value in by.scope.matchers:
        if not Matcher(name, op, value).matches(labels.get(name, "")):  # type: ignore[arg-type]
            raise ValidationError({name: f"{by.name} may not speak of changes with this {name}."})
    teller = f"{by.kind}:{by.id}"
    if ident and (known := Change.objects.filter(teller=teller, ident=ident).first()) is not None:
        return known
    change = Change.objects.create(
        key=change_key(),
        at=at or now,
        kind=kind,
        title=title[:300],
        service=service,
        author=author[:200],
        link=link,
        details=about,
        labels={name: value for name, value in labels.items() if value},
        teller=teller,
        ident=ident or None,
        created_by=by.name[:200],
        created_at=now,
    )
    record(by=by, verb="alerting.note_change", target=change, after=state_of(change))
    live.publish("changes")
    return change


def _check(
    title: str, kind: str, service: str, link: str, details: Any, ident: str, at: datetime | None, now: datetime
) -> None:
    problems = {}
    if not title:
        problems["title"] = "What was changed, in a line?"
    if kind not in dict(change_kinds()):
        problems["kind"] = f"{kind!r} is none of {', '.join(dict(change_kinds()))}."
    if len(service) > 100:
        problems["service"] = "At most 100 characters."
    if link and (urlsplit(link).scheme not in ("http", "https") or len(link) > 2000):
        problems["link"] = "An address that begins with http:// or https://, of at most 2,000 characters."
    if len(ident) > 200:
        problems["id"] = "At most 200 characters."
    if len(orjson.dumps(details, default=str)) > MOST_DETAILS:
        problems["details"] = f"At most {MOST_DETAILS} bytes as JSON are kept."
    if at is not None and at > now + AHEAD:
        problems["at"] = "It lies ahead: tell of it when it has happened."
    if problems:
        raise ValidationError(problems)


def forget_changes(*, by: Principal, now: datetime) -> int:
    """Delete changes that are older than KEPT; returns how many. Part of a loop; one audit entry each time."""
    old = list(Change.objects.filter(at__lt=now - KEPT).values_list("pk", flat=True)[:AT_ONCE])
    if old:
        Change.objects.filter(pk__in=old).delete()
        target = ("alerting.change", "", f"{len(old)} changes older than {KEPT.days} days")
        record(by=by, verb="alerting.forget_changes", target=target)
    return len(old)
