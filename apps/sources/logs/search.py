"""Looks through log records: pages of them newest first, counts by time, templates. Everything takes a scope.

A page is found run by run from the newest backwards, and is complete as soon as it is full and no older run could hold
anything newer. A search gives up after so many records or seconds and says how far back it came, so that whoever asks
can go on from there. Packing replaces runs meanwhile: what is gone when it is fetched is listed anew.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from time import monotonic
from typing import Any, Final

import numpy as np
import orjson
from django.db.models import Min, Q, QuerySet

from apps.accounts.permissions import Scope
from apps.metrics.codec import Corrupt, Int64
from apps.sources.logs import columns, store
from apps.sources.logs.columns import GRID_MS, Run
from apps.sources.logs.records import LEVELS
from apps.sources.models import LogTemplate

log = logging.getLogger(__name__)

MOST_ROWS: Final = 1_000
"""Records of one page."""
MOST_LOOKED: Final = 2_000_000
"""Records that one search looks at."""
PATIENCE: Final = 4.0
"""Seconds that one search looks."""
AT_ONCE: Final = 8
"""Runs that are fetched together."""
ATTEMPTS: Final = 4
MOST_TEMPLATES: Final = 20_000
SHOWN_TEMPLATES: Final = 300
LONGEST_TEXT: Final = 200


class BadSearch(ValueError):
    """What is asked for cannot be; says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records: start <= at < end (ms), and what they have; empty: anything. `levels`: any of them."""

    start: int
    end: int
    service: str = ""
    levels: tuple[str, ...] = ()
    template: int | None = None
    host: str = ""
    text: str = ""

    def checked(self) -> "Wanted":
        """Return itself. Raises BadSearch."""
        if unknown := [level for level in self.levels if level not in LEVELS]:
            raise BadSearch(f"There is no level {unknown[0][:40]!r}; there are {', '.join(LEVELS)}.")
        if len(self.text) > LONGEST_TEXT:
            raise BadSearch(f"The text to look for is longer than {LONGEST_TEXT} characters.")
        if self.start >= self.end:
            raise BadSearch("The time must begin before it ends.")
        return self

    @property
    def is_by_content(self) -> bool:
        """Whether records themselves have to be looked at, their templates do not tell."""
        return bool(self.text or self.host)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page goes on: before `at` (ms), or at it after so many records that were shown already."""

    at: int
    skip: int = 0

    @classmethod
    def read(cls, text: str) -> "Cursor | None":
        """Read `at.skip`. Raises BadSearch."""
        if not text:
            return None
        at, _, skip = text.partition(".")
        if not (at.isdecimal() and (skip or "0").isdecimal() and len(text) < 40):
            raise BadSearch("The cursor is none that this portal gave.")
        return cls(int(at), int(skip or "0"))

    def __str__(self) -> str:
        return f"{self.at}.{self.skip}"


@dataclass(frozen=True, slots=True)
class Line:
    """One record as it is shown."""

    at: int
    template: int
    service: str
    level: str
    host: str
    message: str
    attributes: str

    @property
    def key(self) -> str:
        """What tells records apart on a page."""
        text = "\0".join((str(self.at), str(self.template), self.host, self.message, self.attributes))
        return blake2b(text.encode(), digest_size=9).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        return {
            "time": self.at,
            "level": self.level,
            "service": self.service,
            "host": self.host,
            "message": self.message,
            "attributes": orjson.loads(self.attributes) if self.attributes else {},
            "template": self.template,
        }


@dataclass(slots=True)
class Page:
    """Lines, newest first; where older ones begin, if there may be any; how far back was looked (ms), and how much."""

    lines: list[Line] = field(default_factory=list)
    cursor: Cursor | None = None
    reached: int = 0
    looked: int = 0
    is_partial: bool = False
    """Whether the search gave up before the page was full or everything was looked at."""
    damaged: int = 0


class _Gone(Exception):
    """A run that was listed is not there any more."""


def templates_for(wanted: Wanted, scope: Scope) -> "QuerySet[LogTemplate]":
    """Return the templates whose records are wanted and may be seen."""
    found: QuerySet[LogTemplate] = LogTemplate.objects.visible_to(scope)
    if wanted.service:
        found = found.filter(service=wanted.service)
    if wanted.levels:
        found = found.filter(level__in=wanted.levels)
    if wanted.template is not None:
        found = found.filter(pk=wanted.template)
    return found


def _chosen(wanted: Wanted, scope: Scope) -> tuple[dict[int, tuple[str, str]], Sequence[int] | None]:
    """((service, level) by id of each template that is wanted, the ids or None where they are all)."""
    rows = templates_for(wanted, scope).order_by().values_list("pk", "service", "level")[:MOST_TEMPLATES]
    names = {ident: (service, level) for ident, service, level in rows}
    is_any = not (wanted.service or wanted.levels or wanted.template is not None or scope.matchers)
    return names, None if is_any else sorted(names)


