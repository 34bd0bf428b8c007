"""PromQL text to a checked syntax tree: precedence climbing, type checks, positions in every error, and limits."""

import math
import operator
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final, Literal, cast

from apps.promql.ast import (
    COMPARISONS,
    SET_OPERATORS,
    Aggregate,
    At,
    Binary,
    Call,
    Expr,
    Matching,
    Negation,
    Number,
    Paren,
    Range,
    Selector,
    String,
    Subquery,
    unwrap,
    value_type,
)
from apps.promql.errors import ParseError, PromQLError
from apps.promql.functions import (
    AGGREGATIONS,
    FUNCTIONS,
    PARAMETER,
    SCALAR,
    UNSUPPORTED,
    UNSUPPORTED_AGGREGATIONS,
    VECTOR,
    Function,
)
from apps.promql.labels import NAME
from apps.promql.lexer import (
    DURATION,
    END,
    LONGEST_DURATION,
    NUMBER,
    OPERATOR,
    Token,
    fail,
    parse_duration,
    parse_number,
    tokens,
    unquote,
)
from apps.promql.lexer import NAME as IDENTIFIER
from apps.promql.lexer import STRING as QUOTED
from apps.promql.source import Matcher, MatchOp, compiled
from apps.promql.text import IDENTIFIER as PLAIN
from apps.promql.text import printable, valid_name

TEXT_LIMIT: Final = 65_536
CACHED_TEXT: Final = 2_048
"""Longer texts are parsed each time, or a few thousand of them would fill the memory."""
DEPTH_LIMIT: Final = 100
NODE_LIMIT: Final = 2_000
EXPERIMENTAL: Final = "is experimental in Prometheus and not supported"

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
_EXPERIMENTAL_MODIFIERS: Final = frozenset(("anchored", "smoothed"))
_FILLS: Final = frozenset(("fill", "fill_left", "fill_right"))
_LATEST: Final = 2**60
"""Milliseconds that @ may name: far beyond any sample, and sums with durations still fit in 64 bits."""
_DURATION_FUNCTIONS: Final = frozenset(("step", "range", "min_of", "max_of", "start", "end"))
_DURATION_ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": math.fmod,
    "^": operator.pow,
}


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
        raise ParseError(wrong.message, wrong.line, wrong.column)
    if tree is None:
        raise ParseError("expression could not be read")
    return tree


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """The matchers of a plain instant vector selector such as `up{job="node"}`."""
    node = parse(text)
    if not isinstance(node, Selector) or node.offset or node.at is not None:
        raise ParseError(f"{text!r} is not a plain series selector")
    return node.matchers


