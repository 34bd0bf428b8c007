"""Sentences of timelines: what a transition or an audit entry says to a person. Values in, words out."""

from typing import Any

from django.db.models import Case, IntegerField, Value, When

from apps.alerting.changes import Happening
from apps.alerting.models import Transition

Row = dict[str, Any]

FIRING_FIRST = Case(
    When(severity="critical", then=Value(0)),
    When(severity="error", then=Value(1)),
    When(severity="warning", then=Value(2)),
    default=Value(3),
    output_field=IntegerField(),
)
"""Orders alerts by how bad they are."""

REASONS = {
    "value": "",
    "no_data": "the series gave no data",
    "missing_series": "the series is gone",
    "manual": "by hand",
    "posted": "posted from outside",
    "expired": "nobody repeated it",
    "restart": "evaluation was away for a while",
    "rule": "the rule was changed",
}


def changed(one: Happening) -> Row:
    """Return a change as charts draw it."""
    return {"at": one.at.timestamp(), "kind": one.kind, "title": one.line}


def change_entry(one: Happening) -> Row:
    """Return a change as timelines show it."""
    text = ", ".join(part for part in (one.service, f"by {one.by}" if one.by else "") if part)
    return {
        "at": one.at.isoformat(),
        "icon": "admin" if one.kind == "configuration" else "send",
        "tone": "quiet",
        "title": one.title,
        "text": text,
        "url": one.link,
    }


def transition_entry(row: Transition, name: str, url: str) -> Row:
    """Return a transition as timelines show it; with `name` the sentence says which alert it is of."""
    title, icon, tone = _title(row)
    parts = [REASONS.get(row.reason, row.reason), row.detail]
    if not row.by.startswith(("alerting.", "oncall.")) and row.by and row.reason in ("manual",):
        parts.append(f"by {row.by}" if row.kind == "state" else "")
    text = ", ".join(part for part in dict.fromkeys(parts) if part and not (part == "by hand" and row.by))
    return {
        "at": row.at.isoformat(),
        "icon": icon,
        "tone": tone,
        "title": f"{name}: {title}" if name else title[:1].upper() + title[1:],
        "text": text,
        "url": url,
    }


def _title(row: Transition) -> tuple[str, str, str]:
    if row.kind == "acknowledged":
        return f"acknowledged by {row.by}", "check", "info"
    if row.kind == "unacknowledged":
        return f"acknowledgement withdrawn by {row.by}", "pending", "warning"
    if row.kind == "moved":
        return f"moved from incident #{row.before} to #{row.after}", "recovering", "quiet"
    if row.kind == "reminder":
        return "still firing, contacts are reminded", "clock", row.severity
    if row.kind == "severity":
        return f"{row.before or 'new'} became {row.after}", row.after or row.severity, row.after or row.severity
    return {
        "firing": (
            f"{row.severity} fired" if row.before != "recovering" else f"{row.severity} again",
            row.severity,
            row.severity,
        ),
        "recovering": ("recovering", "recovering", "quiet"),
        "resolved": ("resolved", "ok", "ok"),
        "pending": ("pending", "pending", "quiet"),
        "inactive": ("back to normal before it fired", "ok", "quiet"),
    }.get(row.after, (f"{row.before} → {row.after}", "info", "quiet"))


def audit_title(verb: str, label: str) -> str:
    """Write "accounts.issue_token" of "agent" as "issue token: agent"."""
    action = verb.rpartition(".")[2].replace("_", " ")
    return f"{action}: {label}" if label else action
