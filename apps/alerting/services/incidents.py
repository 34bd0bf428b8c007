"""What people do to incidents as wholes: acknowledge, resolve, merge and split them."""

from collections.abc import Sequence
from datetime import datetime

from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import F

from apps.accounts.audit import record, state_of, verb
from apps.accounts.permissions import Principal, Right
from apps.alerting import placing
from apps.alerting.lifecycle import Reason
from apps.alerting.models import Alert, Incident, IncidentTrait, Transition
from apps.alerting.quiet import depends_on
from apps.alerting.services.alerts import resolve_all
from apps.core import live, tasks


@verb("alerting.acknowledge_incident", right=Right.OPERATE)
def acknowledge_incident(*, by: Principal, incident: Incident, now: datetime) -> Incident:
    """Acknowledge everything in it that is still wrong and that the one who acts may see."""
    waiting = Alert.objects.visible_to(by.scope).active().filter(incident=incident, acknowledged_at__isnull=True)
    alerts = list(waiting.order_by("pk").select_for_update(of=("self",)))
    changed = {"acknowledged_at": now, "acknowledged_by": by.name[:200]}
    Alert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(**changed, version=F("version") + 1)
    Transition.objects.bulk_create(
        [
            Transition(
                alert=alert, incident=incident, at=now, kind="acknowledged", after="acknowledged",
                reason=Reason.MANUAL, severity=alert.severity, value=alert.value, by=by.name[:200],
            )
            for alert in alerts
        ],
        batch_size=1000,
    )  # fmt: skip
    if not Alert.objects.active().filter(incident=incident, acknowledged_at__isnull=True).exists():
        Incident.objects.filter(pk=incident.pk, state="open", acknowledged_at__isnull=True).update(**changed)
    incident.refresh_from_db()
    after = {**state_of(incident), "alerts": len(alerts)}
    record(by=by, verb="alerting.acknowledge_incident", target=incident, after=after)
    _publish(incident)
    return incident


@verb("alerting.resolve_incident", right=Right.OPERATE)
def resolve_incident(*, by: Principal, incident: Incident, now: datetime) -> Incident:
    """Resolve everything in it that is still wrong and that the one who acts may see."""
    active = Alert.objects.visible_to(by.scope).active().filter(incident=incident)
    alerts = list(active.select_related("rule").order_by("pk").select_for_update(of=("self",)))
    resolve_all(alerts, by=by, now=now)
    incident.refresh_from_db()
    after = {**state_of(incident), "alerts": len(alerts)}
    record(by=by, verb="alerting.resolve_incident", target=incident, after=after)
    _publish(incident)
    return incident


@verb("alerting.merge_incidents", right=Right.OPERATE)
def merge_incidents(*, by: Principal, incident: Incident, others: Sequence[Incident], now: datetime) -> Incident:
    """Make the others part of this one: their alerts move, they are over. Correlation leaves it alone from now on."""
    keys = sorted({other.pk for other in others} - {incident.pk})
    if not keys:
        raise ValidationError({"incidents": "Name at least one other incident."})
    _lock()
    _see_all([incident.pk, *keys], by)
    if incident.merged_into_id or Incident.objects.filter(pk__in=keys, merged_into__isnull=False).exists():
        raise ValidationError({"incidents": "One of them is part of another incident already."})
    why = f"Merged by {by.name}."
    moved = sum(placing.move(key, incident.pk, at=now, by=by.name, why=why) for key in keys)
    _by_hand([incident.pk], now)
    incident.refresh_from_db()
    after = {**state_of(incident), "merged": keys, "alerts": moved}
    record(by=by, verb="alerting.merge_incidents", target=incident, after=after)
    _publish(incident)
    return incident


@verb("alerting.split_incident", right=Right.OPERATE)
def split_incident(*, by: Principal, incident: Incident, alerts: Sequence[Alert], now: datetime) -> Incident:
    """Take these alerts out of the incident into one of their own, which is returned."""
    _lock()
    _see_all([incident.pk], by)
    here = Alert.objects.filter(incident=incident)
    chosen = list(here.filter(pk__in=[alert.pk for alert in alerts]).order_by("fired_at", "pk"))
    if not chosen or len(chosen) != len({alert.pk for alert in alerts}):
        raise ValidationError({"alerts": "Choose alerts of this incident."})
    if here.count() == len(chosen):
        raise ValidationError({"alerts": "Something has to stay: an incident without alerts is none."})
    first = chosen[0]
    own = Incident.objects.create(
        title=first.message[:300],
        severity=max((alert.severity for alert in chosen), key=placing.rank_of),
        opened_at=first.fired_at or now,
    )
    why = f"Split off by {by.name}."
    placing.move(incident.pk, own.pk, at=now, by=by.name, why=why, alerts=[alert.pk for alert in chosen])
    _by_hand([incident.pk, own.pk], now)
    own.refresh_from_db()
    after = {**state_of(own), "split_from": incident.pk, "alerts": len(chosen)}
    record(by=by, verb="alerting.split_incident", target=own, after=after)
    _publish(incident, own)
    return own


def _lock() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [placing.LOCK])


def _see_all(incidents: Sequence[int], by: Principal) -> None:
    """Refuse somebody who sees only some of the alerts: the others are not theirs to move."""
    alerts = Alert.objects.filter(incident__in=incidents)
    if by.scope.matchers and alerts.exclude(pk__in=Alert.objects.visible_to(by.scope).values("pk")).exists():
        raise ValidationError("Some of these alerts are beyond what you may see; somebody who sees them all may do it.")


def _by_hand(incidents: Sequence[int], now: datetime) -> None:
    """Write severity, state, acknowledgement, traits and cause anew, from the alerts as they are now."""
    for incident in Incident.objects.filter(pk__in=incidents).select_for_update(of=("self",)).order_by("pk"):
        alerts = list(Alert.objects.filter(incident=incident))
        active = [alert for alert in alerts if alert.is_active]
        incident.severity = max((alert.severity for alert in alerts), key=placing.rank_of)
        incident.opened_at = min(alert.fired_at or now for alert in alerts)
        incident.state, incident.resolved_at = ("open", None) if active else ("resolved", incident.resolved_at or now)
        if any(alert.acknowledged_at is None for alert in active):
            incident.acknowledged_at, incident.acknowledged_by = None, ""
        incident.is_by_hand = True
        incident.save()
        IncidentTrait.objects.filter(incident=incident).delete()
        IncidentTrait.objects.bulk_create(placing.traits_of(incident, active))
    placing.find_causes(incidents, depends_on(), at_least=incidents)


def _publish(*incidents: Incident) -> None:
    live.publish("alerts")
    live.publish("incidents")
    for incident in incidents:
        live.publish(f"incident:{incident.pk}")
    tasks.wake("oncall.tell")