class _Parser:
    """One pass over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.at = 0
        self.token = self.tokens[0]
        self.depth = 0
        self.nodes = 0
        self.extension: ParseError | None = None
        """The first function of the portal's own that the text calls."""

    # -- moving ------------------------------------------------------------------------------------------------

    def advance(self) -> Token:
        token = self.token
        if token.kind != END:
            self.at += 1
            self.token = self.tokens[self.at]
        return token

    def peek(self) -> Token:
        return self.tokens[min(self.at + 1, len(self.tokens) - 1)]

    def accept(self, operator: str) -> bool:
        if self.token.kind == OPERATOR and self.token.text == operator:
            self.advance()
            return True
        return False

    def expect(self, operator: str, where: str) -> Token:
        if self.token.kind == OPERATOR and self.token.text == operator:
            return self.advance()
        raise self.unexpected(where, f'"{operator}"')

    def last_end(self) -> int:
        return self.tokens[self.at - 1].end

    def unexpected(self, where: str, expected: str = "") -> ParseError:
        wanted = f", expected {expected}" if expected else ""
        return fail(f"unexpected {self.token} in {where}{wanted}", self.text, self.token.start)

    def error(self, message: str, offset: int) -> ParseError:
        return fail(message, self.text, offset)

    def count(self, offset: int, *below: Expr) -> int:
        """The depth of a node over these; counts it and refuses what is too deep or too large to evaluate."""
        self.nodes += 1
        if self.nodes > NODE_LIMIT:
            raise self.error(f"expression has more than {NODE_LIMIT} nodes", offset)
        depth = 1 + max((node.depth for node in below), default=0)
        if depth > DEPTH_LIMIT:
            raise self.error(f"expression is nested deeper than {DEPTH_LIMIT} levels", offset)
        return depth

    def deeper(self) -> None:
        """Called on the way down, before the tree is there to be measured; the caller decreases depth again."""
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise self.error(f"expression is nested deeper than {DEPTH_LIMIT} levels", self.token.start)

    # -- expressions -------------------------------------------------------------------------------------------

    def whole(self) -> Expr:
        if self.token.kind == END:
            raise self.error("no expression found in input", 0)
        node = self.expression(0)
        if self.token.kind != END:
            raise self.unexpected("expression")
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
            return token.text
        word = token.word
        return word if token.kind == IDENTIFIER and word in _KEYWORD_OPERATORS else ""

    def binary(self, op: str, left: Expr, token: Token, precedence: int) -> Expr:
        with_bool = self.keyword("bool")
        matching, explicit = self.matching(op)
        right = self.expression(precedence - 1 if op == "^" else precedence)
        depth = self.count(token.start, left, right)
        node = Binary(op, left, right, matching, explicit, with_bool, start=left.start, end=right.end, depth=depth)
        self.check_binary(node, token)
        return node

    def keyword(self, *words: str) -> bool:
        if self.token.kind == IDENTIFIER and self.token.word in words:
            self.advance()
            return True
        return False

    def matching(self, op: str) -> tuple[Matching, bool]:
        """(the matching, whether on or ignoring stands in the text)"""
        on, explicit = False, False
        labels: tuple[str, ...] = ()
        group: Literal["", "left", "right"] = ""
        include: tuple[str, ...] = ()
        if self.token.kind == IDENTIFIER and self.token.word in ("on", "ignoring"):
            explicit = True
            on = self.advance().word == "on"
            labels = self.label_list("grouping opts")
            if self.token.kind == IDENTIFIER and self.token.word in ("group_left", "group_right"):
                token = self.advance()
                if op in SET_OPERATORS:
                    raise self.error(f'no grouping allowed for "{op}" operation', token.start)
                group = "left" if token.word == "group_left" else "right"
                if self.token.text == "(":
                    include = self.label_list("grouping opts")
                for label in include:
                    if on and label in labels:
                        raise self.error(f'label "{label}" must not occur in ON and GROUP clause at once', token.start)
        fills = self.fills(op)
        return Matching(on, labels, group, include, fills.get("left"), fills.get("right")), explicit

    def fills(self, op: str) -> dict[str, float]:
        """fill(0), fill_left(0), fill_right(0); a metric of such a name is not followed by a bracket."""
        values: dict[str, float] = {}
        while self.token.kind == IDENTIFIER and self.token.word in _FILLS and self.peek().text == "(":
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
        for side in (node.left, node.right):
            if value_type(side) not in (SCALAR, VECTOR):
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
            return Number(-inner.value, start=token.start, end=inner.end)
        depth = self.count(token.start, inner)
        return Negation(inner, start=token.start, end=inner.end, depth=depth)

    # -- what may follow a primary -----------------------------------------------------------------------------

    def postfix(self) -> Expr:
        node = self.primary()
        while True:
            token = self.token
            if token.kind == OPERATOR and token.text == "[":
                node = self.brackets(node)
            elif token.kind == OPERATOR and token.text == "@":
                node = self.at_modifier(node)
            elif token.kind == IDENTIFIER and token.word == "offset":
                node = self.offset(node)
            elif token.kind == IDENTIFIER and token.word in _EXPERIMENTAL_MODIFIERS:
                raise self.error(f"the {token.word} modifier {EXPERIMENTAL}", token.start)
            else:
                return node

    def brackets(self, node: Expr) -> Expr:
        opening = self.advance()
        window = self.positive_duration("range")
        if self.token.kind == OPERATOR and self.token.text == ":":
            self.advance()
            step = None if self.token.text == "]" else self.positive_duration("subquery step")
            self.expect("]", "subquery selector")
            kind = value_type(node)
            if kind != VECTOR:
                raise self.error(f"subquery is only allowed on instant vector, got {kind} instead", node.start)
            depth = self.count(opening.start, node)
            return Subquery(node, window, step, start=node.start, end=self.last_end(), depth=depth)
        self.expect("]", "subquery or range selector")
        if not isinstance(node, Selector):
            raise self.error("ranges only allowed for vector selectors", opening.start)
        if node.at is not None:
            raise self.error("no @ modifiers allowed before range", opening.start)
        if node.offset:
            raise self.error("no offset modifiers allowed before range", opening.start)
        depth = self.count(opening.start, node)
        return Range(node, window, start=node.start, end=self.last_end(), depth=depth)

    def positive_duration(self, what: str) -> int:
        token = self.token
        value = self.duration(what)
        if value <= 0:
            raise self.error("duration must be greater than 0", token.start)
        return value

    def duration(self, what: str) -> int:
        """Milliseconds of `5m`, `300`, or arithmetic on such (in brackets after offset)."""
        token = self.token
        seconds = self.duration_primary(what) if what == "offset" else self.duration_expression(what, 0)
        if not abs(seconds) * 1000 <= LONGEST_DURATION:
            raise self.error("duration out of range", token.start)
        return round(seconds * 1000)

    def duration_expression(self, what: str, floor: int) -> float:
        self.deeper()
        left = self.duration_primary(what)
        while self.token.kind == OPERATOR and _PRECEDENCE.get(self.token.text, 0) > max(floor, _PRECEDENCE["+"] - 1):
            token = self.advance()
            precedence = _PRECEDENCE[token.text]
            right = self.duration_expression(what, precedence - 1 if token.text == "^" else precedence)
            self.count(token.start)
            try:
                left = _DURATION_ARITHMETIC[token.text](left, right)
            except ArithmeticError:
                raise self.error("division by zero or overflow in duration", token.start) from None
            if isinstance(left, complex):
                raise self.error("duration is no real number", token.start)
        self.depth -= 1
        return left

    def duration_primary(self, what: str) -> float:
        token = self.token
        if token.kind == OPERATOR and token.text in "+-":
            self.advance()
            self.deeper()
            value = self.duration_primary(what) if what == "offset" else self.duration_expression(what, _UNARY)
            self.depth -= 1
            return -value if token.text == "-" else value
        if token.kind == OPERATOR and token.text == "(":
            self.advance()
            value = self.duration_expression("duration expression", 0)
            self.expect(")", "duration expression")
            return value
        if token.kind == IDENTIFIER and token.word in _DURATION_FUNCTIONS:
            raise self.error(f"{token.word}() in durations {EXPERIMENTAL}", token.start)
        if token.kind not in (NUMBER, DURATION):
            raise self.unexpected(what, "a duration or a number of seconds")
        self.advance()
        return self.milliseconds(token) / 1000

    def milliseconds(self, token: Token) -> int:
        try:
            if token.kind == DURATION:
                return parse_duration(token.text)
            seconds = parse_number(token.text)
        except ValueError as error:
            raise self.error(str(error), token.start) from None
        if seconds * 1000 > _LATEST:
            raise self.error("time out of range", token.start)
        return round(seconds * 1000)

    def offset(self, node: Expr) -> Expr:
        token = self.advance()
        value = self.duration("offset")
        end = self.last_end()
        match node:
            case Selector() | Subquery() if not node.offset:
                return replace(node, offset=value, end=end)
            case Range() if not node.selector.offset:
                selector = replace(node.selector, offset=value)
                return Range(selector, node.window, start=node.start, end=end, depth=node.depth)
            case Selector() | Subquery() | Range():
                raise self.error("offset may not be set multiple times", token.start)
        raise self.error(
            "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
            token.start,
        )

    def at_modifier(self, node: Expr) -> Expr:
        token = self.advance()
        at = self.at_time()
        end = self.last_end()
        match node:
            case Selector() | Subquery() if node.at is None:
                return replace(node, at=at, end=end)
            case Range() if node.selector.at is None:
                selector = replace(node.selector, at=at)
                return Range(selector, node.window, start=node.start, end=end, depth=node.depth)
            case Selector() | Subquery() | Range():
                raise self.error("@ <timestamp> may not be set multiple times", token.start)
        raise self.error(
            "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
            token.start,
        )

    def at_time(self) -> At:
        token = self.token
        if token.kind == IDENTIFIER and token.word in ("start", "end"):
            self.advance()
            self.expect("(", "@ modifier")
            self.expect(")", "@ modifier")
            return "start" if token.word == "start" else "end"
        sign = 1
        if token.kind == OPERATOR and token.text in "+-":
            sign = -1 if self.advance().text == "-" else 1
            token = self.token
        if token.kind == IDENTIFIER and token.word in ("inf", "nan"):
            raise self.error(f"timestamp out of bounds for @ modifier: {token.text}", token.start)
        if token.kind not in (NUMBER, DURATION):
            raise self.unexpected("@ modifier", "a timestamp, start() or end()")
        self.advance()
        return sign * self.milliseconds(token)

    # -- primaries ---------------------------------------------------------------------------------------------

    def primary(self) -> Expr:
        token = self.token
        if token.kind in (NUMBER, DURATION):
            self.advance()
            self.count(token.start)
            return Number(self.number(token), start=token.start, end=token.end)
        if token.kind == QUOTED:
            self.advance()
            self.count(token.start)
            return String(self.string(token), start=token.start, end=token.end)
        if token.kind == IDENTIFIER:
            return self.named()
        if token.kind == OPERATOR and token.text == "(":
            self.advance()
            inner = self.expression(0)
            self.expect(")", "paren expression")
            depth = self.count(token.start, inner)
            return Paren(inner, start=token.start, end=self.last_end(), depth=depth)
        if token.kind == OPERATOR and token.text == "{":
            return self.selector(None)
        if token.kind == END:
            raise self.error("unexpected end of input", token.start)
        raise self.unexpected("expression")

    def number(self, token: Token) -> float:
        try:
            return parse_duration(token.text) / 1000 if token.kind == DURATION else parse_number(token.text)
        except ValueError as error:
            raise self.error(str(error), token.start) from None

    def string(self, token: Token) -> str:
        try:
            return unquote(token.text)
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
        return self.selector(self.advance())

    def selector(self, name: Token | None) -> Expr:
        start = name.start if name else self.token.start
        metric = name.text if name else None
        matchers = [] if name is None else [Matcher(NAME, "=", name.text)]
        if self.token.kind == OPERATOR and self.token.text == "{":
            self.advance()
            while not self.accept("}"):
                metric = self.matcher(matchers, metric)
                if self.token.text != "}":
                    self.expect(",", "label matching")
        end = self.last_end()
        if all(matcher.matches("") for matcher in matchers):
            raise self.error("vector selector must contain at least one non-empty matcher", start)
        self.count(start)
        return Selector(metric, tuple(matchers), start=start, end=end)

    def matcher(self, matchers: list[Matcher], metric: str | None) -> str | None:
        """Reads one matcher into the list; gives the metric's name where it is now known."""
        token = self.token
        if token.kind not in (IDENTIFIER, QUOTED) or (token.kind == IDENTIFIER and ":" in token.text):
            raise self.unexpected("label matching", 'identifier or "}"')
        self.advance()
        label = self.string(token) if token.kind == QUOTED else token.text
        if not valid_name(label):
            raise self.error(f"invalid label name {token.text} in label matching", token.start)
        if token.kind == QUOTED and self.token.kind == OPERATOR and self.token.text in (",", "}"):
            if metric is not None:
                raise self.error(f'metric name must not be set twice: "{metric}" or "{label}"', token.start)
            matchers.append(Matcher(NAME, "=", label))
            return label
        op = self.token.text
        if self.token.kind != OPERATOR or op not in ("=", "!=", "=~", "!~"):
            raise self.unexpected("label matching", "label matching operator")
        self.advance()
        value = self.token
        if value.kind != QUOTED:
            raise self.unexpected("label matching", "string")
        self.advance()
        matcher = Matcher(label, cast(MatchOp, op), self.string(value))
        if printable(matcher.value) != matcher.value:
            raise self.error("the value of a label matcher must be UTF-8", value.start)
        if label == NAME and op == "=":
            if metric is not None:
                raise self.error(f'metric name must not be set twice: "{metric}" or "{matcher.value}"', token.start)
            metric = matcher.value
        if op in ("=~", "!~"):
            try:
                compiled(matcher.value)
            except PromQLError as error:
                raise self.error(error.message, value.start) from None
        matchers.append(matcher)
        return metric

    def label_list(self, where: str) -> tuple[str, ...]:
        self.expect("(", where)
        labels: list[str] = []
        while not self.accept(")"):
            token = self.token
            if token.kind == QUOTED:
                label = self.string(token)
                if not label or not valid_name(label):
                    raise self.error(f"invalid label name {token.text} in {where}", token.start)
            elif token.kind == IDENTIFIER and PLAIN.match(token.text):
                label = token.text
            else:
                raise self.unexpected(where, "label")
            self.advance()
            labels.append(label)
            if self.token.text != ")":
                self.expect(",", where)
        return tuple(labels)

    def aggregation(self) -> Expr:
        token = self.advance()
        op = token.word
        if op in UNSUPPORTED_AGGREGATIONS:
            raise self.error(f"the {op} aggregation {EXPERIMENTAL}", token.start)
        grouping, without = self.modifier()
        args = self.arguments("aggregation")
        if grouping is None:
            grouping, without = self.modifier()
        wanted = 2 if op in PARAMETER else 1
        if not args:
            raise self.error("no arguments for aggregate expression provided", token.start)
        if len(args) != wanted:
            raise self.error(
                f"wrong number of arguments for aggregate expression provided, expected {wanted}, got {len(args)}",
                token.start,
            )
        param = args[0] if wanted == 2 else None
        if param is not None:
            self.check_type(param, PARAMETER[op], f"aggregation parameter of {op}")
        self.check_type(args[-1], VECTOR, "aggregation expression")
        depth = self.count(token.start, *args)
        return Aggregate(
            op, args[-1], param, grouping or (), without, start=token.start, end=self.last_end(), depth=depth
        )

    def modifier(self) -> tuple[tuple[str, ...] | None, bool]:
        if self.token.kind == IDENTIFIER and self.token.word in ("by", "without"):
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
            if self.token.text == ")":
                raise self.error("trailing commas not allowed in function call args", self.token.start)

    def call(self) -> Expr:
        token = self.advance()
        function = FUNCTIONS.get(token.text)
        if function is None:
            if token.text in UNSUPPORTED:
                raise self.error(f"{token.text}() {UNSUPPORTED[token.text]}", token.start)
            raise self.error(f'unknown function with name "{token.text}"', token.start)
        if function.extension and self.extension is None:
            self.extension = self.error(f"{function.name}() is an extension of the portal, not PromQL", token.start)
        args = self.arguments("function call")
        self.check_count(function, len(args), token)
        for index, arg in enumerate(args):
            kind = function.args[min(index, len(function.args) - 1)]
            self.check_type(arg, kind, f'call to function "{function.name}"')
        if function.name in ("label_replace", "label_join"):
            self.check_label_call(function, args)
        depth = self.count(token.start, *args)
        return Call(function, tuple(args), start=token.start, end=self.last_end(), depth=depth)

    def check_count(self, function: Function, got: int, token: Token) -> None:
        most = len(function.args)
        least = most - 1 if function.repeats else most - function.optional
        if got < least or (got > most and not function.repeats):
            few = got < least
            bound = str(most) if least == most else f"at least {least}" if few else f"at most {most}"
            raise self.error(f'expected {bound} argument(s) in call to "{function.name}", got {got}', token.start)

    def check_type(self, node: Expr, wanted: str, where: str) -> None:
        kind = value_type(node)
        if kind != wanted:
            raise self.error(f"expected type {wanted} in {where}, got {kind}", node.start)

    def check_label_call(self, function: Function, args: list[Expr]) -> None:
        """Strings are constants: what can be checked before running is an error with a position."""
        texts = [unwrap(arg) for arg in args[1:]]
        names = texts[:1] if function.name == "label_replace" else [*texts[:1], *texts[2:]]
        for node in names:
            if isinstance(node, String) and not valid_name(node.value):
                what = "destination label name" if node is texts[0] else "source label name"
                raise self.error(f"invalid {what} in {function.name}(): {node.value!r}", node.start)
        if function.name == "label_replace" and isinstance(texts[3], String):
            try:
                compiled(texts[3].value)
            except PromQLError as error:
                raise self.error(f"{error.message} in label_replace()", texts[3].start) from None
