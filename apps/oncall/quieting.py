"""What a silence would keep quiet: alerts, and the notices that nobody would have got."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError

from apps.accounts.rights import Scope
from apps.alerting import quiet
from apps.alerting.models import Alert, Silence
from apps.alerting.services import duration as read_duration
from apps.alerting.services.silences import check_times, checked_matchers
from apps.oncall.models import Notice

SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be muted now (`active`) and would have been in the last week, newest first."""

    active: tuple[Alert, ...]
    week: tuple[Alert, ...]
    notices: int
    is_whole: bool

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-safe values, at most a hundred alerts of each."""
        return {
            "active": {"count": len(self.active), "alerts": [_row(alert) for alert in self.active[:SHOWN]]},
            "last_week": {
                "alerts": len(self.week),
                "notices": self.notices,
                "is_whole": self.is_whole,
                "newest": [_row(alert) for alert in self.week[:SHOWN]],
            },
        }


def _row(alert: Alert) -> dict[str, Any]:
    return {
        "key": alert.key,
        "severity": alert.severity,
        "message": alert.message,
        "service": alert.service,
        "fired_at": alert.fired_at.isoformat() if alert.fired_at else None,
    }


def preview(
    matchers: Sequence[Any],
    *,
    scope: Scope,
    now: datetime,
    recurrence: str = "",
    duration: str = "",
    time_zone: str = "UTC",
) -> Preview:
    """Return what a silence with these matchers would mute; ValidationError by field where it could not be made."""
    parsed = checked_matchers(matchers)
    times = None
    if recurrence:
        if not duration:
            raise ValidationError({"duration": "How long does each occurrence last? For example 2h."})
        draft = Silence(
            starts_at=now,
            ends_at=now + timedelta(days=366),
            recurrence=recurrence.strip(),
            duration=read_duration(duration, "duration"),
            time_zone=time_zone.strip() or "UTC",
        )
        check_times(draft, now)
        times = draft.times
    found = quiet.would_mute(parsed, scope=scope, now=now, times=times)
    told = Notice.objects.filter(alert__in=[alert.pk for alert in found.week], kind="firing", at__gte=now - quiet.WEEK)
    moments = told.order_by().values_list("at", flat=True)
    count = sum(any(since <= at < until or at == until == now for since, until in found.spans) for at in moments)
    return Preview(found.active, found.week, count, found.is_whole)
