"""When a failed delivery is tried again."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from apps.notifications.retrying import LIFETIME, LONGEST_PAUSE, TRIES, Verdict, after_failure
from tests.notifications.conftest import NOW


def _after(attempts: int = 1, age: float = 0.0, wait: float | None = None, **fields: object) -> Verdict:
    values = {"permanent": False, "chance": 0.0, **fields}
    return after_failure(
        attempts=attempts,
        created_at=NOW - timedelta(seconds=age),
        now=NOW,
        retry_after=None if wait is None else timedelta(seconds=wait),
        **values,  # type: ignore[arg-type]
    )


def _pause(verdict: Verdict) -> float:
    assert verdict.due_at is not None
    return (verdict.due_at - NOW).total_seconds()


def test_pauses_double_up_to_half_an_hour():
    assert [_pause(_after(n)) for n in (1, 2, 3, 4, 11, 30)] == [2, 4, 8, 16, 1800, 1800]


def test_a_receiver_that_names_a_time_is_not_asked_before_it():
    assert _pause(_after(wait=90)) == 90
    assert _pause(_after(9, wait=1)) == 512


def test_what_is_permanent_too_often_or_too_old_is_given_up():
    assert _after(permanent=True).due_at is None
    assert _after(TRIES).reason == f"given up after {TRIES} tries"
    assert "24 h" in _after(age=LIFETIME.total_seconds()).reason
    assert _after(3, is_test=True).due_at is None


@given(st.integers(1, 200), st.floats(0, 200_000), st.floats(0, 0.999), st.booleans())
def test_a_next_try_lies_ahead_and_within_the_lifetime(attempts: int, age: float, chance: float, permanent: bool):
    verdict = _after(attempts, age, chance=chance, permanent=permanent)
    if verdict.due_at is None:
        assert verdict.reason
    else:
        assert not permanent
        assert timedelta(0) < verdict.due_at - NOW <= LONGEST_PAUSE
        assert verdict.due_at <= NOW - timedelta(seconds=age) + LIFETIME
