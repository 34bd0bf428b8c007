"""Evaluates one expression on one grid, node by node, every node for all steps at once."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from math import isnan
from time import perf_counter
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from apps.promql import aggregate, binary, counters, edges, elementwise, forecast, rolled, special, windows
from apps.promql.arrays import Floats, Mask
from apps.promql.ast import (
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Expr,
    Negation,
    Number,
    Paren,
    Range,
    Selector,
    String,
    Subquery,
    unwrap,
    walk,
)
from apps.promql.errors import LimitError, PromQLError, QueryError
from apps.promql.explain import Trace
from apps.promql.lexer import position
from apps.promql.limits import Limits, Watch
from apps.promql.plan import DEFAULT_SUBQUERY_STEP, Clock, Prepared, needs
from apps.promql.reading import Fetched, Pieces
from apps.promql.result import number
from apps.promql.series import Grid, Ragged, Scalar, Text, Vec, offsets
from apps.promql.text import quote, valid_name
from apps.promql.windows import Function

Value: TypeAlias = Vec | Scalar | Text

PART_CELLS: Final = 2_500_000
"""Series x steps evaluated at once: 20 MB a matrix. A longer query is evaluated in parts of its steps."""
NOTES: Final = 50
"""Warnings (or infos) of one query that are told one by one."""

_LARGEST_COUNT: Final = 2.0**63

_WINDOW: Final[dict[str, Function]] = {
    "rate": partial(windows.extrapolated, counter=True, per_second=True),
    "increase": partial(windows.extrapolated, counter=True, per_second=False),
    "delta": partial(windows.extrapolated, counter=False, per_second=False),
    "irate": partial(windows.instant_rate, counter=True),
    "idelta": partial(windows.instant_rate, counter=False),
    "deriv": windows.derivatives,
    "changes": windows.changes,
    "resets": windows.resets,
    "avg_over_time": windows.averages,
    "sum_over_time": windows.sums,
    "count_over_time": windows.counts,
    "min_over_time": windows.minima,
    "max_over_time": windows.maxima,
    "stddev_over_time": partial(windows.by_window, function=windows.deviation),
    "stdvar_over_time": partial(windows.by_window, function=windows.variance),
    "present_over_time": windows.presence,
    "last_over_time": windows.last,
    "first_over_time": windows.first,
    "mad_over_time": partial(windows.by_window, function=windows.absolute_deviation),
    "ts_of_first_over_time": windows.first_time,
    "ts_of_last_over_time": windows.last_time,
    "ts_of_min_over_time": partial(windows.extreme_times, largest=False),
    "ts_of_max_over_time": partial(windows.extreme_times, largest=True),
}


class RangeVector(NamedTuple):
    """Samples and the windows over them: `ends` the windows' last times, `width` in ms; drop bool[S] as in Vec."""

    ragged: Ragged
    drop: Mask
    ends: Grid
    width: int


