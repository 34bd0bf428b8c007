"""Late and repeated samples at the edges: after a restart, between processes, and in every place of the store."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from apps.accounts.permissions import Principal
from apps.metrics import catalog, compaction, query, registry, rolling, services, storage, young
from apps.metrics.assembly import Piece, Wanted, assemble
from apps.metrics.codec import View
from apps.metrics.models import Block, RetentionPolicy, Series
from apps.metrics.rollups import FIELDS
from apps.metrics.samples import Samples
from apps.metrics.storage import WINDOW_MS
from apps.promql.source import Matcher

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
WINDOW = int(NOW.timestamp() * 1000) // WINDOW_MS * WINDOW_MS
CLOSED = NOW + timedelta(hours=5)
BY = Principal.system("test")
MINUTE = 60_000


def send(*rows, by=BY):
    """Ingest (minute in the window, value) of one series, as a request of its own; the reasons of what was refused."""
    times = [WINDOW + round(minute * MINUTE) for minute, _ in rows]
    samples = Samples.of([{"__name__": "x"}] * len(rows), times, [float(value) for _, value in rows])
    return [one.reason for one in services.ingest(samples=samples, by=by, now=NOW).rejected]


def stored():
    got = query.select([Matcher("__name__", "=", "x")], 0, 2**50)
    assert got.warnings == ()
    return dict(zip(((got.ts - WINDOW) / MINUTE).tolist(), got.v.tolist(), strict=True))


def merge(now):
    for due in compaction.due_windows(now):
        compaction.merge_window(due=due, now=now)


class Process:
    """What another web process knows of series: its own registry, entered for a moment."""

    def __init__(self):
        self.known = registry.Registry()

    def send(self, *rows):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registry, "current", lambda: self.known)
            return send(*rows)


# --- The window -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("behind", "refused"), [(10.0, []), (10.001, ["too_old"])])
def test_the_window_ends_to_the_millisecond(behind, refused):
    send((30, 1))
    assert send((30 - behind, 2)) == refused


def test_a_refused_sample_does_not_move_the_window_and_one_from_the_future_does():
    send((30, 1))
    assert send((19, 2), (29, 3)) == ["too_old"]
    assert send((200, 4)) == ["too_far_ahead"]
    assert send((20, 5)) == []
    assert send((40, 6)) == []
    assert send((29, 7)) == ["too_old"]


def test_one_request_is_judged_by_what_was_known_before_it():
    """A backlog in one request is welcome in any order; what it brings counts from the next one on."""
    assert send((30, 1), (5, 2), (60 - 30, 3)) == []
    assert send((5, 4)) == ["too_old"]
    assert stored() == {5.0: 2.0, 30.0: 3.0}


def test_a_process_that_starts_takes_late_samples_for_longer_and_refuses_nothing_that_is_in_order():
    """It knows the newest instants as compaction wrote them down: half an hour late, and without what is young."""
    send((0, 0))
    compaction.compact_log(now=NOW)
    for minute in (10, 20, 29):
        send((minute, minute))
        compaction.compact_log(now=NOW)
    send((33, 33))
    assert send((22, 1)) == ["too_old"]
    registry.forget()
    assert send((-11, 1)) == ["too_old"]
    assert send((-9, 2), (34, 34)) == []
    assert send((22, 1)) == ["too_old"]
    assert stored() == {-9.0: 2.0, 0.0: 0.0, 10.0: 10.0, 20.0: 20.0, 29.0: 29.0, 33.0: 33.0, 34.0: 34.0}


def test_what_was_written_down_is_never_newer_than_what_is_stored():
    """Else a process that starts would refuse samples that are in order."""
    for minute in (0, 45, 10, 31):
        services.ingest(
            samples=Samples.of([{"__name__": "x"}], [WINDOW + minute * MINUTE], [1.0]), by=BY, now=NOW, window=None
        )
        compaction.compact_log(now=NOW)
        last = Series.objects.get().last_at
        assert last is not None
        assert last.timestamp() * 1000 <= WINDOW + max(stored()) * MINUTE


def test_each_process_has_its_own_window_and_none_refuses_what_is_in_order():
    one, other = Process(), Process()
    assert one.send((0, 0)) == other.send((1, 1)) == []
    assert [one.send((minute, minute)) for minute in (10, 20, 30)] == [[], [], []]
    assert one.send((5, 5)) == ["too_old"]
    assert other.send((5, 5)) == []
    assert other.send((31, 31)) == one.send((32, 32)) == []
    assert stored() == {float(minute): float(minute) for minute in (0, 1, 5, 10, 20, 30, 31, 32)}


def test_a_backfill_is_outside_the_window_and_moves_none_back():
    send((30, 1))
    some = Samples.of([{"__name__": "x"}] * 2, [WINDOW - 10**9, WINDOW], [5.0, 6.0])
    assert services.backfill(samples=some, by=BY, now=NOW).rejected == ()
    assert send((19, 2)) == ["too_old"]
    assert send((21, 3)) == []


# --- Twice ----------------------------------------------------------------------------------------------------------


def test_the_same_request_from_two_processes_is_there_once():
    rows = [(minute, minute) for minute in range(10)]
    one, other = Process(), Process()
    for process in (one, other, one):
        assert process.send(*rows) == []
    assert Series.objects.count() == 1
    assert stored() == {float(minute): float(minute) for minute in range(10)}
    compaction.compact_log(now=NOW)
    assert sum(Block.objects.values_list("samples", flat=True)) == 10


def test_the_later_of_two_values_wins_in_every_place_of_the_store():
    """Young on young, young on block, block on block, merged, late on merged, merged again; in one request the last."""

    def now_it_is(value):
        assert stored() == {5.0: value, 6.0: 60.0}
        for memory in (catalog, storage, young, registry):
            memory.forget()
        assert stored() == {5.0: value, 6.0: 60.0}

    def write(value):
        assert send((5, -1), (5, value)) == []
        now_it_is(value)

    send((6, 60))
    write(1)
    write(2)
    compaction.compact_log(now=NOW)
    now_it_is(2)
    write(3)
    compaction.compact_log(now=NOW)
    now_it_is(3)
    merge(CLOSED)
    now_it_is(3)
    assert [block.level for block in Block.objects.all()] == [1]
    write(2)
    compaction.compact_log(now=CLOSED)
    now_it_is(2)
    merge(CLOSED + compaction.AGAIN)
    now_it_is(2)
    assert [(block.level, block.samples) for block in Block.objects.all()] == [(1, 2)]


def test_the_later_value_is_the_one_that_roll_ups_are_made_of_also_when_it_comes_after_them():
    RetentionPolicy.objects.create(
        category="default", raw=timedelta(days=1), rollup_5m=timedelta(days=10), rollup_1h=timedelta(days=100)
    )
    for turn, value in enumerate((1.0, 2.0, 7.0)):
        send((5, value))
        compaction.compact_log(now=NOW)
        at = CLOSED + turn * compaction.AGAIN
        for window in rolling.due_windows(at):
            rolling.roll_window(window=window, now=at)
        merge(at)
        assert rolled(300) == rolled(3600) == {"max": value, "sum": value, "count": 1.0, "last": value}


def rolled(resolution):
    """The one bucket that stands, by field, the later round winning as for every reader."""
    found = {}
    for name in ("max", "sum", "count", "last"):
        rows = Block.objects.filter(resolution=resolution, field=FIELDS.index(name) + 1)
        pieces = [Piece(row.round, 0, View(bytes(row.directory), bytes(row.payload), row.crc), "") for row in rows]
        got = assemble(Wanted.of(np.array([Series.objects.get().pk])), pieces, 0, 2**50)
        (found[name],) = got.v.tolist()
    return found
