"""What senders' bodies hold, as records: the portal's own JSON, NDJSON and plain lines, Loki's push, OTLP logs. Pure.

What cannot become a record is counted with its place and reason; the rest is kept. Sources:
grafana.com/docs/loki/latest/reference/loki-http-api (push), opentelemetry-proto's logs.proto.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from apps.metrics.protocols import otlp_json
from apps.metrics.protocols.otlp_attributes import value_of
from apps.metrics.protocols.protobuf import BYTES, VARINT, Malformed, fields, signed
from apps.metrics.protocols.unpacking import MOST_BYTES
from apps.sources.logs.records import (
    LEAST_OF_PINO,
    LONGEST_HOST,
    LONGEST_SERVICE,
    LONGEST_VALUE,
    UNNAMED,
    Level,
    Record,
    as_text,
    flat,
    level_of,
    moment_of,
    of_otlp,
    of_pino,
    record_of,
)

MOST_RECORDS: Final = 50_000
"""Records of one request; those beyond are refused."""
MOST_CHARACTERS: Final = 2 * MOST_BYTES
"""Characters of all records of one request: what they share (labels, a resource) stands in each of them."""
SHOWN: Final = 100
"""Refused records that an answer names."""
_TIME: Final = ("time", "timestamp", "@timestamp", "ts", "datetime", "date", "isodate", "@t",
                "_source_realtime_timestamp", "__realtime_timestamp")  # fmt: skip
_LEVEL: Final = ("level", "severity", "levelname", "log.level", "lvl", "loglevel", "severity_text", "priority", "@l")
_SERVICE: Final = ("service", "source", "service.name", "service_name", "app", "application", "job", "unit",
                   "container_name", "container", "program", "programname", "appname", "syslog_identifier",
                   "_systemd_unit")  # fmt: skip
_HOST: Final = ("host", "hostname", "host.name", "instance", "node", "node_name", "pod", "_hostname")
_MESSAGE: Final = ("message", "msg", "log", "line", "event", "body", "short_message", "@m")
_ATTRIBUTES: Final = ("attributes", "attrs", "fields", "extra", "labels")
_LINE_TIME: Final = re.compile(
    r"[\[<(]?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)[\])>]?[\s,:|-]{0,3}"
)
_LINE_LEVEL: Final = re.compile(
    r"(?<![A-Za-z])(DEBUG|TRACE|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|CRIT(?:ICAL)?|FATAL|EMERG|PANIC|SEVERE)(?![A-Za-z])"
)
_LOGFMT_LEVEL: Final = re.compile(r"(?<![\w.])(?:level|lvl|severity)=\"?([A-Za-z]{1,12})")
_LABELS: Final = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_.:-]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,|\Z)')
_ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a record is taken to be where it does not say so itself: `at` in ms since 1970, 0 for `Found.date`."""

    at: int = 0
    service: str = ""
    host: str = ""
    level: str = Level.INFO


@dataclass(slots=True)
class Found:
    """Records, each with its place in the request, and (place, reason) of what could not become one."""

    records: list[Record] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    seen: int = 0
    size: int = 0
    """Characters of the records."""
    key: str = ""
    """Under which the request counts once, where its body says so."""

    def add(self, make: Callable[[], Record | str]) -> None:
        """Take the next of the request; a text instead of a record is the reason why there is none."""
        place, self.seen = self.seen, self.seen + 1
        is_over = place >= MOST_RECORDS or self.size > MOST_CHARACTERS
        made = "too_many_records" if is_over else make()
        if isinstance(made, str):
            self.refused.append((place, made))
        else:
            self.size += len(made.message) + len(made.attributes)
            self.records.append(made)
            self.places.append(place)

    def date(self, now: int) -> None:
        """Give records without a time (0) one that ends now: a millisecond each, that they keep their order.

        More than a thousand are spread over a second.
        """
        undated = [place for place, record in enumerate(self.records) if record.at == 0]
        span = min(1000, len(undated))
        for number, place in enumerate(undated):
            at = now - span + 1 + number * span // len(undated)
            self.records[place] = replace(self.records[place], at=at)


# --- JSON, NDJSON, lines --------------------------------------------------------------------------------------------


