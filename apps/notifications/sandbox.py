"""Texts of people with placeholders, in Jinja2's syntax and within a budget: no text loops for ever or grows too large.

Jinja2's sandbox keeps a template from reaching Python; it does not keep it from being endless. So here only the part
of the language that messages need exists: what a tree holds is looked through before it is compiled, every loop step,
function and value counts against a budget, and values are numbers, texts, and the lists and mappings that are offered.
The same text and values cost the same everywhere: no clock is asked.

Imported by those who have a template: it brings Jinja2 along. Pure.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import ChainableUndefined, TemplateError, TemplateSyntaxError, Undefined, meta, nodes, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from apps.core.quantities import quantity, span
from apps.notifications.wording import MOST_SOURCE

MOST_DEPTH: Final = 30
MOST_OUT: Final = 200_000
"""Characters of what comes out, and of any value on the way."""
MOST_NUMBER: Final = 10**15
MOST_RANGE: Final = 1_000
BUDGET: Final = 100_000
"""Parts of the template that are worked through, loops counted out; texts cost one for a hundred characters."""

PLAIN, HTML, JSON = "plain", "html", "json"


class TemplateRefused(Exception):
    """A template that cannot be used, or not with these values; the text is a sentence for whoever wrote it."""


class _Budget:
    """What is left of one rendering."""

    def __init__(self) -> None:
        self.left = BUDGET

    def take(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise TemplateRefused("The template does too much: shorten its loops.")


# --- What the language has -------------------------------------------------------------------------------------------
_STATEMENTS: Final = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign)
_EXPRESSIONS: Final = (
    nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Call,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Concat, nodes.Keyword,
    nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos, nodes.List,
    nodes.Tuple,
)  # fmt: skip
_TESTS: Final = ("defined", "undefined", "none", "number", "string", "odd", "even", "true", "false")
_LOOP: Final = ("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem")
_BUDGET: Final = "_budget"
"""Under this name the budget stands in a rendering's values; names with an underscore are refused in templates."""


def _sized(value: Any) -> Any:
    """Return a value that is neither too long nor too large; refuse others, whatever made them."""
    if isinstance(value, str) and len(value) > MOST_OUT:
        raise TemplateRefused(f"A text of the template grows beyond {MOST_OUT:,} characters.")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) > MOST_NUMBER:
        raise TemplateRefused("A number of the template grows too large.")
    return value


def _text(value: Any) -> str:
    """Return what is printed of a value."""
    match value:
        case Undefined() | None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6g}"
        case str() | int():
            return str(value)
        case _:
            raise TemplateRefused("A list or mapping cannot be printed: loop over it, or use | join or | tojson.")


def _join(value: Any, separator: str = "") -> str:
    parts = [_text(part) for part in value]
    if sum(map(len, parts)) + len(parts) * len(_text(separator)) > MOST_OUT:
        raise TemplateRefused(f"A text of the template grows beyond {MOST_OUT:,} characters.")
    return _text(separator).join(parts)


def _replace(value: Any, old: str, new: str) -> str:
    text, old, new = _text(value), _text(old), _text(new)
    if not old or len(text) + text.count(old) * len(new) > MOST_OUT:
        raise TemplateRefused("replace needs a text to look for, and its result must stay within bounds.")
    return text.replace(old, new)


def _truncate(value: Any, length: int = 255) -> str:
    text = _text(value)
    return text if len(text) <= length else text[: max(int(length) - 1, 0)] + "…"


def _round(value: Any, digits: int = 0) -> float | int:
    rounded = round(float(value), max(0, min(int(digits), 12)))
    return rounded if digits > 0 else int(rounded)


def _time(value: Any, form: str = "%Y-%m-%d %H:%M", zone: str = "UTC") -> str:
    """`starts_at | time("%H:%M", "Europe/Berlin")`."""
    if not _text(value):
        return ""
    try:
        at = datetime.fromisoformat(_text(value)).astimezone(ZoneInfo(_text(zone)))
        # Widths such as %1000000d are the C library's; only letters are let through.
        parts = _text(form)[:100].split("%")
        wrong = next((part for part in parts[1:] if part and part[0] not in "YmdHMSyjaAbBpIZz"), None)
        if wrong is not None:
            raise TemplateRefused(f"time does not know %{wrong[0]}: it knows Y m d H M S y j a A b B p I Z z.")
        return at.strftime("%".join(parts))
    except ZoneInfoNotFoundError:
        raise TemplateRefused(f"There is no time zone {_text(zone)[:60]!r}.") from None
    except (ValueError, OverflowError):
        return _text(value)


