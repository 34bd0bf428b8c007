"""Expressions of one shape: evaluated together they come to what each comes to by itself, to the last bit."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.promql import engine, shapes
from apps.promql.batch import Bundle, Joined, Together
from apps.promql.engine import Limits, Result, evaluate_many, instant
from apps.promql.errors import DeadlineExceeded, LimitError, ParseError, PromQLError, QueryError
from apps.promql.labels import STRINGS
from apps.promql.series import STALE, Ragged
from apps.promql.shapes import form
from apps.promql.source import Matcher, MemorySource

NOW = 1_200_000
LIMITS = Limits()
EVERY = 15_000

ALIKE = (
    "{s}",
    "{s} > {n}",
    "({s}) >= bool ({n})",
    "{n} < {s}",
    "-{s} * {n} + {n}",
    "{s} % {n}",
    "{s} offset 1m == {s}",
    "{s} @ 600 - {n}",
    "rate({s}[5m]) * 60 > {n}",
    "increase({s}[2m]) / {n}",
    "irate({s}[5m]) or idelta({s}[5m])",
    "deriv({s}[5m])",
    "predict_linear({s}[5m], 3600) < {n}",
    "quantile_over_time(0.9, {s}[5m])",
    "stddev_over_time({s}[5m]) + stdvar_over_time({s}[3m])",
    "mad_over_time({s}[5m])",
    "avg_over_time({s}[5m]) - sum_over_time({s}[5m])",
    "changes({s}[5m]) + resets({s}[5m]) + count_over_time({s}[1m])",
    "last_over_time({s}[5m]) > {n}",
    "double_exponential_smoothing({s}[5m], 0.5, 0.1)",
    "sum({s})",
    "sum by (job) ({s}) > {n}",
    "avg without (host, le) ({s})",
    "count by (__name__) ({s})",
    "stddev by (host) ({s}) / stdvar({s})",
    "min({s}) - max({s})",
    "quantile by (job) (0.4, {s})",
    "topk(2, {s})",
    "bottomk by (job) (1, {s} * {n})",
    "limitk(2, {s})",
    'count_values("v", {s})',
    "{s} and on (job) {s} > {n}",
    "{s} unless ignoring (host, le) {s}",
    "{s} or on (job) {s} or vector({n})",
    "{s} / on (job, host, le) {s}",
    "{s} * on (job) group_left (zone) max by (job) ({s})",
    "sum by (job) ({s}) > on () group_left () vector({n} + {n})",
    "absent({s})",
    "absent({s} > {n})",
    "time() - {s} > {n}",
    "(time() - {n}) / {n} - {s}",
    "time() - timestamp({s})",
    "{s} and on () (hour() < {n} or vector(1))",
    "clamp({s}, 1, 5) + clamp_max({s}, 4) - round({s}, 0.5)",
    "abs({s}) + floor({s}) + ceil({s}) + sgn({s})",
    "sort_desc({s})",
    'label_replace({s}, "job", "$1x", "host", "(.*)")',
    'label_join({s}, "both", "-", "host", "job")',
    "histogram_quantile(0.9, sum by (le, job) (rate({h}[5m])))",
    "histogram_fraction(0, 2, {h})",
)
APART = (
    "{n}",
    "{s} ^ {n}",
    "ln({s})",
    "{s}[5m]",
    "max_over_time(rate({s}[1m])[5m:1m])",
    "scalar({s})",
    "{s} > scalar({s})",
    "absent_over_time({s}[5m])",
    "sort_by_label({s}, 'host')",
    '"text"',
)

SELECTORS = (
    "load",
    'load{host="a"}',
    'load{host=~"a|b"}',
    'load{host="b",job="x"}',
    'load{host="nobody"}',
    'size{job!="x"}',
    'size{host="c"}',
    '{__name__=~"load|size",host="a"}',
    "bucket",
    "nothing",
)
HISTOGRAMS = ("bucket", 'bucket{host="a"}', 'bucket{job="x"}', "load")
NUMBERS = ("0", "1", "2.5", "-3", "2 * 4", "-(1)", "1e300", "NaN", "Inf", "60")


def _source() -> MemorySource:
    chance = np.random.default_rng(3)
    series = []
    count = NOW // EVERY
    times = [i * EVERY for i in range(count + 1)]
    for number, (name, labels) in enumerate(
        [
            ("load", {"host": host, "job": job, "zone": zone})
            for host, job, zone in (("a", "x", "1"), ("b", "x", "2"), ("b", "y", "1"), ("c", "y", ""))
        ]
        + [("size", {"host": host, "job": "y"}) for host in "abc"]
        + [("size", {"host": "d", "job": "x"})]
        + [("bucket", {"host": host, "job": "x", "le": le}) for host in "ab" for le in ("0.5", "1", "2.5", "+Inf")]
    ):
        kind = number % 4
        steps = chance.uniform(0, 3, len(times))
        v = np.cumsum(steps) if name == "bucket" or kind == 0 else chance.normal(0, 1e3 if kind == 1 else 3, len(times))
        if name == "bucket":
            v = v + 100 * ["0.5", "1", "2.5", "+Inf"].index(labels["le"])
        if kind == 2:
            v[::7] = math.nan
            v[3] = math.inf
        if kind == 3:
            v[len(v) // 2 :] = v[: len(v) - len(v) // 2]  # a reset, for who takes it for a counter
            v[-1] = STALE
        late = (number % 3) * 1000
        series.append(({"__name__": name, **labels}, [t - late for t in times], v.tolist()))
    return MemorySource(series)


SOURCE = _source()


class Store:
    """The same series as a store that answers bundles, with a warning where it is told to have one."""

    def __init__(self, source: MemorySource = SOURCE, warned: str = "", refused: str = "") -> None:
        self.source, self.warned, self.refused = source, warned, refused
        self.asked: list[int] = []

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged:
        if self.refused in [matcher.value for matcher in matchers]:
            raise LimitError("too many")
        got = self.source.select(matchers, tmin, tmax)
        told = ("damaged",) if self.warned in [matcher.value for matcher in matchers] else ()
        return Ragged(got.labels, got.ts, got.v, got.off, told, got.clock)

    def select_joined(self, bundles: Sequence[Bundle]) -> list[Joined | PromQLError]:
        self.asked.append(len(bundles))
        answers: list[Joined | PromQLError] = []
        for bundle in bundles:
            try:
                parts = [self.select(matchers, bundle.tmin, bundle.tmax) for matchers in bundle.matchers]
                answers.append(Joined.of(parts))
            except LimitError as error:
                answers.append(error)
        return answers


def shown(answer: Result | PromQLError) -> object:
    """Everything of an answer that anybody can see; NaN is NaN, and zero has its sign."""
    if isinstance(answer, PromQLError):
        return type(answer), str(answer)
    cells = [repr(v) if here else None for v, here in zip(answer.v.ravel(), answer.ok.ravel(), strict=True)]
    return answer.kind, answer.labels.dicts(), answer.ts.tolist(), cells, answer.text, answer.warnings, answer.infos


def alone(text: str, source: MemorySource | Store = SOURCE, limits: Limits = LIMITS) -> Result | PromQLError:
    """The only expression of its shape."""
    [answer] = evaluate_many([text], source, NOW, limits=limits)
    return answer


def filled(draw: st.DrawFn, template: str) -> str:
    for mark, values in (("{s}", SELECTORS), ("{h}", HISTOGRAMS), ("{n}", NUMBERS)):
        while mark in template:
            template = template.replace(mark, draw(st.sampled_from(values)), 1)
    # A range or an offset goes inside of what it is about.
    return template


@st.composite
def rules(draw: st.DrawFn) -> list[str]:
    templates = draw(st.lists(st.sampled_from(ALIKE + APART), min_size=1, max_size=3))
    return [filled(draw, draw(st.sampled_from(templates))) for _ in range(draw(st.integers(2, 9)))]


@settings(max_examples=200)
@given(rules())
def test_together_is_alone(texts: list[str]) -> None:
    for source in (SOURCE, Store()):
        for text, answer in zip(texts, evaluate_many(texts, source, NOW), strict=True):
            assert shown(answer) == shown(alone(text)), text


@pytest.mark.parametrize("template", ALIKE)
def test_every_shape_together_is_alone(template: str) -> None:
    """All fillings of one template at once, so that every kind of series meets every other."""
    texts = [
        template.replace("{s}", selector).replace("{h}", histogram).replace("{n}", number)
        for selector, histogram, number in zip(SELECTORS, (HISTOGRAMS * 3)[: len(SELECTORS)], NUMBERS, strict=True)
    ]
    for text, answer in zip(texts, evaluate_many(texts, Store(), NOW), strict=True):
        assert shown(answer) == shown(alone(text)), text


@pytest.mark.parametrize("template", ALIKE)
def test_these_are_of_one_shape(template: str) -> None:
    first, second = (
        form(template.replace("{s}", selector).replace("{h}", "bucket").replace("{n}", number))
        for selector, number in (("load", "1"), ("size", "7"))
    )
    assert first is not None
    if "{s}" in template or "{h}" in template:
        assert second is not None
        assert first.shape is second.shape


@pytest.mark.parametrize("template", APART)
def test_these_are_evaluated_by_themselves(template: str) -> None:
    assert form(template.replace("{s}", "load").replace("{n}", "1")) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("load > 1", "load >= 1"),
        ("load > 1", "load > bool 1"),
        ('load{host="a"}', 'load{host!="a"}'),
        ("rate(load[5m])", "rate(load[1m])"),
        ("load offset 1m", "load"),
        ("topk(1, load)", "topk(2, load)"),
        ("quantile(0.5, load)", "quantile(0.6, load)"),
        ("clamp_max(load, 1)", "clamp_max(load, 2)"),
        ("sum by (job) (load)", "sum without (job) (load)"),
        ("load / on (job) size", "load / ignoring (job) size"),
        ("load @ 60", "load @ 61"),
    ],
)
def test_what_is_evaluated_differently_has_another_shape(one: str, other: str) -> None:
    first, second = form(one), form(other)
    assert first is not None
    assert second is not None
    assert first.shape is not second.shape


def test_zeros_of_both_signs_and_numbers_that_are_none_are_kept_apart() -> None:
    texts = [f"0 * load / {number}" for number in ("0", "-0", "NaN", "Inf", "-Inf")]
    for text, answer in zip(texts, evaluate_many(texts, SOURCE, NOW), strict=True):
        assert shown(answer) == shown(alone(text)), text


def test_the_error_of_one_rule_is_no_other_s(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        f'load{{host="{host}"}} / on (job) size{{host=~"{other}"}}'
        for host, other in (("a", "d"), ("b", "a|b"), ("b", "c"), ("c", "a"))
    ]
    evaluated: list[int] = []
    inner = engine._together

    def counted(batch: Together, source: Store) -> list[Result | PromQLError]:
        evaluated.append(batch.batch.size)
        return inner(batch, source)

    monkeypatch.setattr(engine, "_together", counted)
    answers = evaluate_many(texts, Store(), NOW)
    assert [shown(answer) for answer in answers] == [shown(alone(text)) for text in texts]
    assert [isinstance(answer, QueryError) for answer in answers] == [False, True, False, False]
    assert evaluated == [4, 2, 1, 1, 2]


def test_what_the_store_warns_of_is_told_of_the_rules_that_read_it() -> None:
    texts = ['load{host="a"} > 1', 'load{host="b"} > 1', 'sum(load{host="a"})', 'sum(load{host="c"})']
    answers = evaluate_many(texts, Store(warned="a"), NOW)
    assert [answer.warnings for answer in answers if isinstance(answer, Result)] == [("damaged",), (), ("damaged",), ()]


def test_notes_stand_at_the_place_in_their_own_text() -> None:
    texts = ["  histogram_quantile(0.9, load)", "histogram_quantile(0.9, size)", "histogram_quantile(0.9, bucket)"]
    answers = evaluate_many(texts, Store(), NOW)
    assert [shown(answer) for answer in answers] == [shown(alone(text)) for text in texts]
    assert "(1:27)" in answers[0].warnings[0]  # type: ignore[union-attr]


def test_a_rule_that_the_store_refuses_harms_no_other() -> None:
    texts = ['load{host="a"} > 1', 'load{host="b"} > 1', 'load{host="c"} > -1e9']
    store = Store(refused="b")
    first, second, third = evaluate_many(texts, store, NOW)
    assert isinstance(second, LimitError)
    assert [shown(first), shown(third)] == [shown(alone(texts[0])), shown(alone(texts[2]))]


def test_limits_hold_for_each_rule_and_not_for_all_of_them() -> None:
    texts = [f'load{{host="{host}"}}[5m]' for host in "abc"]
    texts = [f"count_over_time({text})" for text in texts]
    limits = Limits(samples=25)
    answers = evaluate_many(texts, Store(), NOW, limits=limits)
    assert [shown(answer) for answer in answers] == [shown(alone(text, limits=limits)) for text in texts]
    assert [isinstance(answer, LimitError) for answer in answers] == [False, True, False]


def test_no_rule_is_given_up_for_the_time_that_others_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Together, "vector", lambda *_: (_ for _ in ()).throw(DeadlineExceeded("together")))
    texts = ['load{host="a"} > 1', 'load{host="b"} > 1']
    assert [shown(answer) for answer in evaluate_many(texts, Store(), NOW)] == [shown(alone(text)) for text in texts]


def test_all_is_read_in_one_go_whatever_its_shape() -> None:
    store = Store()
    evaluate_many(["load > 1", "load > 2", "size > 3", "max_over_time(rate(load[1m])[5m:])", "sum(load)"], store, NOW)
    assert len(store.asked) == 1


def test_one_expression_is_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this file compares with."""
    monkeypatch.setattr(engine, "_together", None)
    assert shown(alone("load > 1")) == shown(instant("load > 1", SOURCE, NOW))


