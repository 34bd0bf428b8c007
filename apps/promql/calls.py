"""What a call must look like: known function, number and types of arguments, constants that are right."""

from collections.abc import Sequence
from typing import Final

from apps.promql.ast import Expr, Range, String, unwrap, value_type
from apps.promql.cursor import Cursor
from apps.promql.errors import PromQLError
from apps.promql.functions import FUNCTIONS, PARAMETER, UNSUPPORTED, VECTOR, Function
from apps.promql.lexer import Token
from apps.promql.source import compiled
from apps.promql.text import printable, valid_name

EDGES: Final = {
    "anchored": ("changes", "delta", "increase", "rate", "resets"),
    "smoothed": ("delta", "increase", "rate"),
}
"""The functions that look at a window's edges."""


def function(cursor: Cursor, token: Token) -> Function:
    """The function of this name. ParseError."""
    found = FUNCTIONS.get(token.text)
    if found is not None:
        return found
    if token.text in UNSUPPORTED:
        raise cursor.error(f"{token.text}() {UNSUPPORTED[token.text]}", token.start)
    raise cursor.error(f'unknown function with name "{token.text}"', token.start)


def check(cursor: Cursor, function: Function, args: Sequence[Expr], token: Token) -> None:
    """ParseError where the arguments are not what the function takes."""
    _check_count(cursor, function, len(args), token)
    for index, arg in enumerate(args):
        kind = function.args[min(index, len(function.args) - 1)]
        _check_type(cursor, arg, kind, f'call to function "{function.name}"')
        _check_edges(cursor, arg, function.name)
    if function.name in ("label_replace", "label_join"):
        _check_labels(cursor, function.name, args)


def check_aggregation(cursor: Cursor, op: str, args: Sequence[Expr], token: Token) -> None:
    """The same for an aggregation."""
    wanted = 2 if op in PARAMETER else 1
    if not args:
        raise cursor.error("no arguments for aggregate expression provided", token.start)
    if len(args) != wanted:
        raise cursor.error(
            f"wrong number of arguments for aggregate expression provided, expected {wanted}, got {len(args)}",
            token.start,
        )
    if wanted == 2:
        _check_type(cursor, args[0], PARAMETER[op], f"aggregation parameter of {op}")
    _check_type(cursor, args[-1], VECTOR, "aggregation expression")


def check_alone(cursor: Cursor, node: Expr) -> None:
    """The same for an expression that is no argument of anything."""
    inner = unwrap(node)
    if isinstance(inner, Range) and inner.selector.edges:
        edges = inner.selector.edges
        raise cursor.error(f"{edges} range vectors are supported as arguments of {', '.join(EDGES[edges])}", node.start)


def _check_count(cursor: Cursor, function: Function, got: int, token: Token) -> None:
    most = len(function.args)
    least = most - 1 if function.repeats else most - function.optional
    if got < least or (got > most and not function.repeats):
        few = got < least
        bound = str(most) if least == most else f"at least {least}" if few else f"at most {most}"
        raise cursor.error(f'expected {bound} argument(s) in call to "{function.name}", got {got}', token.start)


def _check_type(cursor: Cursor, node: Expr, wanted: str, where: str) -> None:
    kind = value_type(node)
    if kind != wanted:
        raise cursor.error(f"expected type {wanted} in {where}, got {kind}", node.start)


def _check_edges(cursor: Cursor, node: Expr, name: str) -> None:
    arg = unwrap(node)
    edges = arg.selector.edges if isinstance(arg, Range) else ""
    if edges and name not in EDGES[edges]:
        able = ", ".join(EDGES[edges])
        raise cursor.error(f"{edges} modifier can only be used with: {able} - not with {name}", node.start)


def _check_labels(cursor: Cursor, name: str, args: Sequence[Expr]) -> None:
    """Strings are constants: what can be checked before running is an error with a position."""
    texts = [unwrap(arg) for arg in args[1:]]
    names = texts[:1] if name == "label_replace" else [*texts[:1], *texts[2:]]
    for node in names:
        if isinstance(node, String) and not valid_name(node.value):
            what = "destination label name" if node is texts[0] else "source label name"
            raise cursor.useless(f"invalid {what} in {name}(): {printable(node.value)}", node.start)
    if name == "label_replace" and isinstance(texts[3], String):
        try:
            compiled(texts[3].value)
        except PromQLError:
            words = f"invalid regular expression in label_replace(): {printable(texts[3].value)}"
            raise cursor.useless(words, texts[3].start) from None
