"""A query that many ask at once is worked out once, and never answered by what is too old for whoever asks."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import monotonic

import numpy as np
import pytest

from apps.accounts.permissions import EVERYTHING, Scope
from apps.dashboards import shared
from apps.dashboards.timespan import Span
from apps.metrics.query import WAITED_FOR
from apps.promql.errors import LimitError
from apps.promql.labels import Labels
from apps.promql.result import Result

AT = datetime(2026, 11, 29, tzinfo=UTC)
SPAN = Span(AT, AT, AT + timedelta(hours=1), timedelta(seconds=15))
KEY = ("up", SPAN, EVERYTHING, WAITED_FOR)


def result(points=4):
    return Result(
        "matrix", Labels.from_dicts([{}]), np.zeros(points), np.zeros((1, points)), np.ones((1, points), bool)
    )


class Counted:
    """A computation that counts how often it ran, and may wait."""

    def __init__(self, answer=None):
        self.runs = 0
        self.go = threading.Event()
        self.go.set()
        self.answer = answer or result()

    def __call__(self):
        self.runs += 1
        self.go.wait(10)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_whoever_asks_while_it_is_worked_out_waits_for_the_one_answer():
    store, work = shared.Store(), Counted()
    work.go.clear()
    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(store.get, KEY, work, newer_than=0.0) for _ in range(8)]
        work.go.set()
        assert all(each.result() is work.answer for each in asking)
    assert work.runs == 1


def test_what_is_too_old_is_worked_out_anew():
    store, work = shared.Store(), Counted()
    store.get(KEY, work, newer_than=0.0)
    store.get(KEY, work, newer_than=0.0)
    assert work.runs == 1
    store.get(KEY, work, newer_than=monotonic() + 1)
    assert work.runs == 2


@pytest.mark.parametrize("other", [("down", *KEY[1:]), (*KEY[:2], Scope((("a", "=", "b"),)), WAITED_FOR)])
def test_another_query_or_another_scope_shares_nothing(other):
    store, work = shared.Store(), Counted()
    store.get(KEY, work, newer_than=0.0)
    store.get(other, work, newer_than=0.0)
    assert work.runs == 2


def test_an_error_is_everybodys_who_waits_and_is_not_kept():
    store, work = shared.Store(), Counted(LimitError("too much"))
    for _ in range(2):
        with pytest.raises(LimitError):
            store.get(KEY, work, newer_than=0.0)
    assert work.runs == 2


def test_answers_are_kept_up_to_a_size(monkeypatch):
    store, work = shared.Store(), Counted(result(1_000))
    monkeypatch.setattr(shared, "MOST", 50_000)
    for number in range(20):
        store.get((f"up{number}", *KEY[1:]), work, newer_than=0.0)
    assert store._size <= 50_000
    assert len(store._flights) == 5
    monkeypatch.setattr(shared, "LARGEST", 1_000)
    store.get(KEY, work, newer_than=0.0)
    assert len(store._flights) == 5, "a very large one is not kept at all"
