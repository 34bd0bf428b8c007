"""Groups of pushed metrics, as the Pushgateway knows them: what a path names, what a body holds, what a group becomes.

Pure: paths, bodies and what was there before in; families and series out. What a group holds is JSON, so that it can
be a row: by family its type, help, unit and samples, each sample its labels and its value as a text (JSON has no NaN).

Source: the README of prometheus/pushgateway, and its behaviour.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import orjson

from apps.core.telemetry import Reading
from apps.metrics.protocols.exposition import NO_TIME, Format, Reader, Unreadable, format_of, sample_names
from apps.metrics.protocols.protobuf import BYTES, FIXED64, VARINT, Malformed, fields, varint
from apps.metrics.samples import NAME

Labels = dict[str, str]
Families = dict[str, dict[str, Any]]
"""Family → {"type", "help", "unit", "samples": [[labels with __name__, value as text], …]}."""

PUSHED: Final = "push_time_seconds"
FAILED: Final = "push_failure_time_seconds"
ABOUT: Final = {
    PUSHED: "Last Unix time when changing this group in the Pushgateway succeeded.",
    FAILED: "Last Unix time when changing this group in the Pushgateway failed.",
}
MOST_SAMPLES: Final = 10_000
"""Samples that a group may hold."""
PROTOBUF: Final = "application/vnd.google.protobuf"
_BASE64: Final = "@base64"
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TYPES: Final = ("counter", "gauge", "summary", "unknown", "histogram", "unknown")
_KIND: Final = {"counter": "counter", "gauge": "gauge", "histogram": "histogram", "summary": "summary"}


class BadGroup(ValueError):
    """The path names no group; the text says why."""


class Inconsistent(ValueError):
    """The body can be read but not be taken; the group's failure is noted."""


def group_of(path: str) -> Labels:
    """The labels that `job/NAME{/LABEL/VALUE}` stands for; a name that ends in @base64 has its value so encoded.

    >>> group_of("job/backup/instance@base64/L3Zhci90bXA"), group_of("job@base64/YS9i/x@base64/=")
    ({'job': 'backup', 'instance': '/var/tmp'}, {'job': 'a/b', 'x': ''})
    """
    parts = path.split("/")
    if len(parts) % 2:
        raise BadGroup(f"{parts[-1]!r} is a label without a value; an empty value is written as {_BASE64}/=.")
    found: Labels = {}
    for written, text in zip(parts[::2], parts[1::2], strict=True):
        name = written.removesuffix(_BASE64)
        value = _decoded(name, text) if written.endswith(_BASE64) else text
        if not _LABEL.fullmatch(name) or name.startswith("__"):
            raise BadGroup(f"{name!r} is no name of a label.")
        if name in found:
            raise BadGroup(f"The label {name} is there twice.")
        found[name] = value
    if not found.get("job"):
        raise BadGroup("The job has no name.")
    return found


def _decoded(name: str, text: str) -> str:
    text = text.rstrip("=")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        raise BadGroup(f"The value of {name} is no base64 of UTF-8.") from None


