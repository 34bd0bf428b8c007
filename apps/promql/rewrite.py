"""What a text leaves open is filled in before a query runs: durations of the query's own, and what info() reads."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from apps.promql import durations
from apps.promql.ast import (
    Aggregate,
    At,
    Binary,
    Call,
    Expr,
    Negation,
    Operation,
    Paren,
    Range,
    Selector,
    Subquery,
    children,
    walk,
)
from apps.promql.errors import ParseError
from apps.promql.labels import NAME
from apps.promql.lexer import position
from apps.promql.source import Matcher

TARGET_INFO: Final = "target_info"
"""The metric that info() reads where the text names none."""

INFO_METRICS: Final = ".+_info"
"""The metrics that it reads where the text only says which not."""


def changed(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The tree with each node changed, those below first; what stays the same is the same object."""
    done: dict[int, Expr] = {}
    for node in reversed(list(walk(expr))):
        done[id(node)] = change(_with(node, done))
    return done[id(expr)]


def _with(node: Expr, done: dict[int, Expr]) -> Expr:
    """The node over its new children."""
    if all(done[id(child)] is child for child in children(node)):
        return node
    match node:
        case Range():
            selector = done[id(node.selector)]
            return replace(node, selector=selector) if isinstance(selector, Selector) else node
        case Subquery() | Paren() | Negation():
            return replace(node, expr=done[id(node.expr)])
        case Binary():
            return replace(node, left=done[id(node.left)], right=done[id(node.right)])
        case Aggregate():
            param = None if node.param is None else done[id(node.param)]
            return replace(node, expr=done[id(node.expr)], param=param)
        case Call():
            return replace(node, args=tuple(done[id(arg)] for arg in node.args))
        case _:
            return node


# -- durations -------------------------------------------------------------------------------------------------------


def waits(expr: Expr) -> bool:
    """Is there a duration that only a running query knows?"""
    return any(_waits(node) for node in walk(expr))


def _waits(node: Expr) -> bool:
    match node:
        case Selector():
            return node.offset_later is not None
        case Range():
            return node.window_later is not None
        case Subquery():
            return any(later is not None for later in (node.window_later, node.step_later, node.offset_later))
        case _:
            return False


def settled(expr: Expr, text: str, step: int, span: int) -> Expr:
    """The tree for a query with this step and span in ms. ParseError where a duration cannot be."""

    def ms(later: Operation | None, known: int, node: Expr, *, positive: bool = True) -> int:
        if later is None:
            return known
        try:
            value = durations.milliseconds(later, step / 1000, span / 1000)
        except ValueError as error:
            raise ParseError(str(error), *position(text, node.start)) from None
        if positive and value <= 0:
            raise ParseError("duration must be greater than 0", *position(text, node.start))
        return value

    def settle(node: Expr) -> Expr:
        if not _waits(node):
            return node
        match node:
            case Selector():
                offset = ms(node.offset_later, node.offset, node, positive=False)
                return replace(node, offset=offset, offset_later=None)
            case Range():
                return replace(node, window=ms(node.window_later, node.window, node), window_later=None)
            case Subquery():
                return replace(
                    node,
                    window=ms(node.window_later, node.window, node),
                    step=None if node.step is None else ms(node.step_later, node.step, node),
                    offset=ms(node.offset_later, node.offset, node, positive=False),
                    window_later=None,
                    step_later=None,
                    offset_later=None,
                )
            case _:
                return node

    return changed(expr, settle)


# -- info() ----------------------------------------------------------------------------------------------------------


def with_info(expr: Expr) -> Expr:
    """Each call of info() with a second argument that is a whole selector: of the info metric, at the time at which
    the first selector below the first argument reads."""
    if not any(isinstance(node, Call) and node.func.name == "info" for node in walk(expr)):
        return expr
    return changed(expr, _with_info)


def _with_info(node: Expr) -> Expr:
    if not isinstance(node, Call) or node.func.name != "info":
        return node
    told = node.args[1] if len(node.args) > 1 else None
    matchers = told.matchers if isinstance(told, Selector) else ()
    names = [matcher.op for matcher in matchers if matcher.name == NAME]
    named = bool(names)
    if not named:
        matchers = (Matcher(NAME, "=", TARGET_INFO), *matchers)
    elif all(op in ("!=", "!~") for op in names):
        matchers = (Matcher(NAME, "=~", INFO_METRICS), *matchers)
    place = node if told is None else told
    offset, later, at = _time_of(node.args[0])
    selector = Selector(
        None if named else TARGET_INFO,
        matchers,
        offset,
        at,
        offset_later=later,
        start=place.start,
        end=place.end,
        in_front=not named,
    )
    return replace(node, args=(node.args[0], selector), depth=max(node.depth, 2))


def _time_of(expr: Expr) -> tuple[int, Operation | None, At | None]:
    """(offset, the offset that waits, @) of the first selector below, seen through the subqueries around it."""
    above: dict[int, Expr] = {}
    for node in walk(expr):
        above.update((id(child), node) for child in children(node))
        if isinstance(node, Selector):
            break
    path = [node]
    while id(path[-1]) in above:
        path.append(above[id(path[-1])])
    offset = 0
    at: At | None = None
    later: Operation | None = None
    for each in reversed(path):
        if isinstance(each, Selector | Subquery):
            if each.at is not None:
                offset, later, at = 0, None, each.at
            offset += each.offset
            later = _sum(later, each.offset_later)
    if later is not None and offset:
        return 0, Operation("+", (offset / 1000, later)), at
    return offset, later, at


def _sum(left: Operation | None, right: Operation | None) -> Operation | None:
    if left is None or right is None:
        return left or right
    return Operation("+", (left, right))
