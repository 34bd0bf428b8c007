"""One run of faults over the real path: senders and a Prometheus push to a portal whose parts are killed meanwhile."""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from monitoring_portal.testing import EVERYBODY, Portal
from tests.faults.disk import SmallDisk
from tests.faults.peer import STALE, Exporter, Prometheus, Series, free_port
from tests.faults.sender import Account, Kill, Sender, account

TOKEN: Final = "fault-run-token-0123456789-abcdef"
PARTS: Final = ("web", "worker", "slow", "postgres", "valkey", "supervisor")
PATIENCE: Final = 120.0
HOLD: Final = 12.0
"""Seconds for which the disk stays full."""
ALMOST: Final = 300_000_000
"""Bytes left where the disk is full for ingest, which refuses, and not yet for PostgreSQL."""


@dataclass
class Peer:
    """What Prometheus held against what the portal holds of it, sample by sample and bit by bit."""

    held: int = 0
    stored: int = 0
    missing: int = 0
    different: int = 0
    unheld: int = 0
    markers: int = 0
    failed: float = 0.0
    """Samples that Prometheus gave up, by its own figure."""
    examples: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """All that a run tells."""

    account: Account
    peer: Peer | None
    kills: list[Kill]


class Run:
    """A portal under load, and the faults done to it."""

    def __init__(self, folder: Path, *, disk: SmallDisk | None = None, seed: int | None = None) -> None:
        self.folder, self.disk = folder, disk
        self.portal = Portal(
            folder if disk is None else disk.folder,
            {"MONITORING_AUTH_TOKEN": TOKEN, "PORT": str(free_port())},
        )
        # What the portal prints stays readable while its disk is full.
        self.portal.output_path = folder / "output.txt"
        self.chance = random.Random(seed)
        self.kills: list[Kill] = []
        self.senders: list[Sender] = []

    def go(self, seconds: float, *, prometheus: bool) -> Outcome:
        """Run for so long, and until each part was killed once; wait until all is well again; compare."""
        with ExitStack() as stack:
            stack.enter_context(self.portal)
            url = self.portal.url
            self.senders = [
                Sender(url, TOKEN, "few", series=5, a_second=50).start(),
                Sender(url, TOKEN, "many", series=200, a_second=10).start(),
            ]
            peer = None
            if prometheus:
                exporter = Exporter()
                stack.callback(exporter.stop)
                peer = stack.enter_context(Prometheus(self.folder / "prometheus", url, TOKEN, exporter.address))
            self._harm(seconds)
            compared = self._compared(peer) if peer else None
            for sender in self.senders:
                sender.stop(PATIENCE)
            found = account(self.senders, self.kills, url, TOKEN)
        return Outcome(found, compared, self.kills)

    def _harm(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        floods = [until - seconds * 2 / 3, until - seconds / 3]
        for part in self._parts():
            if time.monotonic() >= until and {kill.part for kill in self.kills} >= set(PARTS):
                break
            time.sleep(self.chance.uniform(0.1, 0.9))
            if self.disk is not None and floods and time.monotonic() >= floods[0]:
                floods.pop(0)
                self._until(self._is_whole, "everybody to be back")
                if floods:
                    self._flood(self.disk, "disk nearly full", ALMOST)
                else:
                    self._flood(self.disk, "disk full", 0)
            self._kill(part)
        self._until(self._is_whole, "everybody to be back")
        self._until(self._acknowledges(), "the senders to be acknowledged again")

    def _is_whole(self) -> bool:
        return len(self.portal.pids) == len(EVERYBODY) and self.portal.answers()

    def _parts(self) -> Iterator[str]:
        """Every part in an order of chance, again and again."""
        while True:
            yield from self.chance.sample(PARTS, len(PARTS))

    def _kill(self, part: str) -> None:
        """Kill it; the next one follows at times before it is back."""
        self._until(lambda: part in self.portal.pids, f"{part} to be there")
        at = time.monotonic()
        try:
            before = self.portal.kill(part)
        except ProcessLookupError:
            return  # An earlier fault has ended it just now.
        self.kills.append(Kill(part, at))
        if part == "supervisor":
            assert self.portal.process is not None
            self.portal.process.wait()
            self.portal.start(PATIENCE)
        elif self.chance.random() < 0.5:
            self.portal.wait_back(part, before, PATIENCE)

    def _flood(self, disk: SmallDisk, name: str, leave: int) -> None:
        """Fill the disk, hold it, free it, and wait until samples are acknowledged again."""
        self.kills.append(Kill(name, time.monotonic()))
        disk.fill(leave)
        time.sleep(HOLD)
        quiet = self._acknowledges()
        time.sleep(1.0)
        assert not quiet(), f"Samples were acknowledged {HOLD:g} s after the disk was filled."
        disk.free_it()
        self._until(self._acknowledges(), "samples to be acknowledged once there was room again")
        self._until(self._is_whole, "everybody to be back")

    def _acknowledges(self) -> Callable[[], bool]:
        """Whether every sender has been acknowledged since now."""
        before = [len(sender.acknowledged) for sender in self.senders]
        return lambda: all(
            len(sender.acknowledged) > count + 1 for sender, count in zip(self.senders, before, strict=True)
        )

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        self.portal.wait(condition, PATIENCE, what)

    # --- Prometheus -------------------------------------------------------------------------------------------------

    def _compared(self, peer: Prometheus) -> Peer:
        """Compare what it holds up to now, once it has sent so much."""
        end = int(time.time() * 1000)
        sent = "prometheus_remote_storage_queue_highest_sent_timestamp_seconds"
        self._until(lambda: peer.figure(sent) * 1000 > end + 1000, "Prometheus to send what it has")
        deadline = time.monotonic() + 15
        while True:
            # In this order: what a slow scrape adds to Prometheus meanwhile is missed here, and looked for again.
            stored = self._stored(end)
            found = compare(peer.held(0, end), stored)
            # Its shards do not end at once: the last of them may still be on their way.
            if not found.missing or time.monotonic() > deadline:
                break
            time.sleep(1.0)
        names = ("samples_failed_total", "samples_dropped_total")
        found.failed = sum(peer.figure(f"prometheus_remote_storage_{name}") for name in names)
        return found

    def _stored(self, end: int) -> Series:
        """What the portal holds of Prometheus' jobs, read from its store, where staleness markers are samples too."""
        path = self.folder / "stored.npz"
        done = self.portal.manage("shell", "-c", DUMP.format(end=end, path=str(path)))
        assert done.returncode == 0, done.stderr
        with np.load(path) as got:
            labels, ts, bits, off = json.loads(str(got["labels"])), got["ts"], got["v"].view(np.uint64), got["off"]
        return {
            frozenset(one.items()): dict(zip(ts[a:b].tolist(), bits[a:b].tolist(), strict=True))
            for one, a, b in zip(labels, off[:-1], off[1:], strict=True)
        }


DUMP: Final = """
import json
import numpy as np
from apps.metrics import query
from apps.promql.source import Matcher
wanted = [Matcher("job", "=~", "itself|odd"), Matcher("__name__", "!~", "ALERTS.*")]  # the portal's own of these jobs
got = query.select(wanted, -1, {end})
assert not got.warnings, got.warnings
np.savez({path!r}, labels=json.dumps(got.labels.dicts()), ts=got.ts, v=got.v, off=got.off)
"""


def compare(held: Series, stored: Series) -> Peer:
    """Count what is missing, different, or there without being held."""
    found = Peer()
    for labels in held.keys() | stored.keys():
        theirs, ours = held.get(labels, {}), stored.get(labels, {})
        found.held += len(theirs)
        found.stored += len(ours)
        found.markers += sum(bits == STALE for bits in theirs.values())
        found.missing += len(theirs.keys() - ours.keys())
        found.unheld += len(ours.keys() - theirs.keys())
        found.different += sum(theirs[at] != ours[at] for at in theirs.keys() & ours.keys())
        if theirs != ours and len(found.examples) < 5:
            odd = sorted(dict(theirs.items() ^ ours.items()))[:3]
            told = "; ".join(f"at {at}: {_bits(theirs.get(at))}, here {_bits(ours.get(at))}" for at in odd)
            found.examples.append(f"{dict(sorted(labels))} {told}")
    return found


def _bits(number: int | None) -> str:
    return "none" if number is None else f"{number:#x}"
