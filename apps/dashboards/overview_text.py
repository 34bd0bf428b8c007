"""The overview as text, for terminals: `manage.py monitoring dashboard --text`."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np

from apps.accounts.permissions import EVERYTHING
from apps.alerting.models import Alert
from apps.dashboards.health import health
from apps.metrics import query

TILES = (
    ("responseTime", "Response time p95", "ms"),
    ("errorRate", "Error rate", "%"),
    ("throughput", "Throughput", "/s"),
    ("cpuUsage", "CPU", "%"),
    ("memoryUsage", "Memory", "%"),
    ("diskUsage", "Disk", "%"),
    ("dbConnections", "DB connections", "%"),
)
BARS = "▁▂▃▄▅▆▇█"


def collect(*, now: datetime) -> dict[str, Any]:
    """Return what the overview shows: health, key metrics with an hour of history, active alerts."""
    verdict = health(now=now)
    tiles = []
    for name, title, unit in TILES:
        result = query.query_range(
            name, start=now - timedelta(hours=1), end=now, step=timedelta(minutes=2), scope=EVERYTHING
        )
        values = [float(v) for v in result.v[0][result.ok[0]]] if len(result.v) else []
        tiles.append({"name": name, "title": title, "unit": unit, "values": values})
    alerts = [
        {
            "severity": alert.severity,
            "message": alert.message,
            "since": alert.fired_at,
            "acknowledgedBy": alert.acknowledged_by,
        }
        for alert in Alert.objects.active().order_by("-fired_at")[:20]
    ]
    return {"health": verdict.as_json(detailed=True), "tiles": tiles, "alerts": alerts}


def draw(data: dict[str, Any]) -> str:
    """Return the overview as lines of text with sparklines."""
    lines = [f"Monitoring Portal: {data['health']['status']}", ""]
    for tile in data["tiles"]:
        last = f"{tile['values'][-1]:10.2f} {tile['unit']:<3}" if tile["values"] else "         –    "
        lines.append(f"{tile['title']:<18} {last} {sparkline(tile['values'])}")
    lines += ["", f"Active alerts: {len(data['alerts'])}"]
    lines += [
        f"  {alert['severity']:<9} {alert['message']} (since {alert['since']:%H:%M} UTC)"
        + (f", acknowledged by {alert['acknowledgedBy']}" if alert["acknowledgedBy"] else "")
        for alert in data["alerts"]
    ]
    return "\n".join(lines)


def sparkline(values: list[float]) -> str:
    """Return the values as bars from the smallest to the largest.

    >>> sparkline([0, 1, 2, 3])
    '▁▃▅█'
    """
    if not values:
        return ""
    array = np.asarray(values)
    span = float(array.max() - array.min())
    if not np.isfinite(span):
        return ""
    index = (
        np.zeros(len(array), dtype=int) if span == 0 else ((array - array.min()) / span * (len(BARS) - 1)).astype(int)
    )
    return "".join(BARS[i] for i in index)
