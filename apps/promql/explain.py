"""What each part of a query came to: its values at the last step, its series, its samples and its time."""

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np

from apps.promql.arrays import Index
from apps.promql.ast import Expr, Number, Paren, Range, String, children, value_type
from apps.promql.errors import LimitError
from apps.promql.functions import RANGE, SCALAR, STRING, VECTOR
from apps.promql.labels import METADATA, Labels
from apps.promql.printer import render
from apps.promql.result import number
from apps.promql.series import Ragged, Scalar, Text, Vec, stale_mask
from apps.promql.text import printable

SHOWN: Final = 10
"""Values that a node shows at most."""
LEVELS: Final = 200
"""Of a tree; JSON readers have limits of their own."""

Tree: TypeAlias = dict[str, Any]
"""A node as JSON: kind, text, start, end, type, series, samples, seconds, values, children."""

_TYPES: Final = {VECTOR: "vector", SCALAR: "scalar", RANGE: "matrix", STRING: "string"}


@dataclass(slots=True)
class _Note:
    series: int = 0
    samples: int | None = None
    seconds: float = 0.0
    reading: float = 0.0
    found: int = 0
    values: list[Tree] = field(default_factory=list)


class Trace:
    """Notes what becomes of each node while a query is evaluated.

    A node may be evaluated several times, for some steps or some series each: seconds and samples add up, series are
    the most of any time, and the values are those of the last time.
    """

    def __init__(self) -> None:
        self._notes: dict[int, _Note] = {}

    def evaluated(self, node: Expr, value: Vec | Scalar | Text, seconds: float) -> None:
        """A node has a value; `seconds` include those of the nodes below it."""
        note = self._notes.setdefault(id(node), _Note())
        note.seconds += seconds
        if isinstance(value, Vec):
            note.series = max(note.series, int(value.ok.any(axis=1).sum()))
            rows = np.flatnonzero(value.ok[:, -1])[:SHOWN]
            shown = value.take(rows)
            note.values = _values(shown.labels.drop_where(METADATA, shown.drop), shown.v[:, -1].tolist())
        else:
            note.series = 1
            text = printable(value.text) if isinstance(value, Text) else number(float(value.v[-1]))
            note.values = [{"metric": {}, "value": text}]

    def read(self, node: Expr, ragged: Ragged, since: int, seconds: float, *, more: bool = False) -> None:
        """A selector or subquery brought samples, the last window of which begins after `since`; `more`: other
        series than those before, for the same steps."""
        note = self._notes.setdefault(id(node), _Note())
        note.reading += seconds
        note.found = ragged.size + (note.found if more else 0)
        note.series = max(note.series, note.found)
        note.samples = (note.samples or 0) + ragged.read
        last = ragged.off[1:] - 1
        rows: Index = np.flatnonzero(ragged.counts)
        rows = rows[(ragged.ts[last[rows]] > since) & ~stale_mask(ragged.v[last[rows]])][:SHOWN]
        values = _values(ragged.labels.take(rows), ragged.v[last[rows]].tolist())
        note.values = [*note.values, *values][:SHOWN] if more else values

    def tree(self, node: Expr, level: int = 1) -> Tree:
        """The node and all below it. LimitError where that is too deep for a tree."""
        if level > LEVELS:
            raise LimitError(f"the expression is nested or chained over more than {LEVELS} levels: too deep for a tree")
        below = [] if isinstance(node, Range) else [self.tree(child, level + 1) for child in children(node)]
        note = self._notes.get(id(node.selector if isinstance(node, Range) else node))
        told: Tree
        if note is not None:
            told = {
                "series": note.series,
                "samples": note.samples,
                "seconds": note.seconds or note.reading,
                "values": note.values,
            }
        elif isinstance(node, Paren):  # looked through, not evaluated
            told = {key: below[0][key] for key in ("series", "samples", "seconds", "values")}
        else:
            told = {"series": 0, "samples": None, "seconds": 0.0, "values": _literal(node)}
        read = [child["samples"] for child in below if child["samples"] is not None]
        if told["samples"] is None and read:
            told["samples"] = sum(read)
        return {
            "kind": type(node).__name__.lower(),
            "text": render(node),
            "start": node.start,
            "end": node.end,
            "type": _TYPES[value_type(node)],
            **told,
            "children": below,
        }


def _values(labels: Labels, values: list[float]) -> list[Tree]:
    return [{"metric": metric, "value": number(value)} for metric, value in zip(labels.dicts(), values, strict=True)]


def _literal(node: Expr) -> list[Tree]:
    """The value of what needs no evaluation."""
    match node:
        case Number():
            return [{"metric": {}, "value": number(node.value)}]
        case String():
            return [{"metric": {}, "value": printable(node.value)}]
        case _:
            return []