def key_of(labels: Mapping[str, str]) -> bytes:
    """128 bits that stand for a group's labels."""
    return blake2b(orjson.dumps(dict(labels), option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def read(body: bytes, content_type: str, group: Labels) -> Families:
    """The families of a body, with the group's labels in place of its own. Raises Malformed, Inconsistent.

    Text, OpenMetrics, and protobuf with a length before each message, as Go's client sends it.
    """
    if content_type.partition(";")[0].strip().lower() == PROTOBUF:
        found = _read_protobuf(body)
    else:
        found = _read_text(body, format_of(content_type))
    seen = set()
    total = 0
    for name, family in found.items():
        if name in ABOUT:
            raise Inconsistent(f"{name} is written by the portal and cannot be pushed.")
        for sample in family["samples"]:
            own = {**sample[0], **group}
            sample[0] = {label: value for label, value in own.items() if value}
            if (identity := frozenset(sample[0].items())) in seen:
                raise Inconsistent(f"A series of {name} is there twice with the labels of the group.")
            seen.add(identity)
            total += 1
    if total > MOST_SAMPLES:
        raise Inconsistent(f"The push has {total} samples; a group may hold {MOST_SAMPLES}.")
    return found


def _read_text(body: bytes, form: Format) -> Families:
    if body and form is Format.TEXT and not body.endswith(b"\n"):
        raise Malformed("its last line does not end; the body may be cut off")
    reader = Reader()
    try:
        found = reader.read(body, form, MOST_SAMPLES)
    except Unreadable as error:
        raise Malformed(str(error).rstrip(".")) from None
    if found.problems:
        raise Malformed(f"{found.problems[0]}{f' (and {found.refused - 1} more lines)' if found.refused > 1 else ''}")
    if (found.ts != NO_TIME).any():
        raise Inconsistent("Pushed samples must not have timestamps.")
    of = {sample: name for name, told in found.families.items() for sample in sample_names(name, told.type, form)}
    families: Families = {
        name: {"type": _KIND.get(told.type, "unknown"), "help": told.help, "unit": told.unit, "samples": []}
        for name, told in found.families.items()
    }
    for number, value in zip(found.numbers.tolist(), found.v.tolist(), strict=True):
        labels = reader.labels(number)
        name = of.get(labels[NAME], labels[NAME])
        family = families.setdefault(name, {"type": "unknown", "help": "", "unit": "", "samples": []})
        family["samples"].append([labels, repr(value)])
    return families


def _read_protobuf(body: bytes) -> Families:
    families: Families = {}
    at = 0
    while at < len(body):
        size, at = varint(body, at)
        if at + size > len(body):
            raise Malformed(f"a family of {size} bytes at byte {at} of {len(body)}")
        name, family = _family(body[at : at + size])
        at += size
        if name in families:
            raise Inconsistent(f"The family {name} is there twice.")
        families[name] = family
    return families


def _family(message: bytes) -> tuple[str, dict[str, Any]]:
    texts, kind, metrics = {1: "", 2: "", 5: ""}, 0, []
    for number, wire, value in fields(message):
        if number in texts and isinstance(value, bytes) and wire == BYTES:
            try:
                texts[number] = value.decode()
            except UnicodeDecodeError:
                raise Malformed("a text is not UTF-8") from None
        elif number == 3 and wire == VARINT and isinstance(value, int):
            kind = value
        elif number == 4 and wire == BYTES and isinstance(value, bytes):
            metrics.append(value)
    name = texts[1]
    if not name:
        raise Malformed("a family has no name")
    word = _TYPES[kind] if kind < len(_TYPES) else "unknown"
    samples = [sample for metric in metrics for sample in _metric(name, metric)]
    return name, {"type": word, "help": texts[2], "unit": texts[5], "samples": samples}


def _metric(name: str, message: bytes) -> Iterator[list[Any]]:
    labels: Labels = {NAME: name}
    data: list[tuple[int, bytes]] = []
    for number, wire, value in fields(message):
        if number == 6:
            raise Inconsistent("Pushed samples must not have timestamps.")
        if number not in (1, 2, 3, 4, 5, 7):
            continue
        if wire != BYTES or not isinstance(value, bytes):
            raise Malformed(f"field {number} of a metric has wire type {wire}")
        if number == 1:
            pair = {field: text for field, _, text in fields(value) if isinstance(text, bytes)}
            labels[pair.get(1, b"").decode(errors="replace")] = pair.get(2, b"").decode(errors="replace")
        else:
            data.append((number, value))
    for number, value in data:
        if number in (2, 3, 5):
            yield [labels, repr(_number(value, 1))]
        elif number == 4:
            for quantile in _parts(value, 3):
                yield [{**labels, "quantile": repr(_number(quantile, 1))}, repr(_number(quantile, 2))]
            yield [{**labels, NAME: f"{name}_sum"}, repr(_number(value, 2))]
            yield [{**labels, NAME: f"{name}_count"}, repr(_number(value, 1))]
        else:
            yield from _buckets(name, labels, value)


def _buckets(name: str, labels: Labels, message: bytes) -> Iterator[list[Any]]:
    count = repr(_number(message, 1))
    for bucket in _parts(message, 3):
        if (bound := _number(bucket, 2)) != float("inf"):
            yield [{**labels, NAME: f"{name}_bucket", "le": repr(bound)}, repr(_number(bucket, 1))]
    yield [{**labels, NAME: f"{name}_bucket", "le": "+Inf"}, count]
    yield [{**labels, NAME: f"{name}_sum"}, repr(_number(message, 2))]
    yield [{**labels, NAME: f"{name}_count"}, count]


def _parts(message: bytes, field: int) -> list[bytes]:
    return [value for number, _, value in fields(message) if number == field and isinstance(value, bytes)]


def _number(message: bytes, field: int) -> float:
    """A number of a message, whole or of eight bytes; 0 where it is not told."""
    for number, wire, value in fields(message):
        if number == field and wire == VARINT and isinstance(value, int):
            return float(value)
        if number == field and wire == FIXED64 and isinstance(value, bytes):
            return float(np.frombuffer(value, dtype="<f8")[0])
    return 0.0


def merged(before: Families, pushed: Families) -> Families:
    """What a group holds after a push that replaces families of the same name only (POST)."""
    return {**before, **pushed}


def size(families: Families) -> int:
    """How many samples they hold."""
    return sum(len(family["samples"]) for family in families.values())


def readings(families: Families, group: Labels, pushed: float, failed: float | None) -> list[Reading]:
    """All series of a group; `pushed` and `failed` in seconds since 1970."""
    found = [
        Reading(labels[NAME], float(value), _rest(labels), family["type"], family["help"])
        for family in families.values()
        for labels, value in family["samples"]
    ]
    own = {label: value for label, value in group.items() if value}
    times = {PUSHED: pushed, FAILED: failed or 0.0}
    return found + [Reading(name, at, own, "gauge", ABOUT[name]) for name, at in times.items()]


def _rest(labels: Mapping[str, str]) -> Labels:
    return {label: value for label, value in labels.items() if label != NAME}


def as_json(families: Families, at: str) -> dict[str, Any]:
    """A group's metrics as the Pushgateway's own API shows them; parts of histograms and summaries sample by sample."""
    return {
        name: {
            "time_stamp": at,
            "type": {"unknown": "UNTYPED"}.get(family["type"], family["type"].upper()),
            "help": family["help"],
            "metrics": [_shown(name, sample) for sample in family["samples"]],
        }
        for name, family in families.items()
    }


def _shown(family: str, sample: Sequence[Any]) -> dict[str, Any]:
    labels, value = sample
    shown = {"labels": _rest(labels), "value": value}
    return shown if labels[NAME] == family else {**shown, "name": labels[NAME]}