class Evaluator:
    """One query: its plan, its data (put in by the engine's fetch phase), its warnings and its watch."""

    hints = True
    """Tells who wrote the query what looks odd in it; rules that run again and again need no such infos."""

    def __init__(
        self,
        prepared: Prepared,
        grid: Grid,
        lookback: int,
        limits: Limits,
        *,
        is_range: bool = False,
        watch: Watch | None = None,
    ) -> None:
        prepared = prepared.settled(grid.step if is_range else 0, grid.end - grid.start)
        self.expr = prepared.expr
        self.text = prepared.text
        self.fixed = prepared.fixed
        self.grid = grid
        self.limits = limits
        self.is_range = is_range
        self.clock = Clock(grid.start, grid.end, lookback)
        self.watch = Watch(limits.seconds) if watch is None else watch
        self.needs = list(needs(self.expr, grid, self.clock, limits.subquery_steps))
        self.data: dict[int, Fetched] = {}
        self.pieces: Pieces | None = None
        """Reads while evaluating what is too much to be held; `data` stays empty then."""
        self.turn: Callable[[], AbstractContextManager[None]] = nullcontext
        """Held while it is evaluated."""
        self.refused: PromQLError | None = None
        """Why nothing was read."""
        self.widest = 0
        """Series of the largest selector."""
        self.trace: Trace | None = None
        self.warnings: dict[str, None] = {}
        self.infos: dict[str, None] = {}
        self._split = False
        self._constants: dict[int, Value] = {}

    def value(self) -> Value:
        """The whole expression. QueryError, LimitError, DeadlineExceeded, Cancelled."""
        self.admit()
        return self.eval(self.expr, self.grid)

    def parts(self) -> Iterator[Value]:
        """The whole expression, some steps at a time, so that no matrix needs much memory."""
        self.admit()
        for grid in self._parts(self.expr, self.grid):
            yield self.eval(self.expr, grid)

    def samples(self) -> RangeVector:
        """The whole expression, where it is a range vector. QueryError, LimitError, DeadlineExceeded, Cancelled."""
        self.admit()
        node = unwrap(self.expr)
        found = list(self.range_vectors(node, self.grid))
        for part in found:
            for text in rolled.note_of_samples(part.ragged, part.ends.start - part.width, part.ends.end):
                self.warn(text, node)
        ragged = Ragged.concat([rolled.samples(part.ragged) for part in found])
        return found[0]._replace(ragged=ragged, drop=np.concatenate([part.drop for part in found]))

    def _parts(self, node: Expr, grid: Grid) -> list[Grid]:
        """The grid cut into as many parts as keep matrices small, those of subqueries below the node too."""
        most = steps = max(1, PART_CELLS // max(1, self.widest))
        if grid.n > 1:
            for below in walk(node):
                if isinstance(below, Subquery) and below.at is None:
                    # Parts overlap by the window: where it can be, they are no shorter than that.
                    step = below.step or DEFAULT_SUBQUERY_STEP
                    longest = self.limits.cells // max(1, self.widest) * step - below.window
                    room = max(most * step - below.window, min(below.window, longest))
                    steps = min(steps, max(1, room // grid.step))
        if grid.n <= steps:
            return [grid]
        self._split = True
        return list(grid.parts(steps))

    # -- bounds and notes --------------------------------------------------------------------------------------

    def restart(self) -> None:
        """From now on the query may take its time."""
        self.watch.restart()

    def admit(self) -> None:
        """Refuses a query that has read too much before anything is computed from it."""
        if self.refused is not None:
            raise self.refused
        if self.pieces is None:
            series, samples, _ = self.read_so_far()
            self.limits.admit(series, samples)
            self.widest = max((fetched.read().size for fetched in self.data.values()), default=0)

    def read_so_far(self) -> tuple[int, int, Iterable[str]]:
        """(series, samples, warnings) of what has been read; series of several reads of one selector count once."""
        if self.pieces is not None:
            return self.pieces.series, self.pieces.samples, self.pieces.warnings
        read = {id(fetched): fetched.read() for fetched in self.data.values()}.values()
        warnings = dict.fromkeys(warning for part in read for warning in part.warnings)
        return sum(part.size for part in read), sum(part.read for part in read), warnings

    def check(self) -> None:
        self.watch.check()

    def check_cells(self, series: int, steps: int) -> None:
        if series * steps > self.limits.cells:
            raise LimitError(
                f"{series} series at {steps} steps are {series * steps} values, more than the limit of "
                f"{self.limits.cells}: select fewer series or a longer step"
            )

    def warn(self, text: str, node: Expr) -> None:
        self._note(self.warnings, "warning", text, node)

    def inform(self, text: str, node: Expr) -> None:
        self._note(self.infos, "info", text, node)

    def _note(self, notes: dict[str, None], kind: str, text: str, node: Expr) -> None:
        line, column = position(self.text, node.start)
        note = f"PromQL {kind}: {text} ({line}:{column})"
        notes[note if len(notes) < NOTES else f"PromQL {kind}: there are more than these {NOTES}"] = None

    # -- nodes -------------------------------------------------------------------------------------------------

    def eval(self, node: Expr, grid: Grid) -> Value:
        self.watch.check()
        if self.trace is None:
            return self._value(node, grid)
        began = perf_counter()
        value = self._value(node, grid)
        self.trace.evaluated(node, value, perf_counter() - began)
        return value

    def _value(self, node: Expr, grid: Grid) -> Value:
        if id(node) not in self.fixed:
            return _NODE[type(node)](self, node, grid)
        if id(node) not in self._constants:
            self._constants[id(node)] = _NODE[type(node)](self, node, Grid(grid.start, grid.step, 1))
        return self._repeated(self._constants[id(node)], grid.n)

    def _repeated(self, value: Value, n: int) -> Value:
        if n == 1:
            return value
        if isinstance(value, Scalar):
            return Scalar(np.broadcast_to(value.v, (n,)))
        if isinstance(value, Vec):
            self.check_cells(value.size, n)
            shape = (value.size, n)
            return Vec(value.labels, np.broadcast_to(value.v, shape), np.broadcast_to(value.ok, shape), value.drop)
        return value

    def vector(self, node: Expr, grid: Grid) -> Vec:
        value = self.eval(node, grid)
        if not isinstance(value, Vec):
            raise QueryError(f"an instant vector was expected, not {type(value).__name__}")
        return value

    def scalar(self, node: Expr, grid: Grid) -> Floats:
        """float64[n]"""
        value = self.eval(node, grid)
        if not isinstance(value, Scalar):
            raise QueryError(f"a scalar was expected, not {type(value).__name__}")
        return value.v

    def string(self, node: Expr, grid: Grid) -> str:
        value = self.eval(node, grid)
        if not isinstance(value, Text):
            raise QueryError(f"a string was expected, not {type(value).__name__}")
        return value.text

    def number(self, node: Number, grid: Grid) -> Scalar:
        return Scalar(np.full(grid.n, node.value))

    def literal(self, node: String, grid: Grid) -> Text:
        return Text(node.value)

    def paren(self, node: Paren, grid: Grid) -> Value:
        return self.eval(node.expr, grid)

    def selector(self, node: Selector, grid: Grid, function: Function = windows.newest) -> Vec:
        if node.edges:
            return self._at_edges(node, 0, grid, "")
        ends = self.clock.ends(grid, node.offset, node.at)
        width = self.clock.lookback
        found = (_range_vector(part.read(), ends, width) for part in self.read(node, ends, width))
        return self.windowed(found, grid, function, node, keeps_name=True)

    def read(self, node: Selector, ends: Grid, width: int) -> Iterator[Fetched]:
        """The samples of a selector's windows; in several pieces, of some series each, when there are many."""
        began = perf_counter()
        tmin, tmax = ends.start - width, ends.end
        if self.pieces is not None:
            [request] = [need.request for need in self.needs if need.node == id(node)][:1]
            parts = self.pieces.read(replace(request, tmin=tmin, tmax=tmax))
        else:
            fetched = self.data[id(node)]
            parts = iter([fetched.cut(tmin, tmax) if self._split else fetched])
        for turn, part in enumerate(parts):
            if self.trace is not None:
                self.trace.read(node, part.read(), tmax - width, perf_counter() - began, more=turn > 0)
            yield part
            began = perf_counter()

    def windowed(
        self, found: Iterable[RangeVector], grid: Grid, function: Function, node: Expr, *, keeps_name: bool
    ) -> Vec:
        """A function over the windows of range vectors that have no series in common; `node` is the call, or an
        instant selector."""
        out: list[Vec] = []
        series = 0
        for ragged, drop, ends, width in found:
            series += ragged.size
            self.check_cells(series, grid.n)
            if ragged.tiers:
                v, ok = self._over_tiers(ragged, ends, grid, width, function, node)
            else:
                v, ok = windows.evaluate(ragged, ends, grid, width, function, self.check)
            out.append(Vec(ragged.labels, v, ok, drop if keeps_name else np.ones(ragged.size, dtype=np.bool_)))
        return out[0] if len(out) == 1 else Vec.concat(out)

    def _over_tiers(
        self, ragged: Ragged, ends: Grid, grid: Grid, width: int, function: Function, node: Expr
    ) -> tuple[Floats, Mask]:
        """The same where some of the samples are gone."""

        def instead(samples: Ragged, wide: int) -> tuple[Floats, Mask]:
            return windows.evaluate(samples, ends, grid, wide, function, self.check)

        name = node.func.name if isinstance(node, Call) else ""
        raw = instead(replace(ragged, tiers=()), width)
        v, ok, notes = rolled.overlaid(name, ragged, rolled.Laid(ends, grid, width, self.check), raw, instead)
        for text in notes:
            self.warn(text, node)
        return v, ok

    def _at_edges(self, node: Selector, width: int, grid: Grid, name: str) -> Vec:
        """A function over windows that look past their edges, or a smoothed instant selector where it has no name."""
        ends = self.clock.ends(grid, node.offset, node.at)
        before, after = self.clock.margins(node)
        parts = self.read(node, Grid(ends.start + after, ends.step, ends.n), width + before + after)
        out: list[Vec] = []
        for part in parts:
            ragged = part.live()
            self.check_cells(sum(vec.size for vec in out) + ragged.size, grid.n)

            def over(samples: Ragged, wide: int) -> tuple[Floats, Mask]:
                look = edges.Look(samples, ends, grid, width, max(wide, self.clock.lookback), self.check)
                return edges.over_windows(name, node.edges, look) if name else edges.at_once(look)

            v, ok = over(replace(ragged, tiers=()) if ragged.tiers else ragged, 0)
            if ragged.tiers:
                laid = rolled.Laid(ends, grid, width + before, self.check)
                v, ok, notes = rolled.overlaid("", ragged, laid, (v, ok), over)
                for text in notes:
                    self.warn(text, node)
            out.append(Vec(ragged.labels, v, ok, np.full(ragged.size, bool(name))))
        return out[0] if len(out) == 1 else Vec.concat(out)

    def negation(self, node: Negation, grid: Grid) -> Value:
        value = self.eval(node.expr, grid)
        if isinstance(value, Scalar):
            return Scalar(-value.v)
        if isinstance(value, Vec):
            return Vec(value.labels, -value.v, value.ok, np.ones(value.size, dtype=np.bool_))
        return value

    def range_vectors(self, node: Expr, grid: Grid) -> Iterator[RangeVector]:
        """The samples below a range vector node with the grid of its windows: at least one part, of some series each,
        as many as are held at once."""
        node = unwrap(node)
        if isinstance(node, Subquery):
            yield self._subquery(node, grid)
            return
        if not isinstance(node, Range):
            raise QueryError("a range vector was expected")
        selector = node.selector
        ends = self.clock.ends(grid, selector.offset, selector.at)
        for part in self.read(selector, ends, node.window):
            yield _range_vector(part.live(), ends, node.window)

    def _subquery(self, node: Subquery, grid: Grid) -> RangeVector:
        began = perf_counter()
        inner = self.clock.inner(node, grid)
        ends = self.clock.ends(grid, node.offset, node.at)
        if not inner.n:
            return _range_vector(Ragged.empty(), ends, node.window)
        vec = Vec.beside([binary.merged(self.vector(node.expr, part)) for part in self._parts(node.expr, inner)])
        self.check_cells(vec.size, inner.n)
        ragged = _as_ragged(vec, inner)
        if self.trace is not None:
            self.trace.read(node, ragged, ends.end - node.window, perf_counter() - began)
        return RangeVector(ragged, vec.drop, ends, node.window)

    def binary(self, node: Binary, grid: Grid) -> Value:
        """Down the left side in a loop: a chain of operators may be longer than Python's stack is deep."""
        began = perf_counter()
        chain = [node]
        once = id(node) in self.fixed  # then all below is, and this grid has one step
        while isinstance(left := chain[-1].left, Binary) and (once or id(left) not in self.fixed):
            chain.append(left)
        value = self.eval(left, grid)
        for each in reversed(chain):
            value = self._combined(each, value, self.eval(each.right, grid))
            if self.trace is not None and each is not node:
                self.trace.evaluated(each, value, perf_counter() - began)
        return value

    def _combined(self, node: Binary, left: Value, right: Value) -> Value:
        if isinstance(left, Scalar) and isinstance(right, Scalar):
            return Scalar(binary.scalars(node.op, left.v, right.v))
        if isinstance(left, Vec) and isinstance(right, Vec):
            if node.op in SET_OPERATORS:
                return binary.sets(node.op, node.matching, left, right)
            return binary.vectors(node, left, right, self.check_cells)
        if isinstance(left, Vec) and isinstance(right, Scalar):
            return binary.with_scalar(node, left, right.v, scalar_left=False)
        if isinstance(left, Scalar) and isinstance(right, Vec):
            return binary.with_scalar(node, right, left.v, scalar_left=True)
        raise QueryError("binary expression must contain only scalar and instant vector types")

    def aggregate(self, node: Aggregate, grid: Grid) -> Value:
        op, param = node.op, node.param
        numbers: Floats = np.zeros(0)
        text = ""
        if op == "count_values" and param is not None:
            text = self.string(param, grid)
            if not valid_name(text):
                raise QueryError(f"invalid label name {quote(text)}")
        elif param is not None:
            numbers = self.scalar(param, grid)
            if op in ("topk", "bottomk", "limitk"):
                _check_count(numbers)
            elif op == "limit_ratio":
                numbers = self.check_ratio(numbers, param)
            else:
                self.check_quantile(numbers, param)
        vec = self.vector(node.expr, grid)
        if not vec.size:
            return Vec.empty(grid.n)
        if op == "limit_ratio":
            return aggregate.sampled(vec, numbers)
        if op == "count_values":  # its label takes the place of one that is there, before anything is grouped
            vec = Vec(vec.labels.drop((text,)), vec.v, vec.ok, vec.drop)
        groups = aggregate.Groups(vec, node.grouping, node.without)
        if op in ("topk", "bottomk"):
            return aggregate.ranked(groups, np.floor(numbers), largest=op == "topk")
        if op == "limitk":
            return aggregate.limited(groups, np.floor(numbers))
        if op == "quantile":
            return aggregate.quantile(groups, numbers)
        if op == "count_values":
            return aggregate.count_values(groups, text, self.check_cells)
        return aggregate.simple(op, groups)

    def check_quantile(self, q: Floats, node: Expr) -> None:
        if ((q >= 0) & (q <= 1)).all():
            return
        for value in dict.fromkeys(number(value) for value in q.tolist() if isnan(value) or not 0 <= value <= 1):
            self.warn(f"quantile value should be between 0 and 1, got {value}", node)

    def check_ratio(self, ratio: Floats, node: Expr) -> Floats:
        """The ratios within [-1, 1]."""
        if np.isnan(ratio).any():
            raise QueryError("Ratio value is NaN")
        held: Floats = np.clip(ratio, -1.0, 1.0)
        for value, cap in dict.fromkeys(zip(ratio[held != ratio].tolist(), held[held != ratio].tolist(), strict=True)):
            self.warn(f"ratio value should be between -1 and 1, got {number(value)}, capping to {number(cap)}", node)
        return held

    # -- functions ---------------------------------------------------------------------------------------------

    def call(self, node: Call, grid: Grid) -> Value:
        name, kind = node.func.name, node.func.kind
        if kind == "window":
            return self.window_call(node, grid)
        if kind == "elementwise":
            return self.elementwise_call(node, grid)
        if kind == "date":
            return self.date_call(node, grid)
        return special.CALLS[name](self, node, grid)

    def window_call(self, node: Call, grid: Grid) -> Vec:
        name, args = node.func.name, node.args
        arg = unwrap(args[0])
        if isinstance(arg, Range) and arg.selector.edges:
            vec = self._at_edges(arg.selector, arg.window, grid, name)
            return self._hinted(node, vec, np.zeros(vec.size, dtype=np.bool_))
        function = _WINDOW.get(name)
        where = 0
        if function is None:
            where = 1 if name == "quantile_over_time" else 0
            numbers = [self.scalar(arg, grid) for i, arg in enumerate(args) if i != where]
            if name == "quantile_over_time":
                self.check_quantile(numbers[0], args[0])
                function = partial(windows.quantiles, q=numbers[0])
            elif node.func.extension:
                function = forecast.function(name, numbers, self.check)
            elif name == "predict_linear":
                function = partial(windows.predictions, ahead=numbers[0])
            else:
                _check_smoothing(numbers[0], numbers[1])
                function = partial(windows.smoothed, factor=numbers[0], trend=numbers[1])
        found = self.range_vectors(args[where], grid)
        if len(args) > 1:
            found = (_spread(part, grid.n) for part in found)
        unnamed: list[Mask] = []
        vec = self.windowed(_noting(found, unnamed), grid, function, node, keeps_name=node.func.keeps_name)
        return self._hinted(node, vec, np.concatenate(unnamed))

    def _hinted(self, node: Call, vec: Vec, unnamed: Mask) -> Vec:
        """The vector; tells what of it does not look like a counter where one is asked for."""
        if self.hints and node.func.name in counters.OF_COUNTERS:
            for text in counters.doubts(vec, unnamed):
                self.inform(text, node.args[0])
        return vec

    def elementwise_call(self, node: Call, grid: Grid) -> Vec:
        name = node.func.name
        vec = self.vector(node.args[0], grid)
        numbers = [self.scalar(arg, grid) for arg in node.args[1:]]
        ok = vec.ok
        with np.errstate(all="ignore"):
            if name == "round":
                v = elementwise.rounded(vec.v, numbers[0] if numbers else np.ones(1))
            elif name == "clamp":
                v = elementwise.clamped(vec.v, numbers[0], numbers[1])
                ok = ok & ~(numbers[1] < numbers[0])
            elif name == "clamp_min":
                v = elementwise.larger(vec.v, numbers[0])
            elif name == "clamp_max":
                v = elementwise.smaller(vec.v, numbers[0])
            else:
                v = elementwise.MATHEMATICS[name](vec.v)
        return Vec(vec.labels, v, ok, np.ones(vec.size, dtype=np.bool_))

    def date_call(self, node: Call, grid: Grid) -> Vec:
        vec = self.vector(node.args[0], grid) if node.args else Vec.lone(grid.times() / 1000)
        with np.errstate(all="ignore"):
            v = elementwise.CALENDAR[node.func.name](vec.v)
        return Vec(vec.labels, v, vec.ok, np.ones(vec.size, dtype=np.bool_))


def _range_vector(ragged: Ragged, ends: Grid, width: int) -> RangeVector:
    return RangeVector(ragged, np.zeros(ragged.size, dtype=np.bool_), ends, width)


def _spread(found: RangeVector, n: int) -> RangeVector:
    """With a window for each step, where @ pins all to one: a parameter may differ at each."""
    return found if found.ends.n == n else found._replace(ends=Grid(found.ends.start, 0, n))


def _noting(found: Iterable[RangeVector], drops: list[Mask]) -> Iterator[RangeVector]:
    """The same range vectors; notes which of their series have lost their names."""
    for part in found:
        drops.append(part.drop)
        yield part


def _as_ragged(vec: Vec, grid: Grid) -> Ragged:
    """The values of a subquery as samples."""
    times = grid.times()
    if vec.ok.all():
        ts = np.tile(times, vec.size)
        off = np.arange(vec.size + 1, dtype=np.int64) * grid.n
        return Ragged(vec.labels, ts, vec.v.ravel(), off, clock=np.zeros(vec.size, dtype=np.int64))
    ts = np.broadcast_to(times, vec.ok.shape)[vec.ok]
    return Ragged(vec.labels, ts, vec.v[vec.ok], offsets(vec.ok.sum(axis=1)))


def _check_count(k: Floats) -> None:
    if np.isnan(k).any():
        raise QueryError("Parameter value is NaN")
    if (np.abs(k) >= _LARGEST_COUNT).any():
        raise QueryError(f"Scalar value {number(float(np.abs(k).max()))} overflows int64")


def _check_smoothing(factor: Floats, trend: Floats) -> None:
    for name, value in (("smoothing", factor), ("trend", trend)):
        if not ((value > 0) & (value < 1)).all():
            raise QueryError(f"invalid {name} factor. Expected: 0 < factor < 1, got: {number(float(value[0]))}")


_NODE: Final[dict[type, Callable[..., Value]]] = {
    Number: Evaluator.number,
    String: Evaluator.literal,
    Paren: Evaluator.paren,
    Selector: Evaluator.selector,
    Negation: Evaluator.negation,
    Binary: Evaluator.binary,
    Aggregate: Evaluator.aggregate,
    Call: Evaluator.call,
}
