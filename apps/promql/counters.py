"""Which metrics under rate() and increase() do not look like counters, and how Prometheus says so."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from apps.promql.arrays import Ids, Mask
from apps.promql.labels import NAME, STRINGS
from apps.promql.series import Vec
from apps.promql.text import quote

OF_COUNTERS: Final = frozenset(("rate", "increase"))
"""The functions that ask for counters."""

_TYPE: Final = "__type__"
_SUFFIXES: Final = ("_total", "_sum", "_count", "_bucket")
_NAMED: Final = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "
_TYPED: Final = 'metric might not be a counter, __type__ label is not set to "counter" or "histogram", got '


def doubts(vec: Vec, unnamed: Mask) -> Iterator[str]:
    """What is to be said about an answer's metrics, once for each; rows marked in `unnamed` lost their names before.

    A series that has a __type__ label is judged by it, others by their name.
    """
    names = np.where(unnamed, np.int32(0), vec.labels.column(NAME))
    types = vec.labels.column(_TYPE)
    for name, kind in _pairs(names, types):
        metric, told = STRINGS.text(name), STRINGS.text(kind)
        if told in ("counter", "histogram") or (not told and metric.endswith(_SUFFIXES)):
            continue
        if vec.ok[(names == name) & (types == kind)].any():
            yield f"{_TYPED}{quote(told)}: {quote(metric)}" if told else _NAMED + quote(metric)


def _pairs(names: Ids, types: Ids) -> list[tuple[int, int]]:
    """The distinct (name, type) of rows with a name."""
    if not len(names):
        return []
    if (names == names[0]).all() and not types.any():
        found = [(int(names[0]), 0)]
    else:
        both = np.unique(np.stack([names, types], axis=1), axis=0)
        found = [(int(name), int(kind)) for name, kind in both]
    return [pair for pair in found if pair[0]]
