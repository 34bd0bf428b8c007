"""Prometheus' HTTP API about itself: what is collected, which build and settings run, how many series there are.

What Prometheus has and the portal has not is answered empty rather than refused: clients ask for it before they show
anything at all.
"""

import os
import platform
import socket
import threading
from collections import Counter as Tally
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import psutil
from django.conf import settings
from django.db.models import Count, Max, Min, Q, Sum
from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.core.lanes import GET, Answer, Lane, Parameter, Request
from apps.core.registry import UnknownKind, extensions
from apps.metrics import collection, listing, query
from apps.metrics.collectors import COLLECTORS
from apps.metrics.envelope import ApiError, enveloped, invalid, refuse, rfc3339, success, whole_number
from apps.metrics.models import Batch, Block, CollectorSetting, RetentionPolicy
from apps.promql import engine
from apps.promql.labels import STRINGS
from apps.promql.source import accept, of_scope
from apps.promql.text import duration

COMPATIBLE: Final = "3.5.0"
"""The Prometheus whose API and language this is: clients choose by it what they ask for."""
FEATURES: Final = (
    "promql-binop-fill-modifiers",
    "promql-delayed-name-removal",
    "promql-duration-expr",
    "promql-experimental-functions",
    "promql-extended-range-selectors",
)
"""Prometheus' names of what it has behind a flag and the portal always."""
_STARTED: Final = datetime.fromtimestamp(psutil.Process().create_time(), tz=UTC)


# --- What is collected ----------------------------------------------------------------------------------------------


def _targets(by: Principal) -> list[tuple[CollectorSetting, dict[str, str], float]]:
    """(row, labels, deadline in seconds) of the collectors that the caller may see, by kind."""
    found = []
    for row in CollectorSetting.objects.order_by("kind"):
        try:
            kind = COLLECTORS.get(row.kind)
        except UnknownKind:
            continue
        labels = {"instance": collection.instance(), "job": kind.job}
        if kind.is_supported() and accept(of_scope(by.scope.matchers), labels):
            found.append((row, labels, kind.deadline))
    return found


def _discovered(row: CollectorSetting, labels: Mapping[str, str]) -> dict[str, str]:
    return {"__address__": labels["instance"], "__collector__": row.kind, "job": labels["job"]}


@enveloped
def targets(by: Principal, request: Request) -> Answer:
    """/api/v1/targets: scraped targets, and every collector as one of the pool of its job; switched off are dropped.

    Rooms that have targets of their own add them by `extend(CollectorSetting, "targets", function)`: it takes the
    caller and returns (names of pools, active targets, dropped targets) as they are told here.
    """
    state, pool = request.one("state").lower(), request.one("scrapePool")
    found = [one for one in _targets(by) if pool in ("", one[1]["job"])]
    on = query.collection_on()
    active, dropped = [], []
    for row, labels, deadline in found:
        if not (on and row.enabled):
            dropped.append({"discoveredLabels": _discovered(row, labels), "scrapePool": labels["job"]})
            continue
        address = f"collector://{labels['instance']}/{row.kind}"
        every = duration(round(row.every.total_seconds() * 1000))
        active.append(
            {
                "discoveredLabels": _discovered(row, labels),
                "labels": labels,
                "scrapePool": labels["job"],
                "scrapeUrl": address,
                "globalUrl": address,
                "lastError": row.error,
                "lastScrape": rfc3339(row.last_at),
                "lastScrapeDuration": 0.0 if row.duration is None else row.duration.total_seconds(),
                "health": "unknown" if row.last_at is None else "down" if row.error else "up",
                "scrapeInterval": every,
                "scrapeTimeout": duration(round(deadline * 1000)),
            }
        )
    names = {labels["job"] for _, labels, _ in found}
    for ask in extensions(CollectorSetting, "targets"):
        more_names, more_active, more_dropped = ask(by)
        names |= {name for name in more_names if pool in ("", name)}
        active += [one for one in more_active if pool in ("", one["scrapePool"])]
        dropped += [one for one in more_dropped if pool in ("", one["scrapePool"])]
    counts = Tally(one["scrapePool"] for one in dropped)
    return success(
        {
            "activeTargets": active if state in ("", "any", "active") else [],
            "droppedTargets": dropped if state in ("", "any", "dropped") else [],
            "droppedTargetCounts": {name: counts[name] for name in sorted(names)},
        }
    )


