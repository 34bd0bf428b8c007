"""What becomes of what was held back, as pure functions: every delivery has one fate, and the digest says it all."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.oncall.digest import Fates, Held, Waiting, compose, fates
from apps.oncall.messages import AlertView, Occasion

NEWS = Waiting(1, is_active=True)
OVER = Waiting(2, is_active=False)
OWNED = Waiting(3, is_active=True, acknowledged_by="ben")
MUTED = Waiting(4, is_active=True, muted="silence of anna")
TOLD = Waiting(5, is_active=True, is_told=True)
END = Waiting(6, is_active=False, is_end=True)


@pytest.mark.parametrize(
    ("why", "about", "fate"),
    [
        ("order", (NEWS,), Fates(leave=(7,))),
        ("order", (NEWS, OVER), Fates(leave=(7,))),
        ("order", (OVER,), Fates(drop={7: "It was over before it was told."})),
        ("order", (OWNED,), Fates(drop={7: "Acknowledged by ben before it was told."})),
        ("order", (TOLD,), Fates(drop={7: "Told in the meantime."})),
        ("order", (MUTED,), Fates(wait=(7,))),
        ("order", (), Fates(drop={7: "What it was about is gone."})),
        ("quiet", (NEWS,), Fates(leave=(7,))),
        ("quiet", (END,), Fates(leave=(7,))),
        ("quiet", (NEWS, OVER), Fates(digest=(7,))),
        ("quiet", (OVER,), Fates(drop={7: "It was over before it was told."})),
        ("quiet", (OWNED,), Fates(drop={7: "Acknowledged by ben before it was told."})),
        ("quiet", (MUTED,), Fates(wait=(7,))),
        ("hours", (NEWS,), Fates(leave=(7,))),
        ("hours", (OVER,), Fates(digest=(7,))),
        ("hours", (OWNED,), Fates(digest=(7,))),
        ("hours", (TOLD,), Fates(drop={7: "Told in the meantime."})),
        ("hours", (MUTED,), Fates(wait=(7,))),
    ],
)
def test_what_becomes_of_one(why: str, about: tuple[Waiting, ...], fate: Fates):
    assert fates([Held(7, why, about)]) == fate


def test_several_are_told_in_one_where_the_receiver_takes_that():
    held = [Held(1, "quiet", (NEWS,)), Held(2, "hours", (OVER,)), Held(3, "order", (NEWS,)), Held(4, "quiet", (OVER,))]
    assert fates(held) == Fates(leave=(3,), digest=(1, 2), drop={4: "It was over before it was told."})
    one_each = fates(held, bundles=False)
    assert (one_each.leave, one_each.digest) == ((1, 3), ())


waiting = st.builds(
    Waiting,
    alert=st.integers(1, 5),
    is_active=st.booleans(),
    is_end=st.booleans(),
    acknowledged_by=st.sampled_from(["", "ben"]),
    muted=st.sampled_from(["", "silence"]),
    is_told=st.booleans(),
)
anything = st.lists(
    st.builds(
        Held,
        delivery=st.integers(1, 30),
        why=st.sampled_from(["order", "quiet", "hours"]),
        about=st.lists(waiting, max_size=3).map(tuple),
    ),
    max_size=8,
    unique_by=lambda held: held.delivery,
)


@given(anything, st.booleans())
def test_nothing_that_was_held_is_ever_lost(held: list[Held], bundles: bool):
    found = fates(held, bundles=bundles)
    all_of_them = [*found.leave, *found.digest, *found.wait, *found.drop]
    assert sorted(all_of_them) == sorted(one.delivery for one in held)
    assert all(found.drop.values())
    for one in held:
        if any(each.is_news or each.is_end for each in one.about):
            assert one.delivery in (*found.leave, *found.digest)
        if one.delivery in found.wait:
            assert any(each.is_active and each.muted for each in one.about)


def view(name: str, *, is_firing: bool, severity: str = "warning") -> AlertView:
    at = datetime(2026, 11, 27, 18, tzinfo=UTC)
    return AlertView(f"{name}-1", name, severity, is_firing, at, None if is_firing else at, message=f"{name} is bad")


def test_the_digest_says_what_is_still_wrong_first_and_counts_what_came_and_went():
    still = [view("disk", is_firing=True, severity="error")]
    gone = [view("load", is_firing=False), view("load", is_firing=False), view("mail", is_firing=False)]
    since = datetime(2026, 11, 27, 17, 2, tzinfo=UTC)
    found = compose(
        still, gone, Occasion("", {}, "digest", "https://portal.example"), since=since, zone=ZoneInfo("Europe/Berlin")
    )
    assert (found.title, found.status) == ("[ERROR] Digest: 1 still wrong, 3 came and went", "firing")
    assert found.body.splitlines() == [
        "Held back since Fri 18:02 (Europe/Berlin): 1 still wrong and 3 came and went.",
        "Still wrong: disk.",
        "Came and went: load ×2, mail.",
    ]
    assert [item.status for item in found.alerts] == ["firing", "resolved", "resolved", "resolved"]


def test_a_digest_of_many_kinds_names_some_and_counts_the_rest():
    gone = [view(f"kind{number:02}", is_firing=False) for number in range(13)]
    occasion = Occasion("", {}, "digest", "")
    found = compose([], gone, occasion, since=datetime(2026, 11, 27, tzinfo=UTC), zone=ZoneInfo("UTC"))
    assert "and 3 more" in found.body
    assert found.status == "resolved"
