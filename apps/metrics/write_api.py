"""Where samples are pushed by remote write, 1.0 and 2.0. 2xx comes after the commit, which requests may share.

A request that is not remote write at all is refused whole. Of one that is, every good sample is stored; that some
were refused is said with 400, as the protocol has it: a sender that got it does not send them again. What may pass
later (a full disk, a database that is away) is 503, which the sender repeats; so is 429, to a token that sends more
samples a second than it may. Which of the two messages the body holds is said by `proto=` in its Content-Type; what is
not said is taken for 1.0. To 2.0 each answer carries how much was written, for its senders count by that.

Sources: prometheus.io/docs/specs/prw/remote_write_spec and …/remote_write_spec_2_0 (2.0-rc.4).
"""

from collections import Counter as Tally
from collections.abc import Mapping
from typing import Final

from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.core.lanes import Answer, Lane, Request, plain_refusal
from apps.metrics import registry
from apps.metrics.intake import Push, Refused, plainly, pushed, told, turn
from apps.metrics.protocols import remote_write, remote_write_2
from apps.metrics.protocols.unpacking import snappy_size, unsnapped
from apps.metrics.services import Written, one_commit

PROTOBUF: Final = "application/x-protobuf"
ONE: Final = "prometheus.WriteRequest"
TWO: Final = "io.prometheus.write.v2.Request"
_WRITTEN: Final = b"x-prometheus-remote-write-%s-written"


def write(by: Principal, request: Request) -> Answer:
    """Store the samples of one remote write request of either version."""
    return (_write_2 if _message(request) == TWO else _write_1)(by, request)


@pushed("remote_write")
def _write_1(push: Push, request: Request) -> Answer:
    _check(request)
    with turn(snappy_size(request.body)):
        found = remote_write.decode(unsnapped(request.body), registry.current().keys)
        written = push.store(found.samples, now=timezone.now())
    return _answer(push, written, {"native_histogram": found.histograms})


def _refuse_2(request: Request, status: int, sentence: str) -> Answer:
    """Refuse in the words of 2.0: nothing was written."""
    return _counted(plainly(request, status, sentence), 0)


@pushed("remote_write_2", _refuse_2)
def _write_2(push: Push, request: Request) -> Answer:
    _check(request)
    with turn(snappy_size(request.body)):
        found = remote_write_2.decode(unsnapped(request.body))
        written = push.store(found.samples, now=timezone.now())
    others = {"native_histogram": found.histograms, "no_samples": found.empty}
    return _counted(_answer(push, written, others), written.accepted)


def _counted(said: Answer, samples: int) -> Answer:
    """Add how much was written; native histograms and exemplars are not kept here, so none of them ever is."""
    written = {b"samples": samples, b"histograms": 0, b"exemplars": 0}
    more = tuple((_WRITTEN % name, b"%d" % count) for name, count in written.items())
    return Answer(said.status, said.body, said.content_type, (*said.headers, *more))


def _answer(push: Push, written: Written, others: Mapping[str, int]) -> Answer:
    """204 where all was stored; else 400 with what was not, and why."""
    for reason, count in others.items():
        push.refused(reason, count)
    if not written.rejected and not any(others.values()):
        return Answer(204)
    return plain_refusal(400, told(written, Tally({reason: count for reason, count in others.items() if count})))


def _message(request: Request) -> str:
    """The message that the Content-Type names; 1.0's where it names none, or as it stands where it is unknown."""
    _, _, parameters = request.header(b"content-type").partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "proto":
            wanted = value.strip().strip('"')
            known = {message.lower(): message for message in (ONE, TWO)}
            return known.get(wanted.lower(), wanted)
    return ONE


def _check(request: Request) -> None:
    """Raise Refused (415) where the headers say that the body cannot be read."""
    kind = request.header(b"content-type").lower().partition(";")[0].strip()
    if kind not in ("", PROTOBUF):
        raise _unsupported(f"The body is {kind!r}; remote write is {PROTOBUF}.")
    if (message := _message(request)) not in (ONE, TWO):
        raise _unsupported(f"The message is {message!r}; this address takes {ONE} (1.0) and {TWO} (2.0).")
    if (encoding := request.header(b"content-encoding").strip().lower()) not in ("", "snappy"):
        raise _unsupported(f"The body is packed by {encoding!r}; remote write uses snappy.")


def _unsupported(sentence: str) -> Refused:
    return Refused(415, sentence, reason="unsupported")


LANES: Final[dict[str, Lane]] = {
    "/api/v1/write": Lane(
        frozenset({"POST"}),
        Right.INGEST,
        write,
        together=one_commit,
        summary="Takes samples by Prometheus remote write 1.0 and 2.0.",
    )
}
