"""Calendars that are kept elsewhere: uploaded or fetched, read, and turned into whose turn it is.

The last content that could be read is kept whatever happens to the address, and is read anew now and then: the span
that is known moves on, and people come and go. Nothing here is asked when somebody is paged.
"""

import logging
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError

from apps.accounts import ical
from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.hours import parse_zone
from apps.accounts.models import User
from apps.accounts.rights import Principal, Right
from apps.core import http, live
from apps.core.secrets import Undecryptable
from apps.core.text import storable
from apps.oncall.bookings import Names, book
from apps.oncall.models import ImportedCalendar

log = logging.getLogger(__name__)

BACK: Final = timedelta(days=62)
AHEAD: Final = timedelta(days=180)
EVERY: Final = timedelta(minutes=15)
REREAD: Final = timedelta(hours=6)
"""An uploaded file stays as it is; the span of it that is known moves on."""
LIMIT: Final = 20
"""Calendars that one run of the loop fetches."""


# --- Verbs -----------------------------------------------------------------------------------------------------------
@verb("oncall.save_calendar", right=Right.EDIT)
def save_calendar(
    *,
    by: Principal,
    now: datetime,
    name: str,
    zone: str = "UTC",
    url: str | None = None,
    data: bytes | None = None,
    calendar: ImportedCalendar | None = None,
) -> ImportedCalendar:
    """Make or change a calendar: from a file (`data`), or from an address that is fetched within a minute and then on.

    None keeps what there is. A file that cannot be read is a ValidationError; an address that cannot be, its problem.
    """
    before = audited(calendar) if calendar is not None else None
    calendar = calendar or ImportedCalendar()
    calendar.name, calendar.zone = name.strip(), zone
    calendar.full_clean(validate_constraints=False)
    address = (url or "").strip()
    if before is None and data is None and not address:
        raise ValidationError({"url": "Give the address of a calendar, or a file."})
    if data is not None and address:
        raise ValidationError({"url": "Give an address or a file, not both."})
    if address:
        parts = urlsplit(address.replace("webcal://", "https://", 1))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValidationError({"url": "The address begins with https:// (or webcal://) and names a host."})
        calendar.secrets, calendar.host, calendar.etag = {"url": parts.geturl()}, parts.hostname, ""
        calendar.due_at = now
    if data is not None:
        calendar.secrets, calendar.host, calendar.etag = {}, "", ""
    try:
        if data is not None:
            take(calendar, data, now)
        elif before is not None and not address and calendar.content:
            take(calendar, calendar.content.encode(), now)
    except ical.CalendarError as error:
        raise ValidationError({"file": str(error)}) from None
    calendar.save()
    after = audited(calendar)
    if before is not None:
        before, after = changes(before, after)
    if before is None or before or after:
        record(by=by, verb="oncall.save_calendar", target=calendar, before=before, after=after)
    live.publish("schedules")
    return calendar


@verb("oncall.delete_calendar", right=Right.EDIT)
def delete_calendar(*, by: Principal, calendar: ImportedCalendar) -> None:
    """Delete a calendar that no layer names."""
    if users := sorted({layer.schedule.name for layer in calendar.layers.select_related("schedule")}):
        raise ValidationError(f"{calendar.name} is used by {', '.join(users)}: change those schedules first.")
    before, label = audited(calendar), (calendar._meta.label_lower, str(calendar.pk), str(calendar))
    calendar.delete()
    record(by=by, verb="oncall.delete_calendar", target=label, before=before)
    live.publish("schedules")


def audited(calendar: ImportedCalendar) -> dict[str, Any]:
    """Return what an audit entry shows of it: not its content, and that it has an address, not which."""
    state = state_of(calendar)
    return {name: state[name] for name in ("name", "zone", "host", "secrets")} | {"size": len(calendar.content)}


# --- Reading ---------------------------------------------------------------------------------------------------------
def take(calendar: ImportedCalendar, data: bytes, now: datetime) -> None:
    """Read the file and write into the (unsaved) row what it means; CalendarError leaves the row as it was."""
    until = now + AHEAD
    reading = ical.read(data, start=now - BACK, end=until, zone=parse_zone(calendar.zone))
    people = User.objects.values_list("pk", "username", "email", "first_name", "last_name")
    names = Names((pk, (name, mail, f"{first} {last}")) for pk, name, mail, first, last in people)
    found = book(reading.occurrences, names)
    calendar.content = storable(data.decode("utf-8", "replace"))
    calendar.turns, calendar.unmatched = found.turns, [storable(title) for title in found.unmatched]
    calendar.remarks = [storable(text) for text in reading.problems]
    calendar.read_until, calendar.fetched_at, calendar.problem = until, now, ""
    calendar.due_at = now + (EVERY if calendar.host else REREAD)


def fetch(*, now: datetime, limit: int = LIMIT) -> int:
    """Fetch and read the calendars that are due; return how many that were. One that fails keeps what it had."""
    due = list(ImportedCalendar.objects.filter(due_at__lte=now).order_by("due_at", "pk")[:limit])
    for calendar in due:
        was = calendar.secrets, calendar.zone
        try:
            data, etag = _asked(calendar) if calendar.host else (None, "")
            take(calendar, calendar.content.encode() if data is None else data, now)
            calendar.etag = etag
        except (ical.CalendarError, http.OutboundError, Undecryptable) as error:
            log.warning("The calendar %s could not be read: %s", calendar.name, error)
            calendar.problem, calendar.due_at = storable(str(error)), now + EVERY
        _keep(calendar, was)
    return len(due)


def _keep(calendar: ImportedCalendar, was: tuple[Any, str]) -> None:
    """Write down what came of it, unless somebody has changed the calendar meanwhile."""
    stored = ImportedCalendar.objects.filter(pk=calendar.pk).first()
    if stored is None or (stored.secrets, stored.zone) != was:
        return
    fields = "content", "etag", "turns", "unmatched", "remarks", "read_until", "fetched_at", "due_at", "problem"
    calendar.save(update_fields=fields)
    if any(getattr(stored, name) != getattr(calendar, name) for name in ("turns", "unmatched", "problem")):
        live.publish("schedules")


def _asked(calendar: ImportedCalendar) -> tuple[bytes | None, str]:
    """Return what stands at the calendar's address (None: what was read before) and its ETag."""
    headers = {"accept": "text/calendar, */*;q=0.1"}
    if calendar.etag and calendar.content:
        headers["if-none-match"] = calendar.etag
    answer = http.send(
        "GET", calendar.secrets["url"], headers=headers, timeout=10.0, follow=3, max_bytes=ical.MOST_BYTES + 1
    )
    if answer.status == 304 and calendar.content:
        return None, calendar.etag
    if answer.status != 200:
        raise ical.CalendarError(f"{calendar.host} answered {answer.status} instead of a calendar.")
    return answer.content, answer.headers.get("etag", "")[:300]
