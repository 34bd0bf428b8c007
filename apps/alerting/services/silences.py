"""Silences are made, changed and ended; how long one may be follows from the right of who makes it (SPEC K1)."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.models import User
from apps.accounts.permissions import Principal, Right
from apps.alerting import matching, recurrence
from apps.alerting.matching import MatcherError
from apps.alerting.models import Alert, QuietChange, Recurring, Silence
from apps.alerting.recurrence import RecurrenceError
from apps.core import live, tasks
from apps.core.text import storable
from apps.promql.source import Matcher

LONGEST: Final = timedelta(hours=24)
"""What an operator may silence; an editor's silence ends when the editor says."""
REMINDED_BEFORE: Final = timedelta(hours=1)
"""How long before its end the author of a silence is reminded of it; a short one has no reminder."""
LONGEST_COMMENT: Final = 10_000


@verb("alerting.silence", right=Right.OPERATE)
def silence(
    *,
    by: Principal,
    matchers: Sequence[Any],
    ends_at: datetime,
    comment: str,
    starts_at: datetime | None = None,
    until_resolved: bool = False,
    recurrence: str = "",
    duration: timedelta | None = None,
    time_zone: str = "UTC",
    created_by: str = "",
    silence: Silence | None = None,
    now: datetime,
) -> Silence:
    """Make a silence, or change one; `matchers` as Alertmanager's JSON or as text.

    `created_by` is a name that the caller brings along (Alertmanager's createdBy); the audit names who acted.
    One that began keeps its start; one that is over cannot be changed: make another. Who sees only some labels
    silences only those: their matchers are added. Returns the silence; ValidationError by field.
    """
    before = None
    if silence is not None:
        silence = _locked(silence, by)
        if silence.ends_at <= now:
            raise ValidationError("The silence is over; make another one like it.")
        before = state_of(silence)
    row = silence or Silence(id=uuid.uuid4(), created_at=now, author=_author(by))
    begun = before is not None and row.starts_at <= now
    row.matchers = _matchers(matchers, by)
    row.starts_at = row.starts_at if begun else max(starts_at or now, now)
    row.ends_at, row.until_resolved = ends_at, until_resolved
    row.recurrence, row.duration, row.time_zone = recurrence.strip(), duration, time_zone.strip() or "UTC"
    row.comment = _comment(comment)
    row.created_by = storable(created_by).strip()[:200] or row.created_by or by.name[:200]
    check_times(row, now)
    _check_length(row, by)
    if row.until_resolved and before is None and not muted_alerts(row.parsed).exists():
        raise ValidationError({"matchers": "Nothing that they match is wrong now, so nothing could be waited for."})
    row.updated_at = now
    row.remind_at = row.ends_at - REMINDED_BEFORE if row.ends_at - now > 2 * REMINDED_BEFORE else None
    row.reminded_at = None
    row.save()
    if before is None:
        record(by=by, verb="alerting.silence", target=row, after=state_of(row))
    else:
        was, is_now = changes(before, state_of(row))
        record(by=by, verb="alerting.silence", target=row, before=was, after=is_now)
    changed_quiet(f"silence {row.pk}", now)
    return row


@verb("alerting.expire_silence", right=Right.OPERATE)
def expire_silence(*, by: Principal, silence: Silence, now: datetime) -> Silence:
    """End a silence now; what it muted and still goes on is told. One that is over stays as it is."""
    row = _locked(silence, by)
    if row.ends_at <= now:
        return row
    before = state_of(row)
    _end(row, now)
    was, is_now = changes(before, state_of(row))
    record(by=by, verb="alerting.expire_silence", target=row, before=was, after=is_now)
    return row


def end_resolved_silences(*, by: Principal, now: datetime) -> int:
    """End the silences that waited for the end of what they mute; returns how many. Part of the loop that expires."""
    ended = 0
    with transaction.atomic():
        for row in Silence.objects.current(now).filter(until_resolved=True, starts_at__lte=now).select_for_update():
            if not muted_alerts(row.parsed).exists():
                _end(row, now)
                after = {"ends_at": now, "why": "nothing that it muted is wrong any more"}
                record(by=by, verb="alerting.expire_silence", target=row, after=after)
                ended += 1
    return ended


