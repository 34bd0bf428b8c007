"""What people and senders do to alerts: acknowledge, resolve, post; and how an alert ends by itself.

Each locks the alert's row first and raises its version, so the evaluation that looked before looks again.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F, Q

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.permissions import Principal, Right
from apps.alerting.identity import fingerprint
from apps.alerting.lifecycle import OPEN, Reason, Severity, State
from apps.alerting.models import Alert, Incident, Transition, alert_key, categories
from apps.alerting.placing import finish, place
from apps.alerting.telling import close_incidents, keep_series, told_series
from apps.core import live, tasks
from apps.core.telemetry import Reading
from apps.core.text import storable
from apps.promql.series import STALE

OPEN_STATES: Final = sorted(state.value for state in OPEN)
AT_ONCE: Final = 1000
"""Rows that one run of the expiry handles; the next run is seconds away."""
MOST_METADATA: Final = 64_000
"""Bytes that come along with a posted alert: each list, message and audit entry carries them."""
FORGOTTEN_AFTER: Final = timedelta(days=7)
"""How long a pending alert that never fired is kept."""


@verb("alerting.acknowledge", right=Right.OPERATE)
def acknowledge(*, by: Principal, alert: Alert, now: datetime) -> Alert:
    """Say that somebody has taken it on; what is acknowledged already stays as it is."""
    alert = _locked(alert)
    if not alert.is_active:
        raise ValidationError(f"{alert.key} is {alert.state}: only what is firing or recovering can be acknowledged.")
    if alert.acknowledged_at is not None:
        return alert
    before = state_of(alert)
    alert.acknowledged_at, alert.acknowledged_by = now, by.name
    _write(alert, "acknowledged_at", "acknowledged_by")
    _note(alert, now, "acknowledged", "", "acknowledged", Reason.MANUAL, by.name)
    _acknowledge_incident_if_all(alert, by.name, now)
    _audit(by, "alerting.acknowledge", alert, before)
    publish_alerts()
    return alert


@verb("alerting.unacknowledge", right=Right.OPERATE)
def unacknowledge(*, by: Principal, alert: Alert, now: datetime) -> Alert:
    """Take an acknowledgement back: somebody else has to look."""
    alert = _locked(alert)
    if not alert.is_active:
        raise ValidationError(f"{alert.key} is {alert.state}: its acknowledgement is history.")
    if alert.acknowledged_at is None:
        return alert
    before = state_of(alert)
    alert.acknowledged_at, alert.acknowledged_by = None, ""
    _write(alert, "acknowledged_at", "acknowledged_by")
    _note(alert, now, "unacknowledged", "acknowledged", "", Reason.MANUAL, by.name)
    Incident.objects.filter(alerts=alert).update(acknowledged_at=None, acknowledged_by="")
    _audit(by, "alerting.unacknowledge", alert, before)
    publish_alerts()
    return alert


@verb("alerting.resolve", right=Right.OPERATE)
def resolve(*, by: Principal, alert: Alert, resolved_by: str = "", now: datetime) -> Alert:
    """End it by hand; what has ended already stays as it is.

    A rule's alert that is still wrong fires again, as a new alert, after the rule's cooldown and says so; so does one
    that its sender goes on repeating, after ALERT_COOLDOWN.
    `resolved_by` is a name that the caller brings along; it is kept beside the one who acts.
    """
    alert = _locked(alert)
    if not alert.is_active:
        return alert
    before = state_of(alert)
    resolve_all([alert], by=by, resolved_by=storable(resolved_by)[:200], now=now)
    _audit(by, "alerting.resolve", alert, before)
    return alert


def resolve_all(alerts: Sequence[Alert], *, by: Principal, resolved_by: str = "", now: datetime) -> None:
    """End these locked, active alerts by hand, in the caller's transaction: part of the verbs that record it."""
    name = resolved_by or by.name
    for alert in alerts:
        if alert.source != "posted":
            alert.held_until = now + (alert.rule.cooldown if alert.rule else settings.ALERT_COOLDOWN)
    detail = "" if name == by.name else f"In the name of {name}."
    end(alerts, reason=Reason.MANUAL, by=by.name, resolved_by=name, detail=detail, now=now)


