"""A syntax tree as canonical text: parsing it again gives the same tree."""

from apps.promql.ast import (
    Aggregate,
    At,
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
)
from apps.promql.labels import NAME
from apps.promql.result import number
from apps.promql.text import METRIC, duration, quote, quote_name


def render(node: Expr) -> str:
    """One line of PromQL, spaced as Prometheus prints it; parentheses of the original stay."""
    match node:
        case Number():
            return number(node.value)
        case String():
            return quote(node.value)
        case Selector():
            return _selector(node) + _modifiers(node.offset, node.at)
        case Range():
            inner = node.selector
            return f"{_selector(inner)}[{duration(node.window)}]{_modifiers(inner.offset, inner.at)}"
        case Subquery():
            step = "" if node.step is None else duration(node.step)
            return f"{render(node.expr)}[{duration(node.window)}:{step}]{_modifiers(node.offset, node.at)}"
        case Paren():
            return f"({render(node.expr)})"
        case Negation():
            return f"-{render(node.expr)}"
        case Binary():
            return f"{render(node.left)} {node.op}{_matching(node)} {render(node.right)}"
        case Aggregate():
            return _aggregate(node)
        case Call():
            return f"{node.func.name}({', '.join(map(render, node.args))})"


def _selector(node: Selector) -> str:
    name = node.name if node.name is not None and METRIC.match(node.name) and not _ambiguous(node.name) else None
    matchers = [matcher for matcher in node.matchers if name is None or (matcher.name, matcher.op) != (NAME, "=")]
    braces = ", ".join(f"{quote_name(matcher.name)}{matcher.op}{quote(matcher.value)}" for matcher in matchers)
    return (name or "") + (f"{{{braces}}}" if braces else "")


def _ambiguous(name: str) -> bool:
    """Read back, these would be numbers or operators."""
    return name.lower() in ("inf", "nan", "bool", "on", "ignoring", "offset", "and", "or", "unless", "atan2")


def _modifiers(offset: int, at: At | None) -> str:
    text = ""
    if at is not None:
        text += f" @ {at}()" if isinstance(at, str) else f" @ {at / 1000:.3f}"
    if offset:
        text += f" offset {duration(offset)}"
    return text


def _matching(node: Binary) -> str:
    text = " bool" if node.bool_modifier else ""
    matching = node.matching
    if node.explicit:
        text += f" {'on' if matching.on else 'ignoring'} ({', '.join(map(quote_name, matching.labels))})"
    if matching.group:
        text += f" group_{matching.group} ({', '.join(map(quote_name, matching.include))})"
    for side, value in (("left", matching.fill_left), ("right", matching.fill_right)):
        if value is not None:
            text += f" fill_{side} ({number(value)})"
    return text


def _aggregate(node: Aggregate) -> str:
    modifier = ""
    if node.without or node.grouping:
        modifier = f" {'without' if node.without else 'by'} ({', '.join(map(quote_name, node.grouping))}) "
    param = "" if node.param is None else f"{render(node.param)}, "
    return f"{node.op}{modifier}({param}{render(node.expr)})"
