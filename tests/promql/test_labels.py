"""Label sets in columns: grouping, joining, ordering, also where numpy takes over from dicts."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.promql import labels
from apps.promql.errors import LimitError
from apps.promql.labels import SMALL, STRINGS, Labels, StringTable, join

SETS = st.lists(st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "y", "é", ""])), max_size=12)


def without_empty(sets: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in labels.items() if value} for labels in sets]


@given(SETS, st.sampled_from([1, SMALL]))
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


# -- strings that queries make ----------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(labels, "MADE_LEAST", 3)
    monkeypatch.setattr(labels, "MADE_MOST", 6)
    monkeypatch.setattr(labels, "MADE_CHARACTERS", 40)
    return Clock()


def test_made_strings_are_given_up_when_they_are_old_and_their_places_are_used_again(clock: Clock) -> None:
    table = StringTable(clock)
    stays = table.intern("stays")
    old = table.make(["a", "b", "c", "a"])
    before = table.pair_hashes("x", old).tolist()
    clock.now += labels.MADE_SECONDS - 1
    table.make(["c"])
    clock.now += 1
    new = table.make(["d", "e"])
    assert [table.find(text) for text in "ab"] == [None, None]
    assert table.texts(table.make(["c"])) == ["c"]
    assert set(new.tolist()) == {int(old[0]), int(old[1])}
    assert table.texts(new) == ["d", "e"]
    assert table.intern("stays") == stays
    clock.now += labels.MADE_SECONDS
    again = table.pair_hashes("x", table.make(["a", "b", "c", "a"])).tolist()
    assert again == before  # what groups series does not change when a string comes back


def test_what_a_store_interns_is_never_given_up(clock: Clock) -> None:
    table = StringTable(clock)
    made = table.make(["a", "b", "c"])
    assert table.intern("a") == made[0]
    assert table.intern_many(["b", "z"]).tolist()[0] == made[1]
    for _ in range(10):
        clock.now += labels.MADE_SECONDS
        table.make([f"{clock.now}-{i}" for i in range(4)])
    assert table.texts(made)[:2] == ["a", "b"]
    assert (table.find("a"), table.find("b"), table.find("c")) == (made[0], made[1], None)
    assert len(table) <= 1 + 3 + 4 + 3


@pytest.mark.parametrize("texts", [[str(i) for i in range(7)], ["long" * 10, "more"]])
def test_more_than_an_hour_may_make_is_refused_and_an_hour_later_taken(texts: list[str], clock: Clock) -> None:
    table = StringTable(clock)
    with pytest.raises(LimitError, match="within an hour"):
        table.make(texts)
    assert table.make(texts[:1]).tolist() == table.make(texts[:1]).tolist()
    clock.now += labels.MADE_SECONDS
    assert table.texts(table.make(["new"])) == ["new"]


def test_threads_that_make_and_intern_the_same_strings_agree(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MADE_MOST", 10**6)
    monkeypatch.setattr(labels, "MADE_CHARACTERS", 10**9)
    monkeypatch.setattr(labels, "MADE_SECONDS", 0)
    table = StringTable(clock)
    kept = [f"kept {i}" for i in range(300)]
    wrong: list[str] = []

    def make(first: int) -> None:
        for i in range(first, 1500):
            table.make([f"made {i}", kept[i % 300]])

    def intern() -> None:
        for _ in range(5):
            for text in kept:
                number = table.intern(text)
                if table.text(number) != text:
                    wrong.append(text)

    threads = [threading.Thread(target=make, args=(first,)) for first in (0, 1)]
    threads += [threading.Thread(target=intern) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert table.texts(table.intern_many(kept)) == kept
    assert len(table) < 1000


def test_sets_that_are_remembered_outlive_what_queries_make(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    table = StringTable(clock)
    monkeypatch.setattr(labels, "STRINGS", table)
    made = Labels(2, {"a": table.make(["x", "y"])})
    made.remember()
    for _ in range(2):
        clock.now += labels.MADE_SECONDS
        table.make(["b", "c", "d"])
    assert made.dicts() == [{"a": "x"}, {"a": "y"}]