def read_json(body: bytes, defaults: Defaults) -> Found:
    """Read one object, a list of them, or {"records": […]} ("logs"). Raises Malformed."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error}") from None
    found = Found()
    if isinstance(told, dict):
        if isinstance(told.get("records"), list) and isinstance(told.get("key"), str):
            found.key = told["key"]
        told = next((told[name] for name in ("records", "logs") if isinstance(told.get(name), list)), [told])
    if not isinstance(told, list):
        raise Malformed("the body is neither an object nor a list of objects")
    for each in told:
        found.add(lambda each=each: of_object(each, defaults))  # type: ignore[misc]
    return found


def read_ndjson(body: bytes, defaults: Defaults) -> Found:
    """Read an object a line; blank lines do not count."""
    found = Found()
    for line in body.splitlines():
        if line.strip():
            found.add(lambda line=line: _of_json_line(line, defaults))  # type: ignore[misc]
    return found


def _of_json_line(line: bytes, defaults: Defaults) -> Record | str:
    try:
        return of_object(orjson.loads(line), defaults)
    except orjson.JSONDecodeError:
        return "malformed"


def read_lines(body: bytes, defaults: Defaults) -> Found:
    """Read a record a line; lines that begin with white space, and tracebacks, belong to the line before."""
    found = Found()
    for entry in _entries(body.decode(errors="replace").splitlines()):
        found.add(lambda entry=entry: of_line(entry, defaults))  # type: ignore[misc]
    return found


def _entries(lines: Iterable[str]) -> Iterator[str]:
    entry: list[str] = []
    is_trace = False
    for line in lines:
        if not line.strip():
            continue
        goes_on = line[0] in " \t" or line.startswith(("Traceback (", "Caused by:")) or is_trace
        if entry and goes_on:
            entry.append(line)
            # The line after the last frame says what was raised.
            is_trace = line.startswith("Traceback (") or (is_trace and line[0] in " \t")
            continue
        if entry:
            yield "\n".join(entry)
        entry, is_trace = [line], line.startswith("Traceback (")
    if entry:
        yield "\n".join(entry)


def of_object(told: Any, defaults: Defaults) -> Record | str:
    """Read one object under the names that logging libraries use; what is left becomes attributes."""
    if not isinstance(told, dict):
        return "no_object"
    rest = dict(told)
    names = _spellings(rest)
    is_msg = "msg" in rest
    message = _taken(rest, _MESSAGE, names)
    if message is None or message == "":
        return "no_message"
    when = _taken(rest, _TIME, names)
    at = defaults.at if when is None else moment_of(when)
    if at is None:
        return "invalid_time"
    said = _taken(rest, _LEVEL, names)
    level = of_pino(said) if is_msg and isinstance(said, int) and said >= LEAST_OF_PINO else level_of(said)
    if level is None and said is not None:
        rest["level"] = said
    pairs: list[tuple[str, Any]] = []
    service = as_text(_taken(rest, _SERVICE, names)) or defaults.service
    host = as_text(_taken(rest, _HOST, names)) or defaults.host
    for name in _ATTRIBUTES:
        if isinstance(inner := rest.get(name), dict):
            pairs += inner.items()
            del rest[name]
    return record_of(
        at=at,
        level=level or defaults.level,
        service=service,
        host=host,
        message=as_text(message),
        attributes=[*rest.items(), *pairs],
    )


def _spellings(told: Mapping[str, Any]) -> dict[str, str]:
    """{name in small letters: as it is written} of those written otherwise: syslog-ng and journald shout."""
    return {small: name for name in told if (small := name.lower()) != name and small not in told}


def _taken(told: dict[str, Any], names: Iterable[str], spelt: Mapping[str, str]) -> Any:
    """Take the first of these that is there out of the object."""
    for name in names:
        own = spelt.get(name, name)
        if told.get(own) is not None:
            return told.pop(own)
    return None


def of_line(
    text: str, defaults: Defaults, attributes: Iterable[tuple[str, Any]] = (), *, dated: bool = False
) -> Record:
    """Read a line: JSON as an object; else the time it begins with and the level it names near its start, if any.

    `dated`: its time is known already, and one in the text stays there.
    """
    if text.startswith("{") and text.rstrip().endswith("}"):
        found = _of_embedded(text, defaults, attributes, dated=dated)
        if found is not None:
            return found
    at = defaults.at
    if not dated and (match := _LINE_TIME.match(text)) is not None and (moment := moment_of(match[1])) is not None:
        at, text = moment, text[match.end() :] or text
    level = defaults.level
    if (word := _LINE_LEVEL.search(text[:80]) or _LOGFMT_LEVEL.search(text[:200])) is not None:
        level = level_of(word[1]) or level
    return record_of(
        at=at, level=level, service=defaults.service, host=defaults.host, message=text, attributes=attributes
    )


def _of_embedded(text: str, defaults: Defaults, attributes: Iterable[tuple[str, Any]], *, dated: bool) -> Record | None:
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if dated and isinstance(told, dict):
        told = {name: value for name, value in told.items() if name.lower() not in _TIME}
    found = of_object({**dict(attributes), **told} if isinstance(told, dict) else told, defaults)
    return None if isinstance(found, str) else found


# --- Loki -----------------------------------------------------------------------------------------------------------


def read_loki_json(body: bytes) -> Found:
    """Read {"streams": [{"stream": {labels}, "values": [["ns", "line", {metadata}?]]}]}. Raises Malformed."""
    try:
        told = orjson.loads(body)
        streams = told["streams"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise Malformed('the body is no JSON with "streams"') from None
    found = Found()
    for stream in streams if isinstance(streams, list) else []:
        labels = stream.get("stream") if isinstance(stream, dict) else None
        values = stream.get("values") if isinstance(stream, dict) else None
        if not isinstance(labels, dict) or not isinstance(values, list):
            raise Malformed("a stream has no labels or no values")
        defaults, rest = _of_labels({str(name): as_text(value) for name, value in labels.items()})
        for value in values:
            found.add(lambda value=value, defaults=defaults, rest=rest: _of_value(value, defaults, rest))  # type: ignore[misc]
    return found


def _of_value(value: Any, defaults: Defaults, rest: Mapping[str, str]) -> Record | str:
    if not isinstance(value, list) or len(value) < 2 or not isinstance(value[1], str):
        return "malformed"
    at = moment_of(value[0])
    if at is None:
        return "invalid_time"
    more = value[2] if len(value) > 2 and isinstance(value[2], dict) else {}
    return _of_entry(at, value[1], {**rest, **more}, defaults)


def _of_entry(at: int, line: str, pairs: Mapping[str, Any], defaults: Defaults) -> Record | str:
    """Make a record of a line whose time is known."""
    if not line.strip():
        return "no_message"
    found = level_of(pairs["detected_level"]) if "detected_level" in pairs else None
    known = Defaults(at, defaults.service, defaults.host, found or defaults.level)
    return of_line(line, known, pairs.items(), dated=True)


def read_loki(body: bytes) -> Found:
    """Read logproto's PushRequest, unpacked. Raises Malformed."""
    found = Found()
    for parts in _parts(body):
        labels = next((part.decode(errors="replace") for name, part in parts if name == 1), "")
        defaults, rest = _of_labels(labels_in(labels))
        for name, part in parts:
            if name == 2:
                found.add(lambda part=part, defaults=defaults, rest=rest: _of_adapter(part, defaults, rest))  # type: ignore[misc]
    return found


