"""Adaptive bands at work: drawn as series at each tick, taught by the hour from what is stored.

At a tick nothing but the rows of bands is read: what a band says is known before the values that it judges. A process
keeps what it has read until the band's revision or the hour changes.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

import numpy as np
from django.db import transaction
from django.db.models import F, Q

from apps.accounts.permissions import EVERYTHING
from apps.alerting import bands
from apps.alerting.bands import HOUR, Band, Expectation, Floats, Index, Memory, Widened
from apps.alerting.identity import fingerprint
from apps.alerting.models import AdaptiveBand, BandSeries
from apps.alerting.plans import BandPlan, GroupPlan, Question, band_terms
from apps.alerting.recording import Answer, Recorded
from apps.core.telemetry import Reading
from apps.metrics import query
from apps.promql.engine import Limits
from apps.promql.errors import PromQLError, QueryError
from apps.promql.labels import NAME, Labels, join
from apps.promql.result import Result

log = logging.getLogger(__name__)

Ask: TypeAlias = Callable[[Sequence[Question]], list[Answer]]
Write: TypeAlias = Callable[[Sequence[Reading]], None]

LOWER: Final = "anomaly:lower_band"
UPPER: Final = "anomaly:upper_band"
SCORE: Final = "anomaly:score"
LABEL: Final = "band"
MOST: Final = 2_000
"""Series that one band may watch."""
STEP: Final = timedelta(minutes=5)
PER_HOUR: Final = HOUR // STEP
SETTLED: Final = timedelta(minutes=2)
"""How long after its end an hour is learned: samples come late."""
AT_ONCE: Final = 24
"""Hours that are read in one go."""
PATIENCE: Final = 20.0
"""Seconds after which a band's learning goes on in the next round."""
LEARNING: Final = Limits(seconds=60)


# --- At a tick --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of a band's series for one hour; rows as in `labels`."""

    labels: Labels
    expectation: Expectation
    widened: tuple[Widened, ...]
    until: int


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A band around an answer: arrays by the answer's rows, NaN where nothing is known of a series yet."""

    result: Result
    within: Band
    score: Floats
    model: Index
    known: Index
    until: int

    @property
    def outside(self) -> "np.typing.NDArray[np.bool_]":
        """bool[S]: which series are an anomaly now."""
        return self.score > 1

    def row(self, labels: Mapping[str, str]) -> int | None:
        """The row of the series with these labels."""
        wanted = {name: text for name, text in labels.items() if name != NAME}
        rows = self.result.labels.drop([NAME]).dicts()
        return next((row for row, found in enumerate(rows) if found == wanted), None)

    def words(self, row: int) -> dict[str, str]:
        """What a firing says of its band."""
        if np.isnan(self.within.expected[row]):
            return {}
        since = _moment(self.until - int(min(self.known[row], bands.KEPT)))
        return {
            "expected_range": f"{self.within.lower[row]:.4g} to {self.within.upper[row]:.4g}, "
            f"most likely {self.within.expected[row]:.4g}",
            "anomaly_score": f"{self.score[row]:.2f} (above 1 is outside the band)",
            "model": bands.model_text(int(self.model[row]), int(self.known[row])),
            "training_window": f"{since:%Y-%m-%d %H:%M} to {_moment(self.until):%Y-%m-%d %H:%M} UTC",
        }

    def edge(self, row: int) -> float | None:
        """The edge of the band on the value's side."""
        value, expected = float(self.result.v[row, 0]), float(self.within.expected[row])
        if np.isnan(expected):
            return None
        return float(self.within.upper[row] if value >= expected else self.within.lower[row])


def draw(groups: Sequence[GroupPlan], tick_ms: int, *, ask: Ask, write: Write, done: Recorded) -> dict[int, Drawn]:
    """Draw the bands of these groups and write them as recorded series; return what rules need, by rule.

    A band that cannot be drawn costs its series and says why in its row's error; its rule's question is asked plainly.
    """
    plans = [(group.id, plan) for group in groups for plan in group.bands]
    found: dict[int, Drawn] = {}
    if not plans:
        return found
    readings: list[Reading] = []
    written: dict[int, dict[str, list[Labels]]] = {}
    for (group, plan), answer in zip(plans, ask([plan.question for _, plan in plans]), strict=True):
        try:
            if isinstance(answer, PromQLError):
                raise answer
            drawn = around(plan, answer, tick_ms)
        except PromQLError as error:
            log.warning("The band %s is not drawn: %s", plan.slug, error)
            done.failed[group] |= {LOWER, UPPER, SCORE}
            continue
        if plan.rule is not None:
            found[plan.rule] = drawn
        rows = np.flatnonzero(~np.isnan(drawn.score))
        labels = drawn.result.labels.take(rows).drop([NAME]).set(LABEL, plan.slug)
        dicts = labels.dicts()
        for name, values in ((LOWER, drawn.within.lower), (UPPER, drawn.within.upper), (SCORE, drawn.score)):
            readings += [
                Reading(name, value, row, timestamp_ms=tick_ms)
                for row, value in zip(dicts, values[rows].tolist(), strict=True)
            ]
            written.setdefault(group, {}).setdefault(name, []).append(labels.set(NAME, name))
    for group, names in written.items():
        for name, parts in names.items():
            before = done.written[group].get(name)
            done.written[group][name] = Labels.concat([*([] if before is None else [before]), *parts])
    if readings:
        write(readings)
    return found


