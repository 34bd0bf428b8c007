"""The text format, read back by Prometheus' own client library."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from apps.core import telemetry
from apps.core.telemetry import Histogram, Reading
from apps.metrics import exposition

HISTOGRAM = Histogram("test_exposition_seconds", "Seconds.", ("path",), buckets=(0.5, 1.0))


def parsed(text: bytes) -> list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]:
    """(family, type, help, samples) of each family."""
    return [
        (family.name, family.type, family.documentation, [(s.name, s.labels, s.value) for s in family.samples])
        for family in text_string_to_metric_families(text.decode())
    ]


def test_types_and_help_are_told_once_a_family():
    readings = [
        Reading("b_total", 3.0, {"x": "1"}, "counter", "Bees."),
        Reading("a", 0.5, help="Apples."),
        Reading("b_total", 4.0, {"x": "2"}, "counter", "Bees."),
        Reading("c", 1.0, type="unknown"),
    ]
    assert exposition.write(readings).decode() == (
        "# HELP a Apples.\n# TYPE a gauge\na 0.5\n"
        '# HELP b_total Bees.\n# TYPE b_total counter\nb_total{x="1"} 3\nb_total{x="2"} 4\n'
        "# TYPE c untyped\nc 1\n"
    )


def test_a_histogram_is_one_family_with_ascending_buckets_for_each_label_set():
    for path in ("/b", "/a"):
        HISTOGRAM.observe(0.7, path=path)
    readings = [reading for reading in telemetry.snapshot() if reading.name.startswith("test_exposition_seconds")]
    [(name, kind, _, samples)] = parsed(exposition.write(reversed(readings)))
    assert (name, kind) == ("test_exposition_seconds", "histogram")
    assert [(labels["path"], labels.get("le"), value) for _, labels, value in samples] == [
        ("/a", "0.5", 0.0), ("/a", "1.0", 1.0), ("/a", "+Inf", 1.0), ("/a", None, 0.7), ("/a", None, 1.0),
        ("/b", "0.5", 0.0), ("/b", "1.0", 1.0), ("/b", "+Inf", 1.0), ("/b", None, 0.7), ("/b", None, 1.0),
    ]  # fmt: skip


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\0")),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\0")).map(str.strip),
    st.floats(),
)
def test_whatever_stands_in_labels_help_and_value_comes_back(label, help_text, value):
    [(_, _, documentation, [(_, labels, back)])] = parsed(
        exposition.write([Reading("m", value, {"label": label}, help=f"x{help_text}x")])
    )
    assert (labels["label"], documentation) == (label, f"x{help_text}x")
    assert back == value or (math.isnan(back) and math.isnan(value))


@pytest.mark.parametrize(
    ("value", "text"), [(float("inf"), "+Inf"), (float("-inf"), "-Inf"), (1e21, "1e+21"), (0, "0")]
)
def test_numbers_are_written_as_go_does(value, text):
    assert exposition.number(float(value)) == text


def test_everything_a_process_counts_can_be_read_back():
    names = {family for family, *_ in parsed(exposition.write(telemetry.snapshot()))}
    assert {"portal_login_failures", "http_requests_in_flight"} <= names
