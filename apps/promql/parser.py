"""PromQL text to a checked syntax tree: precedence climbing, type checks, positions in every error, and limits."""

from dataclasses import replace
from functools import lru_cache
from typing import Final, Literal, cast

from apps.promql import calls, durations
from apps.promql.ast import (
    COMPARISONS,
    SET_OPERATORS,
    Aggregate,
    At,
    Binary,
    Call,
    Edges,
    Expr,
    Matching,
    Negation,
    Number,
    Operation,
    Paren,
    Range,
    Selector,
    String,
    Subquery,
    value_type,
)
from apps.promql.cursor import DEPTH_LIMIT, NODE_LIMIT, Cursor
from apps.promql.errors import ParseError
from apps.promql.functions import AGGREGATIONS, PARAMETER, SCALAR, VECTOR
from apps.promql.lexer import DURATION, END, NAME, NUMBER, OPERATOR, STRING, Token, parse_duration, parse_number
from apps.promql.selectors import selector
from apps.promql.source import Matcher

__all__ = ["CACHED_TEXT", "DEPTH_LIMIT", "NODE_LIMIT", "TEXT_LIMIT", "parse", "parse_matchers"]

TEXT_LIMIT: Final = 65_536
CACHED_TEXT: Final = 2_048
"""Longer texts are parsed each time, or a few thousand of them would fill the memory."""

_PRECEDENCE: Final = {
    "or": 1,
    "and": 2,
    "unless": 2,
    **dict.fromkeys(COMPARISONS, 3),
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    "%": 5,
    "atan2": 5,
    "^": 6,
}
_UNARY: Final = 5
_KEYWORD_OPERATORS: Final = frozenset(("and", "or", "unless", "atan2"))
_FILLS: Final = ("fill", "fill_left", "fill_right")
_MODIFIED: Final = "must be preceded by an instant vector selector or range vector selector or a subquery"


def _read(text: str) -> tuple[Expr | None, ParseError | None]:
    """(the tree, what is wrong): with a tree, what is wrong is an extension that plain PromQL does not have."""
    try:
        parser = _Parser(text)
        return parser.whole(), parser.extension
    except ParseError as error:
        return None, error.with_traceback(None)
    except RecursionError:  # the caller's own stack was all but full; not cached
        raise ParseError("expression is nested too deep to be read from here") from None


_cached = lru_cache(maxsize=2048)(_read)


def parse(text: str, *, plain: bool = False) -> Expr:
    """The checked tree of an expression (short texts are cached). ParseError names line and column.

    plain: only what Prometheus has; a function of the portal's own is refused by its name.
    """
    if len(text) > TEXT_LIMIT:
        raise ParseError(f"expression of {len(text)} characters is longer than the limit of {TEXT_LIMIT}")
    tree, wrong = _cached(text) if len(text) <= CACHED_TEXT else _read(text)
    if wrong is not None and (plain or tree is None):
        raise type(wrong)(wrong.message, wrong.line, wrong.column)
    if tree is None:
        raise ParseError("expression could not be read")
    return tree


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """The matchers of a plain instant vector selector such as `up{job="node"}`."""
    node = parse(text)
    if not isinstance(node, Selector) or node.offset or node.offset_later or node.at is not None or node.edges:
        raise ParseError(f"{text!r} is not a plain series selector")
    return node.matchers


