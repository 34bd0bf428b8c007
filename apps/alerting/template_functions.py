"""The functions of alert templates: Prometheus' own and Go's built-in ones, on plain Python values.

Go's int, float64, string and bool are Python's; a map of labels is a dict, a query's result a list of `Sample`.
Behaviour follows Prometheus' template package and Go's text/template and fmt, with the texts that people meet there.
"""

import html as html_escape
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import quote_plus

from apps.promql.errors import QueryError
from apps.promql.source import compiled

Value = Any
"""What a template handles: str, int, float, bool, None, dict, list, Sample, datetime or timedelta."""


class TemplateError(Exception):
    """The template cannot be expanded; the text says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of a query's result, with the names that templates use."""

    Labels: dict[str, str] = field(default_factory=dict)
    Value: float = 0.0


MAX_WIDTH: Final = 1000
"""Columns that one printf verb may fill."""
MAX_REPLACED: Final = 10_000
"""Characters of a text in which patterns are replaced, for each place may be searched to the end; and a hundredth of
what may come out."""


# --- How Go writes values ---------------------------------------------------------------------------------------


def number(value: float) -> str:
    """A float as Go's %v writes it: the fewest digits that read back the same, an exponent from 1e+06 on."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    negative, digit_tuple, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, digit_tuple))
    point = len(digits) + int(exponent)
    sign = "-" if negative else ""
    if not -4 <= point - 1 < 6:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{point - 1:+03d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    return f"{sign}{digits[:point]}.{digits[point:]}"


def four_digits(value: float) -> str:
    """A float as Go's %.4g writes it."""
    return f"{value:.4g}" if math.isfinite(value) else number(value)


def written(value: Value) -> str:
    """A value as Go's %v writes it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{written(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(written, value)) + "]"
    if isinstance(value, Sample):
        return f"{{{written(value.Labels)} {written(value.Value)}}}"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, timedelta):
        return span(value)
    return str(value)


def moment(value: datetime) -> str:
    """A time as Go's Time.String writes it, in UTC."""
    fraction = f".{value.microsecond:06d}".rstrip("0") if value.microsecond else ""
    return f"{value:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"


def span(value: timedelta) -> str:
    """A duration as Go's Duration.String writes it."""
    seconds = value.total_seconds()
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds == 0:
        return "0s"
    if seconds < 1:
        return f"{sign}{number(seconds * 1000)}ms" if seconds >= 0.001 else f"{sign}{number(seconds * 1e6)}µs"
    minutes, rest = divmod(round(seconds, 6), 60)
    hours, minutes = divmod(int(minutes), 60)
    tail = f"{number(round(rest, 6))}s"
    return sign + (f"{hours}h{minutes}m{tail}" if hours else f"{minutes}m{tail}" if minutes else tail)


def type_name(value: Value) -> str:
    """Go's name of a value's type, for error texts."""
    names = {str: "string", bool: "bool", int: "int", float: "float64", type(None): "nil", Sample: "*template.sample"}
    names |= {dict: "map[string]string", list: "template.queryResult", datetime: "*time.Time"}
    return names.get(type(value), type(value).__name__)


def truth(value: Value) -> bool:
    """Go's idea of a value that is not empty."""
    return True if isinstance(value, Sample | datetime) else bool(value)


# --- Conversions ------------------------------------------------------------------------------------------------


def to_float(value: Value) -> float:
    """Convert what the humanize functions take."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TemplateError(f"can't convert {type_name(value)} to float")
    try:
        if isinstance(value, str) and value != value.strip():
            raise ValueError
        return float(value)
    except (ValueError, OverflowError):
        raise TemplateError(f'strconv.ParseFloat: parsing "{value}": invalid syntax') from None


def to_text(value: Value) -> str:
    """Refuse anything but a string, as Go's reflection does."""
    if not isinstance(value, str):
        raise TemplateError(f"wrong type for value; expected string; got {type_name(value)}")
    return value


def _list(value: Value) -> list[Value]:
    if not isinstance(value, list):
        raise TemplateError(f"wrong type for value; expected template.queryResult; got {type_name(value)}")
    return value


def _sample(value: Value) -> Sample:
    if not isinstance(value, Sample):
        raise TemplateError(f"wrong type for value; expected *template.sample; got {type_name(value)}")
    return value


# --- Prometheus' functions --------------------------------------------------------------------------------------


