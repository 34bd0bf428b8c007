"""Every question to the engine has its limits: rules wait behind each other, and people wait."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.metrics import query
from apps.promql.engine import Limits
from apps.promql.errors import DeadlineExceeded

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


@pytest.mark.parametrize("ask", [query.instant, query.query_range, query.evaluate_many])
def test_nothing_is_asked_without_a_deadline(ask):
    assert ask.__kwdefaults__["limits"].seconds == 30
    assert query.OF_A_RULE.seconds == 10
