"""Puts a dashboard's variables into its expressions, so that no value can change what an expression means. Pure.

Within quotes a value becomes a part of the string; behind =~ and !~ it is a literal of the regular expression, several
values are alternatives. Outside of quotes only what is a name, a number or a duration may stand.
"""

import re
from collections.abc import Mapping
from typing import Final

from apps.core.text import exactly
from apps.dashboards.document import INTERVAL, Variable
from apps.dashboards.timespan import Span
from apps.promql.text import quote

ALL: Final = "$__all"
MOST_CHOSEN: Final = 100
LONGEST_VALUE: Final = 2_000
Values = Mapping[str, tuple[str, ...]]

REFERENCE: Final = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
PLAIN: Final = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*|[0-9]+(?:\.[0-9]+)?")
LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BadVariable(ValueError):
    """A variable cannot stand where it stands with the value that it has."""


def chosen(variables: tuple[Variable, ...], given: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Return the values in force: those of `var-name` in the address (bounded), else the dashboard's own."""
    found: dict[str, tuple[str, ...]] = {}
    for variable in variables:
        asked = [value[:LONGEST_VALUE] for value in given.get(f"var-{variable.name}", [])]
        values = tuple(dict.fromkeys(asked))[:MOST_CHOSEN] if variable.kind != "constant" else ()
        if ALL in values:
            values = (ALL,)
        values = values or variable.values or variable.options[:1] or ((ALL,) if variable.all else ())
        found[variable.name] = values if variable.multi or not values else values[:1]
    return found


def built_in(span: Span) -> dict[str, tuple[str, ...]]:
    """Return what every dashboard has: $__interval, $__rate_interval, $__range and the portal's $window and $range."""
    step, length = int(span.step.total_seconds()), max(60, int((span.end - span.begin).total_seconds()))
    return {
        "__interval": (f"{step}s",),
        "__interval_ms": (str(step * 1000),),
        "__rate_interval": (span.window,),
        "__range": (f"{length}s",),
        "__range_s": (str(length),),
        "window": (span.window,),
        "range": (f"{length}s",),
    }


def fill_text(text: str, values: Values) -> str:
    """Put values into a title or a legend."""
    return REFERENCE.sub(lambda found: _said(found[0], values.get(found[1] or found[2])), text)


def _said(whole: str, values: tuple[str, ...] | None) -> str:
    return whole if values is None else "All" if values == (ALL,) else " + ".join(values)


def fill(expression: str, values: Values) -> str:
    """Put values into a PromQL expression; names that are no variables stay. Raises BadVariable."""
    parts: list[str] = []
    at, size = 0, len(expression)
    while at < size:
        char = expression[at]
        if char in "\"'`":
            end = _string_end(expression, at)
            parts.append(_string(expression[at:end], "".join(parts), values))
            at = end
        elif char == "#":
            end = expression.find("\n", at)
            end = size if end < 0 else end
            parts.append(expression[at:end])
            at = end
        elif char == "$" and (found := REFERENCE.match(expression, at)) and (found[1] or found[2]) in values:
            name = found[1] or found[2]
            parts.append(_bare(name, values[name]))
            at = found.end()
        else:
            parts.append(char)
            at += 1
    return "".join(parts)


def _string_end(text: str, at: int) -> int:
    """Return where the string literal that begins here is over."""
    mark, here = text[at], at + 1
    while here < len(text):
        if text[here] == "\\" and mark != "`":
            here += 2
            continue
        if text[here] == mark:
            return here + 1
        here += 1
    return len(text)


def _string(literal: str, before: str, values: Values) -> str:
    """Return the literal with its variables filled in."""
    if not any((found[1] or found[2]) in values for found in REFERENCE.finditer(literal)):
        return literal
    is_pattern = before.rstrip().endswith(("=~", "!~"))
    mark = literal[0]

    def replace(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in values:
            return found[0]
        text = _pattern(values[name]) if is_pattern else _single(name, values[name])
        if mark == "`":
            if "`" in text:
                raise BadVariable(f"A value of ${name} holds a backtick, and the expression quotes with backticks.")
            return text
        inner = quote(text)[1:-1]
        return inner.replace('\\"', '"').replace("'", "\\'") if mark == "'" else inner

    return REFERENCE.sub(replace, literal)


def _pattern(values: tuple[str, ...]) -> str:
    if values == (ALL,):
        return ".*"
    found = "|".join(map(exactly, values))
    return found if len(values) == 1 else f"({found})"


def _single(name: str, values: tuple[str, ...]) -> str:
    if len(values) > 1 or values == (ALL,):
        raise BadVariable(f"${name} has several values here: match it with =~ instead of =.")
    return values[0] if values else ""


def _bare(name: str, values: tuple[str, ...]) -> str:
    """Return what may stand outside of quotes: one name, number or duration, or several labels between commas."""
    if len(values) > 1 and all(LABEL.fullmatch(value) for value in values):
        return ", ".join(values)
    if len(values) == 1 and (PLAIN.fullmatch(values[0]) or INTERVAL.fullmatch(values[0])):
        return values[0]
    raise BadVariable(f"${name} stands outside of quotes, where only a name, a number or a duration may stand.")
