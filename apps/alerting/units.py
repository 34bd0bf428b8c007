"""In which unit an expression's values are, guessed from the names in it. Pure."""

import re
from typing import Final

UNITS: Final = (
    (re.compile(r"responseTime\b|_milliseconds|\b1000 \*"), "ms"),
    (
        re.compile(r"errorRate|memoryUsage|memoryPercentage|cpuUsage|diskUsage|dbConnections|\b100 ?\*|percent"),
        "percent",
    ),
    (re.compile(r"throughput"), "req/s"),
    (re.compile(r"^(?!.*(\brate\(|/ ?(3600|86400)\b)).*_bytes\b"), "bytes"),
    (re.compile(r"\brate\(.*_bytes(_total)?\b"), "bytes/s"),
    (re.compile(r"^(?!.*(\brate\(|/ ?(3600|86400)\b)).*_seconds\b"), "seconds"),
)


def unit_of(expression: str) -> str:
    """Guess the unit of an expression from the names in it (DESIGN §3: units stand in metric names)."""
    return next((unit for pattern, unit in UNITS if pattern.search(expression)), "count")
