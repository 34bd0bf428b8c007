"""The entry to the engine: parse, plan, one fetch phase, evaluate, and shape the answer."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from apps.promql.ast import Expr, value_type
from apps.promql.binary import merged
from apps.promql.errors import LimitError, ParseError, PromQLError
from apps.promql.evaluator import Evaluator, Fetched, Limits
from apps.promql.functions import RANGE, STRING
from apps.promql.labels import METADATA, Labels
from apps.promql.plan import merge, prepare
from apps.promql.result import Result, Stats
from apps.promql.series import Grid, Ragged, Scalar, Text, Vec
from apps.promql.source import Request, Source
from apps.promql.text import printable

__all__ = ["LOOKBACK_MS", "Limits", "Result", "evaluate_many", "instant", "query_range"]

LOOKBACK_MS: Final = 300_000
"""How far back an instant selector looks for the newest sample."""

LATEST_MS: Final = 2**55
"""A million years from 1970: times beyond are a mistake in units."""

_DEFAULT: Final = Limits()


def instant(
    expr: str | Expr, source: Source, at_ms: int, *, limits: Limits = _DEFAULT, lookback_ms: int = LOOKBACK_MS
) -> Result:
    """The value at one time: kind vector, scalar, string, or matrix for a range vector. PromQLError."""
    _check_time(at_ms)
    query = Evaluator(prepare(expr), Grid(at_ms, 1, 1), lookback_ms, limits)
    fetch(source, [query])
    return _at_once(query)


def query_range(
    expr: str | Expr,
    source: Source,
    start_ms: int,
    end_ms: int,
    step_ms: int,
    *,
    limits: Limits = _DEFAULT,
    lookback_ms: int = LOOKBACK_MS,
) -> Result:
    """The values at start, start + step, … up to end: kind matrix, sorted by labels. PromQLError."""
    if step_ms <= 0:
        raise ParseError("zero or negative query resolution step widths are not accepted. Try a positive integer")
    if end_ms < start_ms:
        raise ParseError("end timestamp must not be before start time")
    _check_time(start_ms)
    _check_time(end_ms)
    n = (end_ms - start_ms) // step_ms + 1
    if n > limits.steps:
        raise LimitError(f"exceeded maximum resolution of {limits.steps} points per time series: the query has {n}")
    prepared = prepare(expr)
    kind = value_type(prepared.expr)
    if kind in (RANGE, STRING):
        raise ParseError(f'invalid expression type "{kind}" for range query, must be scalar or instant vector')
    query = Evaluator(prepared, Grid(start_ms, step_ms, n), lookback_ms, limits, is_range=True)
    fetch(source, [query])
    return _over_time(query)


def evaluate_many(
    exprs: Sequence[str | Expr],
    source: Source,
    at_ms: int,
    *,
    limits: Limits = _DEFAULT,
    lookback_ms: int = LOOKBACK_MS,
) -> list[Result | PromQLError]:
    """Many expressions at one time, from one fetch phase; an expression's error is its answer.

    Equal selectors are read once for all, equal texts are evaluated once; limits hold for each expression.
    """
    _check_time(at_ms)
    grid = Grid(at_ms, 1, 1)
    answers: list[Result | PromQLError | None] = [None] * len(exprs)
    queries: list[tuple[int, Evaluator]] = []
    same: dict[str, int] = {}
    twins: list[tuple[int, int]] = []
    for index, expr in enumerate(exprs):
        if isinstance(expr, str) and same.setdefault(expr, index) != index:
            twins.append((index, same[expr]))
            continue
        try:
            queries.append((index, Evaluator(prepare(expr), grid, lookback_ms, limits)))
        except PromQLError as error:
            answers[index] = error
    fetch(source, [query for _, query in queries])
    for index, query in queries:
        try:
            query.restart()
            answers[index] = _at_once(query)
        except PromQLError as error:
            answers[index] = error
    for index, twin in twins:
        answers[index] = answers[twin]
    return [answer for answer in answers if answer is not None]


def fetch(source: Source, queries: Sequence[Evaluator]) -> None:
    """One fetch phase for all selectors of these queries."""
    requests = [need.request for query in queries for need in query.needs]
    if not requests:
        return
    fewer, where = merge(requests)
    fetched = [Fetched(part) for part in _select(source, fewer)]
    index = 0
    for query in queries:
        for need in query.needs:
            query.data[need.node] = fetched[where[index]]
            index += 1


def _select(source: Source, requests: Sequence[Request]) -> Sequence[Ragged | PromQLError]:
    """A request that the source refuses is an error of the queries that need it, and of no other."""
    many = getattr(source, "select_many", None)
    if many is not None:
        try:
            answers: Sequence[Ragged] = many(requests)
        except PromQLError as error:
            if len(requests) == 1:
                return [error]
        else:
            return answers
    alone: list[Ragged | PromQLError] = []
    for request in requests:
        try:
            alone.append(source.select(request.matchers, request.tmin, request.tmax))
        except PromQLError as error:
            alone.append(error)
    return alone


def _check_time(ms: int) -> None:
    if abs(ms) > LATEST_MS:
        raise ParseError(f"time {ms / 1000:.0f} is out of range")


def _at_once(query: Evaluator) -> Result:
    """The answer at a single step."""
    if value_type(query.expr) == RANGE:
        return _samples(query)
    value = query.value()
    if isinstance(value, Text):
        return _result(query, "string", Vec.empty(1), text=printable(value.text))
    if isinstance(value, Scalar):
        return _result(query, "scalar", _row(value, 1))
    return _result(query, "vector", _finished(value))


def _over_time(query: Evaluator) -> Result:
    """The answer at all steps, sorted by labels."""
    rows: list[Vec] = []
    for value in query.parts():
        if isinstance(value, Text):
            raise ParseError('invalid expression type "string" for range query')
        rows.append(_row(value, len(value.v)) if isinstance(value, Scalar) else _finished(value))
        query.check_cells(max(part.size for part in rows), query.grid.n)
    vec = rows[0] if len(rows) == 1 else _side_by_side(rows, query)
    return _result(query, "matrix", vec.take(vec.labels.order()))


def _side_by_side(parts: Sequence[Vec], query: Evaluator) -> Vec:
    """One vector over all steps from vectors over some of them; within each, label sets are distinct."""
    together = Labels.concat([part.labels for part in parts])
    first, row = together.group()
    query.check_cells(len(first), query.grid.n)
    v = np.zeros((len(first), query.grid.n))
    ok = np.zeros(v.shape, dtype=np.bool_)
    series = steps = 0
    for part in parts:
        here = (row[series : series + part.size], slice(steps, steps + part.v.shape[1]))
        v[here], ok[here] = part.v, part.ok
        series, steps = series + part.size, steps + part.v.shape[1]
    return Vec(together.take(first), v, ok, np.zeros(len(first), dtype=np.bool_))


def _samples(query: Evaluator) -> Result:
    """The raw samples of a range vector at one time, as a matrix over the union of their timestamps."""
    found = query.samples()
    ragged = found.ragged.between(found.ends.start - found.width, found.ends.start)
    times, column = np.unique(ragged.ts, return_inverse=True)
    query.check_cells(ragged.size, len(times))
    v = np.zeros((ragged.size, len(times)))
    ok = np.zeros(v.shape, dtype=np.bool_)
    row = np.repeat(np.arange(ragged.size), ragged.counts)
    v[row, column] = ragged.v
    ok[row, column] = True
    drop = np.full(ragged.size, bool(found.drop.any()))
    vec = _finished(Vec(ragged.labels, v, ok, drop))
    answer = _result(query, "matrix", vec.take(vec.labels.order()))
    return Result("matrix", answer.labels, times, answer.v, answer.ok, "", answer.warnings, answer.infos, answer.stats)


def _row(value: Scalar, n: int) -> Vec:
    v = np.broadcast_to(value.v, (1, n))
    return Vec(Labels.empty(1), v, np.ones((1, n), dtype=np.bool_), np.zeros(1, dtype=np.bool_))


def _finished(vec: Vec) -> Vec:
    """Without rows that are nowhere present and without the names that were to be dropped."""
    alive = vec.ok.any(axis=1)
    if not alive.all():
        vec = vec.take(np.flatnonzero(alive))
    if vec.drop.any():
        labels = vec.labels.drop(METADATA) if vec.drop.all() else vec.labels.drop_where(METADATA, vec.drop)
        vec = Vec(labels, vec.v, vec.ok, np.zeros(vec.size, dtype=np.bool_))
    return merged(vec)


def _result(
    query: Evaluator, kind: Literal["vector", "matrix", "scalar", "string"], vec: Vec, *, text: str = ""
) -> Result:
    read = {id(fetched): fetched.read() for fetched in query.data.values()}.values()
    stats = Stats(sum(part.size for part in read), sum(len(part.ts) for part in read), query.grid.n)
    warnings = (*query.warnings, *dict.fromkeys(warning for part in read for warning in part.warnings))
    return Result(kind, vec.labels, query.grid.times(), vec.v, vec.ok, text, warnings, tuple(query.infos), stats)
