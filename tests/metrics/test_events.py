"""Events get a millisecond of their own."""

from hypothesis import given
from hypothesis import strategies as st

from apps.metrics.events import place

EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)))


@given(EVENTS, st.sets(st.tuples(st.sampled_from("ab"), st.integers(0, 9))))
def test_no_event_shares_an_instant_or_comes_before_its_own(events, taken):
    placed = place(events, taken)
    cells = [(series, at) for (series, _), at in zip(events, placed, strict=True)]
    assert len(set(cells)) == len(cells)
    assert not taken & set(cells)
    assert all(at >= wanted for (_, wanted), at in zip(events, placed, strict=True))


def test_an_event_alone_keeps_its_time():
    assert place([("a", 7)], []) == [7]