def _scaled(value: float, up: str, down: str, base: float, suffix: str = "") -> str:
    prefix = ""
    if abs(value) >= 1:
        for letter in up:
            if abs(value) < base:
                break
            prefix, value = letter + suffix, value / base
    else:
        for letter in down:
            if abs(value) >= 1:
                break
            prefix, value = letter, value * base
    return four_digits(value) + prefix


def humanize(value: Value) -> str:
    """1234567 is 1.235M, 0.12 is 120m."""
    v = to_float(value)
    return four_digits(v) if v == 0 or not math.isfinite(v) else _scaled(v, "kMGTPEZY", "munpfazy", 1000.0)


def humanize1024(value: Value) -> str:
    """1048576 is 1Mi."""
    v = to_float(value)
    return four_digits(v) if abs(v) <= 1 or not math.isfinite(v) else _scaled(v, "kMGTPEZY", "", 1024.0, "i")


def humanize_duration(value: Value) -> str:
    """Seconds as 1d 1h 0m 0s, below one second as 120ms."""
    v = to_float(value)
    if not math.isfinite(v):
        return four_digits(v)
    if v == 0:
        return "0s"
    if abs(v) < 1:
        return _scaled(v, "", "munpfazy", 1000.0) + "s"
    sign, v = ("-", -v) if v < 0 else ("", v)
    minutes, seconds = divmod(int(v), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds}s"
    return f"{sign}{minutes}m {seconds}s" if minutes else f"{sign}{four_digits(v)}s"


def humanize_percentage(value: Value) -> str:
    """0.1234567 is 12.35%."""
    return four_digits(to_float(value) * 100) + "%"


def to_time(value: Value) -> datetime:
    """Unix seconds as a time."""
    v = to_float(value)
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=round(v * 1000))
    except (OverflowError, ValueError):
        raise TemplateError(f"{number(v)} cannot be represented as a time") from None


def humanize_timestamp(value: Value) -> str:
    """Unix seconds as 2015-06-23 13:19:44.128 +0000 UTC."""
    v = to_float(value)
    return moment(to_time(v)) if math.isfinite(v) else four_digits(v)


def first(result: Value) -> Sample:
    """The first series of a query's result."""
    found = _list(result)
    if not found:
        raise TemplateError("first() called on vector with no elements")
    return _sample(found[0])


def sort_by_label(label: Value, result: Value) -> list[Value]:
    """A query's result in the order of one label."""
    return sorted(_list(result), key=lambda sample: _sample(sample).Labels.get(to_text(label), ""))


def size(value: Value, most: int) -> int:
    """Return how much a value holds, texts by the character; what is in it twice counts twice. Stops beyond `most`."""
    if isinstance(value, str | list):  # lists hold samples of the store, which are there already
        return len(value)
    total = 1
    if isinstance(value, dict):
        for part in value.values():
            total += size(part, most - total)
            if total > most:
                break
    return total


def _regex(pattern: Value) -> Any:
    try:
        return compiled(to_text(pattern))
    except QueryError as error:
        raise TemplateError(str(error)) from None


_GO_GROUP: Final = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))")


def replace_all(pattern: Value, replacement: Value, text: Value) -> str:
    """Replace every match; $1 and ${name} stand for groups."""
    program, into, rest, out, at = _regex(pattern), to_text(replacement), to_text(text), [], 0
    if len(rest) > MAX_REPLACED or (len(rest) + 1) * len(into) > 100 * MAX_REPLACED:
        raise TemplateError(f"a text of {len(rest)} and a replacement of {len(into)} characters are too long")
    while at <= len(rest) and (match := program.search(rest[at:])) is not None:

        def group(found: re.Match[str], match: Any = match) -> str:
            name = found.group(1) or found.group(2)
            if name is None:
                return "$"
            try:
                return match.group(int(name) if name.isdigit() else name) or ""
            except (IndexError, KeyError, LookupError, ValueError):
                return ""

        start, end = at + match.start(), at + match.end()
        out += [rest[at:start], _GO_GROUP.sub(group, into)]
        if end == start:
            out.append(rest[start : start + 1])
            end += 1
        at = end
    return "".join(out) + rest[at:]


