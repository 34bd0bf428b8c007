"""YAML with positions and bounds: a text to strict nodes that know their line, and scalars back to text. Pure.

Nothing is constructed from the text but strings, lists and mappings. An alias weighs as much as what it stands for,
so a few lines that unfold to millions are refused before anything is unfolded.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import yaml

LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LONGEST: Final = 4 * 2**20
"""Characters of a file."""
MOST_NODES: Final = 500_000
"""Nodes of a file with every alias counted as what it stands for."""
DEEPEST: Final = 24


class YamlError(Exception):
    """What cannot be read; `line` counts from 1."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text as it was written, whatever YAML would make of it; `null` where nothing or ~ was written."""

    text: str
    null: bool
    line: int
    column: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    nodes: "tuple[Node, ...]"
    line: int
    column: int
    weight: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping; no key stands twice in it."""

    pairs: "dict[str, Node]"
    keys: "dict[str, Scalar]"
    line: int
    column: int
    weight: int


Node: TypeAlias = Scalar | Items | Mapping


def read(text: str) -> Node | None:
    """The one document of a text, None for an empty one; YamlError where it is no YAML or beyond the bounds."""
    if len(text) > LONGEST:
        raise YamlError(f"{len(text)} characters are more than the limit of {LONGEST}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise YamlError(
            "half a character (a lone surrogate) stands here", text.count("\n", 0, error.start) + 1
        ) from None
    try:
        return _Builder().build(yaml.parse(text, Loader=LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(error.problem or "this is no YAML", mark.line + 1 if mark else 1) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        code = error.character if isinstance(error.character, int) else ord(error.character[:1] or "?")
        raise YamlError(f"the character with the number {code} cannot stand in YAML", line) from None
    except yaml.YAMLError as error:
        raise YamlError(str(error)) from None


class _Open:
    """A list or mapping that has begun."""

    def __init__(self, event: Any) -> None:
        self.is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.anchor = event.anchor
        self.line, self.column = event.start_mark.line + 1, event.start_mark.column
        self.nodes: list[Node] = []
        self.weight = 1


class _Builder:
    """Events to nodes without recursion: depth is a number here, not a stack of calls."""

    def __init__(self) -> None:
        self.open: list[_Open] = []
        self.anchors: dict[str, Node] = {}
        self.root: Node | None = None

    def build(self, events: Iterator[Any]) -> Node | None:
        documents = 0
        event: Any
        for event in events:
            line, column = event.start_mark.line + 1, event.start_mark.column
            match event:
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        raise YamlError("a second document begins here; one file is one document", line)
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self.untagged(event)
                    if len(self.open) >= DEEPEST:
                        raise YamlError(f"nested deeper than {DEEPEST} levels", line)
                    self.open.append(_Open(event))
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    closed = self.open.pop()
                    self.add(_closed(closed), closed.anchor)
                case yaml.ScalarEvent():
                    self.untagged(event)
                    if "\0" in event.value:
                        raise YamlError("the character with the number 0 cannot stand in a text", line)
                    null = event.implicit[0] and event.value in ("", "~", "null", "Null", "NULL")
                    text = "" if null else event.value
                    self.add(Scalar(text, null, line, column), event.anchor)
                case yaml.AliasEvent():
                    if event.anchor not in self.anchors:
                        raise YamlError(f"*{event.anchor} stands for nothing that was written before", line)
                    self.add(self.anchors[event.anchor], None)
        return self.root

    @staticmethod
    def untagged(event: Any) -> None:
        if event.tag is not None and event.tag != "tag:yaml.org,2002:str":
            raise YamlError(f"the tag {event.tag} is not understood; write the value without it",
                            event.start_mark.line + 1)  # fmt: skip

    def add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = node
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        parent.nodes.append(node)
        parent.weight += node.weight
        if parent.weight > MOST_NODES:
            raise YamlError(f"unfolded, these are more than {MOST_NODES} values", node.line)


def _closed(opened: _Open) -> Node:
    if not opened.is_mapping:
        return Items(tuple(opened.nodes), opened.line, opened.column, opened.weight)
    pairs: dict[str, Node] = {}
    keys: dict[str, Scalar] = {}
    for key, value in zip(opened.nodes[::2], opened.nodes[1::2], strict=True):
        if not isinstance(key, Scalar):
            raise YamlError("a name is expected here, not a list or mapping", key.line)
        if key.text in pairs:
            raise YamlError(f"{key.text!r} stands twice here (first in line {keys[key.text].line})", key.line)
        pairs[key.text] = value
        keys[key.text] = key
    return Mapping(pairs, keys, opened.line, opened.column, opened.weight)


# --- Text ---------------------------------------------------------------------------------------------------------

_PLAIN: Final = re.compile(r"[A-Za-z_(/][ -~]*\Z")
_WORDS: Final = frozenset(("true", "false", "yes", "no", "on", "off", "y", "n", "null"))
_PRINTABLE: Final = re.compile("[ -~\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*\\Z")
_SHORT: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def scalar(text: str, indent: int) -> str:
    """A string as a YAML value that every reader takes for that very string; one form per text.

    Plain where that is safe, a literal block (its lines indented by `indent` spaces) for lines of prose, single quotes
    for one line of printable characters, and double quotes with escapes for the rest.
    """
    if _PLAIN.match(text) and text.lower() not in _WORDS and not text.endswith((" ", ":")):
        if ": " not in text and " #" not in text:
            return text
    elif "\n" in text and (block := _block(text, indent)):
        return block
    if _PRINTABLE.match(text):
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(map(_escaped, text)) + '"'


def _block(text: str, indent: int) -> str:
    body = text.removesuffix("\n")
    lines = body.split("\n")
    if not lines[0] or not lines[-1] or any(not _PRINTABLE.match(line) or line.endswith(" ") for line in lines):
        return ""
    if lines[0].startswith(" "):
        return ""
    margin = " " * indent
    return ("|" if text.endswith("\n") else "|-") + "".join(f"\n{margin}{line}" if line else "\n" for line in lines)


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if _PRINTABLE.match(char):
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