@verb("alerting.post_alert", right=Right.OPERATE)
def post_alert(
    *,
    by: Principal,
    type: str,  # noqa: A002 - the word of the wire contract
    severity: str,
    message: str,
    service: str = "",
    metadata: Mapping[str, Any] | None = None,
    ends_at: datetime | None = None,
    now: datetime,
) -> Alert:
    """Take an alert from outside; a second post of the same is the same alert, counted once more.

    Same is: type, severity, service and message of one that has not ended. It ends by a person, at `ends_at`, or when
    it was not posted again for ALERT_EXPIRE_AFTER.
    """
    kind, message, service = storable(type).strip(), storable(message).strip(), storable(service).strip()
    about: dict[str, Any] = _plain(dict(metadata or {}))
    _check_post(kind, severity, message, service)
    if (length := len(json.dumps(about, ensure_ascii=False).encode(errors="replace"))) > MOST_METADATA:
        raise ValidationError({"metadata": f"{length} bytes as JSON; at most {MOST_METADATA} are kept with an alert."})
    until = ends_at or now + settings.ALERT_EXPIRE_AFTER
    identity = fingerprint({"type": kind, "severity": severity, "service": service, "message": message})
    for _ in range(3):
        known = (
            Alert.objects.select_for_update(of=("self",))
            .filter(source="posted", fingerprint=identity, state__in=OPEN_STATES)
            .select_related("incident")
            .first()
        )
        if known is not None:
            return _repeat(known, by, about, until, now)
        try:
            with transaction.atomic():
                return _begin(by, identity, kind, severity, message, service, about, until, now)
        except IntegrityError:  # somebody posted the same at this moment: count on theirs
            continue
    raise ValidationError("The same alert is being posted and resolved at once; post it again.")


def _check_post(kind: str, severity: str, message: str, service: str) -> None:
    problems = {}
    if not re.fullmatch(r"[^\x00-\x1f]{1,100}", kind):
        problems["type"] = "A word for what is wrong, of 1 to 100 characters."
    if severity not in list(Severity):
        problems["severity"] = f"{severity!r} is none of {', '.join(Severity)}."
    if not 1 <= len(message) <= 10_000:
        problems["message"] = "A sentence of 1 to 10,000 characters."
    if len(service) > 100:
        problems["service"] = "At most 100 characters."
    if problems:
        raise ValidationError(problems)


def _begin(
    by: Principal,
    identity: bytes,
    kind: str,
    severity: str,
    message: str,
    service: str,
    metadata: dict[str, Any],
    until: datetime,
    now: datetime,
) -> Alert:
    category = metadata.get("category")
    labels = {"alertname": kind, "severity": severity, "service": service}
    alert = Alert(
        key=alert_key(),
        source="posted",
        type=kind,
        category=category if category in dict(categories()) else "custom",
        fingerprint=identity,
        labels={name: value for name, value in labels.items() if value},
        state=State.FIRING,
        severity=severity,
        message=message,
        service=service,
        metadata=metadata,
        pending_at=now,
        fired_at=now,
        seen_at=now,
        ends_at=until,
    )
    placed = place([alert], at=now)
    alert.save(force_insert=True)
    finish(placed)
    _note(alert, now, "state", State.INACTIVE, State.FIRING, Reason.POSTED, by.name)
    record(by=by, verb="alerting.post_alert", target=alert, after=state_of(alert))
    publish_alerts()
    return alert


def _repeat(alert: Alert, by: Principal, metadata: dict[str, Any], until: datetime, now: datetime) -> Alert:
    before = state_of(alert)
    alert.count += 1
    alert.seen_at, alert.ends_at = now, until
    alert.metadata = metadata or alert.metadata
    _write(alert, "count", "seen_at", "ends_at", "metadata")
    _audit(by, "alerting.post_alert", alert, before)
    publish_alerts()
    return alert


def expire(*, by: Principal, now: datetime) -> int:
    """End what came from outside and is over, and what has lost its rule; forget what never fired. Returns how many.

    No verb: nobody asks for it. Each ended alert has its transition, each forgetting one audit entry.
    """
    lost = Q(source="rule") & (Q(rule__isnull=True) | Q(rule__enabled=False) | Q(rule__group__enabled=False))
    done = 0
    with transaction.atomic():
        open_now = Alert.objects.open().select_for_update(skip_locked=True, of=("self",)).order_by("id")
        for found, reason in (
            (open_now.filter(ends_at__lte=now), Reason.EXPIRED),
            (open_now.filter(lost), Reason.RULE),
        ):
            alerts = list(found[:AT_ONCE])
            end(alerts, reason=reason, by=by.name, now=now)
            done += len(alerts)
        _cease_to_flap(Alert.objects.exclude(state__in=OPEN_STATES).filter(lost), Reason.RULE, by.name, now)
    Alert.objects.exclude(source="rule").filter(held_until__lte=now).update(held_until=None)
    with transaction.atomic():
        old = Alert.objects.filter(state="inactive", resolved_at__lt=now - FORGOTTEN_AFTER, held_until__isnull=True)
        ids = list(old.order_by("resolved_at").values_list("pk", flat=True)[:AT_ONCE])
        if ids:
            Alert.objects.filter(pk__in=ids).delete()
            target = ("alerting.alert", "", f"{len(ids)} pending alerts that never fired")
            record(by=by, verb="alerting.forget", target=target)
    return done