class _Parser(Cursor):
    """The grammar of expressions."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.extension: ParseError | None = None
        """The first function of the portal's own that the text calls."""

    # -- operators ---------------------------------------------------------------------------------------------

    def whole(self) -> Expr:
        if self.token.kind == END:
            raise self.error("no expression found in input", 0)
        node = self.expression(0)
        if self.token.kind != END:
            raise self.unexpected("expression")
        calls.check_alone(self, node)
        return node

    def expression(self, floor: int) -> Expr:
        """An expression of operators that bind tighter than `floor`."""
        self.deeper()
        left = self.unary()
        while True:
            operator = self.operator()
            precedence = _PRECEDENCE.get(operator, 0)
            if precedence <= floor:
                break
            token = self.advance()
            left = self.binary(operator, left, token, precedence)
        self.depth -= 1
        return left

    def operator(self) -> str:
        token = self.token
        if token.kind == OPERATOR:
            self.refuse_trim(token, self.peek())
            return token.text
        return token.word if self.sees_word(*_KEYWORD_OPERATORS) else ""

    def refuse_trim(self, token: Token, following: Token) -> None:
        """`x </ 5` and `x >/ 5` cut native histograms."""
        if token.text in "<>" and following.text == "/" and following.start == token.end:
            raise self.error(
                f"the trim operator {token.text}/ works on native histograms, and this store keeps floats", token.start
            )

    def binary(self, op: str, left: Expr, token: Token, precedence: int) -> Expr:
        with_bool = self.accept_word("bool")
        matching, explicit = self.matching(op)
        right = self.expression(precedence - 1 if op == "^" else precedence)
        depth = self.count_chain(token.start, left, right)
        if explicit and not matching.labels and not value_type(left) == value_type(right) == VECTOR:
            matching, explicit = (
                Matching(fill_left=matching.fill_left, fill_right=matching.fill_right),
                False,
            )  # as there
        node = Binary(op, left, right, matching, explicit, with_bool, start=left.start, end=right.end, depth=depth)
        self.check_binary(node, token)
        return node

    def matching(self, op: str) -> tuple[Matching, bool]:
        """(the matching, whether on or ignoring stands in the text)"""
        on, explicit = False, False
        labels: tuple[str, ...] = ()
        group: Literal["", "left", "right"] = ""
        include: tuple[str, ...] = ()
        if self.sees_word("on", "ignoring"):
            explicit = True
            on = self.advance().word == "on"
            labels = self.label_list("grouping opts")
            if self.sees_word("group_left", "group_right"):
                token = self.advance()
                if op in SET_OPERATORS:
                    raise self.error(f'no grouping allowed for "{op}" operation', token.start)
                group = "left" if token.word == "group_left" else "right"
                if self.sees("("):
                    include = self.label_list("grouping opts")
                both = set(labels).intersection(include) if on else ()
                for label in sorted(both):
                    raise self.error(f'label "{label}" must not occur in ON and GROUP clause at once', token.start)
        fills = self.fills(op)
        return Matching(on, labels, group, include, fills.get("left"), fills.get("right")), explicit

    def fills(self, op: str) -> dict[str, float]:
        """fill(0), fill_left(0), fill_right(0); a metric of such a name is not followed by a bracket."""
        values: dict[str, float] = {}
        while self.calls(*_FILLS):
            token = self.advance()
            if op in SET_OPERATORS:
                raise self.error(f'filling in missing series is not allowed for "{op}" operation', token.start)
            self.expect("(", token.word)
            literal = self.expression(0)
            if not isinstance(literal, Number):
                raise self.error(f"{token.word}() takes a number", literal.start)
            self.expect(")", token.word)
            sides = ("left", "right") if token.word == "fill" else (token.word.removeprefix("fill_"),)
            for side in sides:
                if side in values:
                    raise self.error(f"the {side} side is filled twice", token.start)
                values[side] = literal.value
        return values

    def check_binary(self, node: Binary, token: Token) -> None:
        left, right = value_type(node.left), value_type(node.right)
        for side, kind in ((node.left, left), (node.right, right)):
            if kind not in (SCALAR, VECTOR):
                raise self.error("binary expression must contain only scalar and instant vector types", side.start)
        if node.bool_modifier and node.op not in COMPARISONS:
            raise self.error("bool modifier can only be used on comparison operators", token.start)
        if left == right == VECTOR:
            return
        if node.explicit or node.matching != Matching():
            raise self.error("vector matching only allowed between instant vectors", token.start)
        if node.op in SET_OPERATORS:
            raise self.error(f'set operator "{node.op}" not allowed in binary scalar expression', token.start)
        if left == right == SCALAR and node.op in COMPARISONS and not node.bool_modifier:
            raise self.error("comparisons between scalars must use BOOL modifier", token.start)

    def unary(self) -> Expr:
        if self.token.kind != OPERATOR or self.token.text not in "+-":
            return self.postfix()
        token = self.advance()
        inner = self.expression(_UNARY)
        kind = value_type(inner)
        if kind not in (SCALAR, VECTOR):
            raise self.error(
                f'unary expression only allowed on expressions of type scalar or instant vector, got "{kind}"',
                token.start,
            )
        if token.text == "+":
            return inner
        if isinstance(inner, Number):
            return Number(-inner.value, inner.duration, start=token.start, end=inner.end)
        depth = self.count(token.start, inner)
        return Negation(inner, start=token.start, end=inner.end, depth=depth)

    # -- what may follow a primary -----------------------------------------------------------------------------

    def postfix(self) -> Expr:
        node = self.primary()
        while True:
            if self.sees("["):
                node = self.brackets(node)
            elif self.sees("@"):
                node = self.at_modifier(node)
            elif self.sees_word("offset"):
                node = self.offset(node)
            elif self.sees_word("anchored", "smoothed"):
                node = self.edges(node)
            else:
                return node

    def brackets(self, node: Expr) -> Expr:
        opening = self.advance()
        window, window_later = durations.in_brackets(self, "range")
        if self.accept(":"):
            return self.subquery(node, opening, window, window_later)
        self.expect("]", "subquery or range selector")
        if not isinstance(node, Selector):
            raise self.error("ranges only allowed for vector selectors", opening.start)
        if node.at is not None:
            raise self.error("no @ modifiers allowed before range", opening.start)
        if node.offset or node.offset_later:
            raise self.error("no offset modifiers allowed before range", opening.start)
        if node.edges:
            raise self.error(f"no {node.edges} modifier allowed before range", opening.start)
        depth = self.count(opening.start, node)
        return Range(node, window, window_later, start=node.start, end=self.last_end(), depth=depth)

    def subquery(self, node: Expr, opening: Token, window: int, window_later: Operation | None) -> Expr:
        step, step_later = (None, None) if self.sees("]") else durations.in_brackets(self, "subquery step")
        self.expect("]", "subquery selector")
        kind = value_type(node)
        if kind != VECTOR:
            raise self.error(f"subquery is only allowed on instant vector, got {kind} instead", node.start)
        return Subquery(
            node,
            window,
            step,
            window_later=window_later,
            step_later=step_later,
            start=node.start,
            end=self.last_end(),
            depth=self.count(opening.start, node),
        )

    def modified(self, node: Expr, what: str, token: Token) -> Selector | Subquery:
        """The selector or subquery that a modifier is about."""
        if isinstance(node, Range):
            return node.selector
        if isinstance(node, Selector | Subquery):
            return node
        raise self.error(f"{what} {_MODIFIED}", token.start)

    def with_modifier(self, node: Expr, changed: Selector | Subquery) -> Expr:
        end = self.last_end()
        if isinstance(node, Range) and isinstance(changed, Selector):
            return replace(node, selector=changed, end=end)
        return replace(changed, end=end)

    def offset(self, node: Expr) -> Expr:
        token = self.advance()
        value, later = durations.after_offset(self)
        inner = self.modified(node, "offset modifier", token)
        if inner.offset or inner.offset_later:
            raise self.error("offset may not be set multiple times", token.start)
        return self.with_modifier(node, replace(inner, offset=value, offset_later=later))

    def at_modifier(self, node: Expr) -> Expr:
        token = self.advance()
        at = self.at_time()
        inner = self.modified(node, "@ modifier", token)
        if inner.at is not None:
            raise self.error("@ <timestamp> may not be set multiple times", token.start)
        return self.with_modifier(node, replace(inner, at=at))

    def at_time(self) -> At:
        if self.sees_word("start", "end"):
            token = self.advance()
            self.expect("(", "@ modifier")
            self.expect(")", "@ modifier")
            return "start" if token.word == "start" else "end"
        sign = 1
        if self.token.kind == OPERATOR and self.token.text in "+-":
            sign = -1 if self.advance().text == "-" else 1
        token = self.token
        if self.sees_word("inf", "nan"):
            raise self.error(f"timestamp out of bounds for @ modifier: {token.text}", token.start)
        if token.kind not in (NUMBER, DURATION):
            raise self.unexpected("@ modifier", "a timestamp, start() or end()")
        self.advance()
        return sign * durations.point_in_time(self, token)

    def edges(self, node: Expr) -> Expr:
        """anchored and smoothed, which Prometheus calls extended range selectors."""
        token = self.advance()
        inner = self.modified(node, f"{token.word} modifier", token)
        if isinstance(inner, Subquery):
            raise self.error(f"{token.word} modifier is not supported for subqueries", token.start)
        if token.word == "anchored" and isinstance(node, Selector):
            raise self.error("anchored modifier can only be used with range vectors", token.start)
        if inner.edges:
            raise self.error(f"{token.word} modifier cannot follow the {inner.edges} modifier", token.start)
        return self.with_modifier(node, replace(inner, edges=cast(Edges, token.word)))

    # -- primaries ---------------------------------------------------------------------------------------------

    def primary(self) -> Expr:
        token = self.token
        if token.kind in (NUMBER, DURATION):
            self.advance()
            self.count(token.start)
            return Number(self.number(token), token.kind == DURATION, start=token.start, end=token.end)
        if token.kind == STRING:
            self.advance()
            self.count(token.start)
            return String(self.string(token), start=token.start, end=token.end)
        if token.kind == NAME:
            return self.named()
        if self.accept("("):
            inner = self.expression(0)
            self.expect(")", "paren expression")
            depth = self.count(token.start, inner)
            return Paren(inner, start=token.start, end=self.last_end(), depth=depth)
        if self.sees("{"):
            return selector(self, None)
        if token.kind == END:
            raise self.error("unexpected end of input", token.start)
        raise self.unexpected("expression")

    def number(self, token: Token) -> float:
        try:
            return parse_duration(token.text) / 1000 if token.kind == DURATION else parse_number(token.text)
        except ValueError as error:
            raise self.error(str(error), token.start) from None

    def named(self) -> Expr:
        token = self.token
        word = token.word
        following = self.peek()
        called = following.kind == OPERATOR and following.text == "("
        if word in ("inf", "nan"):
            self.advance()
            self.count(token.start)
            return Number(float(word), start=token.start, end=token.end)
        if word in AGGREGATIONS and (called or following.word in ("by", "without")):
            return self.aggregation()
        if called:
            return self.call()
        return selector(self, self.advance())

    # -- calls -------------------------------------------------------------------------------------------------

    def aggregation(self) -> Expr:
        token = self.advance()
        op = token.word
        grouping, without = self.modifier()
        args = self.arguments("aggregation")
        if grouping is None:
            grouping, without = self.modifier()
        calls.check_aggregation(self, op, args, token)
        param = args[0] if op in PARAMETER else None
        depth = self.count(token.start, *args)
        return Aggregate(
            op, args[-1], param, grouping or (), without, start=token.start, end=self.last_end(), depth=depth
        )

    def modifier(self) -> tuple[tuple[str, ...] | None, bool]:
        if self.sees_word("by", "without"):
            without = self.advance().word == "without"
            return self.label_list("grouping opts"), without
        return None, False

    def arguments(self, where: str) -> list[Expr]:
        self.expect("(", where)
        args: list[Expr] = []
        if self.accept(")"):
            return args
        while True:
            args.append(self.expression(0))
            if self.accept(")"):
                return args
            self.expect(",", where)
            if self.sees(")"):
                raise self.error("trailing commas not allowed in function call args", self.token.start)

    def call(self) -> Expr:
        token = self.advance()
        function = calls.function(self, token)
        if function.extension and self.extension is None:
            self.extension = self.error(f"{function.name}() is an extension of the portal, not PromQL", token.start)
        args = self.info_arguments() if function.name == "info" else self.arguments("function call")
        calls.check(self, function, args, token)
        depth = self.count(token.start, *args)
        return Call(function, tuple(args), start=token.start, end=self.last_end(), depth=depth)

    def info_arguments(self) -> list[Expr]:
        """A vector and matchers without a metric in front, which may all accept the empty string."""
        where = "function call"
        self.expect("(", where)
        if self.accept(")"):
            return []
        args = [self.expression(0)]
        if not self.accept(")"):
            self.expect(",", where)
            if not self.sees("{"):
                raise self.unexpected("call to info()", 'label matchers in "{"')
            args.append(selector(self, None, needs_content=False))
            self.expect(")", where)
        return args
