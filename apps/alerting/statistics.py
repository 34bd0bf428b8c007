"""Counts over alerts, for the seed's API."""

from datetime import datetime
from typing import Any

from django.db.models import Count, Q

from apps.accounts.permissions import EVERYTHING, Scope
from apps.alerting.lifecycle import ACTIVE, Severity
from apps.alerting.models import Alert


def stats(*, start: datetime, end: datetime, scope: Scope = EVERYTHING) -> dict[str, Any]:
    """Count the alerts that began to fire in [start, end]: {total, active, resolved, bySeverity, byType}.

    `active` are those of them that are still wrong. Severities are the seed's words, all of them; types are as found.
    """
    active = Q(state__in=[state.value for state in ACTIVE])
    fired = Alert.objects.visible_to(scope).filter(fired_at__range=(start, end))
    by_severity = {severity.name: 0 for severity in Severity}
    by_type: dict[str, int] = {}
    total = still = 0
    for row in (
        fired.order_by().values("severity", "type").annotate(count=Count("id"), still=Count("id", filter=active))
    ):
        total += row["count"]
        still += row["still"]
        by_severity[Severity(row["severity"]).name] += row["count"]
        by_type[row["type"]] = by_type.get(row["type"], 0) + row["count"]
    return {
        "total": total,
        "active": still,
        "resolved": total - still,
        "bySeverity": by_severity,
        "byType": dict(sorted(by_type.items())),
    }
