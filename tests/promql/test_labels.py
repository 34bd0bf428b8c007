"""Label sets in columns: grouping, joining, ordering, also where numpy takes over from dicts."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.promql.labels import SMALL, STRINGS, Labels, StringTable, join

SETS = st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "y", "é", ""])), max_size=12)


def without_empty(sets: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in labels.items() if value} for labels in sets]


@given(SETS, st.sampled_from([1, SMALL]))
@settings(deadline=None)
def test_grouping_finds_equal_sets_in_order_of_appearance(sets: list[dict[str, str]], repeat: int) -> None:
    sets = sets * repeat
    labels = Labels.from_dicts(sets)
    assert labels.dicts() == without_empty(sets)
    first, group = labels.group()
    keys = [tuple(sorted(each.items())) for each in labels.dicts()]
    distinct = list(dict.fromkeys(keys))
    assert [keys[row] for row in first] == distinct
    assert [distinct[number] for number in group] == keys


@given(SETS, SETS, st.sampled_from([1, SMALL]))
@settings(deadline=None)
def test_joining_finds_the_row_with_the_same_set(
    left: list[dict[str, str]], right: list[dict[str, str]], repeat: int
) -> None:
    there = Labels.from_dicts(right)
    there = there.take(there.group()[0])
    here = Labels.from_dicts(left * repeat)
    rows = join(here.hashes(), there.hashes())
    listed = there.dicts()
    assert [listed[row] if row >= 0 else None for row in rows] == [s if s in listed else None for s in here.dicts()]


@given(SETS)
@settings(deadline=None)
def test_order_is_that_of_sorted_pairs(sets: list[dict[str, str]]) -> None:
    labels = Labels.from_dicts(sets)
    keys = [sorted(each.items()) for each in labels.dicts()]
    assert [keys[row] for row in labels.order()] == sorted(keys)


def test_columns_can_be_kept_dropped_set_and_put_together() -> None:
    labels = Labels.from_dicts([{"a": "1", "b": "2"}, {"b": "3"}])
    assert labels.keep(["a", "z"]).dicts() == [{"a": "1"}, {}]
    assert labels.drop(["a"]).dicts() == [{"b": "2"}, {"b": "3"}]
    assert labels.set("c", "x").dicts() == [{"a": "1", "b": "2", "c": "x"}, {"b": "3", "c": "x"}]
    assert labels.drop_where(["b"], np.array([True, False])).dicts() == [{"a": "1"}, {"b": "3"}]
    assert Labels.concat([labels, Labels.from_dicts([{"z": "9"}])]).dicts()[2] == {"z": "9"}
    assert labels.take(np.array([True, False])).size == 1
    assert labels.names == ["a", "b"]
    assert labels.texts("nowhere") == ["", ""]
    assert labels == Labels.from_dicts(labels.dicts())


def test_an_empty_value_is_an_absent_label() -> None:
    with_empty, without = Labels.from_dicts([{"a": "", "b": "1"}]), Labels.from_dicts([{"b": "1"}])
    assert with_empty.hashes().tolist() == without.hashes().tolist()


def test_labels_of_the_wrong_length_are_not_the_same() -> None:
    assert Labels.empty(1) != Labels.empty(2)
    with pytest.raises(TypeError):
        hash(Labels.empty(1))


def test_threads_agree_on_ids() -> None:
    table = StringTable()
    texts = [f"text {i}" for i in range(3000)]
    answers: list[list[int]] = []

    def learn(order: int) -> None:
        table.intern_many(texts[::order])
        answers.append([table.intern(text) for text in texts])

    threads = [threading.Thread(target=learn, args=(order,)) for order in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(answer == answers[0] for answer in answers)
    assert [table.text(number) for number in answers[0]] == texts
    assert len(table) == len(texts) + 1


def test_a_name_is_found_only_once_it_was_seen() -> None:
    assert STRINGS.find("a text that nobody has interned") is None
    assert STRINGS.find("") == 0
