"""A syntax tree as the JSON of Prometheus' `/api/v1/parse_query`, which its tree view and editors read."""

from typing import Any

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
    value_type,
)
from apps.promql.functions import RANGE, SCALAR, STRING, VECTOR, Function
from apps.promql.result import number
from apps.promql.text import printable

_TYPES = {SCALAR: "scalar", STRING: "string", VECTOR: "vector", RANGE: "matrix"}


def tree(node: Expr) -> dict[str, Any]:
    """Return the node and all below it; windows, offsets and times in milliseconds."""
    match node:
        case Number():
            return {"type": "numberLiteral", "val": number(node.value)}
        case String():
            return {"type": "stringLiteral", "val": printable(node.value)}
        case Paren():
            return {"type": "parenExpr", "expr": tree(node.expr)}
        case Negation():
            return {"type": "unaryExpr", "op": "-", "expr": tree(node.expr)}
        case Selector():
            return {"type": "vectorSelector", **_selector(node)}
        case Range():
            return {"type": "matrixSelector", "range": node.window, **_selector(node.selector)}
        case Subquery():
            return {
                "type": "subquery",
                "expr": tree(node.expr),
                "range": node.window,
                "step": node.step or 0,
                "offset": node.offset,
                **_at(node.at),
            }
        case Call():
            return {"type": "call", "func": _function(node.func), "args": [tree(one) for one in node.args]}
        case Aggregate():
            return {
                "type": "aggregation",
                "op": node.op,
                "expr": tree(node.expr),
                "param": None if node.param is None else tree(node.param),
                "grouping": list(node.grouping),
                "without": node.without,
            }
        case Binary():
            return {
                "type": "binaryExpr",
                "op": node.op,
                "lhs": tree(node.left),
                "rhs": tree(node.right),
                "matching": _matching(node),
                "bool": node.bool_modifier,
            }


def _selector(node: Selector) -> dict[str, Any]:
    matchers = [{"name": one.name, "value": printable(one.value), "type": one.op} for one in node.matchers]
    return {
        "name": node.name or "",
        "offset": node.offset,
        "matchers": matchers,
        **_at(node.at),
        "anchored": node.edges == "anchored",
        "smoothed": node.edges == "smoothed",
    }


def _at(at: int | str | None) -> dict[str, Any]:
    return {
        "timestamp": at if isinstance(at, int) else None,
        "startOrEnd": at if isinstance(at, str) else None,
    }


def _function(function: Function) -> dict[str, Any]:
    variadic = -1 if function.repeats else function.optional
    return {
        "name": function.name,
        "argTypes": [_TYPES[one] for one in function.args],
        "variadic": variadic,
        "returnType": _TYPES[function.returns],
    }


def _matching(node: Binary) -> dict[str, Any] | None:
    """How vectors are matched; None where a side is a scalar."""
    if value_type(node.left) != VECTOR or value_type(node.right) != VECTOR:
        return None
    matching = node.matching
    card = {"": "one-to-one", "left": "many-to-one", "right": "one-to-many"}[matching.group]
    return {
        "card": "many-to-many" if node.op in SET_OPERATORS else card,
        "labels": list(matching.labels),
        "on": matching.on,
        "include": list(matching.include),
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    }