def page(wanted: Wanted, *, scope: Scope, limit: int = 100, cursor: Cursor | None = None) -> Page:
    """Return the newest records that are wanted, at most `limit`, from the cursor backwards. Raises BadSearch."""
    wanted.checked()
    names, ids = _chosen(wanted, scope)
    if not names:
        return Page(reached=wanted.start)
    end = wanted.end if cursor is None else min(wanted.end, cursor.at + 1)
    for _ in range(ATTEMPTS - 1):
        try:
            return _page(wanted, names, ids, end, cursor, min(limit, MOST_ROWS))
        except _Gone:
            continue
    return _page(wanted, names, ids, end, cursor, min(limit, MOST_ROWS))


def _page(
    wanted: Wanted, names: dict[int, tuple[str, str]], ids: Sequence[int] | None, end: int, cursor: Cursor | None,
    limit: int,
) -> Page:  # fmt: skip
    found = Page(reached=wanted.start)
    skip = cursor.skip if cursor is not None and cursor.at < wanted.end else 0
    most = limit + skip
    lines: list[Line] = []
    deadline = monotonic() + PATIENCE
    rows = store.listed(wanted.start, end, ids)
    for number, (row, run) in enumerate(_runs(rows, found)):
        if len(lines) >= most and row.t_max < lines[most - 1].at:
            break
        if found.looked >= MOST_LOOKED or (number and monotonic() > deadline):
            found.is_partial, found.reached = True, row.t_max + 1
            break
        found.looked += row.records
        if run is None:
            continue
        lines += _matching(run, wanted, names, end, most)
        lines.sort(key=_order)
        del lines[most:]
    else:
        if len(rows) == store.MOST_RUNS:
            found.is_partial, found.reached = True, rows[-1].t_max
    if found.is_partial:
        # Older runs were not looked at: only what is newer than all of them is certain.
        lines = [line for line in lines if line.at >= found.reached]
    found.lines = lines[skip:most]
    if len(found.lines) == limit:
        last = found.lines[-1].at
        found.cursor = Cursor(last, sum(line.at == last for line in lines[:most]))
    elif found.is_partial:
        found.cursor = Cursor(found.reached - 1)
    if found.lines and not found.is_partial and found.cursor is not None:
        found.reached = found.lines[-1].at
    return found


def _order(line: Line) -> tuple[Any, ...]:
    return -line.at, line.template, line.host, line.message, line.attributes


def _runs(rows: Sequence[store.Listed], found: Page) -> Iterator[tuple[store.Listed, Run | None]]:
    """Yield each run with its row, fetched some at a time; None for a damaged one. Raises _Gone."""
    at_once = 1
    place = 0
    while place < len(rows):
        some = rows[place : place + at_once]
        payloads = store.read([row.id for row in some])
        for row in some:
            if row.id not in payloads:
                raise _Gone
            try:
                yield row, columns.decode(payloads[row.id])
            except Corrupt as error:
                log.warning("Log run %d cannot be read: %s.", row.id, error)
                found.damaged += 1
                yield row, None
        place += at_once
        at_once = min(AT_ONCE, at_once * 2)


def _places(run: Run, wanted: Wanted, names: dict[int, tuple[str, str]], end: int) -> Int64:
    """Return the places of records in time and of the templates, newest first."""
    kept = (run.at >= wanted.start) & (run.at < end)
    ids = np.fromiter(names, dtype=np.int64, count=len(names))
    kept &= np.isin(run.template, ids)
    places = np.flatnonzero(kept)
    return places[np.argsort(-run.at[places], kind="stable")]


def _holds(run: Run, wanted: Wanted, text: str, place: int) -> bool:
    if wanted.host and run.host[place] != wanted.host:
        return False
    return not text or text in run.message[place].lower() or text in run.attributes[place].lower()


def _matching(run: Run, wanted: Wanted, names: dict[int, tuple[str, str]], end: int, most: int) -> list[Line]:
    text = wanted.text.lower()
    lines: list[Line] = []
    for place in _places(run, wanted, names, end).tolist():
        if len(lines) >= most and run.at[place] < lines[most - 1].at:
            break
        if wanted.is_by_content and not _holds(run, wanted, text, place):
            continue
        template = int(run.template[place])
        service, level = names[template]
        at = int(run.at[place])
        lines.append(Line(at, template, service, level, run.host[place], run.message[place], run.attributes[place]))
    return lines


@dataclass(frozen=True, slots=True)
class Counts:
    """Records by level and step: {level: int64[N]}; `reached` (ms): before it nothing was looked at (0: all was)."""

    levels: dict[str, Int64]
    reached: int = 0


