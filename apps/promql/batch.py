"""Expressions of one shape evaluated in one go: many rules differ only in what they select and compare with.

A shape is a syntax tree without the values of its matchers and without the constants that vectors are calculated or
compared with. The series of all expressions of a shape become the rows of one vector, each with the number of its
expression as a hidden label: it takes part in every grouping and matching, so nothing of one expression meets
anything of another, and the constants become a column with a value for each row.

Only what gives the same answer to the last bit may take part; the lists below name it. The rest, and whatever errs
or warns on the way, is evaluated by itself.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final, Protocol, TypeAlias, runtime_checkable

import numpy as np

from apps.promql import binary
from apps.promql.arrays import Floats, Ids, Index
from apps.promql.ast import (
    COMPARISONS,
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
    unwrap,
    value_type,
    walk,
)
from apps.promql.errors import PromQLError
from apps.promql.evaluator import Evaluator, Value, fixed_labels
from apps.promql.functions import FUNCTIONS, SCALAR, VECTOR
from apps.promql.labels import STRINGS, Labels
from apps.promql.limits import Limits
from apps.promql.plan import Prepared, prepare, prepare_tree
from apps.promql.reading import Fetched
from apps.promql.series import Grid, Ragged, Scalar, Vec
from apps.promql.source import Matcher

RULE: Final = "\udc00rule"
"""The hidden label. Half a surrogate pair: no name that was ever UTF-8 is like it."""
LEAST: Final = 2
MOST: Final = 2_000
"""Expressions of one batch: the numbers of rules stay in the table of strings as long as the process lives."""

NODES: Final = 100
"""Nodes of a tree that is looked at: rules are smaller, and a long chain of operators would nest calls as deep."""

WINDOWS: Final = frozenset(
    (
        *("rate", "increase", "delta", "irate", "idelta", "deriv", "changes", "resets", "avg_over_time"),
        *("sum_over_time", "count_over_time", "min_over_time", "max_over_time", "stddev_over_time", "stdvar_over_time"),
        *("present_over_time", "last_over_time", "first_over_time", "mad_over_time", "quantile_over_time"),
        *("ts_of_first_over_time", "ts_of_last_over_time", "ts_of_min_over_time", "ts_of_max_over_time"),
        *("predict_linear", "double_exponential_smoothing"),
    )
)
EACH: Final = frozenset(
    ("abs", "ceil", "floor", "sqrt", "sgn", "deg", "rad", "round", "clamp", "clamp_min", "clamp_max")
)
"""Not the transcendental ones: their last bit may depend on where in an array a value stands."""
DATES: Final = frozenset(
    ("minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year")
)
SPECIAL: Final = frozenset(
    (
        *("timestamp", "absent", "sort", "sort_desc", "label_replace", "label_join"),
        *("histogram_quantile", "histogram_fraction"),
    )
)
AGGREGATIONS: Final = frozenset(
    (
        *("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"),
        *("topk", "bottomk", "quantile", "count_values", "limitk"),
    )
)
OPERATORS: Final = frozenset(("+", "-", "*", "/", "%")) | COMPARISONS | SET_OPERATORS

Matchers: TypeAlias = tuple[Matcher, ...]
Key: TypeAlias = tuple[object, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Selectors that are read over the same time, tmin < ts <= tmax (ms), and answered as one; known by identity."""

    matchers: tuple[Matchers, ...]
    tmin: int
    tmax: int


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """The answer: series of one selector after those of the other, the k-th selector's in rows starts[k]:starts[k + 1].

    starts int64[K + 1]; a series that two selectors accept is there twice. `warnings` has a tuple for each selector,
    or is empty where there is nothing to be said.
    """

    ragged: Ragged
    starts: Index
    warnings: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Ragged]) -> "Joined":
        """From each selector's own answer."""
        starts = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([part.size for part in parts], out=starts[1:])
        warnings = tuple(part.warnings for part in parts) if any(part.warnings for part in parts) else ()
        return cls(Ragged.concat(parts), starts, warnings)

    def part(self, low: int, high: int) -> "Joined":
        """The answer to the selectors low..high - 1, as views."""
        first, last = int(self.starts[low]), int(self.starts[high])
        ragged = self.ragged
        begin, end = int(ragged.off[first]), int(ragged.off[last])
        labels = Labels(last - first, {name: ids[first:last] for name, ids in ragged.labels.cols.items()})
        clock = None if ragged.clock is None else ragged.clock[first:last]
        warnings = self.warnings[low:high]
        told = tuple(dict.fromkeys(text for texts in warnings for text in texts))
        part = Ragged(
            labels, ragged.ts[begin:end], ragged.v[begin:end], ragged.off[first : last + 1] - begin, told, clock
        )
        return Joined(part, self.starts[low : high + 1] - first, warnings)

    def samples(self) -> Index:
        """int64[K]: samples of each selector."""
        return np.diff(self.ragged.off[self.starts])


