"""One log record: its fields, how times and levels are read, and what is cut so that it fits. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import orjson

LONGEST_MESSAGE: Final = 16_000
LONGEST_SERVICE: Final = 100
LONGEST_HOST: Final = 200
MOST_ATTRIBUTES: Final = 50
LONGEST_NAME: Final = 100
LONGEST_VALUE: Final = 1_000
UNNAMED: Final = "unknown"
"""The service of a record whose sender names none."""
_LATEST: Final = 253_402_300_799_000
"""The last millisecond that a datetime knows."""


class Level(StrEnum):
    """How bad it is, as Python's logging has it."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


LEVELS: Final = tuple(level.value for level in Level)
_ALIASES: Final[Mapping[str, Level]] = {
    **{level.value: level for level in Level},
    **dict.fromkeys(("trace", "trce", "verbose", "dbug", "d", "fine", "finest"), Level.DEBUG),
    **dict.fromkeys(("information", "informational", "notice", "log", "i", "n", "notset"), Level.INFO),
    **dict.fromkeys(("warn", "w"), Level.WARNING),
    **dict.fromkeys(("err", "eror", "severe", "exception", "e"), Level.ERROR),
    **dict.fromkeys(("crit", "fatal", "alert", "emerg", "emergency", "panic", "c", "f"), Level.CRITICAL),
}
_SYSLOG: Final = (Level.CRITICAL, Level.CRITICAL, Level.CRITICAL, Level.ERROR, Level.WARNING, Level.INFO, Level.INFO,
                  Level.DEBUG)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a log. `at` in ms since 1970; `attributes` is a JSON object of texts, empty where there are none."""

    at: int
    level: str
    service: str
    host: str
    message: str
    attributes: str = ""


def level_of(value: Any) -> Level | None:
    """Read a level: a word of any logging library, Python's number (10 to 50), or syslog's (0 to 7).

    None where it cannot be read.

    >>> level_of("WARN"), level_of(40), level_of(3)
    (<Level.ERROR: 'error'>, <Level.ERROR: 'error'>, <Level.ERROR: 'error'>)
    """
    if isinstance(value, str):
        word = value.strip().lower()
        if not word.isdecimal():
            return _ALIASES.get(word)
        value = int(word[:4])
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    number = int(value)
    if 0 <= number <= 7:
        return _SYSLOG[number]
    for least, level in ((50, Level.CRITICAL), (40, Level.ERROR), (30, Level.WARNING), (20, Level.INFO)):
        if number >= least:
            return level
    return Level.DEBUG if number > 7 else None


LEAST_OF_PINO: Final = 10


def of_pino(number: int) -> Level:
    """Read the number of pino and bunyan, ten more than Python's: 10 trace, 20 debug, 30 info, 40 warn, 50 error.

    >>> of_pino(30), of_pino(60)
    (<Level.INFO: 'info'>, <Level.CRITICAL: 'critical'>)
    """
    for least, level in ((60, Level.CRITICAL), (50, Level.ERROR), (40, Level.WARNING), (30, Level.INFO)):
        if number >= least:
            return level
    return Level.DEBUG


def of_otlp(number: int) -> Level:
    """Read OpenTelemetry's severity number: 1-8 trace and debug, 9 info, 13 warn, 17 error, 21 fatal."""
    for least, level in ((21, Level.CRITICAL), (17, Level.ERROR), (13, Level.WARNING), (9, Level.INFO)):
        if number >= least:
            return level
    return Level.DEBUG if number > 0 else Level.INFO


def moment_of(value: Any) -> int | None:
    """Read a time as ms since 1970: ISO 8601 (without a zone: UTC), or seconds, ms, µs or ns since 1970 by their size.

    None where it cannot be read.

    >>> moment_of("2026-01-05T10:00:00Z"), moment_of(1767607200), moment_of("1767607200000000000")
    (1767607200000, 1767607200000, 1767607200000)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        if text.isdecimal() and text.isascii():
            value = int(text[:20])
        else:
            try:
                found = datetime.fromisoformat(text)
            except ValueError:
                return None
            return _milliseconds(found if found.tzinfo else found.replace(tzinfo=UTC))
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    for least, divisor in ((1e17, 1e6), (1e14, 1e3), (1e11, 1)):
        if value >= least:
            found_ms = int(value // divisor) if isinstance(value, int) else int(value / divisor)
            return found_ms if found_ms <= _LATEST else None
    return int(value * 1000)


def _milliseconds(moment: datetime) -> int | None:
    try:
        return int(moment.timestamp() * 1000)
    except (OverflowError, ValueError, OSError):
        return None


def datetime_of(ms: int) -> datetime:
    """Return a record's time, ms since 1970, as a datetime."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def clean(text: str) -> str:
    """Return the text without what the database or a terminal cannot take: NUL, half surrogate pairs, escape codes,
    and marks that turn the direction of what follows.

    >>> clean("a\\0b\\x1b[31mred\\x1b[0m")
    'a\\ufffdb\\ufffd[31mred\\ufffd[0m'
    """
    if text.isascii():
        return text.translate(_CONTROLS) if not text.isprintable() else text
    return text.encode("utf-8", "replace").decode("utf-8").translate(_CONTROLS)


_CONTROLS: Final = dict.fromkeys(
    (*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"
)
_ONE_LINE: Final = {10: " ", 13: " ", 9: " "}


def cut(text: str, most: int) -> str:
    """Return the text, cut at so many characters with a mark that tells so."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def label(text: str, most: int) -> str:
    """Return a name that can become a label: clean, one line, cut."""
    text = text.strip()
    if text.isprintable() and text.isascii():
        return text[:most]
    return clean(text.translate(_ONE_LINE)).strip()[:most]


def packed(pairs: Iterable[tuple[str, Any]]) -> str:
    """Return attributes as the JSON object that is kept: at most 50, nested ones by dotted names, values as texts."""
    found = flat(pairs)
    return orjson.dumps(found, option=orjson.OPT_SORT_KEYS).decode() if found else ""


def flat(pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Return attributes as they are kept. What many records share goes through here once, whatever its size was."""
    found: dict[str, str] = {}
    for name, value in pairs:
        _flatten(found, str(name), value, 0)
        if len(found) >= MOST_ATTRIBUTES:
            break
    return found


def _flatten(found: dict[str, str], name: str, value: Any, depth: int) -> None:
    if value is None or value == "" or len(found) >= MOST_ATTRIBUTES:
        return
    if isinstance(value, dict) and depth < 3:
        for key, inner in value.items():
            _flatten(found, f"{name}.{key}" if name else str(key), inner, depth + 1)
        return
    found[label(name, LONGEST_NAME) or "?"] = cut(clean(as_text(value)[: LONGEST_VALUE + 1]), LONGEST_VALUE)


def as_text(value: Any) -> str:
    """Return a value of JSON as a text; where it is nested deeper than can be written (254), a word that says so."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if value is None:
        return ""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str).decode()
    except orjson.JSONEncodeError:
        return "[nested too deeply]"


def record_of(
    *, at: int, level: str, service: str, host: str, message: str, attributes: Iterable[tuple[str, Any]] = ()
) -> Record:
    """Make a record of what was read, cut and cleaned."""
    return Record(
        at,
        level,
        label(service, LONGEST_SERVICE) or UNNAMED,
        label(host, LONGEST_HOST),
        cut(clean(message[: LONGEST_MESSAGE + 1].rstrip()), LONGEST_MESSAGE),
        packed(attributes),
    )
