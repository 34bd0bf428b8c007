"""The targets as Prometheus' API lists them, as far as the caller sees them."""

from typing import Any

from apps.accounts.rights import Principal
from apps.metrics import query
from apps.metrics.envelope import rfc3339
from apps.promql.text import duration
from apps.sources.models import ScrapeJob, ScrapeTarget, sees


def pools(by: Principal) -> tuple[list[str], list[dict[str, Any]], list[dict[str, Any]]]:
    """(scrape pools, active targets, dropped targets), in the shape of /api/v1/targets."""
    rows = ScrapeTarget.objects.filter(ended=False).with_job().order_by("job__name", "url", "pk")
    seen = [row for row in rows if sees(by.scope, row.labels)]
    on = query.collection_on()
    active = [_active(row) for row in seen if on and not row.dropped]
    dropped = [
        {"discoveredLabels": row.discovered, "scrapePool": str(row.job)} for row in seen if row.dropped or not on
    ]
    jobs = sorted({str(row.job) for row in seen})
    if not by.scope.matchers:
        jobs = list(ScrapeJob.objects.filter(enabled=True).values_list("name", flat=True))
    return jobs, active, dropped


def _active(row: ScrapeTarget) -> dict[str, Any]:
    return {
        "discoveredLabels": row.discovered,
        "labels": row.labels,
        "scrapePool": str(row.job),
        "scrapeUrl": row.url,
        "globalUrl": row.url,
        "lastError": row.error,
        "lastScrape": rfc3339(row.last_at),
        "lastScrapeDuration": 0.0 if row.duration is None else row.duration.total_seconds(),
        "health": row.health,
        "scrapeInterval": duration(round(row.interval.total_seconds() * 1000)),
        "scrapeTimeout": duration(round(row.timeout.total_seconds() * 1000)),
    }
