"""Who pushes what: read from the portal's own counters, by token and protocol."""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from apps.accounts.permissions import Scope
from apps.metrics import query
from apps.metrics.samples import REASONS

PROTOCOLS: Final = {
    "remote_write": "Remote write 1.0",
    "remote_write_2": "Remote write 2.0",
    "otlp": "OTLP",
    "pushgateway": "Pushgateway",
    "json": "JSON",
    "statsd": "StatsD",
    "logs": "Logs",
    "loki": "Logs (Loki)",
    "otlp_logs": "Logs (OTLP)",
}
"""Protocols by the word that counters carry."""
PEOPLE: Final = {"user": "people", "system": "anybody (UDP has no tokens)", "anonymous": "nobody by name"}
"""Who sends where it is no token."""
_BY: Final = "by (protocol, token)"
_RATE: Final = f"sum {_BY} (rate(portal_push_%s_total[5m]))"
_DAY: Final = "sum by (protocol, token, %s) (increase(portal_push_%s_total[1d]))"
_LAST: Final = f"max {_BY} (max_over_time(portal_push_last_timestamp_seconds[7d]))"


@dataclass(slots=True)
class Sender:
    """One token (or whoever it is) by one protocol: a second's figures are means of five minutes, counts of a day."""

    token: str
    protocol: str
    samples: float = 0.0
    bytes: float = 0.0
    requests: float = 0.0
    last: datetime | None = None
    refused: dict[str, float] = field(default_factory=dict)
    codes: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return PEOPLE.get(self.token, self.token)

    @property
    def protocol_name(self) -> str:
        return PROTOCOLS.get(self.protocol, self.protocol)

    @property
    def is_refused(self) -> bool:
        """Whether anything was refused within a day."""
        return bool(self.refused) or any(code >= "400" for code in self.codes if code.isdecimal())

    @property
    def reasons(self) -> list[tuple[int, str]]:
        """How many were refused and why in words, most first."""
        found = sorted(self.refused.items(), key=lambda pair: -pair[1])
        return [(round(count), REASONS.get(reason, reason)) for reason, count in found]


def senders(*, scope: Scope, now: datetime) -> list[Sender]:
    """All that were heard within a week, latest first."""
    found: dict[tuple[str, str], Sender] = {}

    def ask(expression: str) -> list[tuple[Sender, dict[str, str], float]]:
        answer = query.instant(expression, at=now, scope=scope)
        rows = []
        for labels, value in zip(answer.labels.dicts(), answer.v[:, 0].tolist(), strict=True):
            key = labels.get("token", ""), labels.get("protocol", "")
            if math.isfinite(value):
                rows.append((found.setdefault(key, Sender(*key)), labels, value))
        return rows

    for sender, _, value in ask(_LAST):
        sender.last = datetime.fromtimestamp(value, tz=UTC) if value > 0 else None
    for name in ("samples", "bytes", "requests"):
        for sender, _, value in ask(_RATE % name):
            setattr(sender, name, value)
    for sender, labels, value in ask(_DAY % ("reason", "refused")):
        if value >= 0.5:
            sender.refused[labels.get("reason", "")] = value
    for sender, labels, value in ask(_DAY % ("code", "requests")):
        if value >= 0.5:
            sender.codes[labels.get("code", "")] = value
    never = datetime.fromtimestamp(0, tz=UTC)
    return sorted(found.values(), key=lambda one: (one.last or never, one.samples), reverse=True)
