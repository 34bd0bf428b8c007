"""What a query will read, known before it reads: absolute time ranges of selectors, and parts that stay the same."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Final

from apps.promql.ast import (
    SET_OPERATORS,
    Aggregate,
    At,
    Binary,
    Call,
    Expr,
    Number,
    Paren,
    Range,
    Selector,
    String,
    Subquery,
    children,
    value_type,
    walk,
)
from apps.promql.errors import LimitError
from apps.promql.functions import SCALAR
from apps.promql.parser import CACHED_TEXT, parse
from apps.promql.rewrite import settled, waits, with_info
from apps.promql.rolled import EXACT, HOUR, fields_for
from apps.promql.series import Grid
from apps.promql.source import Matcher, Request

DEFAULT_SUBQUERY_STEP: Final = 60_000
UNPINNED: Final = frozenset(("time", "timestamp", "predict_linear"))
"""Look at the evaluation time itself, whatever their argument is pinned to."""
_WHOLE: Final = frozenset(("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "quantile"))
"""Aggregations that make one series of a group."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An expression ready to run: its text (for positions) and the nodes whose value is the same at every step.

    `expr` may be more than the text says, see apps.promql.rewrite; waits: a duration in it depends on the query.
    """

    text: str
    expr: Expr
    fixed: frozenset[int]
    """id() of nodes that hold a selector and are pinned by @."""
    waits: bool = False

    def settled(self, step: int, span: int) -> "Prepared":
        """For a query with this step and span in ms. ParseError where a duration cannot be."""
        return prepare_tree(settled(self.expr, self.text, step, span), self.text) if self.waits else self


@lru_cache(maxsize=2048)
def _prepared_text(text: str) -> Prepared:
    return prepare_tree(parse(text), text)


def prepare(expr: str | Expr, *, plain: bool = False) -> Prepared:
    """Parses and studies an expression; short texts are cached. ParseError, also for what is not `plain` PromQL."""
    if not isinstance(expr, str):
        return prepare_tree(expr, "")
    if plain:
        parse(expr, plain=True)
    return _prepared_text(expr) if len(expr) <= CACHED_TEXT else prepare_tree(parse(expr), expr)


def prepare_tree(expr: Expr, text: str) -> Prepared:
    whole = with_info(expr)
    return Prepared(text, whole, _fixed(whole), waits(whole))


def _fixed(expr: Expr) -> frozenset[int]:
    """The nodes that are the same at every step and worth evaluating once."""
    still: dict[int, bool] = {}
    for node in reversed(list(walk(expr))):
        match node:
            case Number() | String():
                same = True
            case Selector() | Subquery():
                same = node.at is not None
            case Call():
                same = node.func.name not in UNPINNED and not (node.func.kind == "date" and not node.args)
                same = same and all(still[id(child)] for child in node.args)
            case _:
                same = all(still[id(child)] for child in children(node))
        still[id(node)] = same
    literal = Number | String | Range | Subquery
    return frozenset(id(node) for node in walk(expr) if still[id(node)] and not isinstance(node, literal))


@dataclass(frozen=True, slots=True)
class Clock:
    """The times of a whole query, which start() and end() mean at any depth."""

    start: int
    end: int
    lookback: int

    def pinned(self, at: At) -> int:
        if isinstance(at, int):
            return at
        return self.start if at == "start" else self.end

    def ends(self, grid: Grid, offset: int, at: At | None) -> Grid:
        """The ends of a selector's windows: the grid moved by offset, or one time."""
        if at is not None:
            return Grid(self.pinned(at) - offset, grid.step, 1)
        return grid if not offset else Grid(grid.start - offset, grid.step, grid.n)

    def margins(self, node: Selector) -> tuple[int, int]:
        """(ms before its windows, ms after them) that a selector with edges reads too."""
        return self.lookback if node.edges else 0, self.lookback if node.edges == "smoothed" else 0

    def inner(self, node: Subquery, grid: Grid) -> Grid:
        """The steps of a subquery: multiples of its step in (start - window, end]; n may be 0."""
        ends = self.ends(grid, node.offset, node.at)
        step = node.step or DEFAULT_SUBQUERY_STEP
        first = ((ends.start - node.window) // step + 1) * step
        return Grid(first, step, max(0, (ends.end - first) // step + 1))


@dataclass(frozen=True, slots=True)
class Need:
    """One selector's request; `node` is the id() of the selector."""

    node: int
    request: Request


def needs(node: Expr, grid: Grid, clock: Clock, steps: int) -> Iterator[Need]:
    """The requests of all selectors below a node, evaluated on a grid. LimitError where a subquery has more than
    `steps` steps."""
    stack: list[tuple[Expr, Grid, str]] = [(node, grid, "")]
    while stack:
        node, grid, function = stack.pop()
        match node:
            case Selector():
                yield _need(node, grid, clock, 0 if node.edges else clock.lookback, "")
            case Range():
                yield _need(node.selector, grid, clock, node.window, function)
            case Subquery():
                inner = clock.inner(node, grid)
                if inner.n > steps:
                    raise LimitError(f"subquery has {inner.n} steps, more than the limit of {steps}")
                if inner.n:
                    stack.append((node.expr, inner, ""))
            case _:
                above = node.func.name if isinstance(node, Call) else function if isinstance(node, Paren) else ""
                stack.extend((child, grid, above) for child in reversed(children(node)))


def _need(node: Selector, grid: Grid, clock: Clock, width: int, function: str) -> Need:
    """`function`: the one above its windows, if any; one that looks at their edges finds no answer in buckets."""
    ends = clock.ends(grid, node.offset, node.at)
    before, after = clock.margins(node)
    name = "" if node.edges else function
    hours = name in EXACT and gcd(ends.start, ends.step if ends.n > 1 else 0, width) % HOUR == 0
    tmin, tmax = ends.start - width - before, ends.end + after
    request = Request(node.matchers, tmin, tmax, fields=fields_for(name), width=width + before + after, hours=hours)
    return Need(id(node), request)


def merge(requests: Sequence[Request]) -> tuple[list[Request], list[int]]:
    """Fewer requests that cover all: (requests, for each of the given ones the number of the one that covers it).

    Ranges of the same matchers are read as one when that reads at most twice what they ask for.
    """
    if len(requests) == 1:
        return list(requests), [0]
    by_matchers: dict[tuple[Matcher, ...], list[int]] = {}
    for index, request in enumerate(requests):
        by_matchers.setdefault(request.matchers, []).append(index)
    out: list[Request] = []
    where = [0] * len(requests)
    for matchers, members in by_matchers.items():
        members.sort(key=lambda index: requests[index].tmin)
        low = high = asked = 0
        for position, index in enumerate(members):
            request = requests[index]
            fresh = max(0, request.tmax - max(request.tmin, high)) if position else request.tmax - request.tmin
            if position and max(high, request.tmax) - low <= 2 * (asked + fresh):
                high, asked = max(high, request.tmax), asked + fresh
                fields, width = out[-1].fields | request.fields, max(out[-1].width, request.width)
                hours = out[-1].hours and request.hours
                out[-1] = Request(matchers, low, high, fields=fields, width=width, hours=hours)
            else:
                low, high, asked = request.tmin, request.tmax, request.tmax - request.tmin
                out.append(request)
            where[index] = len(out) - 1
    return out, where


def breadth(node: Expr, series: Mapping[int, int]) -> int:
    """How many series a node may have at most; `series` are those that the selectors match, by id()."""
    most: dict[int, int] = {}
    for each in reversed(list(walk(node))):
        most[id(each)] = _breadth(each, [most[id(child)] for child in children(each)], series)
    return most[id(node)]


def _breadth(node: Expr, below: Sequence[int], series: Mapping[int, int]) -> int:
    """The same for one node, of what is below it."""
    match node:
        case Selector():
            return series.get(id(node), 0)
        case Aggregate() if node.op in _WHOLE and not node.grouping and not node.without:
            return min(1, below[-1])
        case Binary() if node.op == "or":
            return sum(below)
        case Binary():
            return _of_pair(node, below[0], below[1])
        case Call() if node.func.name == "histogram_quantiles":
            return below[0] * (len(below) - 2)
        case _:
            return max(below, default=1)


def _of_pair(node: Binary, left: int, right: int) -> int:
    """Series of a binary expression at most: as many as its "many" side, or its vector, has."""
    if value_type(node.left) == SCALAR:
        return right
    if value_type(node.right) == SCALAR or node.op in SET_OPERATORS or node.matching.group == "left":
        return left
    return right if node.matching.group == "right" else min(left, right)