# --- What all of them share -------------------------------------------------------------------------------------


def end(
    alerts: Sequence[Alert], *, reason: Reason, by: str, now: datetime, resolved_by: str = "", detail: str = ""
) -> None:
    """End these locked, open alerts in the caller's transaction: rows, transitions, incidents, series, news.

    `held_until` of each is kept as the caller has set it.
    """
    if not alerts:
        return
    series: list[Reading] = []
    transitions = []
    fates: dict[tuple[State, datetime | None], list[int]] = defaultdict(list)
    for alert in alerts:
        if alert.source == "rule":
            series += [Reading(told.name, STALE, told.labels) for told in told_series(alert)]
        old = State(alert.state)
        alert.state = State.INACTIVE if old is State.PENDING else State.RESOLVED
        alert.resolved_at, alert.resolve_reason, alert.resolved_by = now, reason, resolved_by
        alert.seen_at, alert.flapping_since = now, None
        alert.version += 1
        fates[State(alert.state), alert.held_until].append(alert.pk)
        telling = alert.state == State.RESOLVED
        transitions.append(_transition(alert, now, "state", old, alert.state, reason, by, detail, telling=telling))
    for (state, held_until), ids in fates.items():
        Alert.objects.filter(pk__in=ids).update(
            state=state,
            resolved_at=now,
            resolve_reason=reason,
            resolved_by=resolved_by,
            held_until=held_until,
            seen_at=now,
            flapping_since=None,
            version=F("version") + 1,
        )
    Transition.objects.bulk_create(transitions, batch_size=1000)
    for alert in alerts:
        if alert.source == "rule":
            earlier = Alert.objects.filter(rule=alert.rule_id, fingerprint=alert.fingerprint)
            _cease_to_flap(earlier.exclude(pk=alert.pk), reason, by, now)
    close_incidents({alert.incident_id for alert in alerts if alert.incident_id is not None}, now)
    if series:
        keep_series(series, by=Principal.system("alerting"), now=now)
    publish_alerts()


def _cease_to_flap(alerts: Any, reason: Reason, by: str, now: datetime) -> None:
    """Let the held ends of these be told: somebody else than the evaluation has ended it."""
    for alert in alerts.filter(flapping_since__isnull=False).select_for_update(of=("self",)).order_by("id")[:AT_ONCE]:
        alert.flapping_since = None
        _write(alert, "flapping_since")
        _note(alert, now, "flapping", "flapping", "steady", reason, by)


def _locked(alert: Alert) -> Alert:
    return Alert.objects.select_for_update(of=("self",)).select_related("rule", "incident").get(pk=alert.pk)


def _write(alert: Alert, *fields: str) -> None:
    alert.version += 1
    alert.save(update_fields=[*fields, "version"])


def _note(alert: Alert, now: datetime, kind: str, before: str, after: str, reason: Reason, by: str) -> None:
    _transition(alert, now, kind, before, after, reason, by).save(force_insert=True)


def _transition(
    alert: Alert,
    now: datetime,
    kind: str,
    before: str,
    after: str,
    reason: Reason,
    by: str,
    detail: str = "",
    *,
    telling: bool = True,
) -> Transition:
    return Transition(
        alert=alert,
        incident_id=alert.incident_id,
        at=now,
        kind=kind,
        before=before,
        after=after,
        reason=reason,
        severity=alert.severity,
        value=alert.value,
        by=by[:200],
        detail=detail,
        told_at=None if telling else now,
    )


def _acknowledge_incident_if_all(alert: Alert, by: str, now: datetime) -> None:
    waiting = Alert.objects.active().filter(incident=alert.incident_id, acknowledged_at__isnull=True)
    if not waiting.exists():
        Incident.objects.filter(alerts=alert, acknowledged_at__isnull=True).update(
            acknowledged_at=now, acknowledged_by=by[:200]
        )


def _audit(by: Principal, name: str, alert: Alert, before: dict[str, Any]) -> None:
    was, is_now = changes(before, state_of(alert))
    record(by=by, verb=name, target=alert, before=was, after=is_now)


def publish_alerts(topics: Iterable[str] = ("alerts", "incidents")) -> None:
    """Tell pages of it, and have on-call look, once the caller's transaction has committed."""
    for topic in topics:
        live.publish(topic)
    tasks.wake("oncall.tell")


def _plain(value: Any) -> Any:
    """JSON that PostgreSQL keeps: no NUL, no NaN; anything else that JSON has not becomes text."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value if value is None or isinstance(value, bool | int | float) else storable(str(value))
