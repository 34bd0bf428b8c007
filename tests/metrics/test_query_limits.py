"""Every question to the engine has its limits: rules wait behind each other, and people wait."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.accounts.permissions import Principal
from apps.metrics import query, selection, services, storage
from apps.metrics.samples import Samples
from apps.promql.engine import Limits
from apps.promql.errors import DeadlineExceeded, LimitError
from apps.promql.source import Matcher

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SPENT = Limits(seconds=-1)
MINUTE = timedelta(minutes=1)


@pytest.mark.django_db
def test_a_question_that_runs_out_of_time_is_an_error_of_its_own():
    with pytest.raises(DeadlineExceeded, match="longer than"):
        query.instant("sum(x) + 1", at=NOW, limits=SPENT)
    with pytest.raises(DeadlineExceeded, match="longer than"):
        query.query_range("sum(x) + 1", start=NOW - MINUTE, end=NOW, step=MINUTE, limits=SPENT)
    [answer] = query.evaluate_many(["sum(x) + 1"], at=NOW, limits=SPENT)
    assert isinstance(answer, DeadlineExceeded)


@pytest.mark.django_db(transaction=True)
def test_what_many_expressions_share_is_not_read_for_ever(monkeypatch):
    monkeypatch.setattr(storage, "snapshot", lambda cur, *_: cur.execute("SELECT pg_sleep(60)"))
    at = int(NOW.timestamp() * 1000)
    samples = Samples.of([{"__name__": name} for name in "xyz"], [at] * 3, [1.0] * 3)
    services.ingest(samples=samples, by=Principal.system("test"), now=NOW)
    with pytest.raises(query.Outrun, match="3 expressions"):
        query.evaluate_many(["sum(x)", "sum(y)", "sum(z)"], at=NOW, limits=Limits(seconds=0.2))


@pytest.mark.parametrize("ask", [query.instant, query.query_range, query.evaluate_many])
def test_nothing_is_asked_without_a_deadline(ask):
    assert ask.__kwdefaults__["limits"].seconds == 30
    assert query.OF_A_RULE.seconds == 10


@pytest.mark.django_db
def test_a_request_for_too_many_samples_is_refused_and_harms_no_other(monkeypatch):
    at = int(NOW.timestamp() * 1000)
    labels = [{"__name__": "many"}] * 5 + [{"__name__": "few"}]
    samples = Samples.of(labels, [at - 1000 * n for n in range(6)], [1.0] * 6)
    services.ingest(samples=samples, by=Principal.system("test"), now=NOW)
    monkeypatch.setattr(selection, "MOST", 4)
    with pytest.raises(LimitError, match="reads 5 samples, more than the limit of 4"):
        query.select([Matcher("__name__", "=", "many")], at - 60_000, at)
    many, few = query.evaluate_many(["count_over_time(many[1m])", "few"], at=NOW)
    assert isinstance(many, LimitError)
    assert query.only_value(few) == 1.0
