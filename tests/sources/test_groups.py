"""Rows of a query become groups: labels and values, none of fewer people than the floor."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.sources.groups import Group, Terms, Unusable, grouped

COLUMNS = ["clinic", "value"]


def shown(rows, terms=None, columns=COLUMNS):
    found = grouped(columns, rows, terms or Terms())
    return {tuple(group.labels.values()): group.value for group in found.groups}, found.omitted, found.merged


def test_columns_become_labels_and_the_value_a_number():
    found = grouped(["city", "is_new", "nothing", "value"], [("Köln", True, None, Decimal("7.5"))], Terms())
    assert found.groups == (Group({"city": "Köln", "is_new": "true"}, 7.5),)


def test_a_group_below_the_floor_is_left_out_and_counted():
    assert shown([("a", 5), ("b", 4), ("c", 0), ("d", None)]) == ({("a",): 5.0, ("c",): 0.0}, 1, 0)


def test_small_groups_are_merged_if_they_are_enough_together():
    merging = Terms(small="sum")
    assert shown([("a", 9), ("b", 4), ("c", 3)], merging) == ({("a",): 9.0, ("other",): 7.0}, 0, 2)
    assert shown([("a", 9), ("b", 3), ("c", 1)], merging) == ({("a",): 9.0}, 2, 0)
    assert shown([("other", 9), ("b", 4)], merging) == ({("other",): 13.0}, 0, 2)


def test_averages_are_merged_by_the_size_of_their_groups():
    rows = [("a", 4.5, 20), ("b", 2.0, 1), ("c", 5.0, 4)]
    terms = Terms(size="people", small="mean")
    assert shown(rows, terms, [*COLUMNS, "people"]) == ({("a",): 4.5, ("other",): 4.4}, 0, 2)


def test_what_is_not_about_people_has_no_floor():
    assert shown([("a", 1)], Terms(floor=0)) == ({("a",): 1.0}, 0, 0)


@pytest.mark.parametrize(
    ("columns", "rows", "said"),
    [
        (["clinic", "n"], [], "one column named value"),
        (["value", "value"], [], "one column named value"),
        (["job", "value"], [("a", 1)], "cannot become a label"),
        (["a b", "value"], [("a", 1)], "cannot become a label"),
        (["service", "value"], [("a", 1)], "cannot become a label"),
        (["a", "a", "value"], [], "names of their own"),
        (COLUMNS, [("a", 9), ("a", 9)], "same labels"),
        (COLUMNS, [("a", "9")], "no number"),
        (COLUMNS, [("a", float("nan"))], "no number"),
        (COLUMNS, [("a", -1)], "counts people"),
        (COLUMNS, [("x" * 201, 9)], "too long"),
        (COLUMNS, [(str(n), 9) for n in range(101)], "more than 100 rows"),
    ],
)
def test_an_answer_that_cannot_become_series_says_why(columns, rows, said):
    with pytest.raises(Unusable, match=said):
        grouped(columns, rows, Terms(taken=("service",)))


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(0, 12), st.sampled_from(["omit", "sum", "mean"]))
def test_nothing_of_fewer_people_than_the_floor_is_ever_shown(sizes, floor, small):
    rows = [(f"g{n}", float(size), size) for n, size in enumerate(sizes)]
    terms = Terms(size="people", floor=floor, small=small)
    found = grouped([*COLUMNS, "people"], rows, terms)
    size_of = dict(zip((f"g{n}" for n in range(len(sizes))), sizes, strict=True))
    own = [group.labels["clinic"] for group in found.groups if group.labels["clinic"] != "other"]
    assert all(size_of[name] == 0 or size_of[name] >= floor for name in own)
    merged = sum(size for size in sizes if 0 < size < floor)
    assert len(own) + found.omitted + found.merged == len(rows)
    if found.merged:
        assert merged >= floor
