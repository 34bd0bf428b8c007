"""Alerts from outside, many at a time: a batch is a few statements, however long it is.

1. Writers of intake take turns (a lock of the transaction), so that two senders of one alert make one alert.
2. What the batch says is laid beside what is open: new ones begin, known ones are repeated, those that are over end.
3. Each that begins or ends has its transition; from there on it takes the same way as a rule's.
A batch that only repeats what is known is no news: it writes no audit entry and wakes nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from django.db import connection
from django.db.models import F

from apps.accounts.audit import record, verb
from apps.accounts.permissions import Principal, Right
from apps.alerting.intake import Report
from apps.alerting.lifecycle import Reason, Severity, State
from apps.alerting.models import Alert, Incident, Transition, alert_key, categories
from apps.alerting.placing import finish, place
from apps.alerting.services.alerts import OPEN_STATES, acknowledge, end, publish_alerts
from apps.promql.source import accept, of_scope

LOCK: Final = 0x696E746B
"""The advisory lock of those who take in alerts ("intk")."""
NAMED: Final = 20
"""Alerts whose keys stand in an audit entry."""


@dataclass
class Taken:
    """What became of a batch: alerts that began, were repeated and ended, and why others were refused, by place."""

    begun: list[Alert] = field(default_factory=list)
    repeated: int = 0
    ended: int = 0
    refused: dict[int, str] = field(default_factory=dict)


@verb("alerting.take_in", right=Right.OPERATE)
def take_in(*, by: Principal, reports: Sequence[Report], source: str, lasts: timedelta, now: datetime) -> Taken:
    """Take in what a sender reports; what names no end ends when it was not repeated for `lasts`.

    Of two reports of one alert in a batch the later one counts. One that is over and was never open is nothing. What
    the scope of the sender does not cover is refused by place.
    """
    taken = Taken()
    wanted = _in_scope(by, reports, taken)
    if not wanted:
        return taken
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    found = Alert.objects.select_for_update(of=("self",)).filter(
        source=source, fingerprint__in=list(wanted), state__in=OPEN_STATES
    )
    known = {bytes(alert.fingerprint): alert for alert in found}
    # Somebody has resolved these while they went on: their senders' repeats are no news until the cooldown is over.
    held = Alert.objects.filter(source=source, held_until__gt=now).values_list("fingerprint", flat=True)
    resting = {bytes(identity) for identity in held}
    over, again, new = [], [], []
    for identity, report in wanted.items():
        alert = known.get(identity)
        if report.is_over(now):
            over += [alert] if alert is not None else []
        elif alert is not None:
            again.append((alert, report))
        elif identity not in resting:
            new.append(report)
    taken.begun = _begin(new, by, source, lasts, now)
    worse = _repeat(again, by, lasts, now)
    end(over, reason=Reason.POSTED, by=by.name, now=now)
    taken.repeated, taken.ended = len(again), len(over)
    if taken.begun or over or worse:
        _record(by, source, taken, over)
        publish_alerts()
    return taken


def _in_scope(by: Principal, reports: Sequence[Report], taken: Taken) -> dict[bytes, Report]:
    matchers = of_scope(by.scope.matchers)
    wanted: dict[bytes, Report] = {}
    for number, report in enumerate(reports):
        labels = report.matched if matchers else {}
        if accept(matchers, labels):
            wanted[report.fingerprint] = report
        else:
            taken.refused[number] = f"{by.name} may not speak of alerts with these labels"
    return wanted


def _begin(reports: Sequence[Report], by: Principal, source: str, lasts: timedelta, now: datetime) -> list[Alert]:
    if not reports:
        return []
    known = dict(categories())
    alerts = []
    for report in reports:
        since = min(report.starts_at or now, now)
        alerts.append(
            Alert(
                key=alert_key(),
                source=source,
                type=report.type,
                category=report.category if report.category in known else "custom",
                fingerprint=report.fingerprint,
                labels=dict(report.labels),
                annotations=dict(report.annotations),
                state=State.FIRING,
                severity=report.severity,
                message=report.message,
                service=report.service,
                metadata=dict(report.metadata),
                pending_at=since,
                fired_at=since,
                seen_at=now,
                ends_at=report.ends_at or now + lasts,
            )
        )
    placed = place(alerts, at=now)
    Alert.objects.bulk_create(alerts, batch_size=1000)
    finish(placed)
    _note(alerts, by, now, kind="state", before=State.INACTIVE, after=State.FIRING)
    return alerts


_REPEAT = """
UPDATE alerting_alert a
   SET count = a.count + 1, seen_at = %s, ends_at = x.ends_at, severity = x.severity, message = x.message,
       annotations = x.annotations, labels = x.labels, metadata = x.metadata, version = a.version + 1
  FROM jsonb_to_recordset(%s::jsonb) AS x(
       id bigint, ends_at timestamptz, severity text, message text, annotations jsonb, labels jsonb, metadata jsonb)
 WHERE a.id = x.id
