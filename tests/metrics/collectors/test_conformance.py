"""What every collector must do, whichever it is: a new one is tested by being there."""

import math
import re
from pathlib import Path

import pytest
from django import forms

from apps.metrics.collectors import COLLECTORS, HOST, OWN, Collector, NoData, cleaned

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
every_collector = pytest.mark.parametrize("kind", list(COLLECTORS.all()))


@every_collector
def test_it_says_what_it_is(kind):
    collector = COLLECTORS.get(kind)
    assert collector.label
    assert collector.__doc__
    assert collector.job in {HOST, OWN}
    assert collector.every.total_seconds() >= 1
    assert 0 < collector.deadline < collector.every.total_seconds()
    assert issubclass(collector.Config, forms.Form)


@every_collector
def test_the_documentation_has_its_row(kind):
    text = (Path(__file__).parents[3] / "docs/collectors.md").read_text()
    assert f"| `{kind}` |" in text


@every_collector
@pytest.mark.django_db(transaction=True)
def test_two_rounds_give_well_formed_series_without_doubles(kind):
    collector: Collector = COLLECTORS.get(kind)(cleaned(COLLECTORS.get(kind), {}))
    try:
        for _ in range(2):
            try:
                readings = list(collector.collect())
            except NoData:
                pytest.skip(f"{collector.label}: this machine has none")
            assert readings
            keys = [(reading.name, frozenset(reading.labels.items())) for reading in readings]
            assert len(set(keys)) == len(keys)
            for reading in readings:
                assert NAME.fullmatch(reading.name)
                assert all(NAME.fullmatch(name) and isinstance(value, str) for name, value in reading.labels.items())
                assert not {"job", "instance", "__name__"} & set(reading.labels)
                assert isinstance(reading.value, float)
                assert not math.isnan(reading.value)
                assert reading.help
                if reading.type == "counter":
                    assert reading.value >= 0
            types = {(reading.name, reading.type) for reading in readings}
            assert len(types) == len({name for name, _ in types})
    finally:
        collector.close()
    collector.close()
