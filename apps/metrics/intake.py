"""What every way of pushing has in common: the sender's quota, turns of large requests, and the count of what came.

A protocol's edge reads its own bytes and speaks its own words; here it is decided whether it may, and written down who
sent what, how much, and why some of it was refused. Nothing here knows a protocol's bytes.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from math import ceil
from threading import BoundedSemaphore
from time import monotonic, time
from typing import Final

from apps.accounts.permissions import Principal
from apps.core.lanes import Answer, Request, plain_refusal
from apps.core.telemetry import Counter, Gauge
from apps.metrics import services
from apps.metrics.protocols.protobuf import Malformed
from apps.metrics.protocols.unpacking import TooLarge, UnknownPacking
from apps.metrics.samples import REASONS, Samples
from apps.metrics.services import StoreFull, Written
from apps.metrics.throttle import Throttle

_OF: Final = ("protocol", "token")
SENDERS: Final = 2_000
"""Pairs of protocol and token that are counted apart in one process."""
REQUESTS: Final = Counter(
    "portal_push_requests_total", "Requests that pushed samples, by how they were answered.", (*_OF, "code"),
    limit=2 * SENDERS,
)  # fmt: skip
BYTES: Final = Counter("portal_push_bytes_total", "Bytes of pushed requests, as they came.", _OF, limit=SENDERS)
SAMPLES: Final = Counter(
    "portal_push_samples_total", "Pushed samples and log records that were stored.", _OF, limit=SENDERS
)
REFUSED: Final = Counter(
    "portal_push_refused_total", "Pushed samples, or whole requests, that were refused.", (*_OF, "reason"),
    limit=2 * SENDERS,
)  # fmt: skip
LAST: Final = Gauge(
    "portal_push_last_timestamp_seconds", "When a sender was last heard, in seconds since 1970.", _OF, limit=SENDERS
)

RETRY_AFTER: Final = 30
THROTTLE: Final = Throttle()
LARGE_BYTES: Final = 4_000_000
"""Requests that unpack to more, 25,000 samples or so, take turns: each takes ten times its size while it is read."""
LARGE_PATIENCE: Final = 10.0
"""Seconds that one waits for its turn, in a thread that others could use."""

_large: Final = BoundedSemaphore(2)


class Refused(Exception):
    """A whole request that is refused: HTTP status, a sentence for the sender, and where it may be sent again, when.

    `reason` is the word that counters carry (a key of `samples.REASONS`), empty where a full disk or a queue is to
    blame and nothing is lost.
    """

    def __init__(self, status: int, sentence: str, *, reason: str = "", wait: float | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.reason, self.wait = status, sentence, reason, wait

    @property
    def retry_after(self) -> int | None:
        """Whole seconds for the header Retry-After."""
        return None if self.wait is None else max(1, ceil(self.wait))


@dataclass(frozen=True, slots=True)
class Push:
    """One request of a sender on its way in."""

    protocol: str
    by: Principal

    @property
    def sender(self) -> str:
        """Who is counted: a token by its name and first letters, everybody else by their kind."""
        return self.by.name if self.by.kind == "token" else self.by.kind

    def check_quota(self) -> None:
        """Raise Refused (429) while the token's bucket is empty."""
        rate = self.by.quota.samples_per_second
        if rate is None or (wait := THROTTLE.wait(self.by.id, rate, monotonic())) <= 0:
            return
        sentence = f"{self.by.name} may send {rate} samples a second: send this again in {wait:.1f} s."
        raise Refused(429, sentence, reason="rate_limit", wait=wait)

    def take(self, samples: int) -> None:
        """Take that many samples out of the token's bucket."""
        if (rate := self.by.quota.samples_per_second) is not None:
            THROTTLE.take(self.by.id, rate, samples, monotonic())

    def store(self, samples: Samples, *, now: datetime) -> Written:
        """Ingest within the quota and count what became of it. Raises Refused (503) while the disk is full."""
        self.take(len(samples))
        try:
            written = services.ingest(samples=samples, by=self.by, now=now)
        except StoreFull as error:
            raise Refused(503, str(error), wait=RETRY_AFTER) from None
        self.stored(written)
        return written

    def stored(self, written: Written) -> None:
        """Count what became of samples that were stored otherwise than by `store`."""
        SAMPLES.inc(written.accepted, protocol=self.protocol, token=self.sender)
        for reason, count in Tally(rejection.reason for rejection in written.rejected).items():
            REFUSED.inc(count, protocol=self.protocol, token=self.sender, reason=reason)

    def accepted(self, count: int) -> None:
        """Count what was stored and is no sample, such as log records."""
        SAMPLES.inc(count, protocol=self.protocol, token=self.sender)

    def refused(self, reason: str, count: int = 1) -> None:
        """Count what never became samples; `reason` is a key of `samples.REASONS`."""
        if count:
            services.count_refused(reason, count)
            REFUSED.inc(count, protocol=self.protocol, token=self.sender, reason=reason)

    def finish(self, size: int, code: int) -> None:
        """Count the request itself: its bytes as they came and the status of its answer."""
        REQUESTS.inc(protocol=self.protocol, token=self.sender, code=str(code))
        BYTES.inc(size, protocol=self.protocol, token=self.sender)
        LAST.set(time(), protocol=self.protocol, token=self.sender)


