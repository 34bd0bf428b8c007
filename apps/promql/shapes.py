"""Which expressions are of one shape: many rules differ only in what they select and compare with.

A shape is a syntax tree without the values of its matchers and without the constants that vectors are calculated or
compared with. Only what gives the same answer to the last bit when it is evaluated beside others may have one; the
lists below name it. Nothing is evaluated here: see apps.promql.batch.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np

from apps.promql import binary
from apps.promql.arrays import Floats
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
from apps.promql.functions import FUNCTIONS, SCALAR, VECTOR
from apps.promql.plan import Prepared, prepare, prepare_tree
from apps.promql.source import Matcher

RULE: Final = "\udc00rule"
"""The hidden label. Half a surrogate pair: no name that was ever UTF-8 is like it."""
LEAST: Final = 2
"""Fewer of one shape are not worth a batch."""
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
