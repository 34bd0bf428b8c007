"""Where samples are pushed: remote write on the fast lane. 2xx comes after the commit, which requests may share.

A request that is not remote write at all is refused whole. Of one that is, every good sample is stored; that some
were refused is said with 400, as the protocol has it: a sender that got it does not send them again. What may pass
later (a full disk, a database that is away) is 503, which the sender repeats; so is 429, to a token that sends more
samples a second than it may.
"""

from collections import Counter
from math import ceil
from threading import BoundedSemaphore
from time import monotonic
from typing import Final

from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.core.lanes import JSON, Answer, Lane, Request, plain_refusal
from apps.metrics import registry, services
from apps.metrics.protocols import remote_write
from apps.metrics.protocols.protobuf import Malformed
from apps.metrics.samples import REASONS
from apps.metrics.services import StoreFull, count_refused
from apps.metrics.throttle import Throttle

PROTOBUF: Final = "application/x-protobuf"
RETRY_AFTER: Final = 30
THROTTLE: Final = Throttle()
LARGE_BYTES: Final = 4_000_000
"""Requests that unpack to more, 25,000 samples or so, take turns: each takes ten times its size while it is read."""
LARGE_PATIENCE: Final = 10.0
"""Seconds that one waits for its turn, in a thread that others could use."""

_large: Final = BoundedSemaphore(2)


def write(by: Principal, request: Request) -> Answer:
    """Store the samples of one remote write request."""
    if (refusal := _not_ours(request)) is not None:
        return plain_refusal(415, refusal)
    if (wait := _wait(by)) > 0:
        count_refused("rate_limit", 1)
        rate = by.quota.samples_per_second
        return _later(f"{by.name} may send {rate} samples a second: send this again in {wait:.1f} s.", 429, wait)
    try:
        if remote_write.unpacked_size(request.body) <= LARGE_BYTES:
            return _stored(by, request.body)
        if not _large.acquire(timeout=LARGE_PATIENCE):
            return _later("Several large requests are being read; send this one again, or in smaller parts.")
        try:
            return _stored(by, request.body)
        finally:
            _large.release()
    except remote_write.TooLarge as error:
        count_refused("too_large", 1)
        return plain_refusal(413, str(error))
    except Malformed as error:
        count_refused("malformed", 1)
        return plain_refusal(400, f"This is no remote write request: {error}. Nothing was stored.")


def _stored(by: Principal, packed: bytes) -> Answer:
    """Unpack, store, answer. Raises Malformed, TooLarge."""
    found = remote_write.decode(remote_write.unpack(packed), registry.current().keys)
    if (rate := by.quota.samples_per_second) is not None:
        THROTTLE.take(by.id, rate, len(found.samples), monotonic())
    try:
        written = services.ingest(samples=found.samples, by=by, now=timezone.now())
    except StoreFull as error:
        return _later(str(error))
    count_refused("native_histogram", found.histograms)
    if not written.rejected and not found.histograms:
        return Answer(204)
    return plain_refusal(400, _said(written, found.histograms))


def _wait(by: Principal) -> float:
    """Seconds until this token may send again."""
    rate = by.quota.samples_per_second
    return 0.0 if rate is None else THROTTLE.wait(by.id, rate, monotonic())


def _later(sentence: str, status: int = 503, seconds: float = RETRY_AFTER) -> Answer:
    """Refuse what may pass later."""
    return Answer(status, plain_refusal(status, sentence).body, JSON, ((b"retry-after", b"%d" % ceil(seconds)),))


def _not_ours(request: Request) -> str | None:
    """Why the body cannot be read, judged by its headers; what is not said is taken for remote write 1.0."""
    kind, _, parameters = request.header(b"content-type").lower().partition(";")
    if kind.strip() not in ("", PROTOBUF):
        return f"The body is {kind.strip()!r}; remote write is {PROTOBUF}."
    name = parameters.strip().removeprefix("proto=").strip('"')
    if name not in ("", "prometheus.writerequest"):
        return f"The message is {name!r}; this address takes prometheus.WriteRequest (remote write 1.0)."
    if (encoding := request.header(b"content-encoding").lower()) not in ("", "snappy"):
        return f"The body is packed by {encoding!r}; remote write uses snappy."
    return None


def _said(written: services.Written, histograms: int) -> str:
    """How much was stored, what was not and why."""
    reasons = Counter(rejection.reason for rejection in written.rejected)
    parts = [f"{count}: {REASONS[reason]}" for reason, count in reasons.most_common()]
    if histograms:
        parts.append(f"{histograms}: {REASONS['native_histogram']}")
    return f"{written.accepted} samples were stored, others refused. " + "; ".join(parts) + "."


LANES: Final[dict[str, Lane]] = {
    "/api/v1/write": Lane(
        frozenset({"POST"}),
        Right.INGEST,
        write,
        together=services.one_commit,
        summary="Takes samples by Prometheus remote write 1.0.",
    )
}
