"""About how many samples a request would bring, from what the catalog and the list of stored rows tell. Pure.

Nothing is decoded, so it is a guess: a row's samples are taken to be spread evenly over its time and its series, and
the series of a row to be those of its metrics whose ids lie between its bounds. Reading counts exactly, before values
are decoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.metrics.codec import Float64, Int64
from apps.metrics.storage import BlockRow


@dataclass(frozen=True, slots=True, eq=False)
class Sought:
    """What a request asks for: samples with tmin < ts <= tmax of the series `wanted`, which are some of `peers`.

    wanted int64[S], peers int64[P] (all series of the same metrics): ids, sorted. `others`: series of all other
    metrics, by metric.
    """

    tmin: int
    tmax: int
    wanted: Int64
    peers: Int64
    others: Mapping[int, int]

    def in_blocks(self, rows: Sequence[BlockRow]) -> float:
        """About how many samples blocks hold of it."""
        if not rows:
            return 0.0
        columns = [
            (row.t_min, row.t_max, row.series_min, row.series_max, row.metric_min, row.metric_max, row.samples)
            for row in rows
        ]
        t_min, t_max, low, high, first, last, samples = np.array(columns, dtype=np.int64).T
        hits = _between(self.wanted, low, high)
        series = _between(self.peers, low, high) + self._foreign(first, last)
        return float((samples * self._overlap(t_min, t_max) * hits / np.maximum(series, 1)).sum())

    def in_young(self, rows: NDArray[Any]) -> float:
        """The same of young rows (`Snapshot.young`): they have one sample or few of each of their series."""
        samples = rows["samples"]
        hits = _between(self.wanted, rows["series_min"], rows["series_max"])
        series = np.minimum(samples, rows["series_max"] - rows["series_min"] + 1)
        share = hits / np.maximum(np.maximum(series, hits), 1)
        return float((samples * self._overlap(rows["t_min"], rows["t_max"]) * share).sum())

    def _foreign(self, first: Int64, last: Int64) -> Int64:
        """int64[rows]: series of other metrics with ids from first to last."""
        if not (first < last).any():
            return np.zeros(len(first), dtype=np.int64)
        metrics = np.array(sorted(self.others), dtype=np.int64)
        before = np.zeros(len(metrics) + 1, dtype=np.int64)
        np.cumsum([self.others[ident] for ident in metrics.tolist()], out=before[1:])
        return before[np.searchsorted(metrics, last, "right")] - before[np.searchsorted(metrics, first, "left")]

    def _overlap(self, t_min: Int64, t_max: Int64) -> Float64:
        """float64[rows]: the share of each row's time that lies in (tmin, tmax]."""
        shared = np.minimum(t_max, self.tmax) - np.maximum(t_min, self.tmin + 1) + 1
        share: Float64 = np.clip(shared / (t_max - t_min + 1), 0.0, 1.0)
        return share


def _between(ids: Int64, low: Int64, high: Int64) -> Int64:
    """int64[rows]: how many of the sorted ids lie between low and high, both included."""
    found: Int64 = np.searchsorted(ids, high, "right") - np.searchsorted(ids, low, "left")
    return found
