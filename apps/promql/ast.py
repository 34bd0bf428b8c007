"""The syntax tree: frozen nodes that know their type and where in the text they stand."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from apps.promql.functions import SCALAR, STRING, VECTOR, Function, ValueType
from apps.promql.source import Matcher

At: TypeAlias = int | Literal["start", "end"]
"""The @ modifier: milliseconds, or the query's own start or end."""

Edges: TypeAlias = Literal["", "anchored", "smoothed"]
"""How a window treats its edges: only what is inside, or also the sample before it, or interpolated at both."""

COMPARISONS = frozenset(("==", "!=", ">", "<", ">=", "<="))
SET_OPERATORS = frozenset(("and", "or", "unless"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`start` and `end` are character offsets and take no part in equality; depth counts levels, this one too,
    but a chain of binary operations as one: who walks a tree goes down the left side of `Binary` in a loop."""

    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)
    depth: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class Number(Node):
    value: float
    duration: bool = field(default=False, compare=False)
    """Written as a duration."""


@dataclass(frozen=True, slots=True)
class String(Node):
    value: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A duration that only a running query knows: `op` is an operator on one or two parts, or the function step,
    range, min_of or max_of. Numbers are seconds."""

    op: str
    parts: "tuple[float | Operation, ...]" = ()


@dataclass(frozen=True, slots=True)
class Selector(Node):
    """An instant vector selector. `matchers` hold the name too; offset in ms, until `later` is known."""

    name: str | None
    matchers: tuple[Matcher, ...]
    offset: int = 0
    at: At | None = None
    edges: Edges = ""
    offset_later: Operation | None = None
    in_front: bool = field(default=True, compare=False, kw_only=True)
    """The name stands before the braces, not inside."""


@dataclass(frozen=True, slots=True)
class Range(Node):
    """A range vector selector; `window` in ms, until `window_later` is known."""

    selector: Selector
    window: int
    window_later: Operation | None = None


@dataclass(frozen=True, slots=True)
class Subquery(Node):
    """`step` None is the default step; durations in ms, until those that are `later` are known."""

    expr: "Expr"
    window: int
    step: int | None
    offset: int = 0
    at: At | None = None
    window_later: Operation | None = None
    step_later: Operation | None = None
    offset_later: Operation | None = None


@dataclass(frozen=True, slots=True)
class Paren(Node):
    expr: "Expr"


@dataclass(frozen=True, slots=True)
class Negation(Node):
    expr: "Expr"


@dataclass(frozen=True, slots=True)
class Matching:
    """How two vectors are matched; `include` are the labels that group_left or group_right take from the one side.

    fill_left and fill_right stand in for what is missing on that side, None for nothing. Under group_right it is
    the other way round, as in Prometheus: fill_left stands in for the "many" side there.
    """

    on: bool = False
    labels: tuple[str, ...] = ()
    group: Literal["", "left", "right"] = ""
    include: tuple[str, ...] = ()
    fill_left: float | None = None
    fill_right: float | None = None


@dataclass(frozen=True, slots=True)
class Binary(Node):
    op: str
    left: "Expr"
    right: "Expr"
    matching: Matching = Matching()
    explicit: bool = field(default=False, compare=False)
    """on() or ignoring() stands in the text, if only with an empty list."""
    bool_modifier: bool = False
    returns: ValueType = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        both = value_type(self.left) == value_type(self.right) == SCALAR
        object.__setattr__(self, "returns", SCALAR if both else VECTOR)


@dataclass(frozen=True, slots=True)
class Aggregate(Node):
    op: str
    expr: "Expr"
    param: "Expr | None" = None
    grouping: tuple[str, ...] = ()
    without: bool = False


@dataclass(frozen=True, slots=True)
class Call(Node):
    func: Function
    args: tuple["Expr", ...]


Expr: TypeAlias = Number | String | Selector | Range | Subquery | Paren | Negation | Binary | Aggregate | Call


def value_type(node: Expr) -> ValueType:
    match node:
        case Number():
            return SCALAR
        case String():
            return STRING
        case Range() | Subquery():
            return "range vector"
        case Paren() | Negation():
            return value_type(node.expr)
        case Binary():
            return node.returns
        case Call():
            return node.func.returns
        case _:
            return VECTOR


def children(node: Expr) -> tuple[Expr, ...]:
    match node:
        case Range():
            return (node.selector,)
        case Subquery() | Paren() | Negation():
            return (node.expr,)
        case Binary():
            return (node.left, node.right)
        case Aggregate():
            return (node.expr,) if node.param is None else (node.param, node.expr)
        case Call():
            return node.args
        case _:
            return ()


def walk(node: Expr) -> Iterator[Expr]:
    """The node and all below it, parents first."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(children(current)))


def unwrap(node: Expr) -> Expr:
    """Without the parentheses around it."""
    while isinstance(node, Paren):
        node = node.expr
    return node
