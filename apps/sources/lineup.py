"""What a process knows of one target's series: from the lines of its body to slots of the registry, nearly for free.

A series is worked out once, when its line is first seen: parsed, given the target's labels, relabelled, checked against
the limits, looked up in the registry. From then on it is a number in an array. A body whose lines are those of the last
one, in the same order, costs a comparison.

A line-up also knows which series the last stored scrape had, so that those that vanish are ended by a staleness marker.
It holds no connection and never asks the database.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from apps.metrics.codec import Float64, Int64
from apps.metrics.protocols.exposition import NO_TIME, Exposition, Format, Reader, Unreadable
from apps.metrics.registry import Registry
from apps.metrics.samples import NAME, REASONS, Meta
from apps.promql.series import STALE
from apps.sources.relabel import Rule, relabel

DROPPED: Final = -1
REFUSED: Final = -2
MOST_PROBLEMS: Final = 20
WORN: Final = 4
"""A line-up of this many times the series of a scrape is made anew: the others have gone."""
ROOM: Final = 10
"""Where relabelling may drop series, the body may have this many times the limit."""

UP: Final = "up"
REPORTS: Final[Mapping[str, Meta]] = {
    UP: Meta("gauge", "Whether the last scrape of the target worked."),
    "scrape_duration_seconds": Meta("gauge", "How long the scrape took.", "seconds"),
    "scrape_samples_scraped": Meta("gauge", "Samples that the target showed."),
    "scrape_samples_post_metric_relabeling": Meta("gauge", "Samples that were left after relabelling."),
    "scrape_series_added": Meta("gauge", "Series that the scrape before did not have."),
}
"""The series that each scrape adds, whatever became of it."""


class Failed(Exception):
    """The scrape as a whole failed: the target is down for the reason in the text."""


@dataclass(frozen=True)
class Settings:
    """How the series of a target are labelled and limited."""

    labels: Mapping[str, str]
    rules: tuple[Rule, ...] = ()
    honor_labels: bool = False
    honor_timestamps: bool = True
    sample_limit: int = 10_000
    label_limit: int = 30
    label_name_limit: int = 200
    label_value_limit: int = 1024


@dataclass(frozen=True, eq=False)
class Round:
    """What one scrape brought: slots int64[N], ts int64[N] ms and v float64[N] to be stored, and how it went.

    `present` are the slots that the target's next scrape is compared with.
    """

    slots: Int64
    ts: Int64
    v: Float64
    registry: Registry
    meta: Mapping[str, Meta]
    present: Int64
    at_ms: int
    new_series: int = 0
    error: str = ""
    scraped: int = 0
    kept: int = 0
    added: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Body:
    """A body each of whose series stands once, without a time, and was not refused: what its numbers come to."""

    numbers: Int64
    kept: Int64 | None
    """Indices of those that relabelling does not drop; None: it drops none."""
    slots: Int64
    present: Int64


class Lineup:
    """The series of one target, for one thread at a time."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.settings = settings
        self.registry = registry
        self._reader = Reader()
        self._slots: Int64 = np.zeros(64, dtype=np.int64)
        self._why: dict[int, str] = {}
        self._known = 0
        self._reports: Int64 | None = None
        self._present: Int64 = np.zeros(0, dtype=np.int64)
        self._same: _Body | None = None
        self._is_told = False
        self._at: int | None = None
        self._before = len(registry)

    def read(self, body: bytes, form: Format, at_ms: int, seconds: float) -> Round:
        """Turn a body into a round; what the target showed the last time and not now is ended."""
        most = self.settings.sample_limit * (ROOM if self.settings.rules else 1)
        self._before = len(self.registry)
        try:
            found = self._reader.read(body, form, most)
            return self._round(found, at_ms, seconds)
        except (Unreadable, Failed) as error:
            if len(self._reader) > WORN * most:
                self._forget()
            return self.fail(str(error), at_ms, seconds)

    def fail(self, error: str, at_ms: int, seconds: float) -> Round:
        """The round of a scrape that failed: all series of the target end."""
        nothing = np.zeros(0, dtype=np.int64)
        return self._finish(nothing, nothing, np.zeros(0), nothing, at_ms, seconds, error=error)

    def end(self, at_ms: int) -> Round:
        """The last round of a target that is no longer scraped: its series end, those about the scrape too.

        Not those that somebody else wrote since: another target took them over.
        """
        gone = np.concatenate([self._present, self._report_slots()])
        gone = gone[gone >= 0]
        if self._at is not None:
            gone = gone[self.registry.newest[gone] <= self._at]
        ts = np.full(len(gone), at_ms, dtype=np.int64)
        return Round(gone, ts, np.full(len(gone), STALE), self.registry, {}, np.zeros(0, dtype=np.int64), at_ms)

    def follow(self, other: "Lineup") -> None:
        """Take the place of a line-up of the same target: what that one had stored and this one has not will end."""
        if other.registry is self.registry:
            self._present = other._present  # noqa: SLF001 - of its own kind

    def stored(self, done: Round) -> None:
        """Take note that a round is in the store."""
        self._present, self._at = done.present, done.at_ms

    # --- the series ------------------------------------------------------------------------------------------------

    def _round(self, found: Exposition, at_ms: int, seconds: float) -> Round:
        self._learn()
        numbers, ts, v = found.numbers, np.full(len(found), at_ms, dtype=np.int64), found.v
        stamped = (found.ts != NO_TIME) & self.settings.honor_timestamps
        refused: Counter[str] = Counter({"malformed": found.refused} if found.refused else {})
        problems = [str(problem) for problem in found.problems[:MOST_PROBLEMS]]
        same = self._same
        if same is not None and np.array_equal(same.numbers, numbers) and not stamped.any():
            slots, present = same.slots, same.present
            if same.kept is not None:
                ts, v = ts[same.kept], v[same.kept]
        else:
            ts = np.where(stamped, found.ts, ts)
            kept = self._kept(numbers, ts, refused, problems)
            slots, ts, v = self._slots[numbers[kept]], ts[kept], v[kept]
            present = np.unique(slots[~stamped[kept]])
            usual = not refused and not stamped.any()
            whole = len(kept) == len(numbers)
            self._same = _Body(numbers, None if whole else kept, slots, present) if usual else None
        if len(slots) > self.settings.sample_limit:
            raise Failed(f"It has {len(slots)} samples, and the job takes {self.settings.sample_limit} at most.")
        done = self._finish(
            slots, ts, v, present, at_ms, seconds,
            scraped=len(numbers), refused=refused, problems=problems, meta=found.meta,
        )  # fmt: skip
        if len(self._reader) > WORN * max(len(numbers), 1000):
            self._forget()
        return done

    def _kept(self, numbers: Int64, ts: Int64, refused: Counter[str], problems: list[str]) -> Int64:
        """Indices of the samples that are to be stored, each series and time once; the others are told."""
        slots = self._slots[numbers]
        for index in np.flatnonzero(slots == REFUSED).tolist():
            why = self._why[int(numbers[index])]
            self._refuse(int(numbers[index]), why, refused, problems)
        kept = np.flatnonzero(slots >= 0)
        ordered = kept[np.lexsort((ts[kept], slots[kept]))]
        again = np.zeros(len(ordered), dtype=np.bool_)
        again[1:] = (np.diff(slots[ordered]) == 0) & (np.diff(ts[ordered]) == 0)
        twice = np.sort(ordered[again])
        for index in twice.tolist():
            self._refuse(int(numbers[index]), "duplicate_series", refused, problems)
        return np.setdiff1d(kept, twice, assume_unique=True) if len(twice) else kept

    def _refuse(self, number: int, why: str, refused: Counter[str], problems: list[str]) -> None:
        refused[why] += 1
        if len(problems) < MOST_PROBLEMS:
            problems.append(f"{self._shown(number)}: {why_text(why, self.settings)}")

    def _learn(self) -> None:
        """Work out the series that are new since the last time."""
        count = len(self._reader)
        if count > len(self._slots):
            self._slots = np.concatenate([self._slots, np.zeros(max(count, len(self._slots)), dtype=np.int64)])
        for number in range(self._known, count):
            made = self.series(self._reader.labels(number))
            if isinstance(made, str):
                self._why[number] = made
                self._slots[number] = REFUSED
            elif made is None:
                self._slots[number] = DROPPED
            else:
                slot = self.registry.slot(made)
                if isinstance(slot, str):
                    self._why[number] = slot
                    self._slots[number] = REFUSED
                else:
                    self._slots[number] = slot
        self._known = count

    def series(self, labels: Mapping[str, str]) -> dict[str, str] | str | None:
        """The labels under which a series is stored, why it is refused, or None where relabelling drops it."""
        settings = self.settings
        found = dict(labels)
        if settings.honor_labels:
            for name, value in settings.labels.items():
                found.setdefault(name, value)
        else:
            for name, value in settings.labels.items():
                if found.get(name):
                    other = f"exported_{name}"
                    while other in found or other in settings.labels:
                        other = f"exported_{other}"
                    found[other] = found[name]
                found[name] = value
        kept = relabel(settings.rules, found)
        if kept is None:
            return None
        if len(kept) - (NAME in kept) > settings.label_limit:
            return "label_limit"
        if max(map(len, kept), default=0) > settings.label_name_limit:
            return "label_limit"
        if any(len(value.encode(errors="replace")) > settings.label_value_limit for value in kept.values()):
            return "label_limit"
        return kept

    def _forget(self) -> None:
        self._reader, self._known, self._same = Reader(), 0, None
        self._why.clear()

    def _shown(self, number: int) -> str:
        text = self._reader.text(number).decode(errors="replace").strip()
        return text if len(text) <= 200 else f"{text[:199]}…"

    # --- what is stored with them ----------------------------------------------------------------------------------

    def _report_slots(self) -> Int64:
        if self._reports is None:
            found = [self.registry.slot({**self.settings.labels, NAME: name}) for name in REPORTS]
            self._reports = np.array([-1 if isinstance(slot, str) else slot for slot in found], dtype=np.int64)
        return self._reports

    def _finish(
        self, slots: Int64, ts: Int64, v: Float64, present: Int64, at_ms: int, seconds: float, *,
        scraped: int = 0, refused: Counter[str] | None = None, problems: Sequence[str] = (), error: str = "",
        meta: Mapping[str, Meta] | None = None,
    ) -> Round:  # fmt: skip
        """Add markers of what vanished and the series about the scrape itself."""
        gone = added = np.zeros(0, dtype=np.int64)
        if present is not self._present:
            added = np.setdiff1d(present, self._present, assume_unique=True)
            # One that has times of its own now lives on.
            gone = np.setdiff1d(np.setdiff1d(self._present, present, assume_unique=True), slots)
        values = [float(not error), seconds, float(scraped), float(len(slots)), float(len(added))]
        extra = np.concatenate([gone, self._report_slots()])
        done = Round(
            slots=np.concatenate([slots, extra]),
            ts=np.concatenate([ts, np.full(len(extra), at_ms, dtype=np.int64)]),
            v=np.concatenate([v, np.full(len(gone), STALE), np.array(values)]),
            registry=self.registry,
            meta={**(meta or {}), **({} if self._is_told else REPORTS)},
            present=present,
            at_ms=at_ms,
            new_series=len(self.registry) - self._before,
            error=error,
            scraped=scraped,
            kept=len(slots),
            added=len(added),
            refused=refused or Counter(),
            problems=list(problems),
        )
        self._is_told = True
        return done


def why_text(why: str, settings: Settings) -> str:
    """The sentence for a reason, with the job's own numbers."""
    if why == "label_limit":
        return (
            f"the job takes at most {settings.label_limit} labels, names of {settings.label_name_limit} characters and "
            f"values of {settings.label_value_limit} bytes"
        )
    return REASONS[why]