@enveloped
def scrape_pools(by: Principal, request: Request) -> Answer:
    """/api/v1/scrape_pools: the jobs of scraped targets and of the collectors."""
    names = {labels["job"] for _, labels, _ in _targets(by)}
    for ask in extensions(CollectorSetting, "targets"):
        names |= set(ask(by)[0])
    return success({"scrapePools": sorted(names)})


@enveloped
def alertmanagers(by: Principal, request: Request) -> Answer:
    """/api/v1/alertmanagers: none, for the portal notifies by itself."""
    return success({"activeAlertmanagers": [], "droppedAlertmanagers": []})


# --- What runs ------------------------------------------------------------------------------------------------------


@enveloped
def buildinfo(by: Principal, request: Request) -> Answer:
    """/api/v1/status/buildinfo: the version is that of the compatible Prometheus, the revision the portal's."""
    return success(
        {
            "version": COMPATIBLE,
            "revision": settings.VERSION,
            "branch": "monitoring-portal",
            "buildUser": "",
            "buildDate": "",
            "goVersion": f"python{platform.python_version()}",
        }
    )


@enveloped
def runtimeinfo(by: Principal, request: Request) -> Answer:
    """/api/v1/status/runtimeinfo: of this web process."""
    damaged = Q(bad_at__isnull=False)
    return success(
        {
            "startTime": rfc3339(_STARTED),
            "CWD": "/",
            "hostname": socket.gethostname(),
            "serverTime": rfc3339(timezone.now()),
            "reloadConfigSuccess": True,
            "lastConfigTime": rfc3339(_STARTED),
            "corruptionCount": Block.objects.filter(damaged).count() + Batch.objects.filter(damaged).count(),
            "goroutineCount": threading.active_count(),
            "GOMAXPROCS": os.cpu_count() or 1,
            "GOMEMLIMIT": psutil.virtual_memory().total,
            "GOGC": "",
            "GODEBUG": "",
            "storageRetention": _retention(),
        }
    )


def _retention() -> str:
    row = RetentionPolicy.objects.filter(category=RetentionPolicy.DEFAULT).first()
    return duration(round(row.raw.total_seconds() * 1000)) if row else "0s"


@enveloped
def flags(by: Principal, request: Request) -> Answer:
    """/api/v1/status/flags: the portal's limits under the names of Prometheus' flags."""
    limits = query.WAITED_FOR
    return success(
        {
            "enable-feature": ",".join(FEATURES),
            "query.lookback-delta": duration(engine.LOOKBACK_MS),
            "query.max-samples": str(limits.samples),
            "query.timeout": duration(round((limits.seconds or 0) * 1000)),
            "storage.tsdb.retention.time": _retention(),
            "web.enable-admin-api": "true",
            "web.enable-lifecycle": "false",
            "web.enable-remote-write-receiver": "true",
            "web.external-url": settings.PORTAL_URL,
        }
    )


@enveloped
def config(by: Principal, request: Request) -> Answer:
    """/api/v1/status/config: the collectors as a Prometheus' configuration would say them."""
    jobs: dict[str, int] = {}
    for row, labels, _ in _targets(by):
        every = round(row.every.total_seconds() * 1000)
        jobs[labels["job"]] = min(every, jobs.get(labels["job"], every))
    lines = ["global:", "  scrape_interval: 15s", "  evaluation_interval: 30s"]
    if jobs:
        lines.append("scrape_configs:")
    for job, every in sorted(jobs.items()):
        lines += [f"- job_name: {job}", f"  scrape_interval: {duration(every)}"]
    return success({"yaml": "\n".join(lines) + "\n"})


