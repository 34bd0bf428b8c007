"""The entry to the engine: parse, plan, one fetch phase, evaluate, and shape the answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Literal

import numpy as np

from apps.promql.ast import Expr, value_type
from apps.promql.batch import Bundle, Joined, JoiningSource, Together
from apps.promql.binary import merged
from apps.promql.errors import DeadlineExceeded, LimitError, ParseError, PromQLError
from apps.promql.evaluator import Evaluator
from apps.promql.explain import Trace, Tree
from apps.promql.functions import RANGE, STRING
from apps.promql.labels import METADATA, Labels
from apps.promql.limits import Cost, Limits, Watch
from apps.promql.plan import breadth, merge, prepare
from apps.promql.reading import Fetched, Pieces
from apps.promql.result import Result, Stats
from apps.promql.series import Grid, Ragged, Scalar, Text, Vec
from apps.promql.shapes import sort_out
from apps.promql.source import Estimate, Request, SizedSource, Source, sized
from apps.promql.text import printable

__all__ = [
    "LOOKBACK_MS",
    "Cost",
    "Explained",
    "Limits",
    "Result",
    "cost",
    "evaluate_many",
    "explain",
    "instant",
    "query_range",
]

LOOKBACK_MS: Final = 300_000
"""How far back an instant selector looks for the newest sample."""

LATEST_MS: Final = 2**55
"""A million years from 1970: times beyond are a mistake in units."""

_DEFAULT: Final = Limits()


def instant(
    expr: str | Expr,
    source: Source,
    at_ms: int,
    *,
    limits: Limits = _DEFAULT,
    lookback_ms: int = LOOKBACK_MS,
    plain: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> Result:
    """The value at one time: kind vector, scalar, string, or matrix for a range vector. PromQLError.

    plain: the portal's own functions are refused. `cancelled` is asked often, from this thread: a query for which
    nobody waits ends with Cancelled.
    """
    query = _asked(expr, at_ms, at_ms, None, limits, lookback_ms, plain=plain, cancelled=cancelled)
    return _answer(query, source)


def query_range(
    expr: str | Expr,
    source: Source,
    start_ms: int,
    end_ms: int,
    step_ms: int,
    *,
    limits: Limits = _DEFAULT,
    lookback_ms: int = LOOKBACK_MS,
    plain: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> Result:
    """The values at start, start + step, … up to end: kind matrix, sorted by labels. PromQLError.

    `plain` and `cancelled` as in `instant`.
    """
    query = _asked(expr, start_ms, end_ms, step_ms, limits, lookback_ms, plain=plain, cancelled=cancelled)
    return _answer(query, source)


def cost(
    expr: str | Expr,
    source: Source,
    start_ms: int,
    end_ms: int,
    step_ms: int | None,
    *,
    limits: Limits = _DEFAULT,
    lookback_ms: int = LOOKBACK_MS,
    plain: bool = False,
) -> Cost:
    """What a query would cost, before anything is decoded; step None is an instant query at `end_ms`. PromQLError.

    A source without estimates is read instead. A query that the limits refuse is an answer, not an error.
    """
    try:
        query = _asked(expr, start_ms, end_ms, step_ms, limits, lookback_ms, plain=plain)
    except LimitError as error:
        return Cost(0, 0, 0, 0, refused=error.message)
    fewer, where = merge([need.request for need in query.needs])
    found = _estimates(_watched(source, query.watch), fewer)
    series, samples = sum(one.series for one in found), sum(one.samples for one in found)
    of_selector = {need.node: found[index].series for need, index in zip(query.needs, where, strict=True)}
    points = breadth(query.expr, of_selector) * query.grid.n
    try:
        limits.admit(series, samples)
    except LimitError as error:
        return Cost(series, samples, points, query.grid.n, refused=error.message)
    return Cost(series, samples, points, query.grid.n, heavy=samples > limits.held)


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """A query's answer, and what each of its nodes came to (`explain.Tree`, ready for JSON); seconds in all."""

    tree: Tree
    result: Result
    seconds: float


