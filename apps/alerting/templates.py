"""Expands the templates of alert labels and annotations: the subset of Go's text/template that rules use.

A small interpreter of its own, with an upper bound on everything: steps, output, depth, queries. What cannot be
expanded becomes the text that Prometheus would show in its place, never an exception: no alert is lost over its words.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeAlias

from apps.alerting.template_functions import (
    FUNCTIONS,
    Sample,
    TemplateError,
    Value,
    size,
    to_text,
    truth,
    type_name,
    written,
)

MAX_TEXT: Final = 64_000
"""Characters of a template, and of what it expands to."""
MAX_STEPS: Final = 20_000
"""Nodes that one expansion may visit."""
MAX_DEPTH: Final = 50
MAX_QUERIES: Final = 10

Query: TypeAlias = Callable[[str], Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Context:
    """What a template sees: the alert's labels and value, when it is, and how to ask the store."""

    labels: Mapping[str, str]
    value: float
    now: datetime
    query: Query | None = None
    external_url: str = ""
    external_labels: Mapping[str, str] = field(default_factory=dict)


def expand(text: str, context: Context, *, name: str = "") -> str:
    """Return the expanded text; what fails becomes `<error expanding template: …>` as in Prometheus."""
    if "{{" not in text:
        return text
    full = f"__alert_{name}"
    try:
        body, defined = parse(text)
    except TemplateError as error:
        return f"<error expanding template: error parsing template {full}: template: {full}:{error}>"
    try:
        return _Run(context, defined).expand(body)
    except TemplateError as error:
        return f"<error expanding template: error executing template {full}: template: {full}:{error}>"
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, _Left) as error:
        # Whatever a template finds to break on must not stop its rule, let alone the other rules of the group.
        return f"<error expanding template: error executing template {full}: {type(error).__name__}>"


def check(text: str) -> str:
    """Return what is wrong with a template's grammar, or the empty string."""
    try:
        parse(text)
    except TemplateError as error:
        return f"line {error}"
    return ""


def functions(text: str) -> set[str]:
    """Names of the functions that a template calls; none where it cannot be read."""
    if "{{" not in text:
        return set()
    try:
        body, defined = parse(text)
    except TemplateError:
        return set()
    found: set[str] = set()
    left: list[object] = [body, *defined.values()]
    while left:
        node = left.pop()
        if isinstance(node, Call) and node.name:
            found.add(node.name)
        if isinstance(node, tuple):
            left += node
        elif is_dataclass(node):
            left += [getattr(node, part.name) for part in fields(node)]
    return found


# --- Grammar ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Const:
    """A literal."""

    value: Value


@dataclass(frozen=True, slots=True)
class Dot:
    """The current value `.`."""


@dataclass(frozen=True, slots=True)
class Variable:
    """`$name`; `$` alone is the data of the template."""

    name: str


@dataclass(frozen=True, slots=True)
class Fields:
    """`.a.b` behind something."""

    of: "Operand"
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A function, or an operand that stands alone (`name` empty), with arguments."""

    name: str
    arguments: tuple["Operand", ...]
    line: int


@dataclass(frozen=True, slots=True)
class Pipe:
    """Calls joined by |, optionally kept in variables."""

    calls: tuple[Call, ...]
    variables: tuple[str, ...] = ()
    declares: bool = True


Operand: TypeAlias = Const | Dot | Variable | Fields | Call | Pipe


@dataclass(frozen=True, slots=True)
class Show:
    """`{{ pipe }}`."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Branch:
    """if, with and range: one shape."""

    kind: str
    pipe: Pipe
    then: "Nodes"
    otherwise: "Nodes"


@dataclass(frozen=True, slots=True)
class Include:
    """`{{ template "name" pipe }}`."""

    name: str
    pipe: Pipe | None
    line: int


@dataclass(frozen=True, slots=True)
class Leave:
    """break or continue."""

    kind: str


