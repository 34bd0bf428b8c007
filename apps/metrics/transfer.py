"""Samples out of the store and in from files: in portions that fit into memory, and resumable.

An import keeps beside the portal's data how far it has come, written after each portion that is stored. Samples that
are stored twice are the same samples, so a portion that was stored but not written down does no harm.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import islice, pairwise
from math import ceil
from pathlib import Path
from typing import IO, Final

import numpy as np

from apps.accounts.permissions import EVERYTHING, Principal, Scope
from apps.metrics import exchange, query, services
from apps.metrics.exchange import Line
from apps.metrics.samples import Samples
from apps.promql.series import Ragged
from apps.promql.source import Matcher, Request

PORTION: Final = 1_000_000
"""Samples that an export holds at once (16 MB and what decoding takes), unless they are of one instant's series."""
TOGETHER: Final = 5_000
"""Series of a portion at most."""
CHUNK: Final = 50_000
"""Samples that an import stores in one transaction."""
HEAD: Final = 65_536
SHOWN: Final = 20
"""Bad lines and refused samples that are told one by one."""


# --- out --------------------------------------------------------------------------------------------------------------


def portions(
    matchers: Sequence[Matcher], begin: int, end: int, *, scope: Scope = EVERYTHING, most: int = PORTION
) -> Iterator[tuple[Ragged, float]]:
    """(samples with begin < ts <= end (ms), share of the series that are done), a portion of the series at a time.

    The samples of a series follow each other, in several portions where one series has too many.
    """
    source = query.Source(scope)
    whole = Request(tuple(matchers), begin, end)
    series = source.estimate([whole])[0].series
    waiting = [(low, min(low + TOGETHER, series)) for low in range(0, series, TOGETHER)][::-1]
    while waiting:
        low, high = waiting.pop()
        part = replace(whole, rows=(low, high))
        samples = source.estimate([part])[0].samples
        if samples > most and high - low > 1:
            middle = (low + high) // 2
            waiting += [(middle, high), (low, middle)]
            continue
        for first, last in _spans(begin, end, ceil(samples / most)):
            yield source.select_many([replace(part, tmin=first, tmax=last)])[0], high / series


def _spans(begin: int, end: int, parts: int) -> list[tuple[int, int]]:
    """Equal spans of (begin, end].

    >>> _spans(0, 10, 3)
    [(0, 3), (3, 6), (6, 10)]
    """
    edges = [begin + (end - begin) * index // max(parts, 1) for index in range(max(parts, 1) + 1)]
    return list(pairwise(edges))


# --- in ---------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class State:
    """How far an import has come: bytes and lines read, samples stored and refused, lines that could not be read."""

    head: str
    offset: int = 0
    line: int = 0
    samples: int = 0
    refused: int = 0
    bad: int = 0
    problems: list[str] = field(default_factory=list)
    from_ms: int | None = None
    to_ms: int | None = None

    def told(self, problem: str) -> None:
        if len(self.problems) < SHOWN:
            self.problems.append(problem)

    def counts(self) -> dict[str, object]:
        """What the audit trail is told."""
        found = asdict(self)
        return {name: found[name] for name in ("samples", "refused", "bad", "from_ms", "to_ms")}


class Import:
    """One file on its way into the store. `folder` is where unfinished imports are kept; None: not resumable."""

    def __init__(self, source: Path | None, kind: str, folder: Path | None) -> None:
        self.source, self.kind = source, kind
        self.path: Path | None = None
        head = b""
        if source is not None:
            with source.open("rb") as file:
                head = file.read(HEAD)
        mark = hashlib.sha256(head).hexdigest()
        if source is not None and folder is not None:
            name = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:16]
            self.path = folder / f"{name}.json"
        self.state = State(mark)
        self.resumed = False

    def resume(self) -> bool:
        """Go on where an earlier run of the same file ended; whether there was one."""
        try:
            held = State(**json.loads(self.path.read_text())) if self.path is not None else None
        except (OSError, ValueError, TypeError):
            return False
        size = self.source.stat().st_size if self.source is not None else 0
        if held is None or held.head != self.state.head or not 0 < held.offset <= size:
            return False
        self.state, self.resumed = held, True
        return True

    def run(self, file: IO[bytes], *, by: Principal, now: Callable[[], datetime], each: Callable[[], None]) -> None:
        """Read and store to the end; `each` is called after every portion. Raises StoreFull, OSError, ValueError."""
        state = self.state
        header = ""
        if self.kind == exchange.CSV:
            first = file.readline()
            header = first.decode()
            exchange.csv_columns(header)
            if state.line == 0:
                state.line, state.offset = 1, len(first)
        if state.offset and self.source is not None:
            file.seek(state.offset)
        lines = exchange.read(file, self.kind, number=state.line, offset=state.offset, header=header)
        while chunk := list(self._chunk(lines)):
            self._store(chunk, by, now())
            self._keep()
            each()

    def _chunk(self, lines: Iterator[Line]) -> Iterator[Line]:
        """Lines of about CHUNK samples."""
        held = 0
        for line in islice(lines, CHUNK):
            yield line
            held += len(line.ts)
            if held >= CHUNK:
                return

    def _store(self, chunk: Sequence[Line], by: Principal, now: datetime) -> None:
        state = self.state
        for line in chunk:
            if line.problem:
                state.bad += 1
                state.told(f"Line {line.number}: {line.problem}")
        good = [line for line in chunk if line.ts]
        if good:
            counts = [len(line.ts) for line in good]
            owner = np.repeat(np.arange(len(good)), counts)
            keys = [tuple(line.labels.items()) for line in good]
            samples = Samples(
                keys=[keys[index] for index in owner.tolist()],
                labels_of=lambda index: good[int(owner[index])].labels,
                ts=np.array([at for line in good for at in line.ts], dtype=np.int64),
                v=np.array([value for line in good for value in line.v], dtype=np.float64),
            )
            written = services.store_past(samples=samples, by=by, now=now)
            state.samples += written.accepted
            state.refused += len(written.rejected)
            for rejection in written.rejected:
                state.told(f"Line {good[int(owner[rejection.index])].number}: refused, {rejection.text}")
            low, high = int(samples.ts.min()), int(samples.ts.max())
            state.from_ms = low if state.from_ms is None else min(state.from_ms, low)
            state.to_ms = high if state.to_ms is None else max(state.to_ms, high)
        state.line, state.offset = chunk[-1].number, chunk[-1].end

    def _keep(self) -> None:
        """Write down how far it has come; a reader never sees half of it."""
        if self.path is None:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self.state)))
        fresh.replace(self.path)

    def done(self) -> None:
        """Forget how far it has come: it is at its end."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
