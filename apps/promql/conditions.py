"""Takes a rule's condition apart: `responseTime > 5000` is the expression `responseTime` and the level `> 5000`."""

from math import isnan
from typing import Final

from apps.promql.ast import COMPARISONS, Binary, Expr, Number, unwrap
from apps.promql.parser import parse

MIRRORED: Final = {"==": "==", "!=": "!=", ">": "<", "<": ">", ">=": "<=", "<=": ">="}
"""The comparison seen from the other side."""


def split(text: str) -> tuple[str, str | None, float | None]:
    """(expression, comparison, threshold); both None where the condition is not a comparison with a number.

    Such a condition fires for whatever the expression returns. The expression is a piece of the text as it was
    written. ParseError for what is no PromQL.
    """
    node = unwrap(parse(text))
    if not isinstance(node, Binary) or node.op not in COMPARISONS or node.bool_modifier or node.explicit:
        return text.strip(), None, None
    right, left = _threshold(node.right), _threshold(node.left)
    if right is not None:
        return _piece(text, node.left), node.op, right
    if left is not None:
        return _piece(text, node.right), MIRRORED[node.op], left
    return text.strip(), None, None


def _threshold(node: Expr) -> float | None:
    literal = unwrap(node)
    if not isinstance(literal, Number) or isnan(literal.value):
        return None
    return literal.value


def _piece(text: str, node: Expr) -> str:
    return text[node.start : node.end]
