"""What a browser tells of a page, made fit for labels. Pure: texts in, values out.

Thresholds: https://web.dev/articles/vitals (good, poor); report of web-vitals: https://github.com/GoogleChrome/web-vitals
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

MOST_REPORTS: Final = 50
"""Reports in one beacon; those beyond are left out and counted."""
LONGEST_ROUTE: Final = 120
MOST_PARTS: Final = 8
ID: Final = re.compile(r"\d+|[0-9a-f]{8,}|[0-9a-f]{8}-[0-9a-f-]{27}|[^/]*\d[^/]{11,}|.*[%@:=].*", re.IGNORECASE)
"""Parts of a path that name one thing, not a kind of page: numbers, digests, UUIDs, long ones with digits, odd ones."""
BOT: Final = re.compile(r"bot\b|crawl|spider|slurp|headless|lighthouse|preview", re.IGNORECASE)
PHONE: Final = re.compile(r"iphone|ipod|android.*mobile|mobile.*firefox|windows phone", re.IGNORECASE)
TABLET: Final = re.compile(r"ipad|android|tablet|kindle|silk", re.IGNORECASE)


@dataclass(frozen=True)
class Vital:
    """A web vital: the unit of its series, what a report's value is divided by, its good and poor limits, its most."""

    unit: str
    divisor: float
    good: float
    poor: float
    most: float


VITALS: Final = {
    "LCP": Vital("seconds", 1000, 2.5, 4.0, 120),
    "INP": Vital("seconds", 1000, 0.2, 0.5, 60),
    "CLS": Vital("ratio", 1, 0.1, 0.25, 100),
    "FCP": Vital("seconds", 1000, 1.8, 3.0, 120),
    "TTFB": Vital("seconds", 1000, 0.8, 1.8, 120),
}


@dataclass(frozen=True)
class Report:
    """One thing that a page reported: a vital with its value in the unit of its series, `view` or `error`."""

    name: str
    value: float
    route: str
    ident: str


class Unreadable(ValueError):
    """The beacon is no report."""


def reports(body: bytes, referrer: str) -> tuple[list[Report], int]:
    """Read a beacon: one report of web-vitals or a list of them; return (those that count, how many do not).

    `referrer` is the page where a report names none. Raises Unreadable.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Unreadable("The body is no JSON.") from None
    listed = found if isinstance(found, list) else [found]
    good = list(_good(listed[:MOST_REPORTS], referrer))
    return good, len(listed) - len(good)


def _good(listed: list[Any], referrer: str) -> Iterator[Report]:
    for one in listed:
        if not isinstance(one, dict):
            continue
        name, value, ident = one.get("name"), one.get("value", 0), one.get("id", "")
        page = one.get("navigationURL") or one.get("url") or referrer
        if not isinstance(name, str) or not isinstance(page, str) or not isinstance(ident, str):
            continue
        if name in ("view", "error"):
            yield Report(name, 1.0, route_of(page), ident[:100])
            continue
        vital = VITALS.get(name)
        if vital is None or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        measured = value / vital.divisor
        if 0 <= measured <= vital.most:
            yield Report(name, measured, route_of(page), ident[:100])


def route_of(page: str) -> str:
    """Return the kind of page that an address is of: without host, question and whatever names one thing.

    >>> route_of("https://shop.example/orders/4711/items?token=x#top")
    '/orders/:id/items'
    """
    try:
        path = urlsplit(page).path
    except ValueError:
        return "other"
    parts = [part for part in path.split("/") if part]
    kept = [":id" if ID.fullmatch(part) else part for part in parts[:MOST_PARTS]]
    route = "/" + "/".join(kept) + ("/…" if len(parts) > MOST_PARTS else "")
    return route if len(route) <= LONGEST_ROUTE and route.isprintable() else "other"


def device_of(agent: str) -> str:
    """Return desktop, phone, tablet or bot, by what the browser says that it is."""
    if not agent or BOT.search(agent):
        return "bot"
    if PHONE.search(agent):
        return "phone"
    return "tablet" if TABLET.search(agent) else "desktop"


def is_allowed(origin: str, allowed: list[str]) -> bool:
    """Whether a page of that origin may report to the site: its list names origins, such as https://shop.example."""
    return origin in allowed