def _default(value: Any, other: Any = "", even_empty: bool = False) -> Any:
    return other if isinstance(value, Undefined) or value is None or (even_empty and not value) else value


def _length(value: Any) -> int:
    return 0 if isinstance(value, Undefined) or value is None else len(value)


def _tojson(value: Any) -> Markup:
    written = json.dumps(_jsonable(value), ensure_ascii=False, separators=(",", ":"))
    # Fit for HTML, too, as Jinja2's own: nothing in it can end a tag or an attribute.
    for letter in "<>&'":
        written = written.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(written)  # noqa: S704 - see above


def _jsonable(value: Any) -> Any:
    match value:
        case Undefined():
            return None
        case Mapping():
            return {str(key): _jsonable(part) for key, part in value.items()}
        case list() | tuple():
            return [_jsonable(part) for part in value]
        case float() if not math.isfinite(value):
            return None
        case str() | int() | float() | None:
            return value
        case _:
            raise TemplateRefused("tojson writes numbers, texts, lists and mappings.")


def _sorted(value: Any) -> list[Any]:
    return sorted(value, key=_text)


FILTERS: Final[dict[str, tuple[Callable[..., Any], str]]] = {
    "capitalize": (lambda value: _text(value).capitalize(), "first letter large, the others small"),
    "default": (_default, "`| default(\"–\")` in place of what is not there; with `true` of what is empty, too"),
    "duration": (lambda value: span(timedelta(seconds=min(float(value), 1e11))), "seconds in words: 3 h 20 min"),
    "first": (lambda value: next(iter(value), ""), "the first of a list"),
    "float": (float, "as a number"),
    "int": (lambda value: int(float(value)), "as a whole number"),
    "join": (_join, "`| join(\", \")` of a list's texts"),
    "last": (lambda value: value[-1] if value else "", "the last of a list"),
    "length": (_length, "how many; how long a text is"),
    "list": (list, "a mapping's names, a text's letters"),
    "lower": (lambda value: _text(value).lower(), "small letters"),
    "quantity": (lambda value, unit="": quantity(float(value), _text(unit)), "`value | quantity(unit)`: 93 %, 1.5 GiB"),
    "replace": (_replace, "`| replace(\"old\", \"new\")`"),
    "round": (_round, "`| round(1)`"),
    "sort": (_sorted, "a list by its texts"),
    "time": (_time, "`starts_at | time(\"%H:%M\", \"Europe/Berlin\")`"),
    "title": (lambda value: _text(value).title(), "each word large"),
    "tojson": (_tojson, "as JSON, quotes included"),
    "trim": (lambda value: _text(value).strip(), "without spaces around it"),
    "truncate": (_truncate, "`| truncate(80)`: at most so many characters"),
    "upper": (lambda value: _text(value).upper(), "large letters"),
}  # fmt: skip
"""Filters by name: what they do with a value, and what the docs say."""

