"""Past alerts and incidents as messages, for those who write a template and want to see it at work. Reads only."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db.models import Count
from django.utils import timezone

from apps.accounts.permissions import EVERYTHING, Scope
from apps.alerting import changes
from apps.alerting.models import Alert, Incident
from apps.notifications.message import Message
from apps.oncall import curves, messages
from apps.oncall.book import CHANGES_TOLD, view_of

ALERTS: Final = 20
INCIDENTS: Final = 5
_INCIDENT: Final = "incident-"


def recent(scope: Scope) -> list[tuple[str, str]]:
    """Return (key, label) of the newest alerts, and of the newest incidents with more than one."""
    fired = Alert.objects.visible_to(scope).filter(fired_at__isnull=False).select_related("rule")
    found = [(alert.key, _label(alert)) for alert in fired.order_by("-fired_at", "-id")[:ALERTS]]
    if scope == EVERYTHING:
        several = Incident.objects.annotate(size=Count("alerts")).filter(size__gt=1).order_by("-id")[:INCIDENTS]
        sizes = several.values_list("pk", "size")
        found += [(f"{_INCIDENT}{pk}", f"Incident #{pk}: {size} alerts") for pk, size in sizes]
    return found


def _label(alert: Alert) -> str:
    at = alert.fired_at or alert.seen_at
    return f"{at:%Y-%m-%d %H:%M} {alert.severity}: {view_of(alert).title}"[:120]


def message(key: str, scope: Scope, *, is_over: bool) -> Message | None:
    """Return what somebody would have been told of the alert or incident: that it fires, or that it is over."""
    found = Alert.objects.visible_to(scope).filter(fired_at__isnull=False).select_related("rule")
    found = found.prefetch_related("rule__levels").order_by("-fired_at", "-id")
    if (number := key.removeprefix(_INCIDENT)) != key:
        of_it = found.filter(incident=int(number)) if number.isascii() and number.isdigit() else found.none()
    else:
        of_it = found.filter(key=key)
    alerts = list(of_it[: messages.LISTED])
    return _message(alerts, scope, is_over=is_over, now=timezone.now()) if alerts else None


def _message(alerts: Sequence[Alert], scope: Scope, *, is_over: bool, now: datetime) -> Message:
    first = alerts[0]
    began_at = min(alert.fired_at or alert.seen_at for alert in alerts)
    at = min(now, (first.resolved_at or now) if is_over else began_at + timedelta(minutes=5))
    views = [
        replace(view_of(alert), is_firing=not is_over, ended_at=(alert.resolved_at or now) if is_over else None)
        for alert in alerts
    ]
    happened = changes.before(began_at, {alert.service for alert in alerts}, scope=scope, limit=CHANGES_TOLD)
    occasion = messages.Occasion(
        "example",
        {},
        "a preview",
        settings.PORTAL_URL,
        [f"{one.at:%H:%M} UTC {one.line}" for one in happened],
        at,
        curves.read(first, now=at),
    )
    told = messages.build([] if is_over else views, [], views if is_over else [], occasion)
    return told if is_over else replace(told, answer_url=f"{settings.PORTAL_URL}/r/example/")
