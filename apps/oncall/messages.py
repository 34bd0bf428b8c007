"""From alerts to the words that leave: one message per contact and occasion. Pure: values in, a `Message` out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from typing import Final
from urllib.parse import quote

from apps.core.quantities import quantity, span
from apps.notifications.message import SEVERITIES, Curve, Fact, Item, Message

LISTED: Final = 100
"""Alerts in one message; a flood is a number and a link."""
SHOWN_APART: Final = frozenset({"alertname", "severity", "type", "category", "service"})


@dataclass(frozen=True)
class AlertView:
    """What a message says of one alert; `reason` tells why it ended, `threshold` what its value is held against."""

    key: str
    name: str
    severity: str
    is_firing: bool
    started_at: datetime
    ended_at: datetime | None = None
    message: str = ""
    service: str = ""
    value: float | None = None
    threshold: float | None = None
    comparison: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    runbook: str = ""
    fingerprint: str = ""
    acknowledged_by: str = ""
    resolved_by: str = ""
    reason: str = ""
    unit: str = ""
    incident: int | None = None

    @property
    def title(self) -> str:
        """What is wrong in one line."""
        return self.annotations.get("summary") or self.message or self.name


@dataclass(frozen=True)
class Occasion:
    """Which group is told, why, and where the portal is."""

    group_key: str
    group_labels: Mapping[str, str]
    reason: str
    portal_url: str
    changed: Sequence[str] = ()
    """What was changed shortly before, a line each."""
    now: datetime | None = None
    """When the message is written, for how long it has been going on."""
    curve: Curve | None = None
    """What the value of the first of them did of late."""


def build(
    firing: Sequence[AlertView],
    still: Sequence[AlertView],
    resolved: Sequence[AlertView],
    occasion: Occasion,
    *,
    most: int = LISTED,
) -> Message:
    """Return the message: `firing` is news, `still` was told before, `resolved` has ended; `most` are listed."""
    burning = [*firing, *still]
    listed = [*burning, *resolved]
    if not listed:
        raise ValueError("A message needs an alert.")
    status = "firing" if burning else "resolved"
    severity = max((view.severity for view in burning or listed), key=SEVERITIES.index)
    return Message(
        title=_title(burning, resolved, severity),
        body=_body(firing, still, resolved, most),
        severity=severity,
        status=status,
        url=_url(occasion, listed),
        facts=(("Changed shortly before", "; ".join(occasion.changed)),) if occasion.changed else (),
        alerts=tuple(_item(view, occasion) for view in listed[:most]),
        changes=tuple(occasion.changed),
        links=_links(listed, occasion),
        incident=_incident(listed),
        curve=occasion.curve,
        group_key=occasion.group_key,
        group_labels=dict(occasion.group_labels),
        reason=occasion.reason,
        truncated=max(0, len(listed) - most),
    )


def _title(burning: Sequence[AlertView], resolved: Sequence[AlertView], severity: str) -> str:
    shown = burning or resolved
    mark = severity.upper() if burning else "RESOLVED"
    if len(shown) == 1:
        return f"[{mark}] {shown[0].title}"
    names = list(dict.fromkeys(view.name for view in shown))
    named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"[{mark}] {len(shown)} alerts: {named}"


def _body(firing: Sequence[AlertView], still: Sequence[AlertView], resolved: Sequence[AlertView], most: int) -> str:
    counted = ((firing, "firing"), (still, "still firing"), (resolved, "resolved"))
    parts = [f"{len(views)} {words}" for views, words in counted if views]
    count = len(firing) + len(still) + len(resolved)
    more = f" The first {most} are listed." if count > most else ""
    return f"Alerts: {', '.join(parts)}.{more}"


def _url(occasion: Occasion, listed: Sequence[AlertView]) -> str:
    page = f"{occasion.portal_url}/monitoring/alerts/"
    return f"{page}{listed[0].key}/" if len(listed) == 1 else page


def _incident(listed: Sequence[AlertView]) -> int | None:
    """The incident that all of them are part of."""
    first = listed[0].incident
    return first if all(view.incident == first for view in listed) else None


def _links(listed: Sequence[AlertView], occasion: Occasion) -> tuple[Fact, ...]:
    """Where to look and what to do next; the page itself and the answer have buttons of their own."""
    links: list[Fact] = []
    if (incident := _incident(listed)) is not None:
        links.append((f"Incident #{incident}", f"{occasion.portal_url}/monitoring/incidents/{incident}/"))
    return (*links, *(_links_of(listed[0], occasion) if len(listed) == 1 else ()))


def _links_of(view: AlertView, occasion: Occasion) -> tuple[Fact, ...]:
    links = []
    if view.unit:  # what was posted from outside has no series
        links.append(("Chart", f"{occasion.portal_url}/monitoring/alerts/{view.key}/#panel-alert"))
    if view.is_firing:
        links.append(("Silence", f"{occasion.portal_url}/monitoring/quiet/new/?alert={quote(view.key)}"))
    return tuple(links)


def _finite(number: float | None) -> float | None:
    """JSON has no word for what is no number."""
    return number if number is not None and isfinite(number) else None


def _item(view: AlertView, occasion: Occasion) -> Item:
    return Item(
        title=view.title,
        status="firing" if view.is_firing else "resolved",
        severity=view.severity,
        text=_text(view),
        url=f"{occasion.portal_url}/monitoring/alerts/{view.key}/",
        labels={**view.labels, "severity": view.severity},
        annotations=dict(view.annotations),
        started_at=_rfc3339(view.started_at),
        ended_at="" if view.ended_at is None else _rfc3339(view.ended_at),
        fingerprint=view.fingerprint,
        facts=tuple(_facts(view, occasion.now)),
        name=view.name,
        value=_finite(view.value),
        threshold=_finite(view.threshold),
        comparison=view.comparison,
        unit=view.unit,
        runbook=steps(view.annotations.get("runbook") or view.runbook),
        runbook_url=view.annotations.get("runbook_url", ""),
        links=_links_of(view, occasion),
        acknowledged_by=view.acknowledged_by,
    )


def _text(view: AlertView) -> str:
    description = view.annotations.get("description", "")
    return description if description else view.message if view.message != view.title else ""


def _facts(view: AlertView, now: datetime | None) -> list[Fact]:
    facts: list[Fact] = [("Severity", view.severity)]
    if view.service:
        facts.append(("Service", view.service))
    if view.value is not None:
        threshold = "" if view.threshold is None else quantity(view.threshold, view.unit)
        against = f" (threshold {view.comparison} {threshold})".replace("  ", " ") if threshold else ""
        facts.append(("Value", f"{quantity(view.value, view.unit)}{against}"))
    lasts = "" if now is None or view.ended_at is not None else f", for {span(now - view.started_at)}"
    facts.append(("Since", f"{_people(view.started_at)}{lasts}"))
    if view.ended_at is not None:
        facts.append(("Ended", f"{_people(view.ended_at)}, after {span(view.ended_at - view.started_at)}"))
        if view.reason:
            by = f" by {view.resolved_by}" if view.resolved_by else ""
            facts.append(("Why it ended", f"{view.reason.replace('_', ' ')}{by}"))
    if view.acknowledged_by:
        facts.append(("Acknowledged by", view.acknowledged_by))
    labels = {name: value for name, value in view.labels.items() if name not in SHOWN_APART}
    if labels:
        facts.append(("Labels", ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))))
    facts += [
        (name.replace("_", " ").capitalize(), value)
        for name, value in view.annotations.items()
        if name not in {"summary", "description", "runbook", "runbook_url"} and value
    ]
    link, what_to_do = view.annotations.get("runbook_url", ""), view.annotations.get("runbook") or view.runbook
    if link:
        facts.append(("Runbook", link))
    if what_to_do:
        facts.append(("What to do" if link else "Runbook", steps(what_to_do)))
    return facts


def steps(runbook: str) -> str:
    """Lines of a runbook as an ordered list; one line (a link) and lines that are numbered already stay."""
    lines = [line.strip() for line in runbook.splitlines() if line.strip()]
    if len(lines) < 2 or any(re.match(r"(\d+[.)]|[-*•])\s", line) for line in lines):
        return runbook
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def _people(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