def around(plan: BandPlan, result: Result, tick_ms: int) -> Drawn:
    """The band around an answer at a tick."""
    if result.kind not in ("vector", "scalar"):
        raise QueryError(f"the expression gives a {result.kind}; a band needs a vector or a number")
    if len(result.v) > MOST:
        raise QueryError(f"the expression gives {len(result.v)} series; a band watches at most {MOST}: aggregate them")
    hour = tick_ms // 3_600_000
    known = _known(plan, hour)
    labels = result.labels.drop([NAME])
    own = labels.hashes()
    if len(set(own.tolist())) < len(own):
        raise QueryError("series that differ in their name only have one band: choose one of the names")
    at = join(own, known.labels.hashes())
    there = at >= 0
    picked = np.where(there, at, 0)
    size = len(own)
    centre, sigma = np.full((size, 3), np.nan), np.full((size, 3), np.nan)
    model, hours = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    wider = np.ones(size)
    if there.any():
        centre[there], sigma[there] = known.expectation.centre[picked[there]], known.expectation.sigma[picked[there]]
        model[there], hours[there] = known.expectation.model[picked[there]], known.expectation.known[picked[there]]
        slot = int(plan.terms.slots(np.array([hour]))[0])
        factors = np.array([each.at(slot) for each in known.widened])
        wider[there] = factors[picked[there]]
    within = bands.band(Expectation(hour, centre, sigma, model, hours), tick_ms, plan.terms, wider)
    values = np.where(result.ok[:, 0], result.v[:, 0], np.nan)
    return Drawn(result, within, bands.score(values, within, plan.terms.direction), model, hours, known.until)


_lock = threading.Lock()
_read: dict[int, tuple[int, int, Known]] = {}


def forget() -> None:
    """Forget what this process has read of bands."""
    with _lock:
        _read.clear()


def _known(plan: BandPlan, hour: int) -> Known:
    with _lock:
        kept = _read.get(plan.id)
    if kept is not None and kept[:2] == (plan.revision, hour):
        kept[2].labels.remember()
        return kept[2]
    rows = list(BandSeries.objects.filter(band=plan.id).order_by("id"))
    memory = bands.unpack([(row.first_hour, bytes(row.hours)) for row in rows])
    labels = Labels.from_dicts([row.labels for row in rows]) if rows else Labels.empty()
    # A tick older than what was learned in the meantime is judged by what is known now: its hour is over.
    expectation = bands.expect(memory, max(hour, memory.after), plan.terms)
    found = Known(labels, expectation, tuple(_widened(row) for row in rows), memory.after)
    with _lock:
        _read[plan.id] = (plan.revision, hour, found)
    return found


def _widened(row: BandSeries) -> Widened:
    return Widened({int(slot): float(factor) for slot, factor in row.widened.items()})


def _moment(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, tz=UTC)


# --- By the hour ------------------------------------------------------------------------------------------------


def learn(*, now: datetime) -> int:
    """Teach every band the hours that have passed, five weeks back at most; return how many bands learned something."""
    whole = int((now - SETTLED).timestamp()) // 3600
    behind = Q(learned_until__isnull=True) | Q(learned_until__lt=_moment(whole))
    due = AdaptiveBand.objects.filter(behind, enabled=True).filter(Q(rule__isnull=True) | Q(rule__enabled=True))
    count = 0
    for band in due.select_related("rule", "calendar").order_by(F("learned_until").asc(nulls_first=True)):
        count += teach(band, whole, now=now)
    return count