@runtime_checkable
class JoiningSource(Protocol):
    """A store that answers bundles, each with its own error, all from one snapshot."""

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged: ...

    def select_joined(self, bundles: Sequence[Bundle]) -> Sequence[Joined | PromQLError]: ...


# -- shapes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """`prepared` is the tree of all expressions alike, hidden label included; the rest are id()s of its nodes."""

    prepared: Prepared
    selectors: tuple[int, ...]
    numbers: tuple[int, ...]
    mixed: frozenset[int]
    """Operators of which one side at least is a scalar."""


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What an expression has beside its shape, in the order of the shape's nodes."""

    shape: Shape
    matchers: tuple[Matchers, ...]
    numbers: tuple[float, ...]


_NOW: Final = Call(FUNCTIONS["vector"], (Call(FUNCTIONS["time"], ()),))
"""What hour() and its like take where they are given nothing."""


class _Alone(Exception):
    """Something in the expression has to be evaluated by itself."""


_shapes: dict[Key, Shape] = {}
_lock = threading.Lock()
_SHAPES: Final = 2_000
"""Shapes kept; all are forgotten beyond."""


@lru_cache(maxsize=20_000)
def form(text: str) -> Form | None:
    """The shape of an expression, or None where it has to be evaluated by itself. ParseError."""
    expr = prepare(text).expr
    if value_type(expr) != VECTOR or sum(1 for _ in walk(expr)) > NODES:
        return None
    builder = _Builder()
    try:
        key, template = builder.node(expr)
    except _Alone:
        return None
    if not builder.selectors:
        return None
    with _lock:
        shape = _shapes.get(key)
        if shape is None:
            if len(_shapes) >= _SHAPES:
                _shapes.clear()
            shape = _shapes[key] = Shape(
                prepare_tree(template, text),
                tuple(id(node) for node in builder.selectors),
                tuple(id(node) for node in builder.numbers),
                frozenset(id(node) for node in builder.mixed),
            )
    return Form(
        shape, tuple(node.matchers for node in builder.selectors), tuple(node.value for node in builder.numbers)
    )