def counts(wanted: Wanted, *, scope: Scope, step: timedelta) -> Counts:
    """Count the wanted records by level in steps that begin at `wanted.start`. Raises BadSearch."""
    wanted.checked()
    step_ms = max(1, int(step.total_seconds() * 1000))
    size = max(1, -(-(wanted.end - wanted.start) // step_ms))
    names, ids = _chosen(wanted, scope)
    found = {level: np.zeros(size, dtype=np.int64) for level in LEVELS}
    if not names:
        return Counts(found)
    level_of = {ident: level for ident, (_, level) in names.items()}
    if not wanted.is_by_content and step_ms % GRID_MS == 0 and wanted.start % GRID_MS == 0:
        tally, _ = store.tallies(wanted.start, wanted.end, ids)
        places = (tally.slot * GRID_MS - wanted.start) // step_ms
        for ident in np.unique(tally.template).tolist():
            if (level := level_of.get(ident)) is not None:
                mine = tally.template == ident
                np.add.at(found[level], places[mine], tally.count[mine])
        return Counts(found)
    return _counted(wanted, names, ids, step_ms, found)


def _counted(
    wanted: Wanted, names: dict[int, tuple[str, str]], ids: Sequence[int] | None, step_ms: int, found: dict[str, Int64]
) -> Counts:
    """Count by looking at records, as far back as a search may look."""
    deadline, looked, text = monotonic() + PATIENCE, Page(), wanted.text.lower()
    reached = 0
    try:
        for row, run in _runs(store.listed(wanted.start, wanted.end, ids), looked):
            if looked.looked >= MOST_LOOKED or monotonic() > deadline:
                reached = row.t_max + 1
                break
            looked.looked += row.records
            for place in _places(run, wanted, names, wanted.end).tolist() if run is not None else ():
                if _holds(run, wanted, text, place):  # type: ignore[arg-type]
                    level = names[int(run.template[place])][1]  # type: ignore[union-attr]
                    found[level][(int(run.at[place]) - wanted.start) // step_ms] += 1  # type: ignore[union-attr]
    except _Gone:
        reached = wanted.end  # packing was quicker; the next look counts all
    return Counts(found, reached)


@dataclass(frozen=True, slots=True)
class Seen:
    """A template with how many of its records lie in the time, and when the last of them was (to 15 s).

    It is new if it was first seen within that time, and its service had logged before.
    """

    template: LogTemplate
    count: int
    share: float
    is_new: bool
    last_at: datetime
    spark: list[int]


def templates(wanted: Wanted, *, scope: Scope, bars: int = 24) -> tuple[list[Seen], int]:
    """Return (the templates with records in that time, most first; how many records there are in all).

    Text narrows by pattern here. At most 300 are returned, with new ones never left out for old ones.
    """
    wanted.checked()
    rows = templates_for(wanted, scope)
    if wanted.text:
        rows = rows.filter(Q(pattern__icontains=wanted.text))
    known = {row.pk: row for row in rows[:MOST_TEMPLATES]}
    ids = (
        None
        if not (wanted.service or wanted.levels or wanted.template or wanted.text or scope.matchers)
        else sorted(known)
    )
    tally, _ = store.tallies(wanted.start, wanted.end, ids)
    width = max(1, -(-(wanted.end - wanted.start) // bars))
    places = np.clip((tally.slot * GRID_MS - wanted.start) // width, 0, bars - 1)
    sums: dict[int, tuple[Int64, int]] = {}
    for ident in np.unique(tally.template).tolist():
        if ident in known:
            mine = tally.template == ident
            bar = np.bincount(places[mine], weights=tally.count[mine], minlength=bars).astype(np.int64)
            sums[ident] = bar, int(tally.slot[mine].max()) * GRID_MS
    total = int(sum(int(bar.sum()) for bar, _ in sums.values()))
    start = datetime.fromtimestamp(wanted.start / 1000, tz=UTC)
    grouped = LogTemplate.objects.visible_to(scope).order_by().values_list("service")
    heard = dict(grouped.annotate(first=Min("first_at")))
    found = [
        Seen(
            row := known[ident],
            int(bar.sum()),
            int(bar.sum()) / total,
            row.first_at >= start and heard.get(row.service, start) < start,
            max(row.last_at, datetime.fromtimestamp(last / 1000, tz=UTC)),
            bar.tolist(),
        )
        for ident, (bar, last) in sums.items()
    ]
    found.sort(key=lambda seen: (-seen.count, seen.template.pk))
    if len(found) > SHOWN_TEMPLATES:
        found = sorted(found, key=lambda seen: not seen.is_new)[:SHOWN_TEMPLATES]
        found.sort(key=lambda seen: (-seen.count, seen.template.pk))
    return found, total


def services(scope: Scope) -> list[str]:
    """Return the services that logs came from."""
    return list(LogTemplate.objects.visible_to(scope).order_by("service").values_list("service", flat=True).distinct())
