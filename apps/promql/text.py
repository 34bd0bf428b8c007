"""How PromQL writes strings, names and durations; read back by the lexer without loss."""

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Final

IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
METRIC: Final = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*\Z")

_ESCAPES: Final = {char: f"\\{letter}" for char, letter in zip('\\"\n\r\t\a\b\f\v', '\\"nrtabfv', strict=True)}
_UNITS: Final = (("y", 365 * 86_400_000), ("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000))
_SMALL_UNITS: Final = (("m", 60_000), ("s", 1_000), ("ms", 1))


def quote(text: str) -> str:
    """A double-quoted string literal; what cannot be printed is escaped, as Go's strconv.Quote does."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_quoted, text)) + '"'


def _quoted(char: str) -> str:
    code = ord(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, see lexer.unquote
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def valid_name(name: str) -> bool:
    """Prometheus 3 takes any non-empty UTF-8 as a label name (bytes that are none came in as surrogates)."""
    return bool(name) and not any("\ud800" <= char <= "\udfff" for char in name)


def printable(text: str) -> str:
    """With U+FFFD for bytes that are no UTF-8, so that it can leave in JSON."""
    if text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text):
        return text
    with contextlib.suppress(UnicodeEncodeError):
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode()  # halves of characters that stand for no byte


def quote_name(name: str) -> str:
    """A label name as it stands in braces and lists: quoted where it is not a plain identifier."""
    return name if IDENTIFIER.match(name) else quote(name)


def duration(ms: int) -> str:
    """Milliseconds as Prometheus prints them: 90000 is 1m30s, 0 is 0s; years and weeks only where exact."""
    if ms == 0:
        return "0s"
    sign, rest = ("-", -ms) if ms < 0 else ("", ms)
    parts = []
    for unit, size in _UNITS:
        if unit in ("y", "w") and rest % size:
            continue
        parts.append((rest // size, unit))
        rest %= size
    for unit, size in _SMALL_UNITS:
        parts.append((rest // size, unit))
        rest %= size
    return sign + "".join(f"{count}{unit}" for count, unit in parts if count)


_JSON_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]*\Z')


def quote_json(text: str) -> str:
    """A JSON string."""
    return f'"{text}"' if _JSON_PLAIN.match(text) else json.dumps(text, ensure_ascii=False)


def label_set(labels: Mapping[str, str]) -> str:
    """A label set as error messages show it: {a="1", b="2"}, sorted by name."""
    return "{" + ", ".join(f"{quote_name(name)}={quote(value)}" for name, value in sorted(labels.items())) + "}"
