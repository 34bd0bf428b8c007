"""Any interleaving of ingest, compaction, merging, crash, damage-free reading: always exactly what was acknowledged."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts.permissions import Principal
from apps.metrics import catalog, compaction, query, registry, services, storage, young
from apps.metrics.samples import Samples
from apps.metrics.storage import WINDOW_MS
from apps.promql.source import Matcher

NOW = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
WINDOW = int(NOW.timestamp() * 1000) // WINDOW_MS * WINDOW_MS
LATER = NOW + timedelta(hours=5)
BY = Principal.system("test")

samples = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 0), st.integers(0, 6)), min_size=1, max_size=8)
"""(series, window, second in it)"""
crashes = st.sampled_from([0] * 48 + list(range(1, 17)))
"""The statement that fails; three times in four none does."""


class Crash(Exception):
    """Stands for a process that ends here."""


class Store:
    """The store beside a dictionary. Each value is written once, so that a stale one is seen."""

    def __init__(self):
        with connection.cursor() as cursor:
            for table in ("batch", "block", "series", "metric"):
                cursor.execute(f"DELETE FROM metrics_{table}")
        self.forget()
        self.truth = {}
        self.value = 0.0

    def forget(self):
        registry.forget()
        catalog.forget()
        storage.forget()
        young.forget()

    def crashing(self, number, body):
        """Run it with the number-th statement failing; True when it got through."""
        original = psycopg.Cursor.execute
        left = [number]

        def execute(cursor, *args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return original(cursor, *args, **kwargs)

        psycopg.Cursor.execute = execute  # type: ignore[method-assign,assignment]
        try:
            body()
        except Crash:
            return False
        finally:
            psycopg.Cursor.execute = original  # type: ignore[method-assign]
        return True

    def ingest(self, rows, crash):
        new = {}
        labels, times, values = [], [], []
        for series, window, second in rows:
            self.value += 1.0
            labels.append({"__name__": f"m{series % 2}", "n": str(series)})
            times.append(WINDOW + window * WINDOW_MS + second * 1000)
            values.append(self.value)
            new[str(series), times[-1]] = self.value
        batch = Samples.of(labels, times, values)
        if self.crashing(crash, lambda: services.ingest(samples=batch, by=BY, now=NOW, window=None)):
            self.truth |= new

    def compact(self, crash):
        self.crashing(crash, lambda: compaction.compact_log(now=NOW))

    def merge(self, window, closed, crash):
        def body():
            compaction.merge_window(due=compaction.Due(0, WINDOW + window * WINDOW_MS, closed), now=LATER)

        self.crashing(crash, body)

    def start_anew(self):
        self.forget()

    def reads_are_what_was_acknowledged(self):
        got = query.select([Matcher("__name__", "=~", "m.")], 0, WINDOW + WINDOW_MS)
        names = got.labels.texts("n")
        found = {
            (names[row], int(ts)): float(v)
            for row in range(got.size)
            for ts, v in zip(
                got.ts[got.off[row] : got.off[row + 1]], got.v[got.off[row] : got.off[row + 1]], strict=True
            )
        }
        assert len(found) == len(got.ts)
        assert found == self.truth
        assert got.warnings == ()

    def narrow_reads_are_cut_from_it(self, series, begin, length):
        tmin, tmax = WINDOW + begin * 1000, WINDOW + (begin + length) * 1000
        got = query.select([Matcher("__name__", "=", f"m{series % 2}"), Matcher("n", "=", str(series))], tmin, tmax)
        expected = sorted((t, v) for (n, t), v in self.truth.items() if n == str(series) and tmin < t <= tmax)
        assert list(zip(got.ts.tolist(), got.v.tolist(), strict=True)) == expected


steps = st.one_of(
    st.tuples(st.just("ingest"), samples, crashes),
    st.tuples(st.just("ingest"), samples, crashes),
    st.tuples(st.just("compact"), crashes),
    st.tuples(st.just("merge"), st.integers(-1, 0), st.booleans(), crashes),
    st.tuples(st.just("start_anew")),
    st.tuples(st.just("narrow_reads_are_cut_from_it"), st.integers(0, 3), st.integers(-1, 8), st.integers(0, 8)),
)
"""The machine's moves. Not hypothesis' own state machine: it leaves out rules at random, here mostly the ingest."""


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(steps, st.booleans()), min_size=10, max_size=40))
def test_any_interleaving_returns_exactly_what_was_acknowledged(moves):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "BLOCK_SAMPLES", 5)
        patch.setattr(compaction, "MERGE_SAMPLES", 7)
        store = Store()
        for (move, *arguments), look in moves:
            getattr(store, move)(*arguments)
            if look:
                store.reads_are_what_was_acknowledged()
        store.reads_are_what_was_acknowledged()
