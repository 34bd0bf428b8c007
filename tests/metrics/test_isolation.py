"""What ingest commits on a connection of its own does not outlive the test that rolled the rest back."""

from datetime import UTC, datetime

import pytest

from apps.accounts.permissions import Principal
from apps.metrics import services
from apps.metrics.models import Metric, RetentionPolicy, Series
from apps.metrics.samples import Samples

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.xdist_group("isolation")
@pytest.mark.django_db
@pytest.mark.parametrize("_turn", [1, 2])
def test_a_test_finds_nothing_that_another_one_left(_turn):
    assert [model.objects.count() for model in (RetentionPolicy, Metric, Series)] == [0, 0, 0]
    samples = Samples.of([{"__name__": "x"}], [int(NOW.timestamp() * 1000)], [1.0])
    assert services.ingest(samples=samples, by=Principal.system("test"), now=NOW).accepted == 1
    assert RetentionPolicy.objects.count() == 1