def _parts(body: bytes) -> Iterator[list[tuple[int, bytes]]]:
    """What is in each message in field 1 of a request. Raises Malformed."""
    for number, kind, message in fields(body):
        if number == 1:
            yield _texts(message, kind)


def _texts(message: "int | bytes", kind: int) -> list[tuple[int, bytes]]:
    """(number, bytes) of the fields of a message that are texts or messages. Raises Malformed."""
    if kind != BYTES or not isinstance(message, bytes):
        raise Malformed("a number stands where a message should")
    return [(number, value) for number, each, value in fields(message) if each == BYTES and isinstance(value, bytes)]


def _of_adapter(message: bytes, defaults: Defaults, rest: Mapping[str, str]) -> Record | str:
    """EntryAdapter: time, line, structured metadata."""
    at, line, more = 0, "", {}
    for number, part in _texts(message, BYTES):
        if number == 1:
            clock = {
                name: signed(value) for name, kind, value in fields(part) if kind == VARINT and isinstance(value, int)
            }
            at = clock.get(1, 0) * 1000 + clock.get(2, 0) // 1_000_000
        elif number == 2:
            line = part.decode(errors="replace")
        elif number == 3:
            pair = dict(_texts(part, BYTES))
            more[pair.get(1, b"").decode(errors="replace")] = pair.get(2, b"").decode(errors="replace")
    return _of_entry(at, line, {**rest, **more}, defaults) if at > 0 else "invalid_time"


