"""Roll-ups of closed windows: made once, made anew for what is late, and only then may raw samples go."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Principal
from apps.metrics import compaction, rolling, services, tasks
from apps.metrics.models import Block, RetentionPolicy, RolledWindow
from apps.metrics.samples import Samples
from apps.metrics.storage import WINDOW_MS

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
WINDOW = int(NOW.timestamp() * 1000) // WINDOW_MS * WINDOW_MS
LATER = NOW + timedelta(hours=4)
BY = Principal.system("test")


@pytest.fixture(autouse=True)
def policy():
    return RetentionPolicy.objects.create(
        category="default", raw=timedelta(days=1), rollup_5m=timedelta(days=10), rollup_1h=timedelta(days=100)
    )


def send(*rows, now=NOW):
    """rows: (ms from the window's start, value)."""
    samples = Samples.of([{"__name__": "x"}] * len(rows), [WINDOW + ms for ms, _ in rows], [float(v) for _, v in rows])
    assert services.ingest(samples=samples, by=BY, now=now, window=None).accepted == len(rows)
    while compaction.compact_log(now=now):
        pass


def roll_all(now=LATER):
    for window in rolling.due_windows(now):
        rolling.roll_window(window=window, now=now)


def blocks(resolution):
    return Block.objects.filter(resolution=resolution).count()


def test_a_window_is_rolled_when_it_and_the_next_are_closed():
    send((0, 1), (15_000, 2))
    assert rolling.due_windows(NOW + timedelta(hours=3)) == [WINDOW - WINDOW_MS]
    assert rolling.due_windows(LATER) == [WINDOW - WINDOW_MS, WINDOW]
    roll_all()
    assert (blocks(300), blocks(3600)) == (18, 18)
    assert rolling.due_windows(LATER) == []


def test_what_is_late_rolls_its_window_again_but_not_at_once():
    send((15_000, 2))
    roll_all()
    send((30_000, 5))
    assert rolling.due_windows(LATER + timedelta(minutes=29)) == []
    assert rolling.due_windows(LATER + timedelta(minutes=30)) == [WINDOW]


def test_the_first_instant_of_the_next_window_belongs_to_the_last_bucket():
    send((WINDOW_MS - 1000, 1), (WINDOW_MS, 2), (WINDOW_MS + 1, 4), now=LATER)
    assert rolling.roll_window(window=WINDOW, now=LATER) == 2
    assert Block.objects.filter(resolution=300).values_list("t_max", flat=True).distinct().get() == WINDOW + WINDOW_MS


def test_raw_samples_stay_until_their_roll_ups_stand_and_each_deletion_is_proved(policy):
    send((15_000, 2))
    late = NOW + timedelta(days=3)
    tasks.retain(now=late)
    assert blocks(0) == 1
    roll_all(late)
    tasks.retain(now=late)
    policy.refresh_from_db()
    assert (blocks(0), blocks(300), policy.raw_from) == (0, 9, int((late - policy.raw).timestamp() * 1000) + 1_800_000)
    tasks.retain(now=NOW + timedelta(days=13))
    assert (blocks(300), blocks(3600)) == (0, 9)
    tasks.retain(now=NOW + timedelta(days=135))
    assert blocks(3600) == 0
    proofs = AuditEntry.objects.filter(verb="metrics.expire").order_by("id").values_list("after", flat=True)
    assert [proof["resolution"] for proof in proofs if proof] == [0, 300, 3600]


def test_roll_ups_of_a_closed_window_are_merged_field_by_field():
    for hours in (0, 2, 4):
        send((hours * 3_600_000 + 15_000, hours), now=LATER)
    later = NOW + timedelta(days=3)
    roll_all(later)
    assert blocks(300) == 27
    for due in compaction.due_windows(later):
        compaction.merge_window(due=due, now=later)
    assert blocks(300) == 9
    assert set(Block.objects.filter(resolution=300).values_list("level", "samples")) == {(1, 3)}


def test_a_policy_without_roll_ups_makes_none(policy):
    RetentionPolicy.objects.update(rollup_5m=None, rollup_1h=None)
    send((15_000, 2))
    roll_all()
    assert (blocks(300), RolledWindow.objects.count()) == (0, 1)
    tasks.retain(now=NOW + timedelta(days=3))
    assert blocks(0) == 0
