"""What is told, without a word about how or to whom: a message and the findings it lists. Pure values."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

SEVERITIES: Final = ("info", "warning", "error", "critical")
STATUSES: Final = ("firing", "resolved", "test", "reminder", "update")
COLOURS: Final = {"info": "#2f6fde", "warning": "#d99a00", "error": "#e0562b", "critical": "#c4122f"}
RESOLVED: Final = "#1f9d55"
Fact = tuple[str, str]


@dataclass(frozen=True)
class Curve:
    """What a finding's value did of late, for channels that draw: `values` at start, start + step, … (epoch seconds).

    None is a gap. `since` is when it began, 0 where that is not on the curve.
    """

    title: str
    start: int
    step: int
    values: tuple[float | None, ...]
    unit: str = ""
    threshold: float | None = None
    comparison: str = ""
    since: int = 0


@dataclass(frozen=True)
class Item:
    """One finding in a message. Times are RFC 3339 texts in UTC; `ended_at` is empty while it lasts.

    `value` and `threshold` are finite numbers in `unit` (see `core.quantities`); `links` are pages, by their names.
    """

    title: str
    status: str
    severity: str
    text: str = ""
    url: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    started_at: str = ""
    ended_at: str = ""
    fingerprint: str = ""
    facts: tuple[Fact, ...] = ()
    name: str = ""
    value: float | None = None
    threshold: float | None = None
    comparison: str = ""
    unit: str = ""
    runbook: str = ""
    runbook_url: str = ""
    links: tuple[Fact, ...] = ()
    acknowledged_by: str = ""


@dataclass(frozen=True)
class Message:
    """A message as every channel gets it. `group_key` stays the same from the first firing to the last resolved.

    `answer_url` leads to the page where it is acknowledged, escalated, silenced or resolved without a log-in.
    `truncated` counts the alerts that are not listed, `changes` says what was changed shortly before, a line each.
    `document` is what a template of people's own puts in place of the channel's own HTML or JSON. An `update` is no
    news: it goes only to channels that rewrite what they said (`earlier`, by the provider's id). `code` names the
    message where somebody answers in words, and `receipt_url` is where the provider tells what became of it. The sender
    fills in the last four.
    """

    title: str
    body: str
    severity: str = "info"
    status: str = "firing"
    url: str = ""
    facts: tuple[Fact, ...] = ()
    alerts: tuple[Item, ...] = ()
    group_key: str = ""
    group_labels: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    truncated: int = 0
    answer_url: str = ""
    changes: tuple[str, ...] = ()
    links: tuple[Fact, ...] = ()
    incident: int | None = None
    curve: Curve | None = None
    document: str = ""
    receipt_url: str = ""
    code: str = ""
    earlier: str = ""

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"{self.severity!r} is no severity; there are {', '.join(SEVERITIES)}.")
        if self.status not in STATUSES:
            raise ValueError(f"{self.status!r} is no status; there are {', '.join(STATUSES)}.")

    @property
    def colour(self) -> str:
        """The colour of its severity, or of good news, as #rrggbb."""
        return RESOLVED if self.status == "resolved" else COLOURS[self.severity]

    def identity(self, key: uuid.UUID) -> str:
        """Return what receivers fold messages by: the group, the same from first firing to end, or else `key`."""
        return hashlib.sha256(self.group_key.encode()).hexdigest() if self.group_key else str(key)

    def to_json(self) -> dict[str, Any]:
        """Return what the outbox keeps."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Message":
        """Return the message that `to_json` wrote; fields of a later release are ignored."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        known["facts"] = _facts(known.get("facts", ()))
        known["alerts"] = tuple(_item(item) for item in known.get("alerts", ()))
        known["links"] = _facts(known.get("links", ()))
        known["changes"] = tuple(map(str, known.get("changes", ())))
        known["curve"] = _curve(curve) if (curve := known.get("curve")) else None
        return cls(**known)


def _facts(pairs: Any) -> tuple[Fact, ...]:
    return tuple((str(name), str(value)) for name, value in pairs)


def _item(data: Mapping[str, Any]) -> Item:
    known = {name: data[name] for name in Item.__dataclass_fields__ if name in data}
    known["facts"] = _facts(known.get("facts", ()))
    known["links"] = _facts(known.get("links", ()))
    return Item(**known)


def _curve(data: Mapping[str, Any]) -> Curve:
    known = {name: data[name] for name in Curve.__dataclass_fields__ if name in data}
    known["values"] = tuple(known["values"])
    return Curve(**known)
