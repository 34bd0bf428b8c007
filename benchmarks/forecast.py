"""The portal's own range functions beside Prometheus' nearest ones: 1,000 series, a week of samples each 5 minutes.

    python -m benchmarks.forecast

Evaluation from memory, best of three; the ratio is to predict_linear on the same data in the same run.
"""

import resource
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from apps.promql.engine import instant, query_range
from apps.promql.labels import Labels
from apps.promql.result import Result
from apps.promql.series import Ragged, offsets
from apps.promql.source import MemorySource

SERIES, SAMPLES, STEP = 1_000, 2_016, 300_000
EXPRESSIONS = (
    "predict_linear(x[1w], 3600)",
    "quantile_over_time(0.5, x[1w])",
    "forecast_linear(x[6h], 3600)",
    "forecast_linear(x[1w], 3600)",
    "forecast_linear(x[1w], 3600, 3)",
    "time_until_above(x[1w], 200)",
    "forecast_seasonal(x[1w], 3600, 1d)",
    "forecast_seasonal(x[1w], 3600, 1d, 3)",
    "anomaly_score(x[1w])",
    "anomaly_score(x[1w], 1d)",
    "level_shift(x[6h])",
    "level_shift(x[1w])",
)


def source(shared: bool) -> MemorySource:
    """A daily wave with noise; timestamps common to all series, or each series' own."""
    chance = np.random.default_rng(1)
    times = np.arange(SAMPLES, dtype=np.int64) * STEP
    v = 100 + 20 * np.sin(2 * np.pi * times / 86_400_000) + chance.normal(size=(SERIES, SAMPLES))
    late = np.zeros(SERIES, dtype=np.int64) if shared else chance.integers(0, 9_000, SERIES)
    ts = np.tile(times, SERIES) + np.repeat(late, SAMPLES)
    labels = Labels.from_dicts([{"__name__": "x", "i": str(i)} for i in range(SERIES)])
    return MemorySource.of(Ragged(labels, ts, v.ravel(), offsets(np.full(SERIES, SAMPLES))))


def main() -> None:
    end = (SAMPLES - 1) * STEP + 10_000
    for shared in (True, False):
        data = source(shared)
        print(
            f"{'one clock for all series' if shared else 'a clock for each series'}: ms at once, ratio, ms for 13 steps"
        )
        first = 0.0
        for expr in EXPRESSIONS:
            once = min(_seconds(partial(instant, expr, data, end)) for _ in range(3))
            steps = _seconds(partial(query_range, expr, data, end - 3_600_000, end, STEP))
            first = first or once
            print(f"  {expr:40} {once * 1000:7.0f} {once / first:6.2f} {steps * 1000:7.0f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB, samples included")


def _seconds(run: Callable[[], Result]) -> float:
    """Of processor time, so that a busy machine shows the same."""
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    main()
