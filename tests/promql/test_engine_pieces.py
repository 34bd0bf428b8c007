"""A query that reads more than may be held is read piece by piece, and comes to the same."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.promql import evaluator
from apps.promql.engine import Limits, Result, cost, evaluate_many, instant, query_range
from apps.promql.errors import Cancelled, DeadlineExceeded, LimitError, PromQLError, TooMany
from apps.promql.limits import Watch
from apps.promql.series import Ragged
from apps.promql.source import Estimate, Matcher, MemorySource, Request
from tests.promql.test_agreement import QUERIES, SOURCE
from tests.promql.test_engine import HOSTS


class Sized:
    """A source with estimates, which may be wrong by a factor; notes what it is asked for."""

    def __init__(self, source: MemorySource = SOURCE, factor: float = 1.0) -> None:
        self.source = source
        self.factor = factor
        self.asked: list[Request] = []
        self.turns = 0
        self.watch = Watch()

    def watched(self, watch: Watch) -> "Sized":
        self.watch = watch
        return self

    def _found(self, request: Request) -> Ragged:
        return self.source.select(request.matchers, request.tmin, request.tmax)

    def estimate(self, requests: Sequence[Request], enough: int = 0) -> list[Estimate]:
        found = [self._found(request) for request in requests]
        return [Estimate(part.size, int(len(part.ts) * self.factor)) for part in found]

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged:
        return self.select_many([Request(tuple(matchers), tmin, tmax)])[0]

    def select_many(self, requests: Sequence[Request]) -> list[Ragged]:
        return [self._part(request) for request in requests]

    def _part(self, request: Request) -> Ragged:
        self.watch.check()
        self.asked.append(request)
        part = self._found(request)
        if request.rows is not None:
            part = part.take(np.arange(*request.rows))
        if request.most is not None and len(part.ts) > request.most:
            raise TooMany(f"{len(part.ts)} samples")
        return replace(part, warnings=(f"{part.size} series are damaged",))

    def turn(self) -> AbstractContextManager[None]:
        @contextmanager
        def held() -> Any:
            self.turns += 1
            yield

        return held()


def answer(query: str, held: int, factor: float = 1.0, **how: int) -> Result | PromQLError:
    limits = Limits(held=held, seconds=20.0)
    try:
        if how:
            return query_range(query, Sized(factor=factor), how["start"], how["end"], how["step"], limits=limits)
        return instant(query, Sized(factor=factor), 100_000, limits=limits)
    except PromQLError as error:
        return error


def same(one: Result | PromQLError, other: Result | PromQLError) -> bool:
    if isinstance(one, PromQLError) or isinstance(other, PromQLError):
        return type(one) is type(other)
    np.testing.assert_allclose(other.v[one.ok], one.v[one.ok], rtol=1e-9, atol=1e-9)
    return bool(
        other.labels.dicts() == one.labels.dicts()
        and other.ok.tolist() == one.ok.tolist()
        and set(map(spoken, other.warnings)) == set(map(spoken, one.warnings))
        and other.infos == one.infos
    )


def spoken(warning: str) -> str:
    """Without the number of series of a piece."""
    return warning.lstrip("0123456789")


@given(QUERIES, st.sampled_from([1, 20, 45]), st.sampled_from([0.1, 1.0, 30.0]))
@settings(max_examples=100)
def test_an_instant_query_in_pieces_gives_what_it_gives_at_once(query: str, held: int, factor: float) -> None:
    assert same(answer(query, 10**9), answer(query, held, factor))


def test_a_range_query_in_pieces_gives_what_it_gives_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    @given(QUERIES, st.sampled_from([1, 45]), st.sampled_from([7, 10**6]), st.sampled_from([5_000, 7_777]))
    @settings(max_examples=100)
    def check(query: str, held: int, cells: int, step: int) -> None:
        span = {"start": 100_000, "end": 100_000 + 10 * step, "step": step}
        monkeypatch.setattr(evaluator, "PART_CELLS", 10**9)
        at_once = answer(query, 10**9, **span)
        monkeypatch.setattr(evaluator, "PART_CELLS", cells)
        assert same(at_once, answer(query, held, **span))

    check()


@pytest.mark.parametrize("held", [45, 100])
def test_no_piece_is_larger_than_twice_what_may_be_held(held: int) -> None:
    source = Sized(factor=0.01)  # taken for a hundredth of what it is
    instant("sum(count_over_time({__name__=~'a|b'}[5m]))", source, 300_000, limits=Limits(held=held // 100))
    rows = [request.rows for request in source.asked if request.rows]
    assert len(rows) > 3
    alone = [request for request in source.asked if request.most is None]
    assert all(request.rows and request.rows[1] - request.rows[0] == 1 for request in alone)


def test_what_fits_is_read_in_one_go_and_takes_no_turn() -> None:
    source = Sized()
    query_range("sum(rate(a[1m])) / sum(rate(b[1m]))", source, 100_000, 200_000, 10_000)
    assert [request.rows for request in source.asked] == [None, None]
    assert source.turns == 0


def test_a_query_that_reads_much_takes_one_turn_and_reads_each_series_once() -> None:
    source = Sized()
    query_range("sum(rate(a[1m])) + sum(rate(a[1m]))", source, 100_000, 200_000, 10_000, limits=Limits(held=30))
    assert source.turns == 1
    read = [request.rows for request in source.asked if request.rows]
    assert len(read) == 2 * len(set(read)) > 4  # two selectors


def test_a_pinned_part_is_read_once_however_many_parts_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "PART_CELLS", 20)
    source = Sized()
    query_range("a / a @ 100", source, 100_000, 200_000, 10_000, limits=Limits(held=30))
    pinned = [request for request in source.asked if request.tmax == 100_000 and request.tmin == -200_000]
    assert len({request.rows for request in pinned if request.rows}) == len(pinned)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(samples=99), "reads 200 samples, more than the limit of 99"),
        (Limits(series=9), "reads 10 series, more than the limit of 9"),
    ],
)
@pytest.mark.parametrize("query", ["a[5m]", "max_over_time(a[5m:15s])", "a[5m] @ 300", "rate(a[5m] offset 1s) + 1"])
def test_what_is_over_budget_is_refused_before_anything_is_read(limits: Limits, says: str, query: str) -> None:
    source = Sized()
    with pytest.raises(LimitError, match=says.replace("200", r"\d\d\d")):
        instant(query, source, 299_000, limits=limits)
    assert source.asked == []
    told = cost(query, source, 0, 299_000, None, limits=limits)
    assert told.refused is not None
    assert str(limits.samples if limits.samples < 100 else limits.series) in told.refused


def test_an_answer_over_budget_is_refused_while_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "PART_CELLS", 20)
    source = Sized()
    with pytest.raises(LimitError, match="points, more than the limit of 30"):
        query_range("a", source, 0, 290_000, 10_000, limits=Limits(points=30, held=30))
    assert max(request.tmax for request in source.asked) < 100_000
    for query in ("a", "a[5m]"):
        with pytest.raises(LimitError, match="points, more than the limit of 3"):
            instant(query, SOURCE, 100_000, limits=Limits(points=3))


def test_one_expression_over_budget_harms_no_other() -> None:
    refused, heavy, light = evaluate_many(
        ["sum(count_over_time(a[5m]))", "count(b)", "count(nothing) or vector(1)"],
        Sized(),
        299_000,
        limits=Limits(samples=150, held=20),
    )
    assert isinstance(refused, LimitError)
    assert isinstance(heavy, Result)
    assert isinstance(light, Result)


def test_the_cost_is_told_without_reading() -> None:
    source = Sized()
    told = cost("sum by (g) (rate(a[1m])) > 1", source, 100_000, 200_000, 10_000, limits=Limits(held=30))
    assert source.asked == []
    assert (told.series, told.points, told.steps, told.heavy, told.refused) == (10, 110, 11, True, None)
    assert told.samples == 110
    assert cost("a / b", HOSTS, 0, 60_000, None).series == 0
    assert cost("up", HOSTS, 0, 60_000, None).series == 2  # a source without estimates is read
    assert "maximum resolution" in (cost("a", source, 0, 10**9, 1).refused or "")


def test_a_question_for_which_nobody_waits_is_given_up() -> None:
    asked = iter([False] * 3)
    for held in (10**6, 30):
        with pytest.raises(Cancelled, match="canceled"):
            instant(
                "sum(rate(a[1m])) + sum(a)",
                Sized(),
                100_000,
                cancelled=lambda: next(asked, True),
                limits=Limits(held=held),
            )
    assert Cancelled.kind == "canceled"


@pytest.mark.parametrize("held", [10**6, 30])
def test_time_covers_reading(held: int) -> None:
    source = Sized()
    with pytest.raises(DeadlineExceeded, match="longer than -1 seconds"):
        instant("a", source, 100_000, limits=Limits(seconds=-1.0, held=held))
    assert source.asked == []
