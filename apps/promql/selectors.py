"""Reads vector selectors: a metric's name, matchers in braces, and which of them are errors."""

from typing import Final, cast

from apps.promql.ast import Selector
from apps.promql.cursor import Cursor
from apps.promql.errors import PromQLError
from apps.promql.labels import NAME
from apps.promql.lexer import NAME as IDENTIFIER
from apps.promql.lexer import OPERATOR, STRING, Token
from apps.promql.source import Matcher, MatchOp, compiled
from apps.promql.text import printable, valid_name

_WHERE: Final = "label matching"


def selector(cursor: Cursor, name: Token | None, *, needs_content: bool = True) -> Selector:
    """A selector after its name, or from its opening brace; `needs_content`: some matcher must refuse the empty
    string, or the selector would read everything."""
    start = name.start if name else cursor.token.start
    metric = name.text if name else None
    matchers = [] if name is None else [Matcher(NAME, "=", name.text)]
    if cursor.accept("{"):
        while not cursor.accept("}"):
            metric = _matcher(cursor, matchers, metric)
            if not cursor.sees("}"):
                cursor.expect(",", _WHERE)
    end = cursor.last_end()
    if needs_content and all(matcher.matches("") for matcher in matchers):
        raise cursor.error("vector selector must contain at least one non-empty matcher", start)
    cursor.count(start)
    return Selector(metric, tuple(matchers), start=start, end=end, in_front=name is not None)


def _matcher(cursor: Cursor, matchers: list[Matcher], metric: str | None) -> str | None:
    """Reads one matcher into the list; gives the metric's name where it is now known."""
    token = cursor.token
    if token.kind not in (IDENTIFIER, STRING) or (token.kind == IDENTIFIER and ":" in token.text):
        raise cursor.unexpected(_WHERE, 'identifier or "}"')
    cursor.advance()
    label = cursor.string(token) if token.kind == STRING else token.text
    if not valid_name(label):
        raise cursor.error(f"invalid label name {token.text} in {_WHERE}", token.start)
    if token.kind == STRING and (cursor.sees(",") or cursor.sees("}")):
        matchers.append(Matcher(NAME, "=", label))
        return _only_name(cursor, metric, label, token)
    op = cursor.token.text
    if cursor.token.kind != OPERATOR or op not in ("=", "!=", "=~", "!~"):
        raise cursor.unexpected(_WHERE, "label matching operator")
    cursor.advance()
    value = cursor.token
    if value.kind != STRING:
        raise cursor.unexpected(_WHERE, "string")
    cursor.advance()
    matcher = Matcher(label, cast(MatchOp, op), cursor.string(value))
    if printable(matcher.value) != matcher.value:
        raise cursor.error("the value of a label matcher must be UTF-8", value.start)
    matchers.append(matcher)
    if op in ("=~", "!~"):
        try:
            compiled(matcher.value)
        except PromQLError as error:
            raise cursor.error(error.message, value.start) from None
    if label == NAME and op == "=":
        return _only_name(cursor, metric, matcher.value, token)
    return metric


def _only_name(cursor: Cursor, metric: str | None, name: str, token: Token) -> str:
    if metric is not None:
        raise cursor.error(f'metric name must not be set twice: "{metric}" or "{name}"', token.start)
    return name