def explain(
    expr: str | Expr,
    source: Source,
    start_ms: int,
    end_ms: int,
    step_ms: int | None,
    *,
    limits: Limits = _DEFAULT,
    lookback_ms: int = LOOKBACK_MS,
    plain: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> Explained:
    """Runs a query and tells what every node came to at the last step; step None: instant, at `end_ms`. PromQLError."""
    began = perf_counter()
    query = _asked(expr, start_ms, end_ms, step_ms, limits, lookback_ms, plain=plain, cancelled=cancelled)
    query.trace = Trace()
    result = _answer(query, source)
    return Explained(query.trace.tree(query.expr), result, perf_counter() - began)


def _asked(
    expr: str | Expr,
    start_ms: int,
    end_ms: int,
    step_ms: int | None,
    limits: Limits,
    lookback_ms: int,
    *,
    plain: bool,
    cancelled: Callable[[], bool] | None = None,
) -> Evaluator:
    """A query, ready to be fetched for; step None asks for the one instant `end_ms`. PromQLError."""
    watch = Watch(limits.seconds, cancelled)
    _check_time(start_ms)
    _check_time(end_ms)
    if step_ms is None:
        return Evaluator(prepare(expr, plain=plain), Grid(end_ms, 1, 1), lookback_ms, limits, watch=watch)
    if step_ms <= 0:
        raise ParseError("zero or negative query resolution step widths are not accepted. Try a positive integer")
    if end_ms < start_ms:
        raise ParseError("end timestamp must not be before start time")
    n = (end_ms - start_ms) // step_ms + 1
    if n > limits.steps:
        raise LimitError(f"exceeded maximum resolution of {limits.steps} points per time series: the query has {n}")
    prepared = prepare(expr, plain=plain)
    kind = value_type(prepared.expr)
    if kind in (RANGE, STRING):
        raise ParseError(f'invalid expression type "{kind}" for range query, must be scalar or instant vector')
    return Evaluator(prepared, Grid(start_ms, step_ms, n), lookback_ms, limits, is_range=True, watch=watch)


def _answer(query: Evaluator, source: Source) -> Result:
    fetch(_watched(source, query.watch), [query])
    try:
        return _over_time(query) if query.is_range else _at_once(query)
    except RecursionError:  # the parser's depth is safe for callers with a few hundred frames, not for any
        raise LimitError("the expression is nested too deep to be evaluated here") from None


def evaluate_many(
    exprs: Sequence[str | Expr],
    source: Source,
    at_ms: int,
    *,
    limits: Limits = _DEFAULT,
    lookback_ms: int = LOOKBACK_MS,
) -> list[Result | PromQLError]:
    """Many expressions at one time, from one fetch phase; an expression's error is its answer.

    Expressions of one shape are evaluated as one, equal selectors are read once for all, equal texts are evaluated
    once; limits hold for each expression. Raises DeadlineExceeded when what they share cannot be read in the time that
    one of them has.
    """
    _check_time(at_ms)
    answers: dict[int, Result | PromQLError] = {}
    queries: dict[int, Evaluator] = {}
    texts = {index: expr for index, expr in enumerate(exprs) if isinstance(expr, str)}
    index_of, plan = list(texts), sort_out(tuple(texts.values()))
    for number, error in plan.errors.items():
        answers[index_of[number]] = error
    batches = [Together(batch, at_ms, lookback_ms, limits) for batch, _ in plan.batches]
    for index in [index_of[number] for number in plan.alone] + [i for i in range(len(exprs)) if i not in texts]:
        try:
            queries[index] = Evaluator(prepare(exprs[index]), Grid(at_ms, 1, 1), lookback_ms, limits)
            queries[index].hints = False
        except PromQLError as error:
            answers[index] = error
    shared = _watched(source, Watch(limits.seconds))
    lone = _fetch_joined(shared, batches, list(queries.values()))
    fetch(shared, lone)
    for batch, (_, numbers) in zip(batches, plan.batches, strict=True):
        for number, answer in zip(numbers, _together(batch, source), strict=True):
            answers[index_of[number]] = answer
    for index, query in queries.items():
        answers[index] = _answered(query)
    for number, twin in plan.twins:
        answers[index_of[number]] = answers[index_of[twin]]
    return [answers[index] for index in range(len(exprs))]


def _answered(query: Evaluator) -> Result | PromQLError:
    try:
        query.restart()
        return _at_once(query)
    except PromQLError as error:
        return error
    except RecursionError:
        return LimitError("the expression is nested too deep to be evaluated here")


def _fetch_joined(source: Source, batches: Sequence[Together], queries: Sequence[Evaluator]) -> list[Evaluator]:
    """One fetch phase for batches and for what is evaluated alone; gives the queries that are still to be read for:
    those of a source without bundles, and those that read much."""
    if not isinstance(source, JoiningSource):
        for batch in batches:
            batch.feed([_side_by_side(source, bundle) for bundle in batch.bundles()])
        return list(queries)
    if not batches:
        return list(queries)
    wanted = [bundle for batch in batches for bundle in batch.bundles()]
    fewer, where = merge([need.request for query in queries for need in query.needs])
    wanted += [Bundle((request.matchers,), request.tmin, request.tmax) for request in fewer]
    answers = iter(source.select_joined(wanted))
    for batch in batches:
        batch.feed([next(answers) for _ in batch.needs])
    read = [Fetched(answer.part(0, 1).ragged) if isinstance(answer, Joined) else None for answer in answers]
    left: list[Evaluator] = []
    at = iter(where)
    for query in queries:
        found = {need.node: read[next(at)] for need in query.needs}
        known = {node: fetched for node, fetched in found.items() if fetched is not None}
        if len(known) == len(found):
            query.data = known
        else:
            left.append(query)
    return left


def _side_by_side(source: Source, bundle: Bundle) -> Joined | PromQLError:
    requests = [Request(matchers, bundle.tmin, bundle.tmax) for matchers in bundle.matchers]
    parts: list[Ragged] = []
    for part in _select(source, requests):
        if isinstance(part, PromQLError):
            return part
        parts.append(part)
    return Joined.of(parts)


def _together(batch: Together, source: Source) -> list[Result | PromQLError]:
    """The answers of a batch. What errs or has something to say is found by halving, and is evaluated alone."""
    size = batch.batch.size
    try:
        batch.restart()
        vec = _finished(batch.vector(batch.expr, batch.grid)) if batch.admitted() else None
    except DeadlineExceeded:
        return [_alone(batch.part(number, number + 1), source) for number in range(size)]
    except PromQLError:
        vec = None
    if vec is None or batch.warnings or batch.infos:
        if size == 1:
            return [_alone(batch, source)]
        return [*_together(batch.part(0, size // 2), source), *_together(batch.part(size // 2, size), source)]
    times = batch.grid.times()
    return [
        Result("vector", part.labels, times, part.v, part.ok, "", damage, (), Stats(series, samples))
        for part, damage, series, samples in zip(batch.split(vec), batch.damage(), *batch.costs(), strict=True)
    ]


def _alone(batch: Together, source: Source) -> Result | PromQLError:
    """The only expression of a batch as if there were no batches."""
    query = batch.lone()
    if not batch.is_fed:
        query.restart()
        fetch(_watched(source, query.watch), [query])
    return _answered(query)


def fetch(source: Source, queries: Sequence[Evaluator]) -> None:
    """One fetch phase for all selectors of these queries.

    A query that its limits refuse reads nothing and raises when it is evaluated; one that would read more than may
    be held reads for itself, while it is evaluated.
    """
    requests = [need.request for query in queries for need in query.needs]
    if not requests:
        return
    fewer, where = merge(requests)
    shares: list[list[int]] = []
    for query in queries:
        done = sum(map(len, shares))
        shares.append(where[done : done + len(query.needs)])
    light = list(zip(queries, shares, strict=True))
    if sized(source) and (found := _sizes(source, fewer, queries)):
        light = [(query, share) for query, share in light if _admit(query, [found[i] for i in set(share)], source)]
    wanted = sorted({index for _, share in light for index in share})
    if not wanted:
        return
    fetched = dict(zip(wanted, map(Fetched, _select(source, [fewer[index] for index in wanted])), strict=True))
    for query, share in light:
        query.data = {need.node: fetched[index] for need, index in zip(query.needs, share, strict=True)}


def _admit(query: Evaluator, found: Sequence[Estimate], source: SizedSource) -> bool:
    """Whether the query takes part in the fetch phase, from what its requests would bring."""
    series, samples = sum(one.series for one in found), sum(one.samples for one in found)
    try:
        query.limits.admit(series, samples)
    except LimitError as error:
        query.refused = error
        return False
    if samples <= query.limits.held:
        return True
    query.pieces = Pieces(source, query.limits.held, series)
    query.turn = source.turn
    query.widest = max(one.series for one in found)
    return False


def _sizes(source: SizedSource, requests: Sequence[Request], queries: Sequence[Evaluator]) -> Sequence[Estimate]:
    """What requests would bring; nothing where one of many is refused: each is told when it is read."""
    enough = min(min(query.limits.held, query.limits.samples) for query in queries)
    try:
        return source.estimate(requests, enough)
    except PromQLError:
        if len(queries) == 1:
            raise
        return ()


def _estimates(source: Source, requests: Sequence[Request]) -> Sequence[Estimate]:
    """What requests would bring; a source that cannot say is read."""
    if sized(source):
        return source.estimate(requests)
    read = (source.select(request.matchers, request.tmin, request.tmax) for request in requests)
    return [Estimate(part.size, len(part.ts)) for part in read]


def _watched(source: Source, watch: Watch) -> Source:
    return source.watched(watch) if sized(source) else source


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
    with query.turn():
        if value_type(query.expr) == RANGE:
            return _samples(query)
        value = query.value()
    if isinstance(value, Text):
        return _result(query, "string", Vec.empty(1), text=printable(value.text))
    if isinstance(value, Scalar):
        return _result(query, "scalar", _row(value, 1))
    vec = _finished(value)
    query.limits.admit_points(vec.size)
    return _result(query, "vector", vec)


def _over_time(query: Evaluator) -> Result:
    """The answer at all steps, sorted by labels."""
    parts: list[Vec] = []
    points = 0
    with query.turn():
        for value in query.parts():
            if isinstance(value, Text):
                raise ParseError('invalid expression type "string" for range query')
            parts.append(_row(value, len(value.v)) if isinstance(value, Scalar) else _finished(value))
            points += int(parts[-1].ok.sum())
            query.limits.admit_points(points)
            query.check_cells(max(part.size for part in parts), query.grid.n)
    vec = Vec.beside(parts)
    return _result(query, "matrix", vec.take(vec.labels.order()))


def _samples(query: Evaluator) -> Result:
    """The raw samples of a range vector at one time, as a matrix over the union of their timestamps."""
    found = query.samples()
    ragged = found.ragged.between(found.ends.start - found.width, found.ends.start)
    query.limits.admit_points(len(ragged.ts))
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
    series, samples, warned = query.read_so_far()
    stats = Stats(series, samples, query.grid.n)
    warnings = (*query.warnings, *warned)
    return Result(kind, vec.labels, query.grid.times(), vec.v, vec.ok, text, warnings, tuple(query.infos), stats)
