"""Where pages report: `/rum/beacon.js`, the script, and `/rum/KEY`, where it and Google's web-vitals send to.

What pages say is anybody's word: it is counted in this process, bounded in routes, rate and size, and never stored as
text. A report is told once by its id; the first value of an id counts.
"""

import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from apps.accounts.permissions import Principal
from apps.core.lanes import GET, Answer, Lane, Request
from apps.core.telemetry import Counter, Histogram
from apps.metrics.throttle import Throttle
from apps.sources import sites
from apps.sources.models import Site
from apps.sources.visits import VITALS, Unreadable, device_of, is_allowed, reports

SCRIPT: Final = Path(__file__).with_name("beacon.js").read_bytes()
LARGEST: Final = 64_000
REMEMBERED: Final = 20_000
ANYWHERE: Final = (b"access-control-allow-origin", b"*")
_BY: Final = ("site", "route", "device")
_SECONDS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 1.8, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0)
_RATIO: Final = (0.01, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)

VIEWS: Final = Counter("frontend_page_views_total", "Pages that browsers showed.", _BY)
ERRORS: Final = Counter("frontend_errors_total", "Errors of scripts in browsers.", _BY)
REFUSED: Final = Counter("frontend_reports_refused_total", "Reports of browsers that were not counted.", ("reason",))
SERIES: Final = {
    name: Histogram(
        f"web_vitals_{name.lower()}_{vital.unit}",
        f"{name} as browsers measured it.",
        _BY,
        buckets=_SECONDS if vital.unit == "seconds" else _RATIO,
    )
    for name, vital in VITALS.items()
}

_throttle: Final = Throttle()
_lock: Final = threading.Lock()
_seen: "OrderedDict[tuple[str, str], None]" = OrderedDict()


def script(by: Principal, request: Request) -> Answer:
    """The script that a page loads."""
    headers = (
        ANYWHERE,
        (b"cache-control", b"public, max-age=3600"),
        (b"cross-origin-resource-policy", b"cross-origin"),
    )
    return Answer(200, SCRIPT, "text/javascript; charset=utf-8", headers)


def beacon(by: Principal, request: Request) -> Answer:
    """Count what a page reports."""
    site = sites.by_key(request.captured.get("key", ""))
    if site is None:
        return _refused(404, "key", "This key is no site's.")
    page = request.header(b"referer")
    origin = request.header(b"origin") or _origin_of(page)
    if not is_allowed(origin, site.origins):
        return _refused(403, "origin", "Pages of this origin may not report here.")
    if len(request.body) > LARGEST:
        return _refused(413, "size", "The beacon is too large.")
    clock = time.monotonic()
    if _throttle.wait(site.key, site.rate, clock) > 0:
        return _refused(429, "rate", "Too many beacons; this one was not counted.")
    _throttle.take(site.key, site.rate, 1, clock)
    device = device_of(request.header(b"user-agent"))
    if device == "bot":
        REFUSED.inc(reason="bot")
        return _said(204)
    try:
        found, left_out = reports(request.body, page)
    except Unreadable as error:
        return _refused(400, "unreadable", str(error))
    REFUSED.inc(left_out, reason="report")
    for report in found:
        if report.ident and _is_repeated(site, f"{report.name} {report.ident}"):
            REFUSED.inc(reason="repeated")
            continue
        labels = {"site": site.name, "route": report.route, "device": device}
        if report.name == "view":
            VIEWS.inc(**labels)
        elif report.name == "error":
            ERRORS.inc(**labels)
        else:
            SERIES[report.name].observe(report.value, **labels)
    return _said(204)


def _origin_of(page: str) -> str:
    try:
        parts = urlsplit(page)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}".lower()


def _is_repeated(site: Site, ident: str) -> bool:
    """Whether this process has counted a report of that id; it remembers the newest of them."""
    with _lock:
        if (site.key, ident) in _seen:
            return True
        _seen[site.key, ident] = None
        while len(_seen) > REMEMBERED:
            _seen.popitem(last=False)
    return False


def _said(status: int) -> Answer:
    return Answer(status, headers=(ANYWHERE,))


def _refused(status: int, reason: str, sentence: str) -> Answer:
    REFUSED.inc(reason=reason)
    return Answer(status, sentence.encode(), headers=(ANYWHERE,))


LANES: Final[dict[str, Lane]] = {
    "/rum/beacon.js": Lane(GET, None, script, summary="The script that reports how a page does."),
    "/rum/<key>": Lane(
        frozenset({"POST"}), None, beacon, summary="Takes what a page reports: web-vitals' reports, views and errors."
    ),
}
