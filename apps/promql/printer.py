"""A syntax tree as text, on one line or laid out as Prometheus does it; parsing the text gives the same tree.

No recursion: chains of operators may be as long as a text.
"""

from collections.abc import Iterator
from math import isfinite
from typing import Final, TypeAlias

import numpy as np

from apps.promql import durations
from apps.promql.ast import (
    Aggregate,
    At,
    Binary,
    Call,
    Expr,
    Negation,
    Number,
    Operation,
    Paren,
    Range,
    Selector,
    String,
    Subquery,
    children,
    walk,
)
from apps.promql.labels import NAME
from apps.promql.parser import TEXT_LIMIT
from apps.promql.result import number
from apps.promql.text import METRIC, duration, quote, quote_name

LINE: Final = 100
"""Bytes above which a node is laid out over several lines."""

_Piece: TypeAlias = str | Expr
_INDENT: Final = "  "
_KEYWORDS: Final = frozenset(
    ("inf", "nan", "bool", "on", "ignoring", "offset", "and", "or", "unless", "atan2", "anchored", "smoothed")
)
"""Read back, a metric of such a name would be a number or an operator."""


def render(node: Expr) -> str:
    """One line of PromQL; parentheses of the original stay."""
    out: list[str] = []
    stack: list[_Piece] = [node]
    while stack:
        piece = stack.pop()
        if isinstance(piece, str):
            out.append(piece)
        else:
            stack.extend(reversed(_pieces(piece)))
    return "".join(out)


def pretty(node: Expr) -> str:
    """The same over several lines where a line would be longer than 100 bytes, as format_query answers.

    A chain so long that its indented text could not be read back stays on one line.
    """
    sizes = _sizes(node)
    out: list[str] = []
    stack: list[tuple[_Piece, int]] = [(node, 0)]
    while stack:
        piece, level = stack.pop()
        if isinstance(piece, str):
            out.append(piece)
        elif sizes[id(piece)] <= LINE or isinstance(piece, Number | String | Selector | Range):
            out.append(_INDENT * level + render(piece))
        else:
            stack.extend(reversed(list(_lines(piece, level))))
    text = "".join(out)
    return text if len(text) <= TEXT_LIMIT else render(node)


def _sizes(node: Expr) -> dict[int, int]:
    """The length of each node's text in bytes, by id()."""
    sizes: dict[int, int] = {}
    for each in reversed(list(walk(node))):
        sizes[id(each)] = sum(
            len(piece.encode(errors="surrogateescape")) if isinstance(piece, str) else sizes[id(piece)]
            for piece in _pieces(each)
        )
    return sizes


def _pieces(node: Expr) -> list[_Piece]:
    """The text of a node with the nodes below it still as nodes."""
    match node:
        case Number():
            return [_number(node)]
        case String():
            return [quote(node.value)]
        case Selector():
            return [_selector(node), _modifiers(node)]
        case Range():
            inner = node.selector
            window = durations.render(node.window / 1000 if node.window_later is None else node.window_later)
            return [_selector(inner), f"[{window}]", _modifiers(inner, of_range=True)]
        case Subquery():
            return [node.expr, _subquery(node)]
        case Paren():
            return ["(", node.expr, ")"]
        case Negation():
            return ["-", node.expr]
        case Binary():
            return [node.left, f" {_operator(node)} ", node.right]
        case Aggregate():
            return [_aggregation(node), "(", *_separated(children(node)), ")"]
        case Call():
            return [node.func.name, "(", *_separated(node.args), ")"]


def _lines(node: Expr, level: int) -> Iterator[tuple[_Piece, int]]:
    """The same for a node that does not fit on a line."""
    pad = _INDENT * level
    match node:
        case Subquery():
            yield node.expr, level
            yield _subquery(node), level
        case Negation():
            # The sign stands where its operand's first line begins: the operand is indented by hand.
            yield pad + "-" + pretty(node.expr).replace("\n", "\n" + pad), level
        case Binary():
            yield node.left, level + 1
            yield f"\n{pad}{_operator(node)}\n", level
            yield node.right, level + 1
        case Paren() | Aggregate() | Call():
            before = _aggregation(node) if isinstance(node, Aggregate) else ""
            yield f"{pad}{node.func.name if isinstance(node, Call) else before}(\n", level
            for index, child in enumerate(children(node)):
                if index:
                    yield ",\n", level
                yield child, level + 1
            yield f"\n{pad})", level
        case _:
            yield pad + render(node), level


def _separated(nodes: tuple[Expr, ...]) -> Iterator[_Piece]:
    for index, node in enumerate(nodes):
        if index:
            yield ", "
        yield node


def _number(node: Number) -> str:
    ms = round(node.value * 1000) if node.duration else 0
    if node.duration and ms / 1000 == node.value:
        return duration(ms)
    return _plain_number(node.value)


def _plain_number(value: float) -> str:
    """All digits, never an exponent."""
    if not isfinite(value):
        return number(value)
    return np.format_float_positional(value, trim="-")


def _selector(node: Selector) -> str:
    name = node.name if _stands_in_front(node) else None
    matchers = [matcher for matcher in node.matchers if name is None or (matcher.name, matcher.op) != (NAME, "=")]
    braces = ",".join(sorted(f"{quote_name(matcher.name)}{matcher.op}{quote(matcher.value)}" for matcher in matchers))
    return (name or "") + (f"{{{braces}}}" if braces or name is None else "")


def _stands_in_front(node: Selector) -> bool:
    name = node.name
    return node.in_front and name is not None and bool(METRIC.match(name)) and name.lower() not in _KEYWORDS


def _modifiers(node: Selector, *, of_range: bool = False) -> str:
    edges = f" {node.edges}" if node.edges else ""
    at, offset = _at(node.at), _offset(node.offset, node.offset_later)
    return f"{edges}{at}{offset}" if of_range else f"{at}{edges}{offset}"


def _at(at: At | None) -> str:
    if at is None:
        return ""
    return f" @ {at}()" if isinstance(at, str) else f" @ {at / 1000:.3f}"


def _offset(offset: int, later: Operation | None) -> str:
    if later is not None:
        return f" offset {durations.render_offset(later)}"
    return f" offset {duration(offset)}" if offset else ""


def _subquery(node: Subquery) -> str:
    window = durations.render(node.window / 1000 if node.window_later is None else node.window_later)
    step = "" if node.step is None else durations.render(node.step_later or node.step / 1000)
    return f"[{window}:{step}]{_at(node.at)}{_offset(node.offset, node.offset_later)}"


def _operator(node: Binary) -> str:
    text = node.op + (" bool" if node.bool_modifier else "")
    matching = node.matching
    if matching.labels or matching.on or matching.group:
        text += f" {'on' if matching.on else 'ignoring'} ({_labels(matching.labels)})"
    if matching.group:
        text += f" group_{matching.group} ({_labels(matching.include)})"
    left, right = matching.fill_left, matching.fill_right
    if left is not None and left == right:
        return f"{text} fill ({_plain_number(left)})"
    for side, value in (("left", left), ("right", right)):
        if value is not None:
            text += f" fill_{side} ({_plain_number(value)})"
    return text


def _labels(names: tuple[str, ...]) -> str:
    return ", ".join(map(quote_name, names))


def _aggregation(node: Aggregate) -> str:
    if not node.without and not node.grouping:
        return node.op
    return f"{node.op} {'without' if node.without else 'by'} ({_labels(node.grouping)}) "
