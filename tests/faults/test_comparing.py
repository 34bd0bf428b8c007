"""The comparisons of the fault runs see what is missing, doubled, different, or never sent."""

from typing import Any

import pytest

from tests.faults import sender as sending
from tests.faults.run import compare
from tests.faults.sender import Kill, Sender, account, value_of

ONE, OTHER = frozenset({("__name__", "a")}), frozenset({("__name__", "b")})


@pytest.mark.parametrize(
    ("stored", "counts"),
    [
        ({ONE: {1: 5, 2: 6}}, (0, 0, 0)),
        ({ONE: {1: 5}}, (1, 0, 0)),
        ({}, (2, 0, 0)),
        ({ONE: {1: 5, 2: 7}}, (0, 1, 0)),
        ({ONE: {1: 5, 2: 6, 3: 7}}, (0, 0, 1)),
        ({ONE: {1: 5, 2: 6}, OTHER: {1: 1}}, (0, 0, 1)),
    ],
)
def test_prometheus_samples_are_compared_by_time_and_bits(stored: Any, counts: tuple[int, int, int]) -> None:
    found = compare({ONE: {1: 5, 2: 6}}, stored)
    assert (found.missing, found.different, found.unheld) == counts
    assert len(found.examples) == (counts != (0, 0, 0))


@pytest.mark.parametrize(
    ("stored", "missing", "doubled", "unsent"),
    [
        ([0, 1], 0, 0, 0),
        ([0, 1, 2], 0, 0, 0),
        ([0], 1, 0, 0),
        ([], 2, 0, 0),
        ([0, 1, 1], 0, 1, 0),
        ([0, 1, 3], 0, 0, 1),
        ([0, 5], 1, 0, 1),
    ],
)
def test_acknowledged_numbers_are_compared_one_by_one(
    monkeypatch: pytest.MonkeyPatch, stored: Any, missing: int, doubled: int, unsent: int
) -> None:
    """Numbers 0 and 1 were acknowledged, 2 was sent and may be there."""
    sender = Sender("http://127.0.0.1:1", "token", "s", series=1, a_second=0)
    sender.times, sender.acknowledged = [10, 11, 12], {0: 100.0, 1: 200.0}
    monkeypatch.setattr(sending, "_stored", lambda *_: [(7, [(10 + k, value_of(k, 7)) for k in stored])])
    found = account([sender], [Kill("web", 150.0)], "", "")
    assert (found.whole.missing, found.whole.doubled, found.unsent) == (missing, doubled, unsent)
    assert [found.parts[name].acknowledged for name in ("nobody yet", "web")] == [1, 1]