class _Builder:
    """Walks one expression: the key of its shape, the shape's tree, and what was taken out of it."""

    def __init__(self) -> None:
        self.selectors: list[Selector] = []
        self.numbers: list[Number] = []
        self.mixed: list[Binary] = []

    def node(self, node: Expr) -> tuple[Key, Expr]:
        """Of a vector or a range vector; _Alone."""
        match node:
            case Paren():
                return self.node(node.expr)
            case Selector():
                if node.edges or node.offset_later:
                    raise _Alone
                mine = replace(node)
                self.selectors.append(mine)
                names = tuple((matcher.name, matcher.op) for matcher in node.matchers)
                return ("selector", names, node.offset, node.at), mine
            case Range():
                if node.window_later:
                    raise _Alone
                key, selector = self.node(node.selector)
                if not isinstance(selector, Selector):
                    raise _Alone
                return ("range", node.window, key), replace(node, selector=selector)
            case Negation():
                key, below = self.node(node.expr)
                return ("negation", key), replace(node, expr=below)
            case Binary():
                return self.binary(node)
            case Aggregate():
                return self.aggregate(node)
            case Call():
                return self.call(node)
            case _:
                raise _Alone

    def binary(self, node: Binary) -> tuple[Key, Expr]:
        matching = node.matching
        if node.op not in OPERATORS or matching.fill_left is not None or matching.fill_right is not None:
            raise _Alone
        _refuse_hidden(*matching.labels, *matching.include)
        scalar = value_type(node.left) == SCALAR, value_type(node.right) == SCALAR
        left_key, left = (self.operand if scalar[0] else self.node)(node.left)
        right_key, right = (self.operand if scalar[1] else self.node)(node.right)
        if matching.on:
            matching = replace(matching, labels=(*matching.labels, RULE))
        mine = replace(node, left=left, right=right, matching=matching)
        if any(scalar):
            self.mixed.append(mine)
        return ("binary", node.op, matching, node.bool_modifier, left_key, right_key), mine

    def operand(self, node: Expr) -> tuple[Key, Expr]:
        """A scalar that stands beside a vector; its constants may differ from rule to rule."""
        value = constant(node)
        if value is not None:
            mine = Number(value)
            self.numbers.append(mine)
            return ("#",), mine
        node = unwrap(node)
        match node:
            case Negation():
                # Negation of a column is the evaluator's, which knows scalars of one value only.
                raise _Alone
            case Binary():
                return self.binary(node)
            case Call() if node.func.name == "time":
                return ("time",), node
            case _:
                raise _Alone

    def argument(self, node: Expr) -> tuple[Key, Expr]:
        """A scalar or a string that a function or an aggregation takes: the same for all rules of the shape."""
        node = unwrap(node)
        if isinstance(node, String):
            _refuse_hidden(node.value)
            return ("string", node.value), node
        value = constant(node)
        if value is None:
            raise _Alone
        return ("number", value.hex()), Number(value, start=node.start, end=node.end)

    def aggregate(self, node: Aggregate) -> tuple[Key, Expr]:
        if node.op not in AGGREGATIONS:
            raise _Alone
        _refuse_hidden(*node.grouping)
        param: tuple[Key, Expr | None] = ((), None) if node.param is None else self.argument(node.param)
        key, below = self.node(node.expr)
        grouping = node.grouping if node.without else (*node.grouping, RULE)
        mine = replace(node, expr=below, param=param[1], grouping=grouping)
        return ("aggregate", node.op, grouping, node.without, param[0], key), mine

    def call(self, node: Call) -> tuple[Key, Expr]:
        name = node.func.name
        if name == "vector":
            parts = [self.operand(node.args[0])]
        elif name in DATES and not node.args:
            parts = [(("time",), _NOW)]
        elif name in WINDOWS or name in EACH or name in DATES or name in SPECIAL:
            parts = [
                self.argument(arg) if value_type(arg) in (SCALAR, "string") else self.node(arg) for arg in node.args
            ]
        else:
            raise _Alone
        mine = replace(node, args=tuple(part for _, part in parts))
        return ("call", name, *(key for key, _ in parts)), mine


def _refuse_hidden(*names: str) -> None:
    if any(RULE in name for name in names):
        raise _Alone


def constant(node: Expr) -> float | None:
    """The value of a scalar that is the same at every time, calculated as the evaluator does; None for others."""
    match node:
        case Number():
            return node.value
        case Paren():
            return constant(node.expr)
        case Negation():
            value = constant(node.expr)
            return None if value is None else -value
        case Binary():
            left, right = constant(node.left), constant(node.right)
            if left is None or right is None:
                return None
            return float(binary.scalars(node.op, np.array([left]), np.array([right]))[0])
        case _:
            return None


