"""info(): series with the labels of an info metric that has the same instance and job.

Info metrics are gauges of 1 whose labels say something about a target, such as target_info of OpenTelemetry.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from apps.promql.arrays import Hashes, Index, Mask
from apps.promql.ast import Selector
from apps.promql.errors import QueryError
from apps.promql.labels import NAME, STRINGS, Labels
from apps.promql.series import Vec
from apps.promql.text import label_set

IDENTIFYING: Final = ("instance", "job")
"""The labels by which a series and its info series belong together."""


def enriched(base: Vec, found: Vec, selector: Selector, check_cells: Callable[[int, int], None]) -> Vec:
    """The series of `base`, each under the labels that its info series have at each step.

    found: the info series; their values are the times in seconds at which they were sampled, and of two that are
    there at once the newer one counts. selector: what they were selected by; its matchers on other labels than the
    name say which labels are taken, and a series without info series stays only where all of them accept the empty
    string. QueryError where two info series contradict each other.
    """
    names = [matcher for matcher in selector.matchers if matcher.name == NAME]
    data = [matcher for matcher in selector.matchers if matcher.name != NAME]
    wanted = {matcher.name for matcher in data}
    unmatched_stay = all(matcher.matches("") for matcher in data)
    # Matchers without a metric describe whatever target_info has: then nothing in `base` counts as an info series.
    described = not (selector.in_front and data)
    alone = np.array([described and all(m.matches(name) for m in names) for name in base.labels.texts(NAME)], bool)
    found = _related(found, base.labels.take(~alone))
    metrics = _Metrics(found)
    keys = base.labels.keep(IDENTIFYING).hashes()
    rows: list[int] = []
    masks: list[Mask] = []
    added: list[dict[str, str]] = []
    known: dict[int, list[tuple[Mask, tuple[int, ...]]]] = {}
    everywhere: Mask = np.ones(base.v.shape[1], dtype=np.bool_)
    for row, labels in enumerate(base.labels.dicts()):
        if alone[row]:
            choices: list[tuple[Mask, tuple[int, ...]]] = [(everywhere, ())]
        else:
            key = int(keys[row])
            choices = known[key] if key in known else known.setdefault(key, metrics.choices(key))
        for mask, chosen in choices:
            if chosen or alone[row] or unmatched_stay:
                rows.append(row)
                masks.append(mask)
                added.append(_added(labels, [metrics.labels[each] for each in chosen], wanted))
        check_cells(len(rows), base.v.shape[1])
    index: Index = np.array(rows, dtype=np.int64)
    part = base.take(index)
    ok = part.ok & np.array(masks, dtype=np.bool_) if masks else part.ok
    return Vec(_relabelled(part.labels, added), part.v, ok, part.drop)


class _Metrics:
    """Info series by metric and identifying labels: which of them is the one at each step."""

    def __init__(self, found: Vec) -> None:
        self.labels = found.labels.dicts()
        self._times = np.where(found.ok, found.v, -np.inf)
        self._n = found.v.shape[1]
        keys: Hashes = found.labels.keep(IDENTIFYING).hashes()
        self._groups: dict[int, dict[str, list[int]]] = {}
        for row, (labels, key) in enumerate(zip(self.labels, keys.tolist(), strict=True)):
            self._groups.setdefault(key, {}).setdefault(labels.get(NAME, ""), []).append(row)

    def choices(self, key: int) -> list[tuple[Mask, tuple[int, ...]]]:
        """For a series with these identifying labels: (steps bool[n], its info series there), steps disjoint."""
        groups = self._groups.get(key)
        if groups is None:
            return [(np.ones(self._n, dtype=np.bool_), ())]
        chosen = np.stack([self._newest(rows) for rows in groups.values()])
        distinct, which = np.unique(chosen, axis=1, return_inverse=True)
        which = which.reshape(-1)
        return [
            (which == number, tuple(row for row in column.tolist() if row >= 0))
            for number, column in enumerate(distinct.T)
        ]

    def _newest(self, rows: list[int]) -> Index:
        """int64[n]: of these info series the one with the newest sample at each step, -1 for none. QueryError."""
        times = self._times[rows]
        best = times.argmax(axis=0)
        top = times.max(axis=0)
        there = top > -np.inf
        tied = there & ((times == top).sum(axis=0) > 1)
        if tied.any():
            step = int(np.flatnonzero(tied)[0])
            first, second = np.flatnonzero(times[:, step] == top[step])[:2].tolist()
            at = round(float(top[step]) * 1000)
            raise QueryError(
                f"found duplicate series for info metric: existing {label_set(self.labels[rows[first]])} @ {at}, "
                f"new {label_set(self.labels[rows[second]])} @ {at}"
            )
        newest: Index = np.where(there, np.array(rows, dtype=np.int64)[best], -1)
        return newest


def _related(found: Vec, base: Labels) -> Vec:
    """The info series whose identifying labels have values that some series of `base` has, as Prometheus selects."""
    keep = np.ones(found.size, dtype=np.bool_)
    some = False
    for name in IDENTIFYING:
        values = np.unique(base.column(name))
        values = values[values != 0]
        if len(values):
            some = True
            keep &= np.isin(found.labels.column(name), values)
    return found.take(np.flatnonzero(keep if some else ~keep))


def _added(labels: dict[str, str], infos: list[dict[str, str]], wanted: set[str]) -> dict[str, str]:
    """The labels that a series takes from its info series; what it has itself stays. QueryError."""
    added: dict[str, str] = {}
    for info in infos:
        for name, value in info.items():
            if name == NAME or name in labels or (wanted and name not in wanted):
                continue
            if added.setdefault(name, value) != value:
                raise QueryError(f"conflicting label: {name}")
    return added


def _relabelled(labels: Labels, added: list[dict[str, str]]) -> Labels:
    for name in dict.fromkeys(name for each in added for name in each):
        ids = STRINGS.intern_many([each.get(name, "") for each in added])
        labels = labels.replace(name, np.where(ids != 0, ids, labels.column(name)))
    return labels
