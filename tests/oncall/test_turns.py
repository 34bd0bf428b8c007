"""Whose turn it is, as a pure function."""

import pytest

from apps.oncall.turns import Turn, key, next_in_turn


@pytest.mark.parametrize(
    ("people", "last", "obstacles", "turn"),
    [
        ([1, 2, 3], None, {}, Turn(1)),
        ([1, 2, 3], 1, {}, Turn(2)),
        ([1, 2, 3], 3, {}, Turn(1)),
        ([1, 2, 3], 9, {}, Turn(1)),
        ([1], 1, {}, Turn(1)),
        ([1, 2, 3], 1, {2: "sleeps"}, Turn(3, ((2, "sleeps"),))),
        ([1, 2], 1, {1: "is gone", 2: "sleeps"}, Turn(None, ((2, "sleeps"), (1, "is gone")))),
        ([1, 1, 2], 1, {}, Turn(2)),
        ([], None, {}, Turn(None)),
    ],
)
def test_the_turn_goes_round_and_passes_over_who_cannot_be_told(
    people: list[int], last: int | None, obstacles: dict[int, str], turn: Turn
):
    assert next_in_turn(people, last, obstacles) == turn


def test_everybody_has_the_same_number_of_turns():
    last, had = None, []
    for _ in range(9):
        last = next_in_turn([4, 5, 6], last, {}).person
        had.append(last)
    assert had == [4, 5, 6] * 3


def test_a_turn_is_kept_by_policy_and_people():
    assert key(1, [1, 2], None) == key(1, [1, 2], None)
    assert len({key(1, [1, 2], None), key(2, [1, 2], None), key(1, [2, 1], None), key(1, [], 7)}) == 4