@contextmanager
def turn(size: int) -> Iterator[None]:
    """Hold one of the turns of large requests while a request of `size` unpacked bytes is read. Raises Refused."""
    if size <= LARGE_BYTES:
        yield
        return
    if not _large.acquire(timeout=LARGE_PATIENCE):
        sentence = "Several large requests are being read; send this one again, or in smaller parts."
        raise Refused(503, sentence, wait=RETRY_AFTER)
    try:
        yield
    finally:
        _large.release()


Serve = Callable[[Principal, Request], Answer]
Take = Callable[[Push, Request], Answer]
Say = Callable[[Request, int, str], Answer]


def plainly(request: Request, status: int, sentence: str) -> Answer:
    """Refuse as most of the portal's API does."""
    return plain_refusal(status, sentence)


def pushed(protocol: str, refuse: Say = plainly) -> Callable[[Take], Serve]:
    """Make a lane's callable of a protocol's: quota before it, refusals in its words, everything counted."""

    def wrap(take: Take) -> Serve:
        @wraps(take)
        def served(by: Principal, request: Request) -> Answer:
            push = Push(protocol, by)
            try:
                push.check_quota()
                said = take(push, request)
            except Refused as error:
                said = _refusal(push, request, error, refuse)
            except TooLarge as error:
                said = _refusal(push, request, Refused(413, str(error), reason="too_large"), refuse)
            except UnknownPacking as error:
                sentence = f"The body is packed by {error}; gzip is known here."
                said = _refusal(push, request, Refused(415, sentence, reason="unsupported"), refuse)
            except Malformed as error:
                sentence = f"The request cannot be read: {error}. Nothing was stored."
                said = _refusal(push, request, Refused(400, sentence, reason="malformed"), refuse)
            push.finish(len(request.body), said.status)
            return said

        return served

    return wrap


def _refusal(push: Push, request: Request, error: Refused, refuse: Say) -> Answer:
    if error.reason:
        push.refused(error.reason)
    said = refuse(request, error.status, error.sentence)
    if (seconds := error.retry_after) is None:
        return said
    return Answer(said.status, said.body, said.content_type, (*said.headers, (b"retry-after", b"%d" % seconds)))


def told(written: Written, others: Tally[str] | None = None) -> str:
    """How much was stored, what was not and why, in a sentence for whoever reads the sender's log."""
    reasons = Tally(rejection.reason for rejection in written.rejected) + (others or Tally())
    parts = [f"{count}: {REASONS[reason]}" for reason, count in reasons.most_common()]
    return f"{written.accepted} samples were stored, others refused. " + "; ".join(parts) + "."