def matchers_of(alert: Alert) -> tuple[Matcher, ...]:
    """Return the matchers that mean this alert and those with the same labels: what its silence starts from."""
    left_out = {"severity"}  # one that gets worse is the same alert
    names = {"alertname": alert.type, **{name: str(value) for name, value in alert.labels.items()}}
    if not alert.labels and alert.service:
        names["service"] = alert.service
    return tuple(Matcher(name, "=", value) for name, value in sorted(names.items()) if name not in left_out and value)


def muted_alerts(matchers: Sequence[Matcher], alerts: Any = None) -> Any:
    """Return the query of active alerts (or of these `alerts`) that all matchers accept, as `accept` would say."""
    found = Alert.objects.active() if alerts is None else alerts
    rows = found.only("pk", "type", "category", "severity", "service", "labels").iterator(chunk_size=2000)
    return Alert.objects.filter(pk__in=[row.pk for row in rows if matching.accept(matchers, row.routing_labels)])


def changed_quiet(what: str, now: datetime) -> None:
    """Have on-call look again at what it holds back, and every page that shows it, once this is committed."""
    QuietChange.objects.create(at=now, what=what[:200])
    for topic in ("alerts", "incidents", "silences"):
        live.publish(topic)
    tasks.wake("oncall.tell")


def check_times(row: Recurring, now: datetime) -> None:
    """Raise ValidationError by field where the times of a silence or window make no sense or have no end."""
    if row.ends_at <= row.starts_at:
        raise ValidationError({"ends_at": "It must end after it starts."})
    if row.ends_at <= now:
        raise ValidationError({"ends_at": "The end lies in the past."})
    try:
        recurrence.zone_of(row.time_zone)
    except RecurrenceError as error:
        raise ValidationError({"time_zone": str(error)}) from None
    if not row.recurrence:
        row.duration = None
        return
    if row.duration is None or row.duration <= timedelta(0):
        raise ValidationError({"duration": "How long does each occurrence last? For example 2h."})
    if row.duration > recurrence.LONGEST_OCCURRENCE:
        raise ValidationError({"duration": "An occurrence lasts 31 days at most."})
    if row.ends_at - row.starts_at > recurrence.LONGEST_SERIES:
        raise ValidationError({"ends_at": "What recurs ends within five years: somebody should look at it again."})
    try:
        times = row.times
    except RecurrenceError as error:
        raise ValidationError({"recurrence": str(error)}) from None
    if next(times.spans(max(now, row.starts_at), row.ends_at), None) is None:
        raise ValidationError({"recurrence": "It never comes between now and its end."})


def _check_length(row: Silence, by: Principal) -> None:
    if by.can(Right.EDIT) or row.ends_at - row.starts_at <= LONGEST:
        return
    raise ValidationError({"ends_at": "Your role silences for 24 hours at most; an editor may for longer."})


def checked_matchers(rows: Sequence[Any], name: str = "matchers") -> tuple[Matcher, ...]:
    """Return what was given as matchers; ValidationError under `name` where they cannot be used or mean everything."""
    try:
        parsed = matching.from_json(rows)
    except MatcherError as error:
        raise ValidationError({name: str(error)}) from None
    if not parsed or matching.accept_anything(parsed):
        why = "At least one matcher must demand something: these would match every alert there is."
        raise ValidationError({name: why})
    return parsed


def _matchers(rows: Sequence[Any], by: Principal) -> list[dict[str, Any]]:
    given = matching.to_json(checked_matchers(rows))
    return given + [row for row in matching.to_json(matching.of_scope(by.scope.matchers)) if row not in given]


def _comment(text: str) -> str:
    comment = storable(text).strip()
    if not 1 <= len(comment) <= LONGEST_COMMENT:
        raise ValidationError({"comment": "Say in a few words why: whoever finds the silence at night will read it."})
    return comment


def _author(by: Principal) -> User | None:
    return User.objects.filter(pk=by.id).first() if by.kind == "user" and by.id.isdigit() else None


def _locked(row: Silence, by: Principal) -> Silence:
    found = Silence.objects.visible_to(by.scope).select_for_update().filter(pk=row.pk).first()
    if found is None:
        raise ValidationError("There is no such silence.")
    return found


def _end(row: Silence, now: datetime) -> None:
    # One that has not begun yet must not end before it starts: the table refuses that.
    row.starts_at, row.ends_at = min(row.starts_at, now), now
    row.updated_at, row.remind_at = now, None
    row.save(update_fields=["starts_at", "ends_at", "updated_at", "remind_at"])
    changed_quiet(f"silence {row.pk}", now)
