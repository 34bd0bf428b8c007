"""What a dashboard may say, and how variables are put into expressions: values in, values out."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.dashboards import document, variables
from apps.dashboards.document import Ask, BadDocument, Document, Panel, Threshold, Variable
from apps.dashboards.timespan import Span
from apps.dashboards.variables import ALL, BadVariable, fill
from apps.promql.ast import Selector
from apps.promql.parser import parse
from monitoring_portal import setup

HOSTILE = ('<script>alert(1)</script>"\\', "\u202ertl", "<" * 1_000, "a|b", '"} or up{a="', "\n", "`", "ü", ".*", "\\d")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)

panels = st.builds(
    Panel,
    id=st.text("ab-_9", min_size=1, max_size=6),
    kind=st.sampled_from(sorted(document.MEASURING)),
    title=TEXTS,
    x=st.integers(0, 11),
    y=st.integers(0, 50),
    w=st.integers(1, 12),
    h=st.integers(1, 20),
    queries=st.lists(st.builds(Ask, TEXTS.map(lambda t: f"up{t}"), TEXTS), max_size=3).map(tuple),
    unit=st.sampled_from(document.UNITS),
    stacked=st.booleans(),
    thresholds=st.lists(
        st.builds(Threshold, st.sampled_from(document.SEVERITIES), st.floats(-1e9, 1e9)), max_size=3
    ).map(tuple),
    calculation=st.sampled_from(document.CALCULATIONS),
)


@given(st.lists(panels, max_size=2, unique_by=lambda panel: panel.id))
def test_a_document_is_read_as_it_was_written(rows):
    whole = Document(tuple(rows), (Variable("host", "query", query="label_values(up, instance)", multi=True),))
    assert document.read(document.write(whole)) == whole


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (None, "must be an object"),
        ({"panels": {}, "x": 1}, "no field 'x'"),
        ({"panels": [{"kind": "iframe"}]}, "Panel 1: kind must be one of"),
        ({"panels": [{"kind": "stat", "x": 20, "w": 8}]}, "sticks out"),
        ({"panels": [{"kind": "stat", "title": "x" * 201}]}, "title must be a text"),
        ({"panels": [{"kind": "stat", "title": "\0"}]}, "no text may hold"),
        ({"panels": [{"kind": "stat", "w": True}]}, "w must be a whole number"),
        ({"panels": [{"kind": "stat", "minimum": float("nan")}]}, "minimum must be a number"),
        ({"panels": [{"kind": "stat", "minimum": 2, "maximum": 1}]}, "below its maximum"),
        ({"panels": [{"kind": "text", "queries": [{"expression": "up"}]}]}, "has no queries"),
        ({"panels": [{"kind": "stat", "queries": [{"expression": " "}]}]}, "queries 1: the expression is empty"),
        ({"panels": [{"kind": "stat", "id": "a"}, {"kind": "stat", "id": "a"}]}, "Two panels have the id a"),
        ({"panels": [{"kind": "stat"}] * 251}, "list of up to 250"),
        ({"variables": [{"name": "__x", "kind": "custom"}]}, "not begin with __"),
        ({"variables": [{"name": "x", "kind": "custom"}]}, "its options are missing"),
        ({"variables": [{"name": "x", "kind": "interval", "options": ["soon"]}]}, "intervals are written"),
        ({"variables": [{"name": "x", "kind": "query"}]}, "which label's values"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(raw, words):
    with pytest.raises(BadDocument, match=words.replace("(", r"\(")):
        document.read(raw)


def matchers(expression):
    tree = parse(expression)
    assert isinstance(tree, Selector)
    return {m.name: m for m in tree.matchers if m.name != "__name__"}


@given(TEXTS)
def test_no_value_gets_out_of_its_quotes(value):
    for quoted in ('"$x"', "'${x}'"):
        found = matchers(fill(f"up{{a={quoted},b!=''}}", {"x": (value,)}))
        assert (found["a"].op, found["a"].value, set(found)) == ("=", value, {"a", "b"})


@given(st.lists(TEXTS, min_size=1, max_size=4), TEXTS)
def test_several_values_match_themselves_and_nothing_else(values, other):
    found = matchers(fill('up{a=~"$x"}', {"x": tuple(values)}))["a"]
    assert all(found.matches(value) for value in values)
    assert found.matches(other) == (other in values)


@pytest.mark.parametrize("value", HOSTILE)
def test_outside_of_quotes_a_value_is_a_name_a_number_or_a_duration(value):
    with pytest.raises(BadVariable, match="outside of quotes"):
        fill("rate(up[$x])", {"x": (value,)})


@pytest.mark.parametrize(
    ("text", "values", "filled"),
    [
        ("rate(x[$w])", {"w": ("5m",)}, "rate(x[5m])"),
        ("topk($n, $m)", {"n": ("5",), "m": ("node_load1",)}, "topk(5, node_load1)"),
        ("sum by ($l) (x)", {"l": ("a", "b")}, "sum by (a, b) (x)"),
        ('x{a=~"$v"}', {"v": (ALL,)}, 'x{a=~".*"}'),
        ('x{a=~"web-$v:.+"}', {"v": ("1", "2")}, 'x{a=~"web-(1|2):.+"}'),
        ("x{a=~`$v`}", {"v": ("a.b",)}, "x{a=~`a\\.b`}"),
        ('label_replace(x, "a", "$1", "b", "(.*)")', {"v": ("1",)}, 'label_replace(x, "a", "$1", "b", "(.*)")'),
        ("x # $v and 'more\n + $v", {"v": ("1",)}, "x # $v and 'more\n + 1"),
        ('x{a="$unknown"}', {}, 'x{a="$unknown"}'),
        ('x{a="${v:regex}"}', {"v": ("1",)}, 'x{a="1"}'),
    ],
)
def test_variables_stand_where_they_may(text, values, filled):
    assert fill(text, values) == filled


def test_several_values_behind_an_equals_sign_are_refused_with_what_to_do():
    for values in (("a", "b"), (ALL,)):
        with pytest.raises(BadVariable, match="match it with =~"):
            fill('x{a="$v"}', {"v": values})


def test_the_address_chooses_within_what_the_variable_allows():
    declared = (
        Variable("one", "custom", options=("a", "b")),
        Variable("many", "custom", options=("a", "b"), multi=True, values=("b",)),
        Variable("fixed", "constant", values=("c",)),
        Variable("every", "query", query="label_values(x)", multi=True, all=True),
    )
    assert variables.chosen(declared, {}) == {"one": ("a",), "many": ("b",), "fixed": ("c",), "every": (ALL,)}
    asked = {
        "var-one": ["b", "a"],
        "var-many": ["a", "a", "b"],
        "var-fixed": ["other"],
        "var-every": ["x" * 3_000, ALL],
    }
    assert variables.chosen(declared, asked) == {"one": ("b",), "many": ("a", "b"), "fixed": ("c",), "every": (ALL,)}


def test_intervals_follow_the_chart():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    found = variables.built_in(Span(at, at, at + timedelta(hours=6), timedelta(minutes=2)))
    assert (found["__interval"], found["__rate_interval"], found["range"]) == (("120s",), ("120s",), ("21600s",))


def test_every_shipped_dashboard_is_a_document_whose_expressions_parse():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    span = Span(at, at, at + timedelta(days=1), timedelta(minutes=5))
    rows = setup.read("dashboards")
    assert {row["slug"] for row in rows} == {"host", "portal", "postgresql", "redis", "web-requests"}
    for row in rows:
        whole = document.read(row["document"])
        values = variables.built_in(span) | variables.chosen(whole.variables, {})
        for panel in whole.panels:
            assert panel.kind not in document.MEASURING or panel.queries, panel.id
            for ask in panel.queries:
                parse(fill(ask.expression, values))
