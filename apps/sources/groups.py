"""What becomes of the rows of a business query: labels, values, and no group of fewer people than the floor.

Pure: columns and rows in, groups out, or a sentence why the answer is unusable.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from apps.promql.text import IDENTIFIER

OTHER: Final = "other"
"""The value of every label of the group into which small ones are merged."""
RESERVED: Final = ("job", "instance", "__name__")
LONGEST: Final = 200
MOST_LABELS: Final = 10


class Unusable(Exception):
    """The answer cannot become series, for the reason that is its text."""


@dataclass(frozen=True)
class Terms:
    """How an answer is read: column of the value, column of how many people stand behind a row (none: the value is
    that number), how many that are at least, and what becomes of smaller groups ("omit", "sum" or "mean").
    """

    value: str = "value"
    size: str = ""
    floor: int = 5
    small: str = "omit"
    most: int = 100
    taken: Collection[str] = ()
    """Names of labels that the series have already."""


@dataclass(frozen=True)
class Group:
    """One series: its labels and its value."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Grouped:
    """What may be shown of an answer of so many rows."""

    groups: tuple[Group, ...]
    rows: int
    omitted: int = 0
    merged: int = 0


def grouped(columns: Sequence[str], rows: Sequence[Sequence[Any]], terms: Terms) -> Grouped:
    """Return the groups of an answer. Raises Unusable.

    A group of nobody is shown: it tells of nobody. Merged groups are shown only if they reach the floor together.
    """
    names = _label_columns(columns, terms)
    if len(rows) > terms.most:
        raise Unusable(f"The query gives more than {terms.most} rows: group coarser, or raise the limit.")
    at_value = columns.index(terms.value)
    at_size = columns.index(terms.size) if terms.size else at_value
    kept: list[Group] = []
    small: list[tuple[float, float]] = []
    omitted, seen = 0, set()
    for row in rows:
        if row[at_value] is None:
            continue
        labels = {name: text for name, place in names if (text := _text(row[place], name))}
        key = tuple(sorted(labels.items()))
        if key in seen:
            raise Unusable(f"Two rows have the same labels ({_shown(labels)}): group by them in the query.")
        seen.add(key)
        value, size = _number(row[at_value], terms.value), _number(row[at_size] or 0, columns[at_size])
        if size < 0:
            raise Unusable(f"The column {columns[at_size]} counts people and is {size:g}.")
        is_small = 0 < size < terms.floor
        is_other = bool(labels) and all(text == OTHER for text in labels.values())
        if terms.small != "omit" and names and (is_small or is_other):
            small.append((value, size))
        elif is_small:
            omitted += 1
        else:
            kept.append(Group(labels, value))
    people = math.fsum(size for _, size in small)
    if small and (people >= terms.floor or not people):
        total = math.fsum(value * (size if terms.small == "mean" else 1.0) for value, size in small)
        value = total / people if terms.small == "mean" and people else total
        return Grouped((*kept, Group({name: OTHER for name, _ in names}, value)), len(rows), omitted, len(small))
    return Grouped(tuple(kept), len(rows), omitted + len(small))


def _label_columns(columns: Sequence[str], terms: Terms) -> list[tuple[str, int]]:
    """Return (name, place) of the columns that become labels."""
    for wanted in filter(None, (terms.value, terms.size)):
        if list(columns).count(wanted) != 1:
            raise Unusable(f"The query needs one column named {wanted}; it has {', '.join(columns) or 'none'}.")
    names = [(name, place) for place, name in enumerate(columns) if name not in (terms.value, terms.size)]
    for name, _ in names:
        if name in (*RESERVED, *terms.taken) or name.startswith("__") or not IDENTIFIER.fullmatch(name):
            raise Unusable(f"The column {name[:60]} cannot become a label: name it otherwise, with AS.")
    if len({name for name, _ in names}) < len(names) or len(names) > MOST_LABELS:
        raise Unusable(f"Columns that become labels have names of their own, and are at most {MOST_LABELS}.")
    return names


def _text(value: Any, name: str) -> str:
    """Return a label's text; nothing for NULL, which is no label."""
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) > LONGEST or "\0" in text:
        raise Unusable(f"The column {name} holds a text of more than {LONGEST} characters, too long for a label.")
    return text


def _number(value: Any, name: str) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if isinstance(value, str) or not math.isfinite(found):
        raise Unusable(f"The column {name} holds {str(value)[:60]!r}, which is no number.")
    return found


def _shown(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}={text!r}" for name, text in labels.items()) or "none"
