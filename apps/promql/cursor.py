"""Walks over the tokens of one text and keeps count: of nodes, of depth, and of the place that an error points at."""

from typing import Final

from apps.promql.ast import Binary, Expr
from apps.promql.errors import ConstantError, ParseError
from apps.promql.lexer import (
    NAME,
    OPERATOR,
    STRING,
    Token,
    fail,
    position,
    tokens,
    unquote,
)
from apps.promql.text import IDENTIFIER, valid_name

DEPTH_LIMIT: Final = 100
NODE_LIMIT: Final = 2_000


class Cursor:
    """One pass over the tokens of one text, with one token of lookahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = tokens(text)
        self.token = next(self._tokens)
        self._following: Token | None = None
        self._last_end = 0
        self.depth = 0
        self.nodes = 0

    # -- moving ------------------------------------------------------------------------------------------------

    def advance(self) -> Token:
        token = self.token
        self.token = self.peek()
        self._following = None
        self._last_end = token.end
        return token

    def peek(self) -> Token:
        if self._following is None:
            self._following = next(self._tokens)
        return self._following

    def sees(self, operator: str) -> bool:
        return self.token.kind == OPERATOR and self.token.text == operator

    def sees_word(self, *words: str) -> bool:
        """Is the next token one of these keywords? They are written in lower case here and in any case in the text."""
        return self.token.kind == NAME and self.token.word in words

    def calls(self, *words: str) -> bool:
        """Is the next token one of these words and followed by a bracket?"""
        following = self.peek()
        return self.sees_word(*words) and following.kind == OPERATOR and following.text == "("

    def accept(self, operator: str) -> bool:
        if self.sees(operator):
            self.advance()
            return True
        return False

    def accept_word(self, *words: str) -> bool:
        if self.sees_word(*words):
            self.advance()
            return True
        return False

    def expect(self, operator: str, where: str) -> Token:
        if self.sees(operator):
            return self.advance()
        raise self.unexpected(where, f'"{operator}"')

    def last_end(self) -> int:
        return self._last_end

    # -- errors and limits -------------------------------------------------------------------------------------

    def unexpected(self, where: str, expected: str = "") -> ParseError:
        wanted = f", expected {expected}" if expected else ""
        return fail(f"unexpected {self.token} in {where}{wanted}", self.text, self.token.start)

    def error(self, message: str, offset: int) -> ParseError:
        return fail(message, self.text, offset)

    def useless(self, message: str, offset: int) -> ConstantError:
        """The error for a constant in the text with which the query cannot run."""
        return ConstantError(message, *position(self.text, offset))

    def count(self, offset: int, *below: Expr) -> int:
        """The depth of a node over these; counts it and refuses what is too deep or too large to evaluate."""
        self.nodes += 1
        if self.nodes > NODE_LIMIT:
            raise self.error(f"expression has more than {NODE_LIMIT} nodes", offset)
        return self.within(1 + max((node.depth for node in below), default=0), offset)

    def count_chain(self, offset: int, left: Expr, right: Expr) -> int:
        """The depth of a binary operation: `a + b + c` is one level, however long it is."""
        self.count(offset, right)
        return self.within(max(left.depth + (not isinstance(left, Binary)), right.depth + 1), offset)

    def within(self, depth: int, offset: int) -> int:
        if depth > DEPTH_LIMIT:
            raise self.error(f"expression is nested deeper than {DEPTH_LIMIT} levels", offset)
        return depth

    def deeper(self) -> None:
        """Called on the way down, before the tree is there to be measured; the caller decreases depth again."""
        self.depth += 1
        self.within(self.depth, self.token.start)

    # -- small pieces ------------------------------------------------------------------------------------------

    def string(self, token: Token) -> str:
        try:
            return unquote(token.text)
        except ValueError as error:
            raise self.error(str(error), token.start) from None

    def label_list(self, where: str) -> tuple[str, ...]:
        """The labels of `(a, b)`."""
        self.expect("(", where)
        labels: list[str] = []
        while not self.accept(")"):
            token = self.token
            if token.kind == STRING:
                label = self.string(token)
                if not valid_name(label):
                    raise self.error(f"invalid label name {token.text} in {where}", token.start)
            elif token.kind == NAME and IDENTIFIER.match(token.text):
                label = token.text
            else:
                raise self.unexpected(where, "label")
            self.advance()
            labels.append(label)
            if not self.sees(")"):
                self.expect(",", where)
        return tuple(labels)