METHODS: Final[dict[type, dict[str, Callable[..., Any]]]] = {
    dict: {
        "items": lambda own: list(own.items()),
        "keys": list,
        "values": lambda own: list(own.values()),
        "get": lambda own, name, other="": own.get(name, other),
    },
    str: {
        "endswith": lambda own, end: own.endswith(_text(end)),
        "lower": str.lower,
        "split": lambda own, by=None: own.split(_text(by) or None),
        "splitlines": lambda own: own.splitlines(),
        "startswith": lambda own, begin: own.startswith(_text(begin)),
        "strip": lambda own: own.strip(),
        "upper": str.upper,
    },
}
"""What can be called on a value."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """The language: attributes are items of mappings, functions those of METHODS and FILTERS, numbers stay small."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, kind: str) -> None:
        super().__init__(
            autoescape=kind == HTML,
            undefined=ChainableUndefined,
            finalize=_json_part if kind == JSON else _part,
            optimized=False,
            cache_size=0,
        )
        self.filters = {name: _counted(function) for name, (function, _) in FILTERS.items()}
        self.filters |= {"_steps": _steps, "_joined": _counted(lambda first, *rest: _join([first, *rest]))}
        self.tests = {name: test for name, test in self.tests.items() if name in _TESTS}
        self.globals = {}

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in _LOOP:
            return getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            if isinstance(obj, Mapping) and isinstance(argument, (str, int)):
                return obj[argument]
            if isinstance(obj, (list, tuple, str)) and isinstance(argument, int):
                return obj[argument]
        except LookupError:
            pass
        return self.undefined(obj=obj, name=argument)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        if obj not in (self.method, self.counted_range):
            raise TemplateRefused("The template calls what is no function here.")
        context[_BUDGET].take(1 + sum(len(value) for value in args if isinstance(value, (str, list))) // 100)
        return _sized(obj(*args))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return _join([left, right])
        numbers = all(isinstance(side, (int, float)) for side in (left, right))
        if operator == "**" or not numbers:
            raise TemplateRefused(f"{operator} is for numbers; texts are joined with ~.")
        return _sized(super().call_binop(context, operator, left, right))

    def method(self, own: Any, name: str, *args: Any) -> Any:
        """Call what stands behind `own.name(…)`."""
        function = METHODS.get(str if isinstance(own, str) else dict if isinstance(own, Mapping) else object, {}).get(
            name
        )
        if isinstance(own, Undefined):
            return self.undefined(name=name)
        if function is None:
            raise TemplateRefused(f".{name}() is no function of this value.")
        return function(own, *args)

    def counted_range(self, *args: Any) -> range:
        """`range` as far as a message needs it."""
        found = range(*(int(part) for part in args))
        if len(found) > MOST_RANGE:
            raise TemplateRefused(f"range counts up to {MOST_RANGE:,}.")
        return found


@pass_context
def _part(context: Context, value: Any) -> Any:
    """What is printed of a value in a text; in HTML the environment escapes it then."""
    context[_BUDGET].take(1 + (len(value) // 100 if isinstance(value, str) else 0))
    return value if isinstance(value, Markup) else _text(_sized(value))


@pass_context
def _json_part(context: Context, value: Any) -> Any:
    """What is printed of a value between the quotes of a JSON text; what `tojson` wrote stays."""
    part = _part(context, value)
    return str(part) if isinstance(part, Markup) else json.dumps(part, ensure_ascii=False)[1:-1]


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    @pass_context
    def call(context: Context, *args: Any, **kwargs: Any) -> Any:
        sizes = sum(len(value) for value in args if isinstance(value, (str, list, tuple, Mapping)))
        context[_BUDGET].take(1 + sizes // 100)
        return _sized(function(*args, **kwargs))

    return call


@pass_context
def _steps(context: Context, values: Any, weight: int) -> Iterator[Any]:
    """Go through a list; each step costs what stands in the loop."""
    budget: _Budget = context[_BUDGET]
    if isinstance(values, Undefined) or values is None:
        return
    for value in values:
        budget.take(weight)
        yield value


# --- From text to a template that can be rendered --------------------------------------------------------------------
_ALONE: Final = re.compile(r"^[ \t]*((?:\{%(?:[^%\n]|%(?!\}))*%\}[ \t]*)+)\n", re.MULTILINE)
"""A line with nothing but tags: it leaves no empty line behind. A tag at the end of a text keeps the line's end."""
_SANDBOXES: Final = {kind: _Sandbox(kind) for kind in (PLAIN, HTML, JSON)}


def parsed(source: str) -> nodes.Template:
    """Return the tree of a text; TemplateRefused says in which line what is wrong."""
    if len(source) > MOST_SOURCE:
        raise TemplateRefused(f"The template has {len(source):,} characters; {MOST_SOURCE:,} are allowed.")
    try:
        tree = _SANDBOXES[PLAIN].parse(source)
    except TemplateSyntaxError as error:
        raise TemplateRefused(f"Line {error.lineno}: {str(error.message).rstrip('.')}.") from None
    except (RecursionError, MemoryError, ValueError, OverflowError):
        raise TemplateRefused("The template is nested too deeply, or holds a number that is too long.") from None
    _look_through(tree)
    return tree


def names_in(source: str) -> frozenset[str]:
    """Return the variables that a text asks for, those that it sets itself left out."""
    found = meta.find_undeclared_variables(parsed(source))
    return frozenset(found - {"range"})


def _look_through(tree: nodes.Template) -> None:
    """Refuse what the language does not have, before any of it is compiled."""
    waiting: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if wrong := "it is nested too deeply" if depth > MOST_DEPTH else _problem(node):
            raise TemplateRefused(f"Line {node.lineno or 1}: {wrong}.")
        waiting += [(child, depth + 1) for child in node.iter_child_nodes()]


def _problem(node: nodes.Node) -> str:
    """Return what is wrong with one part, or nothing."""
    match node:
        case nodes.For(recursive=True):
            return "loops that call themselves are not offered here"
        case nodes.Assign() if not isinstance(node.target, nodes.Name):
            return "set gives a value to one name"
        case nodes.Filter() if node.name not in FILTERS:
            return f"there is no filter {node.name!r}; there are {', '.join(FILTERS)}"
        case nodes.Test() if node.name not in _TESTS:
            return f"there is no test {node.name!r}; there are {', '.join(_TESTS)}"
        case nodes.Filter() | nodes.Call() | nodes.Test() if node.dyn_args or node.dyn_kwargs:
            return "* and ** are not offered here"
        case nodes.Filter(node=None):
            return "filter blocks are not offered here"
        case nodes.Call() if node.kwargs:
            return "functions take no named values"
        case nodes.Call() if not isinstance(node.node, nodes.Getattr) and not (
            isinstance(node.node, nodes.Name) and node.node.name == "range"
        ):
            return "there is no such function"
        case nodes.Name() if node.name.startswith("_"):
            return f"there is no variable {node.name!r}"
        case nodes.Getattr() if node.attr.startswith("_"):
            return f"there is no {node.attr!r}"
        case nodes.List() | nodes.Tuple() if getattr(node, "ctx", "load") == "load" and any(
            not isinstance(item, nodes.Const) for item in node.items
        ):
            return "a list of a template holds texts and numbers only"
        case nodes.Const() if isinstance(node.value, (int, float)) and abs(node.value) > MOST_NUMBER:
            return "a number is too large"
    known = isinstance(node, (*_STATEMENTS, *_EXPRESSIONS))
    return "" if known else f"{type(node).__name__.lower()} is not offered here"


def _bounded(tree: nodes.Template) -> nodes.Template:
    """Let loops, functions and joined texts of a tree that was looked through go by way of the budget."""
    _rewrite(tree)
    return tree


def _rewrite(node: nodes.Node) -> None:
    for name, field in list(node.iter_fields()):
        if isinstance(field, nodes.Node):
            _rewrite(field)
            setattr(node, name, _bound(field))
        elif isinstance(field, list):
            for child in field:
                if isinstance(child, nodes.Node):
                    _rewrite(child)
            setattr(node, name, [_bound(child) if isinstance(child, nodes.Node) else child for child in field])
    if isinstance(node, nodes.For):
        weight = nodes.Const(1 + _count(node), lineno=node.lineno)
        node.iter = nodes.Filter(node.iter, "_steps", [weight], [], None, None, lineno=node.lineno)


def _bound(node: nodes.Node) -> nodes.Node:
    line = node.lineno
    if isinstance(node, nodes.Call):
        if isinstance(node.node, nodes.Getattr):
            given = [node.node.node, nodes.Const(node.node.attr, lineno=line), *node.args]
            return nodes.Call(nodes.EnvironmentAttribute("method", lineno=line), given, [], None, None, lineno=line)
        return nodes.Call(
            nodes.EnvironmentAttribute("counted_range", lineno=line), node.args, [], None, None, lineno=line
        )
    if isinstance(node, nodes.Concat):
        return nodes.Filter(node.nodes[0], "_joined", list(node.nodes[1:]), [], None, None, lineno=line)
    return node


def _count(node: nodes.Node) -> int:
    return sum(1 for _ in node.find_all(nodes.Node))


@lru_cache(maxsize=256)
def _compiled(source: str, kind: str) -> Any:
    # The parser asks only for the syntax, in which the three do not differ.
    tree = _bounded(parsed(_ALONE.sub(r"\1", source)))
    sandbox = _SANDBOXES[kind]
    tree.set_environment(sandbox)
    try:
        return sandbox.from_string(tree)
    except TemplateError as error:
        raise TemplateRefused(f"The template cannot be compiled: {error}.") from None
    except (RecursionError, MemoryError, SyntaxError):
        raise TemplateRefused("The template is nested too deeply.") from None


def render(source: str, values: Mapping[str, Any], kind: str = PLAIN) -> str:
    """Return the text with the values in it; what is not there is empty. TemplateRefused says why it cannot be.

    kind: PLAIN prints values as they are, HTML escapes each, JSON escapes each for the inside of a JSON text.
    """
    template = _compiled(source, kind)
    parts: list[str] = []
    length = 0
    try:
        context = template.new_context({**values, _BUDGET: _Budget()})
        for part in template.root_render_func(context):
            length += len(part)
            if length > MOST_OUT:
                raise TemplateRefused(f"The text grows beyond {MOST_OUT:,} characters.")
            parts.append(part)
    except TemplateRefused:
        raise
    except (TemplateError, RecursionError) as error:
        raise TemplateRefused(f"It cannot be written: {str(error)[:200] or type(error).__name__}.") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise TemplateRefused(f"It cannot be written with these values: {str(error)[:200]}.") from None
    return "".join(parts)