def labels_in(text: str) -> dict[str, str]:
    """Read `{app="shop", level="error"}`. Raises Malformed."""
    inner = text.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        raise Malformed(f"{text[:60]!r} are no labels of a stream")
    inner, at, found = inner[1:-1], 0, {}
    while inner[at:].strip():
        match = _LABELS.match(inner, at)
        if match is None:
            raise Malformed(f"{text[:60]!r} are no labels of a stream")
        found[match[1]] = _ESCAPED.sub(lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), match[2])
        at = match.end()
    return found


def _of_labels(labels: Mapping[str, str]) -> tuple[Defaults, dict[str, str]]:
    """(service, host and level of a stream, its other labels)."""
    rest = dict(labels)
    names = _spellings(rest)
    level = level_of(_taken(rest, _LEVEL, names))
    service, host = _taken(rest, _SERVICE, names) or "", _taken(rest, _HOST, names) or ""
    return Defaults(0, service[:LONGEST_SERVICE], host[:LONGEST_HOST], level or Level.INFO), flat(rest.items())


# --- OpenTelemetry --------------------------------------------------------------------------------------------------


def read_otlp_json(body: bytes) -> Found:
    """Read an ExportLogsServiceRequest as JSON. Raises Malformed."""
    return read_otlp(otlp_json.to_protobuf(body, "logs_request"))


def read_otlp(body: bytes) -> Found:
    """Read an ExportLogsServiceRequest as protobuf. Raises Malformed."""
    found = Found()
    for parts in _parts(body):
        own: dict[str, Any] = dict(_pairs(part for name, part in parts if name == 1))
        space, word = as_text(own.pop("service.namespace", "")), as_text(own.pop("service.name", ""))
        service = f"{space}/{word}" if space and word else word or UNNAMED
        host = next(
            (as_text(own.pop(key)) for key in ("host.name", "service.instance.id", "k8s.pod.name") if key in own), ""
        )
        defaults, own = Defaults(0, service[:LONGEST_SERVICE], host[:LONGEST_HOST]), flat(own.items())
        for name, part in parts:
            if name == 2:
                _scope(part, defaults, own, found)
    return found


def _pairs(messages: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    """Attributes of Resource or Scope messages, whose field 1 holds them. Raises Malformed."""
    for message in messages:
        for number, pair in _texts(message, BYTES):
            if number == 1:
                yield _pair(pair)


def _pair(message: bytes) -> tuple[str, Any]:
    parts = dict(_texts(message, BYTES))
    return parts.get(1, b"").decode(errors="replace"), value_of(parts.get(2, b""))


def _scope(message: bytes, defaults: Defaults, own: Mapping[str, Any], found: Found) -> None:
    """ScopeLogs: the name of what logged, and its records."""
    parts = _texts(message, BYTES)
    name = ""
    for number, part in parts:
        if number == 1:
            name = next((text.decode(errors="replace") for n, text in _texts(part, BYTES) if n == 1), "")
    pairs = {**own, "logger": name[:LONGEST_VALUE]} if name else own
    for number, part in parts:
        if number == 2:
            found.add(lambda part=part: _of_log(part, defaults, pairs))  # type: ignore[misc]


def _of_log(message: bytes, defaults: Defaults, own: Mapping[str, Any]) -> Record | str:
    """LogRecord: when, how bad, what; observed where it is not said when it happened."""
    at = observed = severity = 0
    word, body = "", None
    pairs = dict(own)
    for number, kind, value in fields(message):
        match number, kind, value:
            case 1, 1, bytes():
                at = int.from_bytes(value, "little")
            case 11, 1, bytes():
                observed = int.from_bytes(value, "little")
            case 2, 0, int():
                severity = value
            case 3, 2, bytes():
                word = value.decode(errors="replace")
            case 5, 2, bytes():
                body = value_of(value)
            case 6, 2, bytes():
                name, inner = _pair(value)
                pairs[name] = inner
            case 9, 2, bytes() if value.strip(b"\0"):
                pairs["trace_id"] = value.hex()
            case 10, 2, bytes() if value.strip(b"\0"):
                pairs["span_id"] = value.hex()
    text = as_text(body) or as_text(pairs.get("event.name")) or as_text(pairs.get("exception.message"))
    if not text.strip():
        return "no_message"
    level = of_otlp(severity) if severity else level_of(word) or Level.INFO
    return record_of(
        at=(at or observed) // 1_000_000 or defaults.at,
        level=level,
        service=defaults.service,
        host=defaults.host,
        message=text,
        attributes=pairs.items(),
    )