# --- How much there is ----------------------------------------------------------------------------------------------


@enveloped
def tsdb(by: Principal, request: Request) -> Answer:
    """/api/v1/status/tsdb: which metrics and labels make the most series, as far as the caller sees them."""
    limit = whole_number(request, "limit", 10)
    if limit < 1:
        raise ApiError("bad_data", "limit must be a positive number")
    if limit > 10_000:
        raise invalid("limit", "limit must not exceed 10000")
    found = listing.series([()], scope=by.scope)
    pairs: list[tuple[str, int]] = []
    names: list[tuple[str, int]] = []
    values: list[tuple[str, int]] = []
    sizes: list[tuple[str, int]] = []
    for name, column in found.cols.items():
        ids, counts = np.unique(column[column != 0], return_counts=True)
        texts = STRINGS.texts(ids)
        values.append((name, len(texts)))
        sizes.append((name, sum(len(text.encode()) for text in texts)))
        counted = list(zip(texts, counts.tolist(), strict=True))
        pairs += _most([(f"{name}={text}", count) for text, count in counted], limit)
        if name == "__name__":
            names = counted
    held = Batch.objects.aggregate(rows=Count("id"), begin=Min("t_min"), end=Max("t_max"), samples=Sum("samples"))
    return success(
        {
            "headStats": {
                "numSeries": found.size,
                "numLabelPairs": sum(count for _, count in values),
                "chunkCount": held["rows"],
                "minTime": held["begin"] or 0,
                "maxTime": held["end"] or 0,
            },
            "seriesCountByMetricName": _statistics(names, limit),
            "labelValueCountByLabelName": _statistics(values, limit),
            "memoryInBytesByLabelName": _statistics(sizes, limit),
            "seriesCountByLabelValuePair": _statistics(pairs, limit),
        }
    )


def _most(counted: list[tuple[str, int]], limit: int) -> list[tuple[str, int]]:
    return sorted(counted, key=lambda pair: (-pair[1], pair[0]))[:limit]


def _statistics(counted: list[tuple[str, int]], limit: int) -> list[dict[str, Any]]:
    return [{"name": name, "value": count} for name, count in _most(counted, limit)]


@enveloped
def walreplay(by: Principal, request: Request) -> Answer:
    """/api/v1/status/walreplay: there is nothing to replay at a start."""
    return success({"min": 0, "max": 0, "current": 0})


def _lane(serve: Any, summary: str, *parameters: Parameter) -> Lane:
    return Lane(GET, Right.READ, serve, refuse, summary, parameters)


LANES: Final[dict[str, Lane]] = {
    "/api/v1/targets": _lane(
        targets,
        "Scraped targets and collectors, and how their last round went.",
        Parameter("state", "Which of them.", choices=("active", "dropped", "any")),
        Parameter("scrapePool", "Those of one job."),
    ),
    "/api/v1/scrape_pools": _lane(scrape_pools, "The jobs of scraped targets and collectors."),
    "/api/v1/alertmanagers": _lane(alertmanagers, "Alertmanagers: always none."),
    "/api/v1/status/buildinfo": _lane(buildinfo, "The compatible Prometheus, and the portal's version as revision."),
    "/api/v1/status/runtimeinfo": _lane(runtimeinfo, "The web process that answers."),
    "/api/v1/status/flags": _lane(flags, "The portal's limits under the names of Prometheus' flags."),
    "/api/v1/status/config": _lane(config, "The collectors as a Prometheus' configuration would say them."),
    "/api/v1/status/tsdb": _lane(
        tsdb, "What makes the most series.", Parameter("limit", "Rows of each list; 10 if absent.", "integer")
    ),
    "/api/v1/status/walreplay": _lane(walreplay, "Nothing to replay."),
}
