"""Cuts PromQL text into tokens with positions; knows nothing of grammar but that a colon in brackets is a separator."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from apps.promql.errors import ParseError

NUMBER: Final = "number"
DURATION: Final = "duration"
STRING: Final = "string"
NAME: Final = "identifier"
OPERATOR: Final = "operator"
END: Final = "end of input"

_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_ANY: Final = r"""
    (?P<duration>(?:[0-9]+(?:ms|[smhdwy]))+(?![A-Za-z0-9_.]))
  | (?P<number>(?:0[xX][0-9a-fA-F_]+|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)
               (?![A-Za-z0-9_.]))
  | (?P<identifier>[A-Za-z_COLON][A-Za-z0-9_COLON]*)
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
  | (?P<operator>==|!=|>=|<=|=~|!~|[-+*/%^<>=(){}\[\],@:])"""
_TOKEN = re.compile(_ANY.replace("COLON", ":"), re.VERBOSE)
_IN_BRACKETS = re.compile(_ANY.replace("COLON", ""), re.VERBOSE)
"""`[5m:step()]`: the colon separates here, elsewhere it is a letter of metric names."""
_WORD = re.compile(r"[A-Za-z0-9_.]+")
_DURATION = re.compile(
    r"(?:(?P<y>[0-9]+)y)?(?:(?P<w>[0-9]+)w)?(?:(?P<d>[0-9]+)d)?(?:(?P<h>[0-9]+)h)?"
    r"(?:(?P<m>[0-9]+)m(?!s))?(?:(?P<s>[0-9]+)s)?(?:(?P<ms>[0-9]+)ms)?\Z"
)
_UNITS: Final = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
LONGEST_DURATION: Final = 2**63 // 1_000_000
"""Milliseconds; Prometheus counts durations in nanoseconds of 63 bits."""

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_SIMPLE: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """Keywords are case-insensitive."""
        return self.text.lower() if self.kind == NAME else self.text

    def __str__(self) -> str:
        return self.kind if self.kind == END else f'{self.kind} "{self.text}"'


def position(text: str, offset: int) -> tuple[int, int]:
    """(line, column) of a character, both from 1."""
    line = text.count("\n", 0, offset) + 1
    return line, offset - (text.rfind("\n", 0, offset) + 1) + 1


def fail(message: str, text: str, offset: int) -> ParseError:
    """The error for a place in the text, to be raised by the caller."""
    return ParseError(message, *position(text, offset))


def tokens(text: str) -> Iterator[Token]:
    """All tokens, cut as they are asked for; the last ones are of kind END. ParseError where no token can begin."""
    brackets = 0
    at = _skip(text, 0)
    size = len(text)
    while at < size:
        match = (_IN_BRACKETS if brackets > 0 else _TOKEN).match(text, at)
        if match is None:
            raise _bad(text, at)
        kind, end = match.lastgroup or "", match.end()
        if kind == OPERATOR:
            brackets += (text[at] == "[") - (text[at] == "]")
        yield Token(kind, match.group(), at, end)
        at = _skip(text, end)
    yield from repeat(Token(END, "", size, size))


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _bad(text: str, at: int) -> ParseError:
    char = text[at]
    if char in "\"'`":
        return fail("unterminated quoted string" if char != "`" else "unterminated raw string", text, at)
    if char.isdigit() or char == ".":
        word = _WORD.match(text, at)
        return fail(f'bad number or duration syntax: "{word.group() if word else char}"', text, at)
    return fail(f"unexpected character: {char!r}", text, at)


def parse_duration(text: str) -> int:
    """Milliseconds of `1h30m`; ValueError where units are out of order, doubled, or the sum overflows."""
    match = _DURATION.match(text)
    if not match or not text:
        raise ValueError(f'not a valid duration string: "{text}"')
    total = sum(int(count) * _UNITS[unit] for unit, count in match.groupdict().items() if count)
    if total > LONGEST_DURATION:
        raise ValueError("duration out of range")
    return total


def parse_number(text: str) -> float:
    """A number literal without sign; ValueError where Go would refuse it."""
    digits = text
    if "_" in text:
        if re.search(r"_(?![0-9a-fA-F])|__", text) or text[0] == "_":
            raise ValueError(f'bad number or duration syntax: "{text}"')
        digits = text.replace("_", "")
    try:
        if digits[:2] in ("0x", "0X"):
            return float(int(digits, 16))
        if re.fullmatch(r"0[0-7]+", digits):
            return float(int(digits, 8))
        value = float(digits)
    except OverflowError:  # integers of any length, unlike floats
        value = float("inf")
    if value == float("inf"):
        raise ValueError(f'error parsing number: "{text}": value out of range')
    return value


def unquote(text: str) -> str:
    """The content of a string literal with Go's escapes; bytes that are no UTF-8 become lone surrogates."""
    if text[0] == "`":
        return text[1:-1]
    body = text[1:-1]
    if "\\" not in body:
        return body
    out = bytearray()
    last = 0
    for match in _ESCAPE.finditer(body):
        out += body[last : match.start()].encode("utf-8", "surrogateescape")
        out += _escaped(match.group(1), text[0])
        last = match.end()
    out += body[last:].encode("utf-8", "surrogateescape")
    return out.decode("utf-8", "surrogateescape")


def _escaped(code: str, quote: str) -> bytes:
    if code[0] in "xuU" and len(code) > 1:
        number = int(code[1:], 16)
    elif len(code) == 3:
        number = int(code, 8)
    elif code in ("'", '"') and code != quote:
        raise ValueError(f"unknown escape sequence: \\{code}")
    elif code in _SIMPLE:
        number = _SIMPLE[code]
    else:
        raise ValueError(f"unknown escape sequence: \\{code}")
    if code[0] in "uU" and len(code) > 1:
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise ValueError("escape sequence is an invalid Unicode code point")
        return chr(number).encode()
    if number > 255:
        raise ValueError("octal escape value out of range")
    return bytes([number])
