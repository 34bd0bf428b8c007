"""Runs of young rows: whatever order batches appear and vanish in, the highest id among the visible wins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.metrics import young
from apps.metrics.assembly import Piece, Wanted, assemble
from apps.metrics.codec import Columns, encode_batch
from apps.metrics.storage import YOUNG
from apps.metrics.young import Gone, Held

SERIES = 3
contents = st.lists(st.tuples(st.integers(0, SERIES - 1), st.integers(0, 9)), min_size=1, max_size=12, unique=True)


def payload(ident, content):
    series, ts = (np.array(column, np.int64) for column in zip(*content, strict=True))
    return encode_batch(Columns(series, ts, np.full(len(ts), float(ident))))


def read(held, batches, visible):
    fetched = []

    def fetch(ids):
        fetched.extend(ids)
        return [(ident, payload(ident, batches[ident])) for ident in ids]

    ids = np.array(sorted(visible), np.int64)
    runs, damaged = held.read(ids, np.array([len(batches[i]) for i in ids.tolist()], np.int64), fetch)
    assert damaged == {}
    return runs, fetched


@given(st.lists(contents, min_size=1, max_size=10), st.data())
@settings(max_examples=150)
def test_the_highest_visible_id_wins_in_any_order_of_appearance(listed, data):
    batches = dict(enumerate(listed, 1))
    held = Held()
    for _ in range(data.draw(st.integers(1, 6))):
        visible = data.draw(st.sets(st.sampled_from(sorted(batches)), min_size=1))
        runs, _ = read(held, batches, visible)
        truth = {key: float(ident) for ident in sorted(visible) for key in batches[ident]}
        pieces = [Piece(YOUNG, run.t_min, run.body, "young") for run in runs]
        got = assemble(Wanted.of(np.arange(SERIES)), pieces, -1, 100)
        owner = np.repeat(np.arange(SERIES), np.diff(got.off))
        assert dict(zip(zip(owner.tolist(), got.ts.tolist(), strict=True), got.v.tolist(), strict=True)) == truth
        assert len(got.ts) == len(truth)


def test_each_batch_is_fetched_once_and_runs_stay_few():
    held = Held()
    batches = {ident: [(ident % SERIES, ident)] for ident in range(1, 201)}
    for count in range(1, 201):
        runs, fetched = read(held, batches, range(1, count + 1))
        assert fetched == [count]
        assert len(runs) <= 9
    runs, fetched = read(held, batches, range(151, 201))
    assert set(fetched) <= set(range(151, 201))
    assert sum(len(run.columns) for run in runs) == 50


def test_of_equal_instants_in_one_batch_the_last_sent_counts():
    raw = encode_batch(Columns(np.array([1, 1]), np.array([5, 5]), np.array([9.0, 2.0])))
    (run,), _ = Held().read(np.array([4]), np.array([2]), lambda ids: [(4, raw)])
    assert (run.columns.ts.tolist(), run.columns.v.tolist()) == ([5], [2.0])


def test_far_apart_series_sort_like_near_ones():
    series = np.array([2**60, 1, 2**60, 1], np.int64)
    columns = Columns(series, np.array([2**40, 7, 3, 7]), np.arange(4.0), np.array([9, 8, 9, 9]))
    got = young.unique(columns)
    assert got.series.tolist() == [1, 2**60, 2**60]
    assert got.v.tolist() == [3.0, 2.0, 0.0]


def test_a_batch_that_compaction_took_meanwhile_is_reported():
    with pytest.raises(Gone):
        Held().read(np.array([1]), np.array([1]), lambda ids: [])


def test_damaged_batches_are_named_and_the_others_held():
    good = payload(1, [(0, 1)])
    fetched = []

    def fetch(ids):
        fetched.append(list(ids))
        return [(ident, good if ident == 1 else b"?" * 40) for ident in ids]

    held = Held()
    for _ in range(2):
        (run,), damaged = held.read(np.array([1, 2]), np.array([1, 1]), fetch)
        assert run.ids.tolist() == [1]
        assert list(damaged) == [2]
    assert fetched == [[1, 2], [2]]


def test_nothing_is_held_while_too_much_is_young(monkeypatch):
    monkeypatch.setattr(young, "LIMIT", 1)
    held = Held()
    batches = {1: [(0, 1)], 2: [(0, 2)]}
    for _ in range(2):
        assert read(held, batches, {1, 2})[1] == [1, 2]