# -- batches ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Expressions of one shape: their texts, and by node of the shape their matchers and numbers float64[R, 1]."""

    shape: Shape
    texts: tuple[str, ...]
    matchers: dict[int, tuple[Matchers, ...]]
    numbers: dict[int, Floats]

    @classmethod
    def of(cls, texts: Sequence[str], forms: Sequence[Form]) -> "Batch":
        shape = forms[0].shape
        return cls(
            shape,
            tuple(texts),
            {node: tuple(one.matchers[k] for one in forms) for k, node in enumerate(shape.selectors)},
            {node: np.array([[one.numbers[k]] for one in forms]) for k, node in enumerate(shape.numbers)},
        )

    @property
    def size(self) -> int:
        return len(self.texts)

    def part(self, low: int, high: int) -> "Batch":
        return Batch(
            self.shape,
            self.texts[low:high],
            {node: matchers[low:high] for node, matchers in self.matchers.items()},
            {node: numbers[low:high] for node, numbers in self.numbers.items()},
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """How some expressions are evaluated: by number in batches, and by number alone; errors of what does not parse."""

    batches: tuple[tuple[Batch, tuple[int, ...]], ...]
    alone: tuple[int, ...]
    errors: dict[int, PromQLError]
    twins: tuple[tuple[int, int], ...]
    """(number, number of an equal text before it)."""


@lru_cache(maxsize=16)
def sort_out(texts: tuple[str, ...]) -> Sorted:
    """Which of these belong together; found once for the rules of a tick, until one of them is edited."""
    first: dict[str, int] = {}
    twins: list[tuple[int, int]] = []
    errors: dict[int, PromQLError] = {}
    alone: list[int] = []
    alike: dict[int, list[tuple[int, Form]]] = {}
    for number, text in enumerate(texts):
        if first.setdefault(text, number) != number:
            twins.append((number, first[text]))
            continue
        try:
            found = form(text)
        except PromQLError as error:
            errors[number] = error
            continue
        if found is None:
            alone.append(number)
        else:
            alike.setdefault(id(found.shape), []).append((number, found))
    batches: list[tuple[Batch, tuple[int, ...]]] = []
    for members in alike.values():
        for low in range(0, len(members), MOST):
            some = members[low : low + MOST]
            numbers = tuple(number for number, _ in some)
            if len(some) < LEAST:
                alone += numbers
            else:
                batches.append((Batch.of([texts[number] for number in numbers], [one for _, one in some]), numbers))
    return Sorted(tuple(batches), tuple(sorted(alone)), errors, tuple(twins))


# -- evaluation ------------------------------------------------------------------------------------------------------


class Column(Scalar):
    """A number of each expression: v float64[R, 1]."""

    __slots__ = ()


class Together(Evaluator):
    """A batch at one time. Its data are put in by the engine with `feed`."""

    hints = False

    def __init__(self, batch: Batch, at_ms: int, lookback: int, limits: Limits) -> None:
        super().__init__(batch.shape.prepared, Grid(at_ms, 1, 1), lookback, limits)
        self.batch = batch
        self.marks = _marks(batch.size)
        self.joined: dict[int, Joined] = {}
        self.is_fed = False
        """Whether everything could be read."""

    def bundles(self) -> list[Bundle]:
        """What is to be read, in the order of `needs`."""
        return [Bundle(self.batch.matchers[need.node], need.request.tmin, need.request.tmax) for need in self.needs]

    def feed(self, answers: Sequence[Joined | PromQLError]) -> None:
        """Take what was read for `bundles`; nothing when one of them could not be read."""
        self.is_fed = not any(isinstance(answer, PromQLError) for answer in answers)
        for need, joined in zip(self.needs, answers, strict=True):
            if not self.is_fed or isinstance(joined, PromQLError):
                return
            self.joined[need.node] = joined
            ragged = joined.ragged
            labels = ragged.labels.replace(RULE, np.repeat(self.marks, np.diff(joined.starts)))
            self.data[need.node] = Fetched(Ragged(labels, ragged.ts, ragged.v, ragged.off, (), ragged.clock))

    def part(self, low: int, high: int) -> "Together":
        """The expressions low..high - 1 of the batch, with their data."""
        one = Together(self.batch.part(low, high), self.grid.start, self.clock.lookback, self.limits)
        if self.is_fed:
            one.feed([self.joined[need.node].part(low, high) for need in self.needs])
        return one

    def lone(self) -> Evaluator:
        """The only expression of this batch, with its data, as it is evaluated by itself."""
        own = Evaluator(prepare(self.batch.texts[0]), self.grid, self.clock.lookback, self.limits)
        own.hints = False
        if not self.is_fed:
            return own
        known: dict[object, Fetched] = {}
        for need, shared in zip(own.needs, self.needs, strict=True):
            own.data[need.node] = known.setdefault(need.request, Fetched(self.joined[shared.node].part(0, 1).ragged))
        return own

    def admitted(self) -> bool:
        """Whether this can be evaluated as one. Limits hold for each expression: when all of them together stay
        within half of one's, nobody is above it, however its selectors are counted."""
        if not self.is_fed:
            return False
        series = sum(joined.ragged.size for joined in self.joined.values())
        samples = sum(len(joined.ragged.ts) for joined in self.joined.values())
        limits = self.limits
        return 2 * series <= min(limits.series, limits.points) and 2 * samples <= limits.samples

    def eval(self, node: Expr, grid: Grid) -> Value:
        if isinstance(node, Number) and id(node) in self.batch.numbers:
            return Column(self.batch.numbers[id(node)])
        if isinstance(node, Binary) and id(node) in self.batch.shape.mixed:
            return self.mixed(node, grid)
        if isinstance(node, Call):
            if node.func.name == "vector":
                return self.rows(self.eval(node.args[0], grid))
            if node.func.name == "absent":
                return self.absence(node.args[0], self.vector(node.args[0], grid))
        return super().eval(node, grid)

    def mixed(self, node: Binary, grid: Grid) -> Value:
        """An operator with a scalar on one side or both."""
        left, right = self.eval(node.left, grid), self.eval(node.right, grid)
        if isinstance(left, Vec) and isinstance(right, Scalar):
            return binary.with_scalar(node, left, self.for_rows(right, left.labels), scalar_left=False)
        if isinstance(left, Scalar) and isinstance(right, Vec):
            return binary.with_scalar(node, right, self.for_rows(left, right.labels), scalar_left=True)
        if not isinstance(left, Scalar) or not isinstance(right, Scalar):
            raise TypeError(f"{node.op} between {type(left).__name__} and {type(right).__name__}")
        v = binary.scalars(node.op, left.v, right.v)
        return Column(v) if v.ndim == 2 else Scalar(v)

    def rows(self, value: Value) -> Vec:
        """vector(): a row without labels for each expression."""
        if not isinstance(value, Scalar):
            raise TypeError(f"vector() of {type(value).__name__}")
        v = np.broadcast_to(value.v, (self.batch.size, 1))
        labels = Labels.from_columns(self.batch.size, {RULE: self.marks})
        return Vec(labels, v, np.ones(v.shape, dtype=np.bool_), np.zeros(self.batch.size, dtype=np.bool_))

    def absence(self, node: Expr, vec: Vec) -> Vec:
        """absent(): a row for each expression of whose series none is there."""
        present = np.zeros(self.batch.size, dtype=np.bool_)
        present[self.numbers(vec.labels)[vec.ok[:, 0]]] = True
        size = self.batch.size
        matchers = self.batch.matchers.get(id(node), ())
        labels = Labels.from_dicts([fixed_labels(one) for one in matchers]) if matchers else Labels.empty(size)
        ok = ~present[:, None]
        return Vec(labels.replace(RULE, self.marks), np.ones((size, 1)), ok, np.zeros(size, dtype=np.bool_))

    def for_rows(self, value: Scalar, labels: Labels) -> Floats:
        """float64[S, 1] or [1]: a scalar as each row sees it."""
        return value.v[self.numbers(labels)] if isinstance(value, Column) else value.v

    def numbers(self, labels: Labels) -> Index:
        """int64[S]: the number of each row's expression."""
        return np.searchsorted(self.marks, labels.column(RULE)).astype(np.int64, copy=False)

    def split(self, vec: Vec) -> Iterator[Vec]:
        """The rows of each expression, in its own order, without the hidden label."""
        marks = vec.labels.column(RULE)
        numbers = self.numbers(vec.labels)
        if vec.size and not np.array_equal(self.marks[np.minimum(numbers, self.batch.size - 1)], marks):
            raise ValueError("a row of a batch has lost the number of its rule")
        if (numbers[1:] < numbers[:-1]).any():
            order = np.argsort(numbers, kind="stable")
            vec, numbers = vec.take(order), numbers[order]
        edges = np.searchsorted(numbers, np.arange(self.batch.size + 1)).tolist()
        columns = {name: ids for name, ids in vec.labels.cols.items() if name != RULE}
        for low, high in pairwise(edges):
            labels = Labels(high - low, {name: ids[low:high] for name, ids in columns.items()})
            yield Vec(labels, vec.v[low:high], vec.ok[low:high], vec.drop[low:high], vec.ordered)

    def costs(self) -> tuple[list[int], list[int]]:
        """(series, samples) that each expression reads."""
        series = sum((np.diff(joined.starts) for joined in self.joined.values()), np.zeros(self.batch.size, np.int64))
        samples = sum((joined.samples() for joined in self.joined.values()), np.zeros(self.batch.size, np.int64))
        return series.tolist(), samples.tolist()

    def damage(self) -> list[tuple[str, ...]]:
        """What the store has to say of each expression's data."""
        warned = [joined.warnings for joined in self.joined.values() if joined.warnings]
        if not warned:
            return [()] * self.batch.size
        return [tuple(dict.fromkeys(text for texts in told for text in texts)) for told in zip(*warned, strict=True)]


@cache
def _all_marks(count: int) -> Ids:
    """int32[count]: the hidden label's values, increasing."""
    return np.array(sorted(STRINGS.intern(f"{RULE}{number}") for number in range(count)), dtype=np.int32)


def _marks(count: int) -> Ids:
    """int32[count]: a value for each expression of a batch, increasing."""
    return _all_marks(MOST)[:count]