def teach(band: AdaptiveBand, whole: int, *, now: datetime, patience: float = PATIENCE) -> bool:
    """Teach one band the hours before `whole` (hours since 1970), as far as `patience` seconds reach.

    What cannot be read is not known: the hours stay empty, and the band's row says why.
    """
    started, terms = time.monotonic(), band_terms(band)
    oldest = query.oldest()
    if oldest is None:
        return False
    begin = max(whole - bands.KEPT, oldest // 3_600_000)
    if band.learned_until is not None:
        begin = max(begin, int(band.learned_until.timestamp()) // 3600)
    rows = {bytes(row.fingerprint): row for row in BandSeries.objects.filter(band=band).order_by("id")}
    order = list(rows)
    memory = bands.unpack([(rows[key].first_hour, bytes(rows[key].hours)) for key in order])
    if not order or begin > memory.after:
        memory = _from(memory, begin, len(order))
    labels = {key: rows[key].labels for key in order}
    seen, error = set[bytes](), ""
    while begin < whole and time.monotonic() - started < patience:
        end = min(whole, begin + AT_ONCE)
        try:
            keys, values = _hours(band.watched, begin, end, labels)
        except PromQLError as problem:
            keys, values, error = [], np.empty((0, (end - begin) * PER_HOUR)), str(problem)
        seen |= set(keys)
        fresh = [key for key in keys if key not in rows and key not in order]
        order += fresh
        memory = _with_room(memory, len(order))
        place = {key: number for number, key in enumerate(order)}
        table = np.full((len(order), values.shape[1]), np.nan)
        table[[place[key] for key in keys]] = values
        for number in range(end - begin):
            bands.learn(memory, table[:, number * PER_HOUR : (number + 1) * PER_HOUR], terms)
        begin = end
    _keep(band, order, labels, seen, memory, error, begin, now)
    return True


def _from(memory: Memory, begin: int, series: int) -> Memory:
    """The memory up to `begin`: hours in between are unknown."""
    if not series:
        return Memory.empty(0, begin)
    gap = np.full((series, min(begin - memory.after, bands.KEPT)), np.nan)
    arrays = [
        np.concatenate([part, gap], axis=1)[:, -bands.KEPT :] for part in (memory.middle, memory.noise, memory.miss)
    ]
    return Memory(begin - arrays[0].shape[1], *arrays)


def _with_room(memory: Memory, series: int) -> Memory:
    more = np.full((series - len(memory.middle), memory.middle.shape[1]), np.nan)
    return Memory(memory.first, *(np.concatenate([part, more]) for part in (memory.middle, memory.noise, memory.miss)))


def _hours(expression: str, begin: int, end: int, labels: dict[bytes, dict[str, str]]) -> tuple[list[bytes], Floats]:
    """What was measured in these hours, each 5 minutes: identities (their labels are added) and float64[S, n]."""
    result = query.query_range(
        expression,
        start=_moment(begin) + STEP,
        end=_moment(end),
        step=STEP,
        scope=EVERYTHING,
        limits=LEARNING,
    )
    if result.kind not in ("matrix", "scalar"):
        raise QueryError(f"the expression gives a {result.kind}; a band needs a vector or a number")
    if len(result.v) > MOST:
        raise QueryError(f"the expression gives {len(result.v)} series; a band watches at most {MOST}: aggregate them")
    keys = []
    for row in result.labels.drop([NAME]).dicts():
        key = fingerprint(row)
        labels[key] = row
        keys.append(key)
    values = np.where(result.ok & np.isfinite(result.v), result.v, np.nan)
    return keys, np.broadcast_to(values, (len(keys), (end - begin) * PER_HOUR))


@transaction.atomic
def _keep(
    band: AdaptiveBand,
    order: Sequence[bytes],
    labels: Mapping[bytes, dict[str, str]],
    seen: set[bytes],
    memory: Memory,
    error: str,
    until: int,
    now: datetime,
) -> None:
    """Write what a band knows; a series that was not seen for five weeks is forgotten."""
    rows: list[Any] = [
        BandSeries(
            band=band,
            fingerprint=key,
            labels=labels[key],
            first_hour=memory.first,
            hours=bands.pack(memory, number),
            seen_at=now,
        )
        for number, key in enumerate(order)
    ]
    BandSeries.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["band", "fingerprint"],
        update_fields=["first_hour", "hours"],
        batch_size=500,
    )
    BandSeries.objects.filter(band=band, fingerprint__in=list(seen)).update(seen_at=now)
    BandSeries.objects.filter(band=band, seen_at__lt=now - HOUR * bands.KEPT).delete()
    AdaptiveBand.objects.filter(pk=band.pk).update(
        learned_until=_moment(until), revision=F("revision") + 1, error=error[:1000]
    )