def _host(address: str) -> tuple[str, str] | None:
    """(host, port) of an address that has both, as Go's net.SplitHostPort."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\]:([^:\[\]]*)", address)
    plain = re.fullmatch(r"([^:\[\]]*):([^:\[\]]*)", address)
    found = bracketed or plain
    return None if found is None else (found.group(1), found.group(2))


def strip_port(address: Value) -> str:
    """foo.example.com:12345 is foo.example.com."""
    split = _host(to_text(address))
    return split[0] if split else to_text(address)


def strip_domain(address: Value) -> str:
    """foo.example.com:12345 is foo:12345; addresses stay."""
    text = to_text(address)
    split = _host(text)
    host = split[0] if split else text
    try:
        ip_address(host)
        return text
    except ValueError:
        pass
    return host.split(".")[0] + (f":{split[1]}" if split else "")


_DURATION: Final = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")


def parse_duration(text: Value) -> float:
    """1h2m10ms is 3720.01 (seconds)."""
    found = _DURATION.fullmatch(to_text(text))
    if found is None or not any(found.groups()):
        raise TemplateError(f"not a valid duration string: {json.dumps(text)}")
    units = (31_536_000, 604_800, 86_400, 3_600, 60, 1, 0.001)
    return float(sum(int(part or 0) * unit for part, unit in zip(found.groups(), units, strict=True)))


# --- Go's built-in functions ------------------------------------------------------------------------------------


def _kind(value: Value) -> str:
    for types, kind in ((bool, "bool"), (int, "int"), (float, "float"), (str, "string")):
        if isinstance(value, types):
            return kind
    raise TemplateError("invalid type for comparison")


def equal(one: Value, *others: Value) -> bool:
    """Whether the first equals any of the others; an int is not comparable to a float, as in Go."""
    if not others:
        raise TemplateError("missing argument for comparison")
    if any(_kind(one) != _kind(other) for other in others):
        raise TemplateError("incompatible types for comparison")
    return any(one == other for other in others)


def less(one: Value, other: Value) -> bool:
    """Order of two values of one type."""
    if _kind(one) != _kind(other):
        raise TemplateError("incompatible types for comparison")
    if isinstance(one, bool):
        raise TemplateError("invalid type for comparison")
    return bool(one < other)


def index(thing: Value, *keys: Value) -> Value:
    """An entry of a map or a list; a missing label is the empty string."""
    for key in keys:
        if isinstance(thing, dict):
            thing = thing.get(to_text(key), "")
        elif isinstance(thing, list | str) and isinstance(key, int) and not isinstance(key, bool):
            if not 0 <= key < len(thing):
                raise TemplateError(f"index out of range: {key}")
            thing = thing[key]
        else:
            raise TemplateError(f"can't index item of type {type_name(thing)}")
    return thing


def _slice(thing: Value, *bounds: Value) -> Value:
    if not isinstance(thing, list | str) or len(bounds) > 2 or not all(isinstance(b, int) for b in bounds):
        raise TemplateError(f"can't slice item of type {type_name(thing)}")
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(thing)
    if not 0 <= low <= high <= len(thing):
        raise TemplateError(f"index out of range: {high}")
    return thing[low:high]


def _length(thing: Value) -> int:
    if not isinstance(thing, str | list | dict):
        raise TemplateError(f"len of type {type_name(thing)}")
    return len(thing.encode()) if isinstance(thing, str) else len(thing)


def _print(*values: Value) -> str:
    out = ""
    for number_, value in enumerate(values):
        if number_ and not isinstance(value, str) and not isinstance(values[number_ - 1], str):
            out += " "
        out += written(value)
    return out


_VERB: Final = re.compile(r"%([-+# 0]*)([1-9]\d*)?(?:\.(\d*))?([a-zA-Z%])")


def printf(pattern: Value, *values: Value) -> str:
    """Go's Sprintf for strings, whole numbers, floats and booleans."""
    pattern = to_text(pattern)
    rest = list(values)

    def verb(found: re.Match[str]) -> str:
        flags, width, precision, letter = found.groups()
        if letter == "%":
            return "%"
        if not rest:
            return f"%!{letter}(MISSING)"
        places = None if precision is None else int(precision or 0)
        if max(int(width or 0), places or 0) > MAX_WIDTH:
            raise TemplateError(f"printf: width or precision above {MAX_WIDTH}")
        value = rest.pop(0)
        text = _verb(letter, value, places, flags)
        if text is None:
            return f"%!{letter}({type_name(value)}={written(value)})"
        numeric = isinstance(value, int | float) and letter not in "vsqt"
        if "+" in flags and numeric and not text.startswith(("-", "+")):
            text = "+" + text
        elif " " in flags and numeric and not text.startswith("-"):
            text = " " + text
        if "-" in flags:
            return text.ljust(int(width or 0))
        if "0" in flags and isinstance(value, int | float):
            sign = text[:1] if text[:1] in ("-", "+") else ""
            return sign + text[len(sign) :].rjust(int(width or 0) - len(sign), "0")
        return text.rjust(int(width or 0))

    out = _VERB.sub(verb, pattern)
    if rest:
        out += "%!(EXTRA " + ", ".join(f"{type_name(value)}={written(value)}" for value in rest) + ")"
    return out


