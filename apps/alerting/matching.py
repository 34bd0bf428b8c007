"""Matchers on the labels of alerts: Alertmanager's spelling, its JSON, and what they accept. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from apps.promql.errors import PromQLError
from apps.promql.source import Matcher
from apps.promql.source import accept as accept  # noqa: PLC0414  asked of alerts by whoever reads matchers here
from apps.promql.source import of_scope as of_scope  # noqa: PLC0414  the same
from apps.promql.text import quote

_MATCHER: Final = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*\Z", re.DOTALL)
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_ESCAPES: Final = {"n": "\n", '"': '"', "\\": "\\"}
MOST: Final = 50
"""Matchers of one silence, window or side of an inhibition rule."""
LONGEST: Final = 1000
"""Characters of a matcher's value: each is asked of every alert, and programs of RE2 grow with their pattern."""
_SIGNS: Final = {(True, False): "=", (False, False): "!=", (True, True): "=~", (False, True): "!~"}


class MatcherError(ValueError):
    """A matcher that cannot be read; says what is wrong with it."""


def parse_matcher(text: str) -> Matcher:
    """Read one matcher in Alertmanager's spelling; the quotes may be left out.

    >>> parse_matcher('service=~"db|web"')
    Matcher(name='service', op='=~', value='db|web')
    """
    found = _MATCHER.match(text)
    if found is None:
        raise MatcherError(f'{text!r} is no matcher: write a label, one of = != =~ !~, and a value in "quotes".')
    name, op, value = found.groups()
    if value.startswith('"'):
        if len(value) < 2 or not value.endswith('"'):
            raise MatcherError(f"{text!r} is no matcher: its closing quote is missing.")
        value = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), value[1:-1], flags=re.DOTALL)
    return checked(Matcher(name, op, value))  # type: ignore[arg-type]


def checked(matcher: Matcher) -> Matcher:
    """Return the matcher if it can be used: its pattern is RE2, of bounded length; MatcherError says why not."""
    if not _NAME.match(matcher.name):
        raise MatcherError(f"{matcher.name!r} is no label's name: letters, digits and _, no digit first.")
    if len(matcher.value) > LONGEST:
        raise MatcherError(f"The value for {matcher.name} has {len(matcher.value)} characters; at most {LONGEST}.")
    if "\x00" in matcher.value:
        raise MatcherError(f"The value for {matcher.name} holds a NUL character, which no label has.")
    try:
        matcher.matches("")
    except (PromQLError, ValueError) as error:
        spelled = f"{matcher.name}{matcher.op}{quote(matcher.value)}"
        raise MatcherError(f"{spelled} holds no regular expression that can be used: {error}") from None
    return matcher


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """Read matchers, one a line or in braces with commas between them: `{service="db", severity=~"error|critical"}`."""
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    # A comma parts matchers only outside of quotes.
    parts = re.findall(r'(?:[^,\n"]|"(?:[^"\\]|\\.)*")+', text, flags=re.DOTALL)
    return tuple(parse_matcher(part) for part in parts if part.strip())


def from_json(rows: Any) -> tuple[Matcher, ...]:
    """Read Alertmanager's matchers, [{"name", "value", "isRegex", "isEqual"}, …], or the same spelled as text."""
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        raise MatcherError('Matchers are a list: [{"name": "service", "value": "db", "isRegex": false}].')
    if len(rows) > MOST:
        raise MatcherError(f"{len(rows)} matchers; at most {MOST}.")
    return tuple(_one(row) for row in rows)


def _one(row: Any) -> Matcher:
    if isinstance(row, str):
        return parse_matcher(row)
    if not isinstance(row, Mapping) or not isinstance(row.get("name"), str) or not isinstance(row.get("value"), str):
        raise MatcherError(f"{str(row)[:200]} is no matcher: it needs a name and a value, both text.")
    is_equal = row.get("isEqual")
    sign = _SIGNS[is_equal is None or bool(is_equal), bool(row.get("isRegex"))]
    return checked(Matcher(row["name"], sign, row["value"]))  # type: ignore[arg-type]


def to_json(matchers: Iterable[Matcher]) -> list[dict[str, Any]]:
    """Return the matchers as Alertmanager's API has them; this is also how rows keep them."""
    return [
        {"name": m.name, "value": m.value, "isRegex": m.op in ("=~", "!~"), "isEqual": m.op in ("=", "=~")}
        for m in matchers
    ]


def equals(name: str, value: str) -> Matcher:
    """Return the matcher name="value"."""
    return Matcher(name, "=", value)


def spelled(matchers: Iterable[Matcher]) -> str:
    """Return the matchers as people write them: service="db", severity=~"error|critical"."""
    return ", ".join(f"{m.name}{m.op}{quote(m.value)}" for m in matchers)


def accept_anything(matchers: Sequence[Matcher]) -> bool:
    """Whether they would accept an alert without any label: Alertmanager refuses such silences."""
    return all(matcher.matches("") for matcher in matchers)
