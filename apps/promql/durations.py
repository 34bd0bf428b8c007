"""Durations in brackets and after `offset`: `5m`, `300`, arithmetic on such, and what only a running query knows."""

import math
import operator
from collections.abc import Callable
from typing import Final, TypeAlias

from apps.promql.ast import Operation
from apps.promql.cursor import Cursor
from apps.promql.lexer import DURATION, LONGEST_DURATION, NAME, NUMBER, OPERATOR, Token, parse_duration, parse_number
from apps.promql.text import duration as written

Duration: TypeAlias = float | Operation
"""Seconds, or an operation that waits for the query's step and range."""

LATEST: Final = 2**60
"""Milliseconds that a text may name: far beyond any sample, and sums of two still fit in 64 bits."""

_PRECEDENCE: Final = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "^": 3}
_SIGN: Final = 2
"""A sign binds like a product, so that -2 ^ 2 is -4."""
_ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": math.fmod,
    "^": operator.pow,
    "min_of": min,
    "max_of": max,
}
_OF_QUERY: Final = ("step", "range")
_OF_TWO: Final = ("min_of", "max_of")


def in_brackets(cursor: Cursor, what: str) -> tuple[int, Operation | None]:
    """The duration of a range or of a subquery's step: (milliseconds, the operation that is still to be done)."""
    start = cursor.token.start
    ms, later = _settled(cursor, _expression(cursor, what, 0), start)
    if later is None and ms <= 0:
        raise cursor.error("duration must be greater than 0", start)
    return ms, later


def after_offset(cursor: Cursor) -> tuple[int, Operation | None]:
    """The duration of an offset: a sign and one operand, arithmetic only in brackets of its own."""
    start = cursor.token.start
    return _settled(cursor, _operand(cursor, "offset", alone=True), start)


def point_in_time(cursor: Cursor, token: Token) -> int:
    """Milliseconds of a number of seconds or of a duration literal."""
    try:
        if token.kind == DURATION:
            return parse_duration(token.text)
        seconds = parse_number(token.text)
    except ValueError as error:
        raise cursor.error(str(error), token.start) from None
    if seconds * 1000 > LATEST:
        raise cursor.error("time out of range", token.start)
    return round(seconds * 1000)


def milliseconds(duration: Duration, step: float, span: float) -> int:
    """The duration in a query with this step and span in seconds. ValueError says what is wrong with it."""
    seconds = evaluate(duration, step, span)
    if not abs(seconds) * 1000 <= LONGEST_DURATION:
        raise ValueError("duration out of range")
    return round(seconds * 1000)


def evaluate(duration: Duration, step: float, span: float) -> float:
    """Seconds, for a query whose step and span are these seconds. ValueError says what is wrong with it."""
    if not isinstance(duration, Operation):
        return duration
    if duration.op in _OF_QUERY:
        return step if duration.op == "step" else span
    values = [evaluate(part, step, span) for part in duration.parts]
    return -values[0] if len(values) == 1 else _apply(duration.op, values[0], values[1])


def render(duration: Duration) -> str:
    """Text that reads as the same duration; whatever is nested stands in brackets."""
    if not isinstance(duration, Operation):
        ms = round(duration * 1000)
        return written(ms) if ms / 1000 == duration and abs(ms) <= LONGEST_DURATION else repr(duration)
    op, parts = duration.op, duration.parts
    if op in _OF_QUERY or op in _OF_TWO:
        return f"{op}({', '.join(map(render, parts))})"
    texts = [f"({render(part)})" if _compound(part) else render(part) for part in parts]
    return f"-{texts[0]}" if len(texts) == 1 else f"{texts[0]} {op} {texts[1]}"


def render_offset(duration: Duration) -> str:
    """The same after `offset`, where arithmetic needs brackets."""
    text = render(duration)
    bare = not isinstance(duration, Operation) or duration.op in (*_OF_QUERY, *_OF_TWO)
    return text if bare else f"({text})"


def _compound(duration: Duration) -> bool:
    if isinstance(duration, Operation):
        return duration.op not in (*_OF_QUERY, *_OF_TWO)
    return duration < 0


def _apply(op: str, left: float, right: float) -> float:
    try:
        value = _ARITHMETIC[op](left, right)
    except (ArithmeticError, ValueError):
        raise ValueError("division by zero or overflow in duration") from None
    if isinstance(value, complex) or math.isnan(value):
        raise ValueError("duration is no real number")
    return value


def _settled(cursor: Cursor, duration: Duration, start: int) -> tuple[int, Operation | None]:
    if isinstance(duration, Operation):
        return 0, duration
    try:
        return milliseconds(duration, 0, 0), None
    except ValueError as error:
        raise cursor.error(str(error), start) from None


def _operation(cursor: Cursor, token: Token, op: str, *parts: Duration) -> Duration:
    """The operation, done at once where its parts are known."""
    cursor.count(token.start)
    operation = Operation(op, parts)
    if op in _OF_QUERY or any(isinstance(part, Operation) for part in parts):
        return operation
    try:
        return evaluate(operation, 0, 0) + 0.0  # never a zero with a sign
    except ValueError as error:
        raise cursor.error(str(error), token.start) from None


def _expression(cursor: Cursor, what: str, floor: int) -> Duration:
    """Operands and operators that bind tighter than `floor`."""
    cursor.deeper()
    left = _operand(cursor, what)
    while cursor.token.kind == OPERATOR and _PRECEDENCE.get(cursor.token.text, 0) > floor:
        token = cursor.advance()
        precedence = _PRECEDENCE[token.text]
        right = _expression(cursor, what, precedence - 1 if token.text == "^" else precedence)
        left = _operation(cursor, token, token.text, left, right)
    cursor.depth -= 1
    return left


def _operand(cursor: Cursor, what: str, *, alone: bool = False) -> Duration:
    """A literal, a call, a bracket or one of these with a sign; `alone`: the sign is of this operand only."""
    token = cursor.token
    if token.kind == OPERATOR and token.text in "+-":
        cursor.advance()
        cursor.deeper()
        value = _operand(cursor, what, alone=True) if alone else _expression(cursor, what, _SIGN)
        cursor.depth -= 1
        return _operation(cursor, token, "-", value) if token.text == "-" else value
    if cursor.accept("("):
        value = _expression(cursor, "duration expression", 0)
        cursor.expect(")", "duration expression")
        return value
    if token.kind == NAME and token.word in (*_OF_QUERY, *_OF_TWO):
        return _call(cursor)
    if token.kind not in (NUMBER, DURATION):
        raise cursor.unexpected(what, "a duration or a number of seconds")
    cursor.advance()
    return _literal(cursor, token)


def _literal(cursor: Cursor, token: Token) -> float:
    try:
        return parse_duration(token.text) / 1000 if token.kind == DURATION else parse_number(token.text)
    except ValueError as error:
        raise cursor.error(str(error), token.start) from None


def _call(cursor: Cursor) -> Duration:
    token = cursor.advance()
    where = f"{token.word}()"
    cursor.expect("(", where)
    parts: list[Duration] = []
    if token.word in _OF_TWO:
        parts.append(_expression(cursor, where, 0))
        cursor.expect(",", where)
        parts.append(_expression(cursor, where, 0))
    cursor.expect(")", where)
    return _operation(cursor, token, token.word, *parts)