def _verb(letter: str, value: Value, places: int | None, flags: str) -> str | None:
    """One verb's text; None where the verb does not fit the value."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if letter == "v":
        return f"{value:.{places}g}" if places is not None and isinstance(value, float) else written(value)
    if letter == "t":
        return written(value) if isinstance(value, bool) else None
    if letter == "d":
        return str(value) if whole else None
    if letter in "xX" and (whole or isinstance(value, str)):
        text = f"{value:x}" if whole else value.encode().hex()
        return text.upper() if letter == "X" else text
    if letter in "sq" and isinstance(value, str):
        text = value if places is None else value[:places]
        return json.dumps(text, ensure_ascii=False) if letter == "q" else text
    if letter == "s" and isinstance(value, dict | list | Sample | datetime | timedelta):
        return written(value)
    if letter in "eEfFgG" and isinstance(value, float):
        if not math.isfinite(value):
            return number(value)
        if letter in "gG":
            return number(value) if places is None else f"{value:.{places}{letter}}"
        return f"{value:.{6 if places is None else places}{letter}}"
    return None


_TITLE: Final = re.compile(r"(?<![\w'])\w")

FUNCTIONS: Final[dict[str, tuple[int, int, Callable[..., Value]]]] = {
    # name: (fewest arguments, most arguments or -1, function)
    "humanize": (1, 1, humanize),
    "humanize1024": (1, 1, humanize1024),
    "humanizeDuration": (1, 1, humanize_duration),
    "humanizePercentage": (1, 1, humanize_percentage),
    "humanizeTimestamp": (1, 1, humanize_timestamp),
    "toTime": (1, 1, to_time),
    "toDuration": (1, 1, lambda v: timedelta(seconds=to_float(v))),
    "parseDuration": (1, 1, parse_duration),
    "title": (1, 1, lambda text: _TITLE.sub(lambda found: found.group().upper(), to_text(text))),
    "toUpper": (1, 1, lambda text: to_text(text).upper()),
    "toLower": (1, 1, lambda text: to_text(text).lower()),
    "match": (2, 2, lambda pattern, text: _regex(pattern).search(to_text(text)) is not None),
    "reReplaceAll": (3, 3, replace_all),
    "stripPort": (1, 1, strip_port),
    "stripDomain": (1, 1, strip_domain),
    "safeHtml": (1, 1, to_text),
    "graphLink": (1, 1, lambda text: f"/graph?g0.expr={quote_plus(to_text(text))}&g0.tab=0"),
    "tableLink": (1, 1, lambda text: f"/graph?g0.expr={quote_plus(to_text(text))}&g0.tab=1"),
    "urlQueryEscape": (1, 1, lambda text: quote_plus(to_text(text))),
    "first": (1, 1, first),
    "label": (2, 2, lambda name, sample: _sample(sample).Labels.get(to_text(name), "")),
    "value": (1, 1, lambda sample: _sample(sample).Value),
    "strvalue": (1, 1, lambda sample: _sample(sample).Labels.get("__value__", "")),
    "sortByLabel": (2, 2, sort_by_label),
    "args": (0, -1, lambda *values: {f"arg{n}": value for n, value in enumerate(values)}),
    "not": (1, 1, lambda value: not truth(value)),
    "eq": (1, -1, equal),
    "ne": (2, 2, lambda one, other: not equal(one, other)),
    "lt": (2, 2, less),
    "le": (2, 2, lambda one, other: less(one, other) or equal(one, other)),
    "gt": (2, 2, lambda one, other: less(other, one)),
    "ge": (2, 2, lambda one, other: less(other, one) or equal(one, other)),
    "len": (1, 1, _length),
    "index": (1, -1, index),
    "slice": (1, 3, _slice),
    "print": (0, -1, _print),
    "println": (0, -1, lambda *values: " ".join(map(written, values)) + "\n"),
    "printf": (1, -1, printf),
    "html": (
        1,
        -1,
        lambda *values: html_escape.escape(_print(*values)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
    ),
    "urlquery": (1, -1, lambda *values: quote_plus(_print(*values))),
}
"""What a template may call, besides `and`, `or` (they decide what is evaluated), `query`, `now`, `externalURL` and
`pathPrefix` (they ask the surroundings)."""
