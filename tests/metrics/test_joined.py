"""Bundles of selectors: read in one go, each selector's answer is what it is when it is asked for alone."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from apps.accounts.permissions import Principal, Scope
from apps.metrics import assembly, compaction, query, selection, services, storage, young
from apps.metrics.codec import Corrupt, View
from apps.metrics.models import Batch, Block, Series, Tombstone
from apps.metrics.samples import Samples
from apps.promql.batch import Bundle, Joined
from apps.promql.errors import LimitError
from apps.promql.result import Result
from apps.promql.source import Matcher

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
LATER = NOW + timedelta(hours=3)
BY = Principal.system("test")
HOUR = 3_600_000


def send(rows):
    """rows: (metric, number, ms before now, value)."""
    labels = [{"__name__": metric, "n": str(n), "even": str(n % 2 == 0)} for metric, n, _, _ in rows]
    samples = Samples.of(labels, [MS - age for _, _, age, _ in rows], [float(row[3]) for row in rows])
    assert services.ingest(samples=samples, by=BY, now=NOW, window=None).accepted == len(rows)


def selector(*conditions):
    """("m", "=", "x") triples with __name__ written as m."""
    return tuple(Matcher("__name__" if name == "m" else name, op, value) for name, op, value in conditions)


SELECTORS = (
    selector(("m", "=", "x"), ("n", "=", "1")),
    selector(("m", "=", "x")),
    selector(("m", "=", "y"), ("even", "=", "True")),
    selector(("m", "=~", "x|z"), ("n", "=~", "1|2")),
    selector(("m", "=", "nothing")),
    selector(("n", "=", "3")),
    selector(("m", "=", "z"), ("n", "=", "99")),
)


def rows_of(ragged):
    return [
        (labels, ts.tolist(), v.tolist())
        for labels, ts, v in zip(
            ragged.labels.dicts(),
            np.split(ragged.ts, ragged.off[1:-1]) if ragged.size else [],
            np.split(ragged.v, ragged.off[1:-1]) if ragged.size else [],
            strict=True,
        )
    ]


def check(bundles, **kw):
    """Every selector of every answer against `select`; returns the answers."""
    answers = selection.select_joined(bundles, **kw)
    for bundle, answer in zip(bundles, answers, strict=True):
        assert isinstance(answer, Joined)
        for k, matchers in enumerate(bundle.matchers):
            alone = query.select(matchers, bundle.tmin, bundle.tmax, **kw)
            part = answer.part(k, k + 1).ragged
            assert rows_of(part) == rows_of(alone), matchers
            assert part.warnings == alone.warnings
            same = part.clocks()[:, None] == part.clocks()
            assert (same == (alone.clocks()[:, None] == alone.clocks())).all()
    return answers


def bundles():
    return [
        Bundle(SELECTORS, MS - HOUR, MS),
        Bundle(SELECTORS[2:5], MS - HOUR, MS),
        Bundle(SELECTORS[:1], MS - 10_000, MS - 5_000),
        Bundle(SELECTORS[::-1], 0, MS - 1),
        Bundle(SELECTORS[4:5], 0, MS),
    ]


def test_bundles_are_what_their_selectors_are():
    chance = np.random.default_rng(5)
    metrics = ["x", "y", "z"]
    for step in range(6):
        send(
            [
                (metrics[m], n, age, number)
                for number, (m, n, age) in enumerate(
                    zip(
                        chance.integers(0, 3, 80).tolist(),
                        chance.integers(0, 9, 80).tolist(),
                        (chance.integers(0, 500, 80) * 9_000).tolist(),
                        strict=True,
                    )
                )
            ]
        )
        if step == 1:
            ids = list(Series.objects.values_list("pk", flat=True)[:5])
            Tombstone.objects.create(series=ids, t_min=MS - HOUR, t_max=MS - HOUR // 2, by="test")
        if step in (2, 4):
            compaction.compact_log(now=NOW)
        if step == 3:
            for due in compaction.due_windows(LATER):
                compaction.merge_window(due=due, now=LATER)
        check(bundles())
    assert Batch.objects.exists()
    assert Block.objects.exists()
    check(bundles(), scope=Scope((("even", "=", "False"),)))


def test_a_new_series_and_a_new_metric_are_in_the_next_answer():
    asked = bundles()
    send([("x", 1, 5_000, 1)])
    first, *_ = check(asked)
    again, *_ = selection.select_joined(asked)
    assert isinstance(again, Joined)
    assert again.ragged.labels is first.ragged.labels, "nothing new: found without looking again"
    send([("x", 2, 5_000, 1)])
    assert check(asked)[0].starts.tolist() == [0, 1, 3, 3, 5, 5, 5, 5]
    send([("nothing", 3, 5_000, 1)])
    assert check(asked)[0].starts.tolist() == [0, 1, 3, 3, 5, 6, 7, 7]


def test_what_is_kept_of_the_catalog_is_bounded(monkeypatch):
    from apps.metrics import catalog

    send([("x", n, 5_000, n) for n in range(5)])
    monkeypatch.setattr(catalog, "REMEMBERED", 450)
    many = [Bundle((selector(("m", "=", "x"), ("n", "=", str(n))),), 0, MS) for n in range(9)]
    check(many)
    assert len(catalog.current()._answers) == 4
    check(many)


@pytest.mark.parametrize("model", [Batch, Block])
def test_damage_is_told_of_those_who_may_have_read_it(model):
    send([("x", n, 5_000, n) for n in range(3)])
    compaction.compact_log(now=NOW)
    send([("y", n, 5_000, n) for n in range(3)])
    if model is Block:
        compaction.compact_log(now=NOW)
    row = model.objects.latest("id")
    payload = bytearray(bytes(row.payload))
    payload[len(payload) // 2] ^= 0x55
    model.objects.filter(pk=row.pk).update(payload=bytes(payload))
    storage.forget()
    young.forget()
    answer = check([Bundle(SELECTORS[:3], 0, MS)])[0]
    assert [len(texts) for texts in answer.warnings] == [0, 0, 1]


def test_what_cannot_be_decoded_concerns_only_those_who_need_it(monkeypatch):
    send([(metric, n, age, n) for metric in "xy" for n in range(3) for age in (5_000, 6_000)])
    compaction.compact_log(now=NOW)
    decode = View.values

    def failing(view, number, out):
        if number == 0:
            raise Corrupt("a chunk of x")
        decode(view, number, out)

    monkeypatch.setattr(View, "values", failing)
    answer = check([Bundle(SELECTORS[:3], 0, MS)])[0]
    assert [len(texts) for texts in answer.warnings] == [1, 1, 0]
    assert answer.starts.tolist() == [0, 0, 0, 2]


def test_a_bundle_that_brings_too_much_is_refused_and_its_rules_are_answered_all_the_same(monkeypatch):
    send([("x", n, age * 1000, n) for n in range(4) for age in range(10)])
    send([("y", 1, 5_000, 7)])
    monkeypatch.setattr(selection, "TOGETHER", 20)
    large, small = selection.select_joined([Bundle(SELECTORS[:2], 0, MS), Bundle(SELECTORS[4:5], 0, MS)])
    assert isinstance(large, LimitError)
    assert isinstance(small, Joined)
    texts = ["sum(x)", "count(x)", "sum(y)", 'x{n="1"} > 0', 'x{n="2"} > 1', "y", 'sum({n="1"})']
    answers = query.evaluate_many(texts, at=NOW)
    assert [answer.v.tolist() if isinstance(answer, Result) else answer for answer in answers] == [
        *([[6.0]], [[4.0]], [[7.0]], [[1.0]], [[2.0]], [[7.0]], [[8.0]])
    ]


def test_one_tick_is_one_assembly_for_all_that_read_the_same_time(monkeypatch):
    send([("x", n, age * 1000, n) for n in range(30) for age in range(10)])
    calls = []
    inner = assembly.assemble

    def counted(wanted, *args, **kw):
        calls.append(len(wanted.ids))
        return inner(wanted, *args, **kw)

    monkeypatch.setattr(selection, "assemble", counted)
    texts = [f'x{{n="{n}"}} > {n}' for n in range(30)]
    texts += [f'max_over_time(x{{n="{n}"}}[5m]) > 0' for n in range(9)]
    texts += [f'rate(x{{n="{n}"}}[1m]) > 0' for n in range(2)] + ["sum(x)"]
    query.evaluate_many(texts, at=NOW)
    assert calls == [30, 2]
