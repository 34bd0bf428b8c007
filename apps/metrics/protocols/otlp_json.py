"""OTLP's JSON as the protobuf message that it stands for, so that `otlp` is the one reading of both.

Field names are lowerCamelCase, numbers of 64 bits may be texts, kinds may be names or numbers, ids are hexadecimal, and
what is not known here is skipped. Fields are written in the order of their numbers, as SDKs do in protobuf.

Source: opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding.
"""

import base64
import binascii
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from apps.metrics.protocols.protobuf import Malformed, encoded


@dataclass(frozen=True, slots=True)
class _Field:
    """Number and kind of a field; `many`: a list of them; `of`: the message or the words of a kind."""

    number: int
    kind: str
    of: str = ""
    many: bool = False


_TEMPORALITY: Final = {
    "AGGREGATION_TEMPORALITY_UNSPECIFIED": 0,
    "AGGREGATION_TEMPORALITY_DELTA": 1,
    "AGGREGATION_TEMPORALITY_CUMULATIVE": 2,
}
_FLAGS: Final = {"DATA_POINT_FLAGS_DO_NOT_USE": 0, "DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK": 1}
_TIMES: Final = {"startTimeUnixNano": _Field(2, "fixed64"), "timeUnixNano": _Field(3, "fixed64")}
_TEXT: Final = _Field(1, "text")


def _messages(number: int, of: str) -> _Field:
    return _Field(number, "message", of, many=True)


SCHEMA: Final[Mapping[str, Mapping[str, _Field]]] = {
    "request": {"resourceMetrics": _messages(1, "resource_metrics")},
    "resource_metrics": {"resource": _Field(1, "message", "resource"), "scopeMetrics": _messages(2, "scope_metrics")},
    "resource": {"attributes": _messages(1, "pair")},
    "scope_metrics": {
        "scope": _Field(1, "message", "scope"),
        "metrics": _messages(2, "metric"),
        "schemaUrl": _Field(3, "text"),
    },
    "scope": {"name": _TEXT, "version": _Field(2, "text"), "attributes": _messages(3, "pair")},
    "metric": {
        "name": _TEXT,
        "description": _Field(2, "text"),
        "unit": _Field(3, "text"),
        "gauge": _Field(5, "message", "gauge"),
        "sum": _Field(7, "message", "sum"),
        "histogram": _Field(9, "message", "histogram"),
        "exponentialHistogram": _Field(10, "message", "exponential"),
        "summary": _Field(11, "message", "summary"),
    },
    "gauge": {"dataPoints": _messages(1, "number")},
    "sum": {
        "dataPoints": _messages(1, "number"),
        "aggregationTemporality": _Field(2, "word", "temporality"),
        "isMonotonic": _Field(3, "bool"),
    },
    "histogram": {
        "dataPoints": _messages(1, "histogram_point"),
        "aggregationTemporality": _Field(2, "word", "temporality"),
    },
    "exponential": {"dataPoints": _messages(1, "exponential_point"), "aggregationTemporality": _Field(2, "int64")},
    "exponential_point": {},
    "summary": {"dataPoints": _messages(1, "summary_point")},
    "number": {
        **_TIMES,
        "asDouble": _Field(4, "double"),
        "asInt": _Field(6, "sfixed64"),
        "attributes": _messages(7, "pair"),
        "flags": _Field(8, "word", "flags"),
    },
    "histogram_point": {
        **_TIMES,
        "count": _Field(4, "fixed64"),
        "sum": _Field(5, "double"),
        "bucketCounts": _Field(6, "fixed64", many=True),
        "explicitBounds": _Field(7, "double", many=True),
        "attributes": _messages(9, "pair"),
        "flags": _Field(10, "word", "flags"),
    },
    "summary_point": {
        **_TIMES,
        "count": _Field(4, "fixed64"),
        "sum": _Field(5, "double"),
        "quantileValues": _messages(6, "quantile"),
        "attributes": _messages(7, "pair"),
        "flags": _Field(8, "word", "flags"),
    },
    "quantile": {"quantile": _Field(1, "double"), "value": _Field(2, "double")},
    "logs_request": {"resourceLogs": _messages(1, "resource_logs")},
    "resource_logs": {"resource": _Field(1, "message", "resource"), "scopeLogs": _messages(2, "scope_logs")},
    "scope_logs": {"scope": _Field(1, "message", "scope"), "logRecords": _messages(2, "log_record")},
    "log_record": {
        "timeUnixNano": _Field(1, "fixed64"),
        "severityNumber": _Field(2, "word", "severity"),
        "severityText": _Field(3, "text"),
        "body": _Field(5, "message", "any"),
        "attributes": _messages(6, "pair"),
        "traceId": _Field(9, "hex"),
        "spanId": _Field(10, "hex"),
        "observedTimeUnixNano": _Field(11, "fixed64"),
    },
    "pair": {"key": _TEXT, "value": _Field(2, "message", "any")},
    "any": {
        "stringValue": _TEXT,
        "boolValue": _Field(2, "bool"),
        "intValue": _Field(3, "int64"),
        "doubleValue": _Field(4, "double"),
        "arrayValue": _Field(5, "message", "array"),
        "kvlistValue": _Field(6, "message", "map"),
        "bytesValue": _Field(7, "bytes"),
    },
    "array": {"values": _messages(1, "any")},
    "map": {"values": _messages(1, "pair")},
}
"""By message the fields that matter, by their JSON name, in the order of their numbers."""
_SEVERITY: Final = {
    f"SEVERITY_NUMBER_{word}{number or ''}": first + max(0, number - 1)
    for word, first in {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}.items()
    for number in (0, 2, 3, 4)
} | {"SEVERITY_NUMBER_UNSPECIFIED": 0}
_WORDS: Final[Mapping[str, Mapping[str, int]]] = {
    "temporality": _TEMPORALITY, "flags": _FLAGS, "severity": _SEVERITY,
}  # fmt: skip
_FLOATS: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_DEEPEST: Final = 64