"""


def _repeat(again: Sequence[tuple[Alert, Report]], by: Principal, lasts: timedelta, now: datetime) -> list[Alert]:
    """Write what is told anew of known alerts; return those whose severity is another one now."""
    if not again:
        return []
    rows = [
        {
            "id": alert.pk,
            "ends_at": report.ends_at or now + lasts,
            "severity": report.severity,
            "message": report.message,
            "annotations": report.annotations,
            "labels": report.labels,
            "metadata": report.metadata,
        }
        for alert, report in again
    ]
    with connection.cursor() as cursor:
        cursor.execute(_REPEAT, [now, orjson.dumps(rows).decode()])
    changed = [(alert, report) for alert, report in again if alert.severity != report.severity]
    for alert, report in changed:
        before, alert.severity = alert.severity, report.severity
        _note([alert], by, now, kind="severity", before=before, after=report.severity)
        milder = [other for other in Severity if other.rank < report.severity.rank]
        Incident.objects.filter(alerts=alert, severity__in=milder).update(severity=report.severity)
    return [alert for alert, _ in changed]


def _note(alerts: Sequence[Alert], by: Principal, now: datetime, *, kind: str, before: str, after: str) -> None:
    Transition.objects.bulk_create(
        [
            Transition(
                alert=alert,
                incident_id=alert.incident_id,
                at=now,
                kind=kind,
                before=before,
                after=after,
                reason=Reason.POSTED,
                severity=alert.severity,
                by=by.name[:200],
            )
            for alert in alerts
        ],
        batch_size=1000,
    )


def _record(by: Principal, source: str, taken: Taken, over: Sequence[Alert]) -> None:
    after: dict[str, Any] = {
        "source": source,
        "begun": len(taken.begun),
        "repeated": taken.repeated,
        "ended": taken.ended,
        "alerts": [alert.key for alert in [*taken.begun, *over][:NAMED]],
    }
    record(by=by, verb="alerting.take_in", target=("alerting.alert", "", f"alerts from {source}"), after=after)


@verb("alerting.settle_outside", right=Right.OPERATE)
def settle_outside(*, by: Principal, source: str, fingerprint: bytes, ends: bool, now: datetime) -> Alert | None:
    """End the open alert of that identity, or acknowledge it; there may be none, which is nothing."""
    alert = (
        Alert.objects.visible_to(by.scope)
        .select_for_update(of=("self",))
        .filter(source=source, fingerprint=fingerprint, state__in=OPEN_STATES)
        .first()
    )
    if alert is None:
        return None
    if not ends:
        return acknowledge(by=by, alert=alert, now=now)
    before = {"state": alert.state}
    end([alert], reason=Reason.POSTED, by=by.name, now=now)
    record(by=by, verb="alerting.settle_outside", target=alert, before=before, after={"state": alert.state})
    return alert


def shift_ends(*, gap: timedelta, now: datetime) -> int:
    """Let alerts from outside last longer by the time in which nobody could repeat them to us; return how many.

    No verb: the portal does it by itself after it was away. Without it each would end and fire anew.
    """
    away = Alert.objects.open().exclude(source="rule").filter(ends_at__isnull=False, ends_at__lte=now + gap)
    return away.update(ends_at=F("ends_at") + gap, version=F("version") + 1)
