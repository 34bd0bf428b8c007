"""Senders that number their samples, remember which requests were acknowledged, and compare with what is stored.

Each request is one sample of each of a sender's series: the value tells the request's number, the time is its own. It
is sent until it is acknowledged, as a real sender does, so what is stored must be every acknowledged number once.
"""

import http.client
import json
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit
from zlib import crc32

from tests.metrics import remote_write

NAME: Final = "fault_number"
HEADERS: Final = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
PATIENCE: Final = 15.0
AT_ONCE: Final = 20
"""Series that one reading asks for."""


def value_of(number: int, series: int) -> float:
    """The value of a request's sample of one series: its number, and a fraction that no codec can guess."""
    return number + crc32(b"%d %d" % (number, series)) / 2**32


class Sender:
    """One keep-alive connection that sends numbered requests until it is stopped."""

    def __init__(self, url: str, token: str, name: str, *, series: int, a_second: float) -> None:
        self.host, self.port = str(urlsplit(url).hostname), int(urlsplit(url).port or 80)
        self.headers = {**HEADERS, "Authorization": f"Bearer {token}"}
        self.name, self.series, self.pause = name, series, 1 / a_second if a_second else 0.0
        self.heads = [
            b"".join(
                remote_write.label(*pair)
                for pair in (("__name__", NAME), ("group", str(n // AT_ONCE)), ("n", str(n)), ("sender", name))
            )
            for n in range(series)
        ]
        self.times: list[int] = []
        """The time (ms) of each request, by its number."""
        self.acknowledged: dict[int, float] = {}
        """When (monotonic seconds) a number was acknowledged."""
        self.repeated = 0
        self.refused: list[str] = []
        """Answers that forbid to send again: of good samples there must be none."""
        self._line: http.client.HTTPConnection | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Sender":
        self._thread.start()
        return self

    def stop(self, patience: float = 60) -> None:
        """End after the request that is on its way has been acknowledged."""
        self._over.set()
        self._thread.join(patience)
        assert not self._thread.is_alive(), f"Sender {self.name} got no answer within {patience:g} s."

    def _run(self) -> None:
        while not self._over.is_set():
            number = len(self.times)
            stamp = max(int(time.time() * 1000), self.times[-1] + 1 if self.times else 0)
            body = remote_write.packed(
                *(
                    remote_write.chunk(1, head + remote_write.sample(stamp, value_of(number, n)))
                    for n, head in enumerate(self.heads)
                )
            )
            self.times.append(stamp)
            if self._deliver(body):
                self.acknowledged[number] = time.monotonic()
            self._over.wait(self.pause)
        if self._line is not None:
            self._line.close()

    def _deliver(self, body: bytes) -> bool:
        """Send until somebody answers for good; True when it was acknowledged."""
        while True:
            status, said = self._post(body)
            if 200 <= status < 300:
                return True
            if status and status < 500 and status != 429:
                self.refused.append(f"{status}: {said}")
                return False
            self.repeated += 1
            time.sleep(0.1)

    def _post(self, body: bytes) -> tuple[int, str]:
        """(status, words), status 0 where no answer came."""
        try:
            if self._line is None:
                self._line = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
            self._line.request("POST", "/api/v1/write", body, self.headers)
            with self._line.getresponse() as answer:
                return answer.status, answer.read().decode(errors="replace")[:300]
        except (OSError, http.client.HTTPException) as error:
            if self._line is not None:
                self._line.close()
            self._line = None
            return 0, str(error)


@dataclass
class Tally:
    """What became of the samples that were acknowledged while one part was being killed."""

    kills: int = 0
    acknowledged: int = 0
    stored: int = 0
    missing: int = 0
    doubled: int = 0


@dataclass
class Kill:
    """A part that was killed, and when (monotonic seconds)."""

    part: str
    at: float


@dataclass
class Account:
    """The comparison of a whole run: by part, what was never sent, what was refused."""

    parts: dict[str, Tally] = field(default_factory=dict)
    unsent: int = 0
    repeated: int = 0
    refused: list[str] = field(default_factory=list)

    @property
    def whole(self) -> Tally:
        """The sum over all parts."""
        names = ("kills", "acknowledged", "stored", "missing", "doubled")
        return Tally(*(sum(getattr(tally, name) for tally in self.parts.values()) for name in names))


BEFORE: Final = 1.0
"""An acknowledgement this many seconds before a kill counts for the part that is killed: it is what might be lost."""


def account(senders: Iterable[Sender], kills: Sequence[Kill], url: str, token: str) -> Account:
    """Read everything back over HTTP and compare it, sample by sample, with what was acknowledged."""
    starts = [kill.at - BEFORE for kill in kills]
    names = ["nobody yet", *(kill.part for kill in kills)]
    found = Account({name: Tally() for name in dict.fromkeys(names)})
    for kill in kills:
        found.parts[kill.part].kills += 1
    for sender in senders:
        found.repeated += sender.repeated
        found.refused += sender.refused
        part_of = {number: names[bisect_right(starts, at)] for number, at in sender.acknowledged.items()}
        for n, stored in _stored(sender, url, token):
            counts: dict[tuple[int, float], int] = {}
            for sample in stored:
                counts[sample] = counts.get(sample, 0) + 1
            for number, stamp in enumerate(sender.times):
                times = counts.pop((stamp, value_of(number, n)), 0)
                if number in part_of:
                    tally = found.parts[part_of[number]]
                    tally.acknowledged += 1
                    tally.stored += times > 0
                    tally.missing += not times
                    tally.doubled += max(0, times - 1)
            found.unsent += sum(counts.values())
    return found


def _stored(sender: Sender, url: str, token: str) -> Iterable[tuple[int, list[tuple[int, float]]]]:
    """(number of a series, its samples as the portal tells them: (ms, value)) of all of a sender's series."""
    begin, end = sender.times[0] // 1000 - 60, sender.times[-1] // 1000 + 60
    left = set(range(sender.series))
    for group in range(-(-sender.series // AT_ONCE)):
        query = f'{NAME}{{sender="{sender.name}",group="{group}"}}[{end - begin}s]'
        for series in ask(url, token, f"/api/v1/query?time={end}&query={quote(query)}")["result"]:
            n = int(series["metric"]["n"])
            left.discard(n)
            yield n, [(round(at * 1000), float(value)) for at, value in series["values"]]
    for n in left:  # A series of which nothing is there has lost everything.
        yield n, []


def ask(url: str, token: str, path: str) -> Any:
    """The data of an answer of the Prometheus API."""
    where = urlsplit(url)
    line = http.client.HTTPConnection(str(where.hostname), where.port, timeout=120)
    try:
        line.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = line.getresponse()
        said = json.loads(answer.read())
    finally:
        line.close()
    assert answer.status == 200, said
    assert "warnings" not in said, said
    return said["data"]
