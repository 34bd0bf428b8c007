"""The hint that rate() and increase() are not of a counter: Prometheus' words, at Prometheus' place, once a metric."""

import pytest

from apps.promql.engine import evaluate_many, instant, query_range
from apps.promql.source import MemorySource

TIMES = [0, 10_000, 20_000]
SOURCE = MemorySource(
    [
        ({"__name__": name, **labels}, TIMES, [1.0, 2.0, 3.0])
        for name, labels in (
            ("load", {"i": "0"}),
            ("load", {"i": "1"}),
            ("heat", {}),
            ("a_total", {}),
            ("a_sum", {}),
            ("typed", {"__type__": "counter"}),
            ("spread", {"__type__": "histogram"}),
            ("level_total", {"__type__": "gauge"}),
        )
    ]
)
BY_NAME = "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "
BY_TYPE = 'PromQL info: metric might not be a counter, __type__ label is not set to "counter" or "histogram", got '

HINTS = [
    ("rate(load[1m])", [f'{BY_NAME}"load" (1:6)']),
    ("increase(load[1m])", [f'{BY_NAME}"load" (1:10)']),
    ("1 +\n rate(load[1m]) / rate(heat[1m])", [f'{BY_NAME}"load" (2:7)', f'{BY_NAME}"heat" (2:24)']),
    ("rate({__name__=~'load|heat'}[1m])", [f'{BY_NAME}"load" (1:6)', f'{BY_NAME}"heat" (1:6)']),
    ("rate(load[1m] anchored)", [f'{BY_NAME}"load" (1:6)']),
    ("rate(load[1m:10s])", [f'{BY_NAME}"load" (1:6)']),
    ("rate(level_total[1m])", [f'{BY_TYPE}"gauge": "level_total" (1:6)']),
    ("rate(abs(load)[1m:10s])", []),
    ("rate(a_total[1m]) + rate(a_sum[1m]) + rate(typed[1m]) + rate(spread[1m])", []),
    ("rate(load[5s])", []),
    ("rate(nothing[1m])", []),
    ("irate(load[1m]) + delta(load[1m]) + resets(load[1m])", []),
]


@pytest.mark.parametrize(("query", "wanted"), HINTS)
def test_what_does_not_look_like_a_counter_is_told(query: str, wanted: list[str]) -> None:
    assert sorted(instant(query, SOURCE, 25_000).infos) == sorted(wanted)
    assert sorted(query_range(query, SOURCE, 25_000, 26_000, 1_000).infos) == sorted(wanted)


def test_rules_get_no_hints() -> None:
    for answer in evaluate_many(["rate(load[1m])", "rate(heat[1m])", "sum(rate(load[1m])) or up"], SOURCE, 25_000):
        assert not isinstance(answer, Exception)
        assert answer.labels.size
        assert not answer.infos