def test_equal_texts_and_texts_that_do_not_parse_have_their_places() -> None:
    answers = evaluate_many(["load", "load >", "size", "load", "load >"], SOURCE, NOW)
    assert [type(answer) for answer in answers] == [Result, ParseError, Result, Result, ParseError]
    assert answers[0] is answers[3]


def test_costs_are_each_rule_s_own() -> None:
    texts = ['rate(load{host="a"}[5m]) > 1', "rate(load[5m]) > 2", "rate(nothing[5m]) > 2"]
    answers = [answer for answer in evaluate_many(texts, Store(), NOW) if isinstance(answer, Result)]
    assert [answer.stats for answer in answers] == [instant(text, SOURCE, NOW).stats for text in texts]


def test_a_large_batch_is_cut_and_its_numbers_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MOST", 3)
    shapes.sort_out.cache_clear()
    texts = [f'load{{host="a"}} > {number}' for number in range(8)]
    answers = evaluate_many(texts, Store(), NOW)
    shapes.sort_out.cache_clear()
    assert [shown(answer) for answer in answers] == [shown(alone(text)) for text in texts]
    known = len(STRINGS)
    evaluate_many(texts, Store(), NOW)
    assert len(STRINGS) == known


def test_a_label_of_the_hidden_name_is_not_batched() -> None:
    assert form(f'label_replace(load, "a", "{shapes.RULE}", "", "")') is None
    with pytest.raises(ParseError, match="invalid destination label name"):
        form(f'label_replace(load, "{shapes.RULE}", "1", "", "")')