Node: TypeAlias = str | Show | Branch | Include | Leave
Nodes: TypeAlias = tuple[Node, ...]

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<raw>`[^`]*`)
      | (?P<char>'(?:[^'\\\n]|\\.)')
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.]))
      | (?P<field>\.[A-Za-z_]\w*)
      | (?P<variable>\$\w*)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<sign>:=|[=|(),.])
    """,
    re.X,
)
_ENDING: Final = re.compile(r"[ \t\r\n]+-\}\}|\}\}")
_COMMENT: Final = re.compile(r"\s*/\*.*?\*/(\s+-)?\}\}", re.S)
_KEYWORDS: Final = frozenset({"if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"})
_WORDS: Final = {"true": True, "false": False, "nil": None}
_AROUND: Final = frozenset({"and", "or", "query", "now", "externalURL", "pathPrefix"})

Token: TypeAlias = tuple[str, str]


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[Nodes, Mapping[str, Nodes]]:
    """Return (body, defined templates); TemplateError says "line: what"."""
    if len(text) > MAX_TEXT:
        raise TemplateError(f"1: the template is longer than {MAX_TEXT} characters")
    return _Parser(_pieces(text)).whole()


def _pieces(text: str) -> list[tuple[int, str | list[Token]]]:
    """Cut into (line, text) and (line, tokens of one action); trim markers and comments are gone."""
    out: list[tuple[int, str | list[Token]]] = []
    at, trim = 0, False
    while True:
        start = text.find("{{", at)
        plain = text[at:] if start < 0 else text[at:start]
        if trim:
            plain = plain.lstrip(" \t\r\n")
        begin = start + 2
        if start >= 0 and text[begin : begin + 1] == "-" and text[begin + 1 : begin + 2] in (" ", "\t", "\r", "\n"):
            plain, begin = plain.rstrip(" \t\r\n"), begin + 1
        if plain:
            out.append((text.count("\n", 0, at) + 1, plain))
        if start < 0:
            return out
        line = text.count("\n", 0, start) + 1
        tokens, at, trim = _action(text, begin, line)
        if tokens is not None:
            out.append((line, tokens))


def _action(text: str, at: int, line: int) -> tuple[list[Token] | None, int, bool]:
    """Return (tokens, or None for a comment; where the text goes on; whether space after it is trimmed)."""
    comment = _COMMENT.match(text, at)
    if comment:
        return None, comment.end(), comment.group(1) is not None
    tokens: list[Token] = []
    while at < len(text):
        ending = _ENDING.match(text, at)
        if ending:
            return tokens, ending.end(), ending.group() != "}}"
        found = _TOKEN.match(text, at)
        if found is None:
            if text[at] in "\"`'":
                raise TemplateError(f"{line}: unterminated quoted string")
            raise TemplateError(f"{line}: unexpected {text[at]!r} in action")
        tokens.append((str(found.lastgroup), found.group()))
        at = found.end()
    raise TemplateError(f"{line}: unclosed action")


