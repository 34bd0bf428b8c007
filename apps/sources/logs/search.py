"""Looks through log records: pages of them newest first, counts by time, templates. Everything takes a scope.

A page is found run by run from the newest backwards, and is complete as soon as it is full and no older run could hold
anything newer. A search gives up after so many records or seconds and says how far back it came, so that whoever asks
can go on from there. Packing replaces runs meanwhile: what is gone when it is fetched is listed anew.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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
from apps.sources.logs.records import LEVELS, UNNAMED, Level, datetime_of
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
        if "\0" in self.service + self.host + self.text:
            raise BadSearch("A NUL stands in no log record.")
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


def chosen(wanted: Wanted, scope: Scope, most: int | None = MOST_TEMPLATES) -> Int64 | None:
    """Return the ids of the templates that are wanted, ascending; None where they are all. Raises BadSearch."""
    if not (wanted.service or wanted.levels or wanted.template is not None or scope.matchers):
        return None
    ids = templates_for(wanted, scope).order_by("pk").values_list("pk", flat=True)[: None if most is None else most + 1]
    if most is not None and len(ids) > most:
        raise BadSearch(f"More than {most} templates fit: choose a service or a level.")
    return np.fromiter(ids, dtype=np.int64, count=len(ids))


def _names(ids: Iterable[int]) -> dict[int, tuple[str, str]]:
    """Return (service, level) by id; a row that has gone is of no known service."""
    wanted = set(ids)
    rows = LogTemplate.objects.filter(pk__in=wanted).order_by().values_list("pk", "service", "level")
    found = {ident: (service, level) for ident, service, level in rows}
    return {ident: found.get(ident, (UNNAMED, Level.INFO)) for ident in wanted}


def page(wanted: Wanted, *, scope: Scope, limit: int = 100, cursor: Cursor | None = None) -> Page:
    """Return the newest records that are wanted, at most `limit`, from the cursor backwards. Raises BadSearch."""
    wanted.checked()
    ids = chosen(wanted, scope)
    if ids is not None and not len(ids):
        return Page(reached=wanted.start)
    for _ in range(ATTEMPTS - 1):
        try:
            return _page(wanted, ids, cursor, min(limit, MOST_ROWS))
        except _Gone:
            continue
    return _page(wanted, ids, cursor, min(limit, MOST_ROWS))


def _page(wanted: Wanted, ids: Int64 | None, cursor: Cursor | None, limit: int) -> Page:
    found = Page(reached=wanted.start)
    end = wanted.end if cursor is None else min(wanted.end, cursor.at + 1)
    rows: list[Row] = []
    most = limit
    deadline = monotonic() + PATIENCE
    listed = store.listed(wanted.start, end, None if ids is None else ids.tolist())
    for number, (run_row, run) in enumerate(_runs(listed, found)):
        if len(rows) >= most and run_row.t_max < rows[most - 1][0]:
            break
        if found.looked >= MOST_LOOKED or (number and monotonic() > deadline):
            found.is_partial, found.reached = True, run_row.t_max + 1
            break
        found.looked += run_row.records
        if run is not None:
            rows += _matching(run, wanted, ids, end, limit, cursor)
            rows.sort(key=_order)
            most = limit + _shown(rows, cursor)
            del rows[most:]
    else:
        if len(listed) == store.MOST_RUNS:
            found.is_partial, found.reached = True, listed[-1].t_max
    if found.is_partial:
        # Older runs were not looked at: only what is newer than all of them is certain.
        rows = [row for row in rows if row[0] >= found.reached]
    # Those that the page before has shown.
    shown = _shown(rows, cursor)
    mine = rows[shown : shown + limit]
    names = _names(row[1] for row in mine)
    found.lines = [Line(at, template, *names[template], *texts) for at, template, *texts in mine]
    if len(mine) == limit:
        last = mine[-1][0]
        found.cursor = Cursor(last, sum(row[0] == last for row in rows[: shown + limit]))
        if not found.is_partial:
            found.reached = last
    elif found.is_partial:
        found.cursor = Cursor(found.reached - 1)
    return found


Row = tuple[int, int, str, str, str]
"""Time (ms), template, host, message, attributes."""


def _shown(rows: Sequence[Row], cursor: Cursor | None) -> int:
    """How many of the rows the page before has shown: no more are kept for it than there are of that millisecond."""
    return 0 if cursor is None else min(cursor.skip, sum(row[0] == cursor.at for row in rows))


def _order(row: Row) -> tuple[Any, ...]:
    """Newest first; of one millisecond in an order that packing does not change."""
    return -row[0], *row[1:]


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


def _places(run: Run, wanted: Wanted, ids: Int64 | None, end: int) -> Int64:
    """Return the places of records in time and of the templates, newest first."""
    kept = (run.at >= wanted.start) & (run.at < end)
    if ids is not None:
        kept &= np.isin(run.template, ids)
    places = np.flatnonzero(kept)
    return places[np.argsort(-run.at[places], kind="stable")]


def _holds(run: Run, wanted: Wanted, text: str, place: int) -> bool:
    if wanted.host and run.host[place] != wanted.host:
        return False
    return not text or text in run.message[place].lower() or text in run.attributes[place].lower()


def matching(run: Run, wanted: Wanted, ids: Int64 | None) -> Int64:
    """Return the places of the records of a run that are wanted, newest first; `ids`: those of `chosen`."""
    places = _places(run, wanted, ids, wanted.end)
    if not wanted.is_by_content:
        return places
    text = wanted.text.lower()
    return places[[_holds(run, wanted, text, place) for place in places.tolist()]] if len(places) else places


def _matching(run: Run, wanted: Wanted, ids: Int64 | None, end: int, limit: int, cursor: Cursor | None) -> list[Row]:
    text, most = wanted.text.lower(), limit
    rows: list[Row] = []
    for place in _places(run, wanted, ids, end).tolist():
        at = int(run.at[place])
        if len(rows) >= most and at < rows[most - 1][0]:
            break
        if not wanted.is_by_content or _holds(run, wanted, text, place):
            rows.append((at, int(run.template[place]), run.host[place], run.message[place], run.attributes[place]))
            if cursor is not None and at == cursor.at:
                most = limit + min(cursor.skip, len(rows))
    return rows


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
    ids = chosen(wanted, scope)
    found = {level: np.zeros(size, dtype=np.int64) for level in LEVELS}
    if ids is not None and not len(ids):
        return Counts(found)
    if wanted.is_by_content or step_ms % GRID_MS or wanted.start % GRID_MS:
        places, templates_found, each, reached = _looked_through(wanted, ids, step_ms)
    else:
        tally = store.tallies(wanted.start, wanted.end, None if ids is None else ids.tolist())
        kept = slice(None) if ids is None else np.isin(tally.template, ids)
        places = ((tally.slot * GRID_MS - wanted.start) // step_ms)[kept]
        templates_found, each, reached = tally.template[kept], tally.count[kept], 0
    known, number = np.unique(templates_found, return_inverse=True)
    names = _names(known.tolist())
    rank = np.array([LEVELS.index(names[ident][1]) for ident in known.tolist()], dtype=np.int64)[number]
    for index, level in enumerate(LEVELS):
        mine = rank == index
        np.add.at(found[level], places[mine], each[mine])
    return Counts(found, reached)


def _looked_through(wanted: Wanted, ids: Int64 | None, step_ms: int) -> tuple[Int64, Int64, Int64, int]:
    """(step, template, 1) of each record that is wanted, as far back as a search may look; how far that was."""
    deadline, looked = monotonic() + PATIENCE, Page()
    steps: list[int] = []
    found: list[int] = []
    reached = 0
    try:
        for row, run in _runs(store.listed(wanted.start, wanted.end, None if ids is None else ids.tolist()), looked):
            if looked.looked >= MOST_LOOKED or monotonic() > deadline:
                reached = row.t_max + 1
                break
            looked.looked += row.records
            if run is None:
                continue
            places = matching(run, wanted, ids)
            steps += ((run.at[places] - wanted.start) // step_ms).tolist()
            found += run.template[places].tolist()
    except _Gone:
        reached = wanted.end  # packing was quicker; the next look counts all
    return (
        np.array(steps, dtype=np.int64),
        np.array(found, dtype=np.int64),
        np.ones(len(steps), dtype=np.int64),
        reached,
    )


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
    tally = store.tallies(wanted.start, wanted.end, [wanted.template] if wanted.template is not None else None)
    idents, number = np.unique(tally.template, return_inverse=True)
    known = {row.pk: row for row in rows.filter(pk__in=idents.tolist())}
    width = max(1, -(-(wanted.end - wanted.start) // bars))
    places = np.clip((tally.slot * GRID_MS - wanted.start) // width, 0, bars - 1)
    sparks = np.zeros((len(idents), bars), dtype=np.int64)
    np.add.at(sparks, (number, places), tally.count)
    newest = np.zeros(len(idents), dtype=np.int64)
    np.maximum.at(newest, number, tally.slot * GRID_MS)
    counted = [
        (known[ident], spark, last)
        for ident, spark, last in zip(idents.tolist(), sparks.tolist(), newest.tolist(), strict=True)
        if ident in known
    ]
    total = sum(sum(spark) for _, spark, _ in counted)
    start = datetime_of(wanted.start)
    grouped = LogTemplate.objects.visible_to(scope).order_by().values_list("service")
    heard = dict(grouped.annotate(first=Min("first_at")))
    found = [
        Seen(
            row,
            sum(spark),
            sum(spark) / total,
            row.first_at >= start and heard.get(row.service, start) < start,
            max(row.last_at, datetime_of(last)),
            spark,
        )
        for row, spark, last in counted
    ]
    found.sort(key=lambda seen: (-seen.count, seen.template.pk))
    if len(found) > SHOWN_TEMPLATES:
        found = sorted(found, key=lambda seen: not seen.is_new)[:SHOWN_TEMPLATES]
        found.sort(key=lambda seen: (-seen.count, seen.template.pk))
    return found, total


def services(scope: Scope) -> list[str]:
    """Return the services that logs came from."""
    return list(LogTemplate.objects.visible_to(scope).order_by("service").values_list("service", flat=True).distinct())
