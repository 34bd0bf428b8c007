"""An alert's life by tables: one character an evaluation, one word a moment of its life."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alerting.lifecycle import (
    ACTIVE,
    OPEN,
    TRANSITIONS,
    Life,
    Observation,
    Reason,
    Severity,
    State,
    Terms,
    close,
    diagram,
    is_news,
    is_telling,
    step,
)

EPOCH = datetime(2026, 11, 23, tzinfo=UTC)
TICK = timedelta(seconds=10)
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
SEEN = {
    ".": Observation(),
    "w": Observation(frozenset({WARNING})),
    "c": Observation(frozenset({WARNING, CRITICAL})),
    "C": Observation(frozenset({CRITICAL})),
    "m": Observation(absent=Reason.MISSING_SERIES),
    "n": Observation(absent=Reason.NO_DATA),
    "s": Observation(absent=Reason.NO_DATA, settling=True),
    # One minute in which nobody looked went before these.
    "W": Observation(frozenset({WARNING}), unobserved=timedelta(minutes=1)),
    "G": Observation(unobserved=timedelta(minutes=1)),
}
SIGN = {State.PENDING: "p", State.FIRING: "f", State.RECOVERING: "r", State.RESOLVED: "X", State.INACTIVE: "i"}


def live(pattern: str, wait: int, keep: int) -> tuple[str, list[Reason | None], list[Life | None]]:
    """The life under this pattern of evaluations; capitals are critical."""
    terms = Terms(TICK * wait, TICK * keep)
    life, told, reasons, lives = None, "", [], []
    now = EPOCH
    for sign in pattern:
        now += TICK + SEEN[sign].unobserved
        taken = step(life, SEEN[sign], now=now, terms=terms)
        life = taken.after
        letter = "-" if life is None else SIGN[life.state]
        told += letter.upper() if life and life.severity is CRITICAL and life.state in OPEN else letter
        reasons.append(taken.reason)
        lives.append(life)
        if life is not None and life.state not in OPEN:
            life = None
    return told, reasons, lives


@pytest.mark.parametrize(
    ("wait", "keep", "seen", "told"),
    [
        (0, 0, "..w.", "--fX"),
        (2, 0, "www.", "ppfX"),
        (2, 0, "ww.www", "ppippf"),
        (2, 2, "www..w", "ppfrrf"),
        (2, 2, "www...w", "ppfrrXp"),
        (0, 1, "w.w..", "frfrX"),
        # One alert that gets worse and better; each level waits for itself.
        (0, 0, "wcw.", "fFfX"),
        (2, 0, "cccw.", "PPFfX"),
        (2, 0, "wwwcccw.", "ppfffFfX"),
        (2, 0, "wcwcw.", "pPfffX"),
        (2, 0, "wwcw.", "ppffX"),
        # A worse level that is kept for a while keeps the alert's severity, as its own rule would.
        (0, 2, "cwww.", "FFFfr"),
        # Two directions: the same alert while another level waits.
        (2, 0, "wwwCCC.", "ppfrrFX"),
        (2, 0, "wwwC.", "ppfrX"),
        # Absent is not below: it ends an alert, and says why; after a gap it ends nothing.
        (0, 0, "wm", "fX"),
        (2, 0, "wwm", "ppi"),
        (0, 0, "wsss.", "ffffX"),
        (2, 0, "wssww", "pppff"),
        # Unobserved time counts for nothing.
        (2, 0, "wWww", "ppff"),
        (0, 3, "w.G...", "frrrX-"),
    ],
)
def test_life_follows_the_evaluations(wait: int, keep: int, seen: str, told: str) -> None:
    assert live(seen, wait, keep)[0] == told


@pytest.mark.parametrize(
    ("seen", "wait", "reason"),
    [
        ("w.", 0, Reason.VALUE),
        ("wm", 0, Reason.MISSING_SERIES),
        ("wn", 0, Reason.NO_DATA),
        ("wwm", 5, Reason.MISSING_SERIES),
        ("wW", 5, Reason.RESTART),
        ("ww", 0, None),
    ],
)
def test_the_last_change_says_its_reason(seen: str, wait: int, reason: Reason | None) -> None:
    assert live(seen, wait, 0)[1][-1] == reason


def test_a_person_ends_what_fires_and_what_only_waits_never_fired() -> None:
    assert close(Life(State.RECOVERING, WARNING)).state is State.RESOLVED
    assert close(Life(State.PENDING, WARNING)).state is State.INACTIVE


def test_a_clock_that_was_set_back_starts_the_wait_anew_instead_of_stretching_it() -> None:
    terms = Terms(pending_period=TICK * 2)
    begun = step(None, SEEN["w"], now=EPOCH + timedelta(hours=1), terms=terms).after
    again = step(begun, SEEN["w"], now=EPOCH, terms=terms)
    assert again.reason is Reason.RESTART
    fired = step(again.after, SEEN["w"], now=EPOCH + TICK * 2, terms=terms).after
    assert fired is not None
    assert fired.state is State.FIRING


def test_only_what_begins_to_fire_or_ends_after_firing_concerns_anybody() -> None:
    telling = {pair for pair in TRANSITIONS if is_telling(*pair)}
    assert telling == {
        (State.INACTIVE, State.FIRING),
        (State.PENDING, State.FIRING),
        (State.FIRING, State.RESOLVED),
        (State.RECOVERING, State.RESOLVED),
    }


patterns = st.text(alphabet=list(SEEN), min_size=1, max_size=40)
waits = st.integers(0, 4)


@given(patterns, waits, waits)
def test_every_change_is_in_the_table_with_its_reason(pattern: str, wait: int, keep: int) -> None:
    _, reasons, lives = live(pattern, wait, keep)
    for (before, after), reason in zip(pairwise([None, *lives]), reasons, strict=True):
        open_before = before if before is not None and before.state in OPEN else None
        if after is None:
            assert open_before is None
            continue
        assert (reason is None) == (open_before == after)
        if reason is not None and is_news(open_before, after, reason)[0]:
            old = open_before.state if open_before else State.INACTIVE
            assert reason in TRANSITIONS[old, after.state]


@given(patterns, waits, waits)
def test_an_alert_is_told_as_resolved_exactly_as_often_as_it_was_told_as_firing(
    pattern: str, wait: int, keep: int
) -> None:
    told, _, lives = live(pattern, wait, keep)
    fired = sum(
        1
        for before, after in pairwise([None, *lives])
        if after and after.state is State.FIRING and (before is None or before.state not in ACTIVE)
    )
    still = int(lives[-1] is not None and lives[-1].state in ACTIVE)
    assert fired == told.count("X") + still


@given(patterns, waits, waits)
def test_one_level_lives_as_the_rule_of_prometheus_does(pattern: str, wait: int, keep: int) -> None:
    """The oracle is Prometheus' own bookkeeping: active since, kept since."""
    plain = "".join("w" if sign in "wcW" else "." for sign in pattern)
    active_at = kept_at = None
    expected, now, firing = "", EPOCH, False
    for sign in plain:
        now += TICK
        if sign == "w":
            active_at, kept_at = active_at or now, None
            firing = firing or now - active_at >= TICK * wait
            expected += "f" if firing else "p"
        elif firing and keep and (kept_at is None or now - kept_at < TICK * keep):
            kept_at = kept_at or now
            expected += "r"
        else:
            expected += "X" if firing else "i" if active_at else "-"
            active_at, kept_at, firing = None, None, False
    assert live(plain, wait, keep)[0] == expected


@given(patterns, waits, waits)
def test_two_levels_fire_as_two_rules_of_one_level_would(pattern: str, wait: int, keep: int) -> None:
    """So that a rule with levels can be exported as plain rules."""
    both = "".join(sign if sign in "wc" else "." for sign in pattern)
    warning = live(both.replace("c", "w"), wait, keep)[0]
    critical = live(both.replace("w", ".").replace("c", "w"), wait, keep)[0]
    folded = live(both, wait, keep)[0]
    for w, c, got in zip(warning, critical, folded, strict=True):
        assert (got in "fFrR") == (w in "fr" or c in "fr")
        assert (got in "FR") == (c in "fr")


def test_the_page_for_the_docs_draws_every_transition() -> None:
    page = diagram()
    assert page.count("-->") == len(TRANSITIONS) + 2
    assert all(f"| `{reason}` |" in page for reason in Reason)
