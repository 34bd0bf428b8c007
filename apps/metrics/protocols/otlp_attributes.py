"""OpenTelemetry's attributes as texts and labels: of a data point, a resource, a scope.

Source: opentelemetry-proto's common.proto and resource.proto; job and instance as the compatibility specification has
them (`otlp_names`).
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from apps.metrics.protocols.otlp_names import label_name, labels_of
from apps.metrics.protocols.protobuf import BYTES, Malformed, fields, signed, varint

DEEPEST: Final = 16
"""Levels of arrays and maps inside an attribute's value."""


@dataclass(frozen=True, slots=True)
class Resource:
    """Who measured: labels that all of its series get, and the other attributes, as labels of target_info."""

    identity: Mapping[str, str]
    others: Mapping[str, str]


def attributes(text: bytes, tag: int) -> list[tuple[str, str]] | None:
    """The attributes in fields of that tag, as texts; None where the bytes are anything else. Raises Malformed."""
    at, found = 0, []
    try:
        while at < len(text):
            if text[at] != tag:
                return None
            size, at = varint(text, at + 1)
            if at + size > len(text):
                return None
            found.append(_pair(text[at : at + size]))
            at += size
    except Malformed:
        return None
    return found


def _pair(message: bytes) -> tuple[str, str]:
    """A KeyValue as texts. Raises Malformed."""
    name, value = "", ""
    for number, kind, text in fields(message):
        if number in (1, 2) and (kind != BYTES or not isinstance(text, bytes)):
            raise Malformed(f"field {number} of an attribute has wire type {kind}")
        if number == 1 and isinstance(text, bytes):
            name = text.decode(errors="replace")
        elif number == 2 and isinstance(text, bytes):
            value = _text(value_of(text))
    return name, value


def value_of(message: bytes, depth: int = 0) -> Any:
    """An AnyValue as a value that JSON has. Raises Malformed."""
    if depth > DEEPEST:
        raise Malformed(f"an attribute is nested more than {DEEPEST} levels deep")
    found: Any = None
    for number, kind, value in fields(message):
        match number, kind, value:
            case 1, 2, bytes():
                found = value.decode(errors="replace")
            case 2, 0, int():
                found = bool(value)
            case 3, 0, int():
                found = signed(value)
            case 4, 1, bytes():
                found = float(np.frombuffer(value, dtype="<f8")[0])
            case 5, 2, bytes():
                found = [value_of(one, depth + 1) for one in _messages(value)]
            case 6, 2, bytes():
                found = {}
                for pair in _messages(value):
                    parts = {n: text for n, _, text in fields(pair) if isinstance(text, bytes)}
                    found[parts.get(1, b"").decode(errors="replace")] = value_of(parts.get(2, b""), depth + 1)
            case 7, 2, bytes():
                found = base64.b64encode(value).decode()
    return found


def _messages(message: bytes) -> Iterator[bytes]:
    for number, kind, value in fields(message):
        if number == 1 and kind == BYTES and isinstance(value, bytes):
            yield value


def _text(value: Any) -> str:
    """A value as the text of a label."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
        case int():
            return str(value)
        case _:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def resource_of(message: bytes) -> Resource:
    """job from service.namespace and service.name, instance from service.instance.id. Raises Malformed."""
    pairs: list[tuple[str, str]] = []
    for number, kind, value in fields(message):
        if number == 1:
            if kind != BYTES or not isinstance(value, bytes):
                raise Malformed(f"field 1 of a resource has wire type {kind}")
            pairs.append(_pair(value))
    told = dict(pairs)
    identity = {}
    if name := told.get("service.name", ""):
        space = told.get("service.namespace", "")
        identity["job"] = f"{space}/{name}" if space else name
    if instance := told.get("service.instance.id", ""):
        identity["instance"] = instance
    known = ("service.name", "service.namespace", "service.instance.id")
    return Resource(identity, labels_of(pair for pair in pairs if pair[0] not in known))


def scope_labels(scope: bytes, url: bytes) -> dict[str, str]:
    """Name, version and attributes of a scope as otel_scope_…. Raises Malformed."""
    pairs = [("schema_url", url.decode(errors="replace"))]
    for number, kind, value in fields(scope):
        if number not in (1, 2, 3):
            continue
        if kind != BYTES or not isinstance(value, bytes):
            raise Malformed(f"field {number} of a scope has wire type {kind}")
        if number == 3:
            pairs.append(_pair(value))
        else:
            pairs.append(("name" if number == 1 else "version", value.decode(errors="replace")))
    return {label_name(f"otel_scope_{name}"): value for name, value in pairs if value}
