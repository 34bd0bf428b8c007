"""Matchers and the source in memory."""

import numpy as np
import pytest

from apps.promql.errors import QueryError
from apps.promql.labels import Labels
from apps.promql.series import STALE, STALE_BITS, Ragged, stale_mask
from apps.promql.source import REGEX_LIMIT, Matcher, MemorySource, matching

SETS = [{"a": "x"}, {"a": "xy"}, {"b": "x"}, {"a": "x\ny"}]


@pytest.mark.parametrize(
    ("matcher", "rows"),
    [
        (Matcher("a", "=", "x"), [0]),
        (Matcher("a", "=", ""), [2]),
        (Matcher("a", "!=", "x"), [1, 2, 3]),
        (Matcher("a", "!=", ""), [0, 1, 3]),
        (Matcher("a", "=~", "x"), [0]),
        (Matcher("a", "=~", "x|xy"), [0, 1]),
        (Matcher("a", "=~", "x.*"), [0, 1, 3]),
        (Matcher("a", "=~", ".*"), [0, 1, 2, 3]),
        (Matcher("a", "!~", "x.+"), [0, 2]),
        (Matcher("a", "=~", "(?i)X"), [0]),
        (Matcher("never seen", "=", ""), [0, 1, 2, 3]),
        (Matcher("never seen", "=~", ".+"), []),
        (Matcher("a", "=", "never seen either"), []),
    ],
)
def test_matchers_see_whole_values_and_absence_as_empty(matcher: Matcher, rows: list[int]) -> None:
    assert np.flatnonzero(matching(Labels.from_dicts(SETS), [matcher])).tolist() == rows


@pytest.mark.parametrize("pattern", ["(", "(?=x)", "x" * (REGEX_LIMIT + 1)])
def test_a_pattern_that_re2_refuses_is_an_error(pattern: str) -> None:
    with pytest.raises(QueryError, match="regular expression"):
        Matcher("a", "=~", pattern).matches("x")


def test_a_matcher_reads_like_promql() -> None:
    assert str(Matcher("odd name", "=~", 'a"b')) == '"odd name"=~"a\\"b"'


def test_samples_are_cut_left_open_and_markers_survive_bit_for_bit() -> None:
    source = MemorySource([({"a": "1"}, [1, 2, 3, 4], [1.0, 2.0, STALE, 4.0]), ({"a": "2"}, [1], [1.0])])
    found = source.select([Matcher("a", "=~", ".+")], 1, 3)
    assert found.labels.dicts() == [{"a": "1"}]
    assert found.ts.tolist() == [2, 3]
    assert found.v.view(np.uint64)[1] == STALE_BITS
    assert stale_mask(found.v).tolist() == [False, True]


def test_the_same_series_given_twice_is_one() -> None:
    source = MemorySource([({"a": "1"}, [2], [2.0]), ({"a": "1", "b": ""}, [1, 2], [1.0, 3.0])])
    assert source.ragged.ts.tolist() == [1, 2]
    assert source.ragged.v.tolist() == [1.0, 3.0]


def test_series_of_several_sources_are_put_after_one_another() -> None:
    one = MemorySource([({"a": "1"}, [1, 2], [1.0, 2.0])]).ragged
    two = MemorySource([({"b": "1"}, [5], [5.0])]).ragged
    both = Ragged.concat([one, two])
    assert both.labels.dicts() == [{"a": "1"}, {"b": "1"}]
    assert both.off.tolist() == [0, 2, 3]
    assert both.take(np.array([1])).v.tolist() == [5.0]
    assert Ragged.concat([]).size == 0
