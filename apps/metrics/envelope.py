"""Prometheus' HTTP API as such: its envelope, its kinds of errors with their status, and how it reads parameters.

Nothing here knows who asks or where numbers come from. Source: prometheus.io/docs/prometheus/latest/querying/api, and
a real Prometheus asked side by side.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Final

import orjson

from apps.core.lanes import JSON, Answer, Request
from apps.promql.ast import Selector
from apps.promql.errors import ConstantError, ParseError, PromQLError
from apps.promql.parser import parse
from apps.promql.source import Matcher
from apps.promql.text import printable, quote

STATUS: Final = {
    "bad_data": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "not_allowed": 405,
    "too_large": 413,
    "execution": 422,
    "too_many_requests": 429,
    "canceled": 499,
    "internal": 500,
    "unavailable": 503,
    "timeout": 503,
}
"""HTTP status by errorType; those that Prometheus lacks are refusals that it leaves to a proxy."""
_KIND: Final = {400: "bad_data", 503: "unavailable"} | {
    status: kind for kind, status in STATUS.items() if status not in (400, 503)
}
TRUNCATED: Final = "results truncated due to limit"
_LONGEST: Final = float(2**63)
"""Nanoseconds that Go's durations end before."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC)


class ApiError(Exception):
    """A request that is answered by an error of that kind (a key of STATUS)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def invalid(name: str, why: str) -> ApiError:
    """Return the error for a parameter's value."""
    return ApiError("bad_data", f"invalid parameter {quote(name)}: {why}")


# --- Answers --------------------------------------------------------------------------------------------------------