class _Parser:
    """Recursive descent over pieces, one action at a time."""

    def __init__(self, pieces: list[tuple[int, str | list[Token]]]) -> None:
        self.pieces = pieces
        self.at = 0
        self.line = 1
        self.defined: dict[str, Nodes] = {}
        self.variables: list[str] = ["$", "$labels", "$externalLabels", "$externalURL", "$value"]
        self.loops = 0
        self.depth = 0

    def whole(self) -> tuple[Nodes, Mapping[str, Nodes]]:
        body, ended = self.block()
        if ended:
            raise TemplateError(f"{self.line}: unexpected {{{{{ended[0][1]}}}}}")
        return body, self.defined

    def block(self) -> tuple[Nodes, list[Token]]:
        """Nodes up to {{end}} or {{else …}}, and that action's tokens (empty at the end of the text)."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TemplateError(f"{self.line}: nested deeper than {MAX_DEPTH}")
        nodes: list[Node] = []
        known = len(self.variables)
        while self.at < len(self.pieces):
            self.line, piece = self.pieces[self.at]
            self.at += 1
            if isinstance(piece, str):
                nodes.append(piece)
                continue
            tokens = _spaced(piece)
            if not tokens:
                raise TemplateError(f"{self.line}: missing value for command")
            word = tokens[0][1] if tokens[0][0] == "word" else ""
            if word in ("end", "else"):
                del self.variables[known:]
                self.depth -= 1
                return tuple(nodes), tokens
            if (node := self.statement(word, tokens)) is not None:
                nodes.append(node)
        del self.variables[known:]
        self.depth -= 1
        return tuple(nodes), []

    def statement(self, word: str, tokens: list[Token]) -> Node | None:
        if word in ("if", "with", "range"):
            return self.branch(word, tokens[1:])
        if word in ("define", "template"):
            if len(tokens) < 2 or tokens[1][0] not in ("string", "raw"):
                raise TemplateError(f"{self.line}: unexpected input in {word} clause")
            name = _unquote(tokens[1], self.line)
            if word == "template":
                return Include(name, self.pipe(tokens[2:]) if tokens[2:] else None, self.line)
            outside, self.variables = self.variables, ["$"]
            self.defined[name] = self.closed("define")
            self.variables = outside
            return None
        if word in ("break", "continue"):
            if not self.loops:
                raise TemplateError(f"{self.line}: {{{{{word}}}}} outside {{{{range}}}}")
            return Leave(word)
        if word in _KEYWORDS:
            raise TemplateError(f"{self.line}: {word} is not supported in alert templates")
        return Show(self.pipe(tokens))

    def closed(self, what: str) -> Nodes:
        line = self.line
        nodes, ended = self.block()
        if not ended:
            raise TemplateError(f"{line}: unexpected EOF: {{{{{what}}}}} has no {{{{end}}}}")
        if ended[0][1] == "else":
            raise TemplateError(f"{self.line}: unexpected {{{{else}}}}")
        return nodes

    def branch(self, kind: str, tokens: list[Token]) -> Branch:
        known, line = len(self.variables), self.line
        pipe = self.pipe(tokens, ranged=kind == "range")
        self.loops += kind == "range"
        then, ended = self.block()
        self.loops -= kind == "range"
        otherwise: Nodes = ()
        if not ended:
            raise TemplateError(f"{line}: unexpected EOF: {{{{{kind}}}}} has no {{{{end}}}}")
        if ended[0][1] == "else":
            if len(ended) > 1 and ended[1][1] in ("if", "with") and kind in ("if", "with"):
                otherwise = (self.branch(ended[1][1], ended[2:]),)
            elif len(ended) > 1:
                raise TemplateError(f"{self.line}: unexpected {ended[1][1]!r} after else")
            else:
                otherwise = self.closed(kind)
        del self.variables[known:]
        return Branch(kind, pipe, then, otherwise)

    def pipe(self, tokens: list[Token], *, ranged: bool = False) -> Pipe:
        names: list[str] = []
        declares = True
        sign = next((n for n, token in enumerate(tokens[:4]) if token in (("sign", ":="), ("sign", "="))), None)
        if sign is not None:
            declares = tokens[sign][1] == ":="
            names = [text for kind, text in tokens[:sign] if kind == "variable"]
            shape = [text if kind == "sign" else kind for kind, text in tokens[:sign]]
            if shape != ["variable"] and not (ranged and shape == ["variable", ",", "variable"]):
                raise TemplateError(f"{self.line}: unexpected {tokens[sign][1]!r} in action")
            if not declares and (unknown := [name for name in names if name not in self.variables]):
                raise TemplateError(f'{self.line}: undefined variable "{unknown[0]}"')
            tokens = tokens[sign + 1 :]
        reader = _Expression(self, tokens)
        calls = reader.calls()
        if reader.tokens:
            raise TemplateError(f"{self.line}: unexpected {reader.tokens[0][1]!r} in action")
        if declares:
            self.variables += names
        return Pipe(tuple(calls), tuple(names), declares)


class _Expression:
    """Commands of one action."""

    def __init__(self, parser: _Parser, tokens: list[Token]) -> None:
        self.parser = parser
        self.line = parser.line
        self.tokens = list(tokens)

    def calls(self, depth: int = 0) -> list[Call]:
        if depth > MAX_DEPTH:
            raise TemplateError(f"{self.line}: nested deeper than {MAX_DEPTH}")
        out = [self.call(depth)]
        while self.tokens and self.tokens[0] == ("sign", "|"):
            self.tokens.pop(0)
            out.append(self.call(depth))
            if not out[-1].name:
                raise TemplateError(f"{self.line}: non executable command in pipeline stage {len(out)}")
        return out

    def call(self, depth: int) -> Call:
        name = ""
        if self.tokens and self.tokens[0][0] == "word" and self.tokens[0][1] not in _WORDS:
            name = self.tokens.pop(0)[1]
            if name not in FUNCTIONS and name not in _AROUND:
                raise TemplateError(f'{self.line}: function "{name}" not defined')
        arguments = []
        while self.tokens and self.tokens[0] not in (("sign", "|"), ("sign", ")")):
            arguments.append(self.operand(depth))
        if not name and not arguments:
            raise TemplateError(f"{self.line}: missing value for command")
        method = arguments[0].names[-1] if arguments and isinstance(arguments[0], Fields) else ""
        if not name and len(arguments) > 1 and method not in _METHODS:
            raise TemplateError(f"{self.line}: can't give argument to non-function {_shape(arguments[0])}")
        return Call(name, tuple(arguments), self.line)

    def operand(self, depth: int) -> Operand:
        found = self.single(depth)
        names = []
        while self.tokens and self.tokens[0][0] == "chain":
            names.append(self.tokens.pop(0)[1][1:])
        if not names:
            return found
        return (
            Fields(found.of, found.names + tuple(names)) if isinstance(found, Fields) else Fields(found, tuple(names))
        )

    def single(self, depth: int) -> Operand:
        kind, text = self.tokens.pop(0)
        if kind in ("string", "raw"):
            return Const(_unquote((kind, text), self.line))
        if kind == "char":
            return Const(ord(_unquote((kind, text), self.line)))
        if kind == "number":
            return Const(_number(text, self.line))
        if kind == "word":
            if text in _WORDS:
                return Const(_WORDS[text])
            if text in FUNCTIONS or text in _AROUND:
                return Call(text, (), self.line)
            raise TemplateError(f'{self.line}: function "{text}" not defined')
        if kind == "variable":
            if text not in self.parser.variables:
                raise TemplateError(f'{self.line}: undefined variable "{text}"')
            return Variable(text)
        if kind == "field":
            return Fields(Dot(), (text[1:],))
        if text == ".":
            return Dot()
        if text == "(":
            inner = Pipe(tuple(self.calls(depth + 1)))
            if not self.tokens or self.tokens.pop(0) != ("sign", ")"):
                raise TemplateError(f"{self.line}: unclosed left paren")
            return inner
        raise TemplateError(f"{self.line}: unexpected {text!r} in operand")


def _spaced(tokens: list[Token]) -> list[Token]:
    """Without spaces; a field that touches what stands before it is a chain on that."""
    out: list[Token] = []
    touching = False
    for kind, text in tokens:
        if kind == "space":
            touching = False
            continue
        chained = kind == "field" and touching and out and (out[-1][0] != "sign" or out[-1][1] == ")")
        out.append(("chain" if chained else kind, text))
        touching = True
    return out


_ESCAPES: Final = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)")


def _unquote(token: Token, line: int) -> str:
    kind, text = token
    if kind == "raw":
        return text[1:-1].replace("\r", "")

    def one(found: re.Match[str]) -> str:
        code = found.group(1)
        if code[0] in "xuU" and len(code) > 1:
            return chr(min(int(code[1:], 16), 0x10FFFF))
        if code[0] in "01234567" and len(code) == 3:
            return chr(int(code, 8))
        if code not in _ESCAPES:
            raise TemplateError(f"{line}: invalid syntax in string {text}")
        return _ESCAPES[code]

    return _ESCAPE.sub(one, text[1:-1])


def _number(text: str, line: int) -> int | float:
    try:
        return int(text.replace("_", ""), 0) if re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|[\d_]+)", text) else float(text)
    except ValueError:
        raise TemplateError(f"{line}: bad number syntax: {text!r}") from None


def _shape(operand: Operand) -> str:
    match operand:
        case Const(value):
            return json.dumps(value) if isinstance(value, str) else written(value)
        case Variable(name):
            return name
        case Fields(of, names):
            return (_shape(of) if not isinstance(of, Dot) else "") + "".join(f".{name}" for name in names)
        case Call(name):
            return name
    return "."


# --- Execution --------------------------------------------------------------------------------------------------

_METHODS: Final = frozenset({"Format", "Unix", "UTC"})
_GO_TIME: Final = {
    "2006": "%Y",
    "January": "%B",
    "Jan": "%b",
    "01": "%m",
    "02": "%d",
    "15": "%H",
    "03": "%I",
    "04": "%M",
    "05": "%S",
    "PM": "%p",
    "Monday": "%A",
    "Mon": "%a",
    "MST": "UTC",
    "-0700": "+0000",
    "Z07:00": "Z",
}
_GO_TIME_PART: Final = re.compile("|".join(re.escape(part) for part in _GO_TIME))


class _Left(Exception):
    """break or continue on its way to its range."""


class _Run:
    """One expansion: variables, budget, output."""

    def __init__(self, context: Context, defined: Mapping[str, Nodes]) -> None:
        self.context = context
        self.defined = defined
        self.data = {
            "Labels": dict(context.labels),
            "ExternalLabels": dict(context.external_labels),
            "ExternalURL": context.external_url,
            "Value": context.value,
        }
        self.scopes: list[dict[str, Value]] = [
            {
                "$": self.data,
                "$labels": self.data["Labels"],
                "$externalLabels": self.data["ExternalLabels"],
                "$externalURL": context.external_url,
                "$value": context.value,
            }
        ]
        self.out: list[str] = []
        self.length = self.steps = self.queries = self.depth = 0

    def expand(self, nodes: Nodes) -> str:
        try:
            self.nodes(nodes, self.data)
        except RecursionError:
            raise TemplateError("1: nested too deeply") from None
        return "".join(self.out)

    def tick(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise TemplateError(f"1: took more than {MAX_STEPS} steps")

    def weigh(self, values: list[Value], line: int) -> None:
        """Bound what a call is given, and so what variables can grow to, and count work on much as many steps."""
        held = 0
        for value in values:
            held += size(value, MAX_TEXT)
            if held > MAX_TEXT:
                raise TemplateError(f"{line}: a call is given more than {MAX_TEXT} characters or samples")
        self.steps += held // 100

    def write(self, text: str) -> None:
        self.length += len(text)
        if self.length > MAX_TEXT:
            raise TemplateError(f"1: expands to more than {MAX_TEXT} characters")
        self.out.append(text)

    def nodes(self, nodes: Nodes, dot: Value) -> None:
        self.scopes.append({})
        try:
            for node in nodes:
                self.node(node, dot)
        finally:
            self.scopes.pop()

    def node(self, node: Node, dot: Value) -> None:
        self.tick()
        match node:
            case str():
                self.write(node)
            case Show(pipe):
                value = self.pipe(pipe, dot)
                if not pipe.variables:
                    self.write(written(value))
            case Branch():
                self.branch(node, dot)
            case Include():
                self.include(node, dot)
            case Leave(kind):
                raise _Left(kind)

    def branch(self, node: Branch, dot: Value) -> None:
        self.scopes.append({})
        try:
            if node.kind == "range":
                self.loop(node, dot)
                return
            value = self.pipe(node.pipe, dot)
            inner = value if node.kind == "with" else dot
            if truth(value):
                self.nodes(node.then, inner)
            else:
                self.nodes(node.otherwise, dot)
        finally:
            self.scopes.pop()

    def loop(self, node: Branch, dot: Value) -> None:
        value = self.pipe(Pipe(node.pipe.calls), dot)
        if isinstance(value, dict):
            items = [(key, value[key]) for key in sorted(value)]
        elif isinstance(value, list):
            items = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            items = [(n, n) for n in range(min(value, MAX_STEPS))]
        elif value is None:
            items = []
        else:
            raise TemplateError(f"{node.pipe.calls[0].line}: range can't iterate over {written(value)}")
        names = node.pipe.variables
        for key, item in items:
            self.tick()
            if names:
                self.bind(names[-1], item, node.pipe.declares)
                if len(names) == 2:
                    self.bind(names[0], key, node.pipe.declares)
            try:
                self.nodes(node.then, item)
            except _Left as left:
                if left.args[0] == "break":
                    return
        if not items:
            self.nodes(node.otherwise, dot)

    def include(self, node: Include, dot: Value) -> None:
        if node.name not in self.defined:
            raise TemplateError(f'{node.line}: template "{node.name}" not defined')
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TemplateError(f"{node.line}: templates nested deeper than {MAX_DEPTH}")
        data = None if node.pipe is None else self.pipe(node.pipe, dot)
        outside, self.scopes = self.scopes, [{"$": data}]
        try:
            self.nodes(self.defined[node.name], data)
        finally:
            self.scopes = outside
            self.depth -= 1

    def bind(self, name: str, value: Value, declares: bool) -> None:
        if declares:
            self.scopes[-1][name] = value
            return
        for scope in reversed(self.scopes):
            if name in scope:
                scope[name] = value
                return

    def pipe(self, pipe: Pipe, dot: Value) -> Value:
        value: Value = None
        for number, call in enumerate(pipe.calls):
            value = self.call(call, dot, [value] if number else [])
        for name in pipe.variables:
            self.bind(name, value, pipe.declares)
        return value

    def call(self, call: Call, dot: Value, piped: list[Value]) -> Value:
        self.tick()
        if not call.name:
            return self.operand(call.arguments[0], dot, call.line, call.arguments[1:])
        if call.name in ("and", "or"):
            return self.choice(call, dot, piped)
        values = [self.operand(argument, dot, call.line) for argument in call.arguments] + piped
        fewest, most, function = FUNCTIONS.get(call.name) or (0, 1, None)
        if call.name in _AROUND:
            fewest = most = int(call.name == "query")
        if len(values) < fewest or (most >= 0 and len(values) > most):
            wanted = f"{fewest}" if fewest == most else f"at least {fewest}"
            raise TemplateError(f"{call.line}: wrong number of args for {call.name}: want {wanted} got {len(values)}")
        self.weigh(values, call.line)
        try:
            return self.around(call.name, values) if function is None else function(*values)
        except TemplateError as error:
            raise TemplateError(f"{call.line}: error calling {call.name}: {error}") from None
        except (OverflowError, ValueError, TypeError) as error:
            raise TemplateError(f"{call.line}: error calling {call.name}: {error}") from None

    def choice(self, call: Call, dot: Value, piped: list[Value]) -> Value:
        value: Value = None
        for argument in call.arguments:
            value = self.operand(argument, dot, call.line)
            if truth(value) == (call.name == "or"):
                return value
        return piped[0] if piped else value

    def around(self, name: str, values: list[Value]) -> Value:
        if name == "now":
            return self.context.now.timestamp()
        if name == "externalURL":
            return self.context.external_url
        if name == "pathPrefix":
            return re.sub(r"^\w+://[^/]*", "", self.context.external_url)
        self.queries += 1
        if self.queries > MAX_QUERIES:
            raise TemplateError(f"more than {MAX_QUERIES} queries in one template")
        if self.context.query is None:
            raise TemplateError("queries are not available here")
        return list(self.context.query(to_text(values[0])))

    def operand(self, operand: Operand, dot: Value, line: int, arguments: tuple[Operand, ...] = ()) -> Value:
        self.tick()
        match operand:
            case Const(value):
                return value
            case Dot():
                return dot
            case Variable(name):
                return next((scope[name] for scope in reversed(self.scopes) if name in scope), None)
            case Pipe():
                return self.pipe(operand, dot)
            case Call():
                return self.call(operand, dot, [])
            case Fields(of, names):
                value = self.operand(of, dot, line)
                for name in names[:-1]:
                    value = _attribute(value, name, line, [])
                given = [self.operand(argument, dot, line) for argument in arguments]
                return _attribute(value, names[-1], line, given)


def _attribute(value: Value, name: str, line: int, arguments: list[Value]) -> Value:
    if isinstance(value, dict):
        if name in value:
            return value[name]
        if "ExternalLabels" in value and "Value" in value:
            raise TemplateError(f"{line}: can't evaluate field {name} in type template.AlertTemplateData")
        return ""
    if isinstance(value, Sample) and name in ("Labels", "Value"):
        return getattr(value, name)
    if isinstance(value, datetime) and name in _METHODS:
        if name == "Format" and len(arguments) == 1:
            layout = to_text(arguments[0]).replace("%", "%%")
            return value.astimezone(UTC).strftime(_GO_TIME_PART.sub(lambda found: _GO_TIME[found.group()], layout))
        return int(value.timestamp()) if name == "Unix" else value
    if value is None:
        raise TemplateError(f"{line}: nil data; no entry for key {json.dumps(name)}")
    raise TemplateError(f"{line}: can't evaluate field {name} in type {type_name(value)}")
