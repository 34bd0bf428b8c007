"""Where OpenTelemetry's SDKs and collectors push metrics: OTLP over HTTP, protobuf or JSON, answered in the same.

One request is one commit for what is cumulative and for gauges, and one more for each sender's deltas; 200 comes after
them. What was refused is said in `partial_success`, by data point; a request that cannot be read is 400 with a Status.
Only 429 and 503 (with Retry-After) are worth sending again, and because deltas are added once however often they come,
a sender may always repeat. Source: opentelemetry.io/docs/specs/otlp/#otlphttp.
"""

from collections import Counter as Tally
from hashlib import blake2b
from typing import Final

import numpy as np
import orjson
from django.utils import timezone

from apps.accounts.permissions import Right
from apps.core.lanes import JSON, Answer, Lane, Request
from apps.metrics import registry, services
from apps.metrics.codec import Int64
from apps.metrics.intake import RETRY_AFTER, Push, Refused, pushed, turn
from apps.metrics.protocols import otlp, otlp_json
from apps.metrics.protocols.protobuf import encoded
from apps.metrics.protocols.unpacking import unpacked
from apps.metrics.samples import REASONS, Samples
from apps.metrics.services import StoreFull, Written

PROTOBUF: Final = "application/x-protobuf"
_CODES: Final = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 503: 14}
"""gRPC's status code by HTTP's, for the Status that a refusal carries; anything else is 2 (unknown)."""


def refused_in_kind(request: Request, status: int, sentence: str) -> Answer:
    """A google.rpc.Status in the request's own format."""
    code = _CODES.get(status, 2)
    if is_json(request):
        return Answer(status, orjson.dumps({"code": code, "message": sentence}), JSON)
    text = sentence.encode()
    return Answer(status, b"\x08" + encoded(code) + b"\x12" + encoded(len(text)) + text, PROTOBUF)


def refused_unread(status: int, sentence: str) -> Answer:
    """The same for a request that was not looked at."""
    return Answer(status, orjson.dumps({"error": sentence, "code": _CODES.get(status, 2), "message": sentence}), JSON)


@pushed("otlp", refused_in_kind)
def take(push: Push, request: Request) -> Answer:
    """Store the data points of one ExportMetricsServiceRequest."""
    body = body_of(request)
    with turn(len(body)):
        found = otlp.decode(otlp_json.to_protobuf(body) if is_json(request) else body, registry.current().keys)
        lost, points = _stored(push, found)
    for reason, count in found.refused.items():
        push.refused(reason, count)
    return _answer(request, points + found.refused.total(), lost + found.refused, found.names)


def _stored(push: Push, found: otlp.Request) -> tuple[Tally[str], int]:
    """Store what was read; return what was refused by reason, and of how many data points."""
    timeless = found.ends == 0
    rejected = [(int(index), "no_time") for index in np.flatnonzero(timeless & (found.owner >= 0)).tolist()]
    push.refused("no_time", len(rejected))
    now = timezone.now()
    push.take(len(found.samples))
    try:
        plain = np.flatnonzero(~found.delta & ~timeless)
        if len(plain) or not len(found.samples):
            starts = np.where(found.counts & ~found.delta, found.starts // otlp.MS, 0)[plain]
            some = _part(found.samples, plain)
            written = services.ingest(samples=some, by=push.by, now=now, starts=starts)
            push.stored(written)
            rejected += _refused(written, plain)
        for key, places in _by_sender(found, np.flatnonzero(found.delta & ~timeless)):
            written = services.ingest_deltas(
                samples=_part(found.samples, places),
                starts=found.starts[places],
                ends=found.ends[places],
                key=key,
                by=push.by,
                now=now,
            )
            push.stored(written)
            rejected += _refused(written, places)
    except StoreFull as error:
        raise Refused(503, str(error), wait=RETRY_AFTER) from None
    why = {owner: reason for index, reason in reversed(rejected) if (owner := int(found.owner[index])) >= 0}
    return Tally(why.values()), len(why)


def _refused(written: Written, places: Int64) -> list[tuple[int, str]]:
    return [(int(places[rejection.index]), rejection.reason) for rejection in written.rejected]


def _part(samples: Samples, places: Int64) -> Samples:
    """Those of the samples."""
    if len(places) == len(samples):
        return samples
    where = places.tolist()
    return Samples(
        [samples.keys[index] for index in where],
        lambda index: samples.labels_of(where[index]),
        samples.ts[places],
        samples.v[places],
        samples.meta,
    )


def _by_sender(found: otlp.Request, places: Int64) -> list[tuple[bytes, Int64]]:
    """Deltas by the key of their totals (resource and scope), in an order that is the same for all who lock them."""
    groups: dict[bytes, list[int]] = {}
    for index in places.tolist():
        groups.setdefault(found.sender(index), []).append(index)
    hashed = {blake2b(name, digest_size=16).digest(): where for name, where in groups.items()}
    return [(key, np.array(hashed[key], dtype=np.int64)) for key in sorted(hashed)]


def _answer(request: Request, points: int, lost: Tally[str], names: tuple[str, ...]) -> Answer:
    sentence = "; ".join(f"{count}: {REASONS[reason]}" for reason, count in lost.most_common())
    if names:
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        sentence += f" (metrics: {', '.join(names[:10])}{more})"
    return answered(request, points, "rejectedDataPoints", sentence)


def answered(request: Request, lost: int, count: str, sentence: str) -> Answer:
    """An Export…ServiceResponse: empty where all was taken; `count`: the JSON name of how many were not."""
    if not lost:
        return Answer(200, b"{}", JSON) if is_json(request) else Answer(200, b"", PROTOBUF)
    if is_json(request):
        told = {"partialSuccess": {count: str(lost), "errorMessage": sentence}}
        return Answer(200, orjson.dumps(told), JSON)
    text = sentence.encode()
    partial = b"\x08" + encoded(lost) + b"\x12" + encoded(len(text)) + text
    return Answer(200, b"\x0a" + encoded(len(partial)) + partial, PROTOBUF)


def _kind(request: Request) -> str:
    return request.header(b"content-type").partition(";")[0].strip().lower()


def is_json(request: Request) -> bool:
    """Whether the body is OTLP's JSON."""
    return _kind(request) == JSON


def body_of(request: Request) -> bytes:
    """The body, unpacked. Raises Refused (415) where its Content-Type is neither of the two, and as `unpacked` does."""
    kind = _kind(request)
    if kind not in (PROTOBUF, JSON):
        sentence = f"The body is {kind or 'of no stated type'!r}; OTLP is {PROTOBUF} or {JSON}."
        raise Refused(415, sentence, reason="unsupported")
    return unpacked(request.body, request.header(b"content-encoding"))


_LANE: Final = Lane(
    frozenset({"POST"}), Right.INGEST, take, refused_unread, "Takes metrics by OTLP over HTTP, protobuf or JSON."
)
LANES: Final[dict[str, Lane]] = {"/api/v1/otlp/v1/metrics": _LANE, "/v1/metrics": _LANE}