def success(data: Any, *, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> Answer:
    """Return an answer whose data is small: anything that orjson takes."""
    return Answer(200, b'{"status":"success","data":' + orjson.dumps(data) + _remarks(warnings, infos) + b"}", JSON)


def streamed(data: Iterator[bytes], *, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> Answer:
    """Return an answer whose data is JSON in slices."""

    def slices() -> Iterator[bytes]:
        yield b'{"status":"success","data":'
        yield from data
        yield _remarks(warnings, infos) + b"}"

    return Answer(200, content_type=JSON, slices=slices())


def _remarks(warnings: Sequence[str], infos: Sequence[str]) -> bytes:
    said = b""
    for name, texts in ((b"warnings", warnings), (b"infos", infos)):
        if texts:
            said += b',"' + name + b'":' + orjson.dumps(list(texts))
    return said


def failure(kind: str, message: str) -> Answer:
    """Return an error; `kind` is a key of STATUS."""
    body = {"status": "error", "errorType": kind, "error": printable(message)}
    return Answer(STATUS[kind], orjson.dumps(body), JSON)


def refuse(status: int, sentence: str) -> Answer:
    """Return a refusal of the fast lane in the envelope."""
    return failure(_KIND.get(status, "internal"), sentence)


Serve = Callable[[Any, Request], Answer]


def enveloped(serve: Serve) -> Serve:
    """Answer what the engine and the parameters raise as an error in the envelope."""

    @wraps(serve)
    def served(by: Any, request: Request) -> Answer:
        try:
            return serve(by, request)
        except ApiError as error:
            return failure(error.kind, error.message)
        except ConstantError as error:
            return failure(error.kind, error.message)
        except ParseError as error:
            return failure("bad_data", f'invalid parameter "query": {error}')
        except PromQLError as error:
            return failure(error.kind, str(error))

    return served


NEVER: Final = "0001-01-01T00:00:00Z"


def rfc3339(at: datetime | None) -> str:
    """Return a time as Go writes it; NEVER for none.

    >>> rfc3339(datetime(2026, 1, 1, microsecond=500, tzinfo=UTC)), rfc3339(None)
    ('2026-01-01T00:00:00.0005Z', '0001-01-01T00:00:00Z')
    """
    if at is None:
        return NEVER
    text = at.astimezone(UTC).isoformat().removesuffix("+00:00")
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}Z"


# --- Parameters -----------------------------------------------------------------------------------------------------

# Digits stand in one place of each alternative: with \d+\.?\d* what is no number takes the square of its length.
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII
)
_UNITS: Final = {
    "y": 31_536_000_000,
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
_LONGEST_TEXT: Final = 1_000
"""Characters of a duration in units; int() reads no more than 4,300 digits."""
_DURATION: Final = re.compile("".join(rf"(?:(\d+){unit})?" for unit in _UNITS) + r"\Z", re.ASCII)


def _number(text: str) -> float | None:
    return float(text) if text.isascii() and _NUMBER.match(text) else None


def moment(text: str) -> datetime:
    """Read seconds since 1970 or RFC 3339, to the millisecond. Raises ValueError in Prometheus' words.

    >>> moment("1.0005").isoformat(), moment("2026-01-01T00:00:00.1+01:00").isoformat()
    ('1970-01-01T00:00:01.001000+00:00', '2025-12-31T23:00:00.100000+00:00')
    """
    wrong = f"cannot parse {quote(text)} to a valid timestamp"
    seconds = _number(text)
    try:
        if seconds is not None:
            found = _EPOCH + timedelta(milliseconds=math.floor(seconds * 1000 + 0.5))
        elif (parts := _RFC3339.match(text)) is not None:
            zone = parts[8].upper().replace("Z", "+00:00")
            fraction = ((parts[7] or "") + "000")[:3]
            found = datetime.fromisoformat(
                f"{parts[1]}-{parts[2]}-{parts[3]}T{parts[4]}:{parts[5]}:{parts[6]}.{fraction}{zone}"
            ).astimezone(UTC)
        else:
            raise ValueError(wrong)
    except OverflowError:
        raise ValueError(f"{wrong}: it is outside of the years 1 to 9999") from None
    except ValueError:
        raise ValueError(wrong) from None
    if not EARLIEST <= found <= LATEST:
        raise ValueError(f"{wrong}: it is outside of the years 1 to 9999")
    return found


def duration(text: str) -> timedelta:
    """Read seconds or Prometheus' units (1h30m), to the millisecond. Raises ValueError in Prometheus' words."""
    seconds = _number(text)
    if seconds is not None:
        if abs(seconds) * 1e9 >= _LONGEST:
            raise ValueError(f"cannot parse {quote(text)} to a valid duration. It overflows int64")
        return timedelta(milliseconds=math.trunc(round(seconds * 1000, 6)))
    found = _DURATION.match(text) if text and len(text) <= _LONGEST_TEXT else None
    if found is None:
        raise ValueError(f"cannot parse {quote(text)} to a valid duration")
    ms = sum(int(count) * size for count, size in zip(found.groups(), _UNITS.values(), strict=True) if count)
    if ms * 1_000_000 >= _LONGEST:
        raise ValueError(f"cannot parse {quote(text)} to a valid duration")
    return timedelta(milliseconds=ms)


def time_of(request: Request, name: str, default: datetime | None) -> datetime | None:
    """Read an optional time. Raises ApiError."""
    text = request.one(name)
    if not text:
        return default
    try:
        return moment(text)
    except ValueError as error:
        raise invalid(name, f"Invalid time value for '{name}': {error}") from None


def needed_time(request: Request, name: str) -> datetime:
    """Read a time that must be there. Raises ApiError."""
    try:
        return moment(request.one(name))
    except ValueError as error:
        raise invalid(name, str(error)) from None


def needed_duration(request: Request, name: str) -> timedelta:
    """Read a duration that must be there. Raises ApiError."""
    try:
        return duration(request.one(name))
    except ValueError as error:
        raise invalid(name, str(error)) from None


def whole_number(request: Request, name: str, default: int) -> int:
    """Read a whole number with sign. Raises ApiError in the words of Prometheus' older parameters."""
    text = request.one(name)
    if not text:
        return default
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ApiError("bad_data", f"{name} must be a number")
    return int(text)


def limit_of(request: Request) -> int:
    """Read `limit`: how many rows at most, 0 for all. Raises ApiError."""
    text = request.one("limit")
    if text and not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise invalid("limit", f"strconv.Atoi: parsing {quote(text)}: invalid syntax")
    limit = int(text or 0)
    if limit < 0:
        raise invalid("limit", "limit must be non-negative")
    return limit


def matchers_of(text: str, *, parameter: str) -> tuple[Matcher, ...]:
    """Read a selector such as up{job="api"}. Raises ApiError."""
    try:
        expr = parse(text)
    except ParseError as error:
        raise invalid(parameter, str(error)) from None
    if not isinstance(expr, Selector) or expr.offset or expr.at is not None:
        raise invalid(parameter, "1:1: parse error: a metric selector is expected, without modifiers and functions")
    return expr.matchers


def selectors_of(request: Request) -> list[tuple[Matcher, ...]]:
    """Read `match[]`: selectors each of which demands something. Raises ApiError."""
    found = [matchers_of(text, parameter="match[]") for text in request.every("match[]")]
    try:
        asks_nothing = any(all(matcher.matches("") for matcher in matchers) for matchers in found)
    except PromQLError as error:
        raise invalid("match[]", str(error)) from None
    if asks_nothing:
        raise invalid("match[]", "match[] must contain at least one non-empty matcher")
    return found
