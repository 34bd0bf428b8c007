"""label_replace, label_join and sorting by labels: work on distinct values, not on series."""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from apps.promql.arrays import Ids, Index
from apps.promql.binary import merged
from apps.promql.errors import LimitError, QueryError
from apps.promql.labels import NAME, STRINGS, Labels
from apps.promql.series import Vec
from apps.promql.source import compiled
from apps.promql.text import printable, quote, valid_name

VALUE_LIMIT: Final = 4_096
"""Characters of a label value that a query makes; it is kept for a while, see StringTable.make."""

_REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})", re.ASCII)
_DIGITS: Final = re.compile(r"([0-9]+)")


def replace(vec: Vec, target: str, template: str, source: str, pattern: str) -> Vec:
    """Sets `target` to the expanded template where the whole value of `source` matches; "" removes the label."""
    _check(target, "destination", "label_replace")
    program, template = compiled(pattern), printable(template)
    values, inverse = np.unique(vec.labels.column(source), return_inverse=True)
    texts: list[str | None] = []
    for text in STRINGS.texts(values):
        match = program.fullmatch(text)
        if match is None:
            texts.append(None)
            continue
        groups = (text, *(group or "" for group in match.groups()))
        texts.append(expand(template, groups, program.groupindex))
    matched = np.array([text is not None for text in texts], dtype=np.bool_)[inverse]
    ids = _interned([text or "" for text in texts])[inverse]
    labels = vec.labels.replace(target, np.where(matched, ids, vec.labels.column(target)))
    drop = vec.drop & ~matched if target == NAME else vec.drop
    return merged(Vec(labels, vec.v, vec.ok, drop))


def expand(template: str, groups: Sequence[str], names: dict[str, int]) -> str:
    """Go's Regexp.Expand: $1, ${1}, $name, ${name}, $$; an unknown reference is empty."""

    def one(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if name is None:
            return "$"
        if name.isdigit():
            number = int(name) if len(name) < 6 else len(groups)
            return groups[number] if number < len(groups) else ""
        return groups[names[name]] if name in names else ""

    return _REFERENCE.sub(one, template)


def join(vec: Vec, target: str, separator: str, sources: Sequence[str]) -> Vec:
    """Sets `target` to the values of `sources` joined; "" removes the label."""
    _check(target, "destination", "label_join")
    for source in sources:
        _check(source, "source", "label_join")
    columns = [vec.labels.texts(source) for source in sources]
    rows = zip(*columns, strict=True) if columns else ((),) * vec.size
    ids = _interned([printable(separator).join(row) for row in rows])
    labels = vec.labels.replace(target, ids)
    drop = np.zeros(vec.size, dtype=np.bool_) if target == NAME else vec.drop
    return merged(Vec(labels, vec.v, vec.ok, drop))


def _interned(texts: list[str]) -> Ids:
    longest = max(map(len, texts), default=0)
    if longest > VALUE_LIMIT:
        raise LimitError(f"a label value of {longest} characters is longer than the limit of {VALUE_LIMIT}")
    return STRINGS.make(texts)


def _check(name: str, what: str, function: str) -> None:
    if not valid_name(name):
        raise QueryError(f"invalid {what} label name in {function}(): {quote(name)}")


def sort_rows(labels: Labels, names: Sequence[str], *, descending: bool) -> Index:
    """Rows in natural order (2 before 10) of these labels, then of the whole label sets."""
    order = labels.order().tolist()
    texts = [labels.texts(name) for name in names]
    order.sort(key=lambda row: [natural(column[row]) for column in texts])
    if descending:
        order.reverse()
    return np.array(order, dtype=np.int64)


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key that reads digits as numbers."""
    parts = _DIGITS.split(text)
    return [(0, int(part[:400]), part) if part.isdigit() else (1, 0, part) for part in parts if part]