def to_protobuf(body: bytes, message: str = "request") -> bytes:
    """The message (metrics' request, or "logs_request") that a JSON body stands for. Raises Malformed by its field."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error}") from None
    return _message(told, message, "", 0)


def _message(told: Any, name: str, where: str, depth: int) -> bytes:
    if told is None:
        return b""
    if not isinstance(told, dict):
        raise Malformed(f"{where or 'the body'} is no object")
    if depth > _DEEPEST:
        raise Malformed(f"{where} is nested too deep")
    parts = []
    for key, known in SCHEMA[name].items():
        if (value := told.get(key)) is None:
            continue
        place = f"{where}.{key}" if where else key
        if not known.many:
            parts.append(_one(value, known, place, depth))
            continue
        if not isinstance(value, list):
            raise Malformed(f"{place} is no list")
        if known.kind == "message":
            parts += [_one(each, known, f"{place}[{n}]", depth) for n, each in enumerate(value)]
        elif value:
            packed = b"".join(_eight(each, known.kind, place) for each in value)
            parts.append(encoded(known.number << 3 | 2) + encoded(len(packed)) + packed)
    return b"".join(parts)


def _one(value: Any, known: _Field, where: str, depth: int) -> bytes:
    tag = known.number << 3
    match known.kind:
        case "message":
            text = _message(value, known.of, where, depth + 1)
        case "text":
            if not isinstance(value, str):
                raise Malformed(f"{where} is no text")
            text = value.encode(errors="replace")
        case "bytes":
            try:
                text = base64.b64decode(value, validate=True)
            except (binascii.Error, TypeError, ValueError):
                raise Malformed(f"{where} is no base64") from None
        case "hex":
            try:
                text = bytes.fromhex(value)
            except (TypeError, ValueError):
                raise Malformed(f"{where} is no hexadecimal text") from None
        case "bool":
            if not isinstance(value, bool):
                raise Malformed(f"{where} is neither true nor false")
            return encoded(tag) + bytes([value])
        case "word":
            return encoded(tag) + encoded(_word(value, _WORDS[known.of], where))
        case "int64":
            return encoded(tag) + encoded(_whole(value, where, -(2**63), 2**63 - 1) & 0xFFFF_FFFF_FFFF_FFFF)
        case _:
            return encoded(tag | 1) + _eight(value, known.kind, where)
    return encoded(tag | 2) + encoded(len(text)) + text


def _word(value: Any, words: Mapping[str, int], where: str) -> int:
    if isinstance(value, str) and value in words:
        return words[value]
    return _whole(value, where, 0, 2**32 - 1)


def _whole(value: Any, where: str, least: int, most: int) -> int:
    """A whole number that may come as a text."""
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        if isinstance(value, str) and len(value) > 20:
            raise ValueError
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise Malformed(f"{where} is no whole number") from None
    if not least <= number <= most:
        raise Malformed(f"{where} is out of its range")
    return number


def _eight(value: Any, kind: str, where: str) -> bytes:
    """A number of eight bytes."""
    if kind == "double":
        try:
            if isinstance(value, bool):
                raise ValueError
            return struct.pack("<d", _FLOATS[value] if isinstance(value, str) and value in _FLOATS else float(value))
        except (TypeError, ValueError, OverflowError):
            raise Malformed(f"{where} is no number") from None
    if kind == "fixed64":
        return struct.pack("<Q", _whole(value, where, 0, 2**64 - 1))
    return struct.pack("<q", _whole(value, where, -(2**63), 2**63 - 1))
