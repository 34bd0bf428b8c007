"""Grafana's JSON in and out: what both know comes back as it was, the rest is told, hostile files are bounded."""

from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.dashboards import answers, document, grafana, variables
from apps.dashboards.document import Ask, Document, Panel, Threshold, Variable
from apps.dashboards.grafana import BadGrafana
from apps.dashboards.models import Dashboard
from apps.dashboards.timespan import span_of
from apps.promql.parser import parse
from tests.dashboards.test_dashboards import make

# Written by hand after the shape that Grafana 11 saves (schemaVersion 39) and an older one (schemaVersion 30).
FOREIGN = {
    "title": "Shop", "schemaVersion": 39, "uid": "abc", "description": "carts",
    "annotations": {"list": [{"builtIn": 1, "name": "Annotations & Alerts"}]},
    "templating": {"list": [
        {"name": "DS", "type": "datasource", "query": "prometheus"},
        {"name": "job", "type": "query", "query": {"query": "label_values(up, job)", "refId": "x"}, "multi": True,
         "includeAll": True, "regex": "/web.*/", "current": {"text": ["All"], "value": ["$__all"]}},
        {"name": "step", "type": "interval", "query": "1m,5m,auto", "current": {"value": "5m"}},
        {"name": "env", "type": "custom", "query": "prod,test", "current": {"value": "test"}},
        {"name": "filters", "type": "adhoc"},
    ]},
    "panels": [
        {"id": 1, "type": "timeseries", "title": "Rate of [[job]]", "gridPos": {"h": 8, "w": 12, "x": 0, "y": 0},
         "targets": [
             {"refId": "A", "expr": 'sum by (code) (rate(http_requests_total{job=~"[[job]]"}[$__rate_interval]))',
              "legendFormat": "{{ code }} of {{job}}"},
             {"refId": "B", "rawSql": "select 1"}, {"refId": "C", "expr": "up", "hide": True},
         ],
         "fieldConfig": {"defaults": {
             "unit": "reqps", "min": 0, "custom": {"stacking": {"mode": "normal"}},
             "thresholds": {"mode": "absolute", "steps": [
                 {"color": "green", "value": None}, {"color": "#EAB839", "value": 5}, {"color": "red", "value": 9}]},
         }, "overrides": [{"matcher": {}, "properties": []}]}},
        {"id": 2, "type": "stat", "title": "Free", "gridPos": {"h": 4, "w": 30, "x": 20, "y": 0},
         "options": {"reduceOptions": {"calcs": ["mean"]}}, "targets": [{"expr": "node_filesystem_avail_bytes"}],
         "fieldConfig": {"defaults": {"unit": "bytes", "thresholds": {"mode": "absolute", "steps": [
             {"color": "red", "value": None}, {"color": "green", "value": 100}]}}}},
        {"id": 3, "type": "row", "title": "More", "collapsed": True, "gridPos": {"h": 1, "w": 24, "x": 0, "y": 8},
         "panels": [{"id": 4, "type": "text", "gridPos": {"h": 3, "w": 24, "x": 0, "y": 9},
                     "options": {"mode": "html", "content": "<script>alert(1)</script>"}}]},
        {"id": 5, "type": "nodeGraph", "title": "Graph"},
        {"id": 6, "type": "gauge", "title": "Odd", "repeat": "job", "targets": [{"expr": "up"}],
         "fieldConfig": {"defaults": {"unit": "currencyUSD"}}},
    ],
}  # fmt: skip


def test_a_foreign_dashboard_comes_in_as_far_as_it_is_understood():
    found = grafana.read(orjson.dumps({"dashboard": FOREIGN, "meta": {}}))
    first, free, row, text, odd = found.document.panels
    assert (found.title, found.description) == ("Shop", "carts")
    assert first.title == "Rate of ${job}"
    assert first.queries == (
        Ask('sum by (code) (rate(http_requests_total{job=~"${job}"}[$__rate_interval]))', "{code} of {job}"),
    )
    assert (first.unit, first.minimum, first.stacked) == ("req/s", 0.0, True)
    assert first.thresholds == (Threshold("critical", 9.0, ">="),)
    assert (free.x + free.w, free.unit, free.calculation) == (24, "bytes", "mean")
    assert free.thresholds == (Threshold("critical", 100.0, "<"),)
    assert (row.kind, text.kind, text.text) == ("row", "text", "<script>alert(1)</script>")
    assert (odd.kind, odd.unit) == ("gauge", "plain")
    assert found.document.variables == (
        Variable(
            "job", "query", query="label_values(up, job)", regex="web.*", values=("$__all",), multi=True, all=True
        ),
        Variable("step", "interval", options=("1m", "5m"), values=("5m",)),
        Variable("env", "custom", options=("prod", "test"), values=("test",)),
    )


VARIABLES = [
    {"name": "mon", "type": "query", "query": "label_values(ceph_mon_metadata, ceph_daemon)", "regex": "mon.(.*)"},
    {"name": "any", "type": "query", "query": "label_values(up, job)", "regex": "(.*)"},
    {"name": "host", "type": "query", "query": "label_values(up, instance)", "regex": "/^(?<value>[^:]+)/i"},
    {"name": "session", "type": "query", "regex": '{SessionName="(?<value>.*)".*', "includeAll": True,
     "query": {"query": "query_result(count by (SessionName)(last_over_time(ray_data_output_bytes[$__range])))"}},
    {"name": "ahead", "type": "query", "query": "label_values(up, zone)", "regex": "/a(?=b)/"},
    {"name": "every", "type": "custom", "query": None, "current": {"value": "5m"},
     "options": [{"value": "$__all"}, {"value": "1m"}, {"value": "5m"}]},
    {"name": "odd", "type": "query", "query": "metrics(ray_.*)", "includeAll": True, "current": {}},
]  # fmt: skip


def test_variables_keep_their_pattern_and_are_asked_as_grafana_asks_them():
    panel = {"type": "timeseries", "targets": [{"expr": 'up{a=~"$odd"}'}]}
    raw = {"schemaVersion": 39, "title": "V", "templating": {"list": VARIABLES}, "panels": [panel]}
    found = grafana.read(orjson.dumps(raw))
    assert {one.name: one.regex for one in found.document.variables if one.kind == "query"} == {
        "mon": "^(?:mon.(.*))$", "any": "", "host": "(?i)^(?P<value>[^:]+)", "ahead": "",
        "session": '^(?:{SessionName="(?P<value>.*)".*)$',
    }  # fmt: skip
    (every,) = (one for one in found.document.variables if one.kind == "custom")
    assert (every.options, every.values) == (("1m", "5m"), ("5m",))
    assert found.document.panels[0].queries[0].expression == 'up{a=~".*"}'
    assert found.report == (
        "Variable ahead: its regex is not applied: it is none of RE2's.",
        "Variable odd: only label_values(…) and query_result(…) are understood; it stands for all, always.",
    )
    there, _ = grafana.write(found.document, title="V")
    assert grafana.read(orjson.dumps(there)).document == found.document


@pytest.mark.parametrize(
    ("unit", "shown"), [("%", "percent"), ("tokens/s", "/s"), ("rows/sec", "/s"), ("qps", "req/s"), ("tasks", "plain")]
)
def test_units_that_are_any_text_are_read_as_what_they_say(unit, shown):
    panel = {"type": "stat", "targets": [{"expr": "up"}], "fieldConfig": {"defaults": {"unit": unit}}}
    found = grafana.read(orjson.dumps({"schemaVersion": 39, "panels": [panel]}))
    assert found.document.panels[0].unit == shown
    assert bool(found.report) == (shown == "plain")


CEPH = sorted(Path("/etc/grafana/dashboards/ceph-dashboard").glob("*.json"))


@pytest.mark.skipif(not CEPH, reason="Debian's ceph-grafana-dashboards is not here")
def test_the_dashboards_of_ceph_come_in_whole_and_every_expression_can_be_asked():
    span = variables.built_in(span_of({}, now=datetime(2026, 1, 1, tzinfo=UTC)))
    asked = 0
    for file in CEPH:
        found = grafana.read(file.read_bytes())
        chosen = {name: values or ("x",) for name, values in variables.chosen(found.document.variables, {}).items()}
        for panel in found.document.panels:
            for ask in panel.queries:
                parse(variables.fill(ask.expression, span | chosen))
                asked += 1
        assert [line for line in found.report if "regex" in line] == []
    assert asked > 150


def test_what_does_not_come_along_is_told():
    told = "\n".join(grafana.read(orjson.dumps(FOREIGN)).report)
    for words in (
        "Panel Graph: there is no kind nodeGraph", "overrides of single fields", "a query that is no PromQL",
        "a hidden query", "its HTML is shown as text", "the unit currencyUSD", "it is not repeated",
        "kind adhoc",
    ):  # fmt: skip
        assert words in told
    assert "Annotations" not in told


# Written by hand after Grafana's documented schemas and the habits of well-known public dashboards: a host in schema 41
# with collapsed rows and a hidden variable that is a regular expression, Django in schema 12 with rows of graph and
# singlestat, PostgreSQL in schema 36 with a library, repeats and a second data source.
FILES = Path(__file__).parent / "grafana"


def come_in(name, times=1):
    """Return what became of a file, its last panel of a row so many times in it, its panels by title, the report."""
    raw = orjson.loads((FILES / f"{name}.json").read_bytes())
    for row in (raw.get("panels") or [])[-1:]:
        row["panels"] = row.get("panels", []) + row.get("panels", [])[-1:] * (times - 1)
    found = grafana.read(orjson.dumps(raw))
    return found, {panel.title: panel for panel in found.document.panels}, "\n".join(found.report)


def test_a_host_dashboard_of_today_comes_in_with_all_of_its_hundred_panels():
    found, panels, told = come_in("node-exporter", times=110)
    assert (len(found.document.panels), len(found.report)) == (122, 4)
    assert 'device=~"[a-z]+|nvme[0-9]+n[0-9]+|mmcblk[0-9]+"' in panels["Disk IOps"].queries[0].expression
    assert [(t.severity, t.value) for t in panels["CPU Busy"].thresholds] == [("error", 85.0), ("critical", 95.0)]
    assert (panels["CPU Basic"].stacked, panels["CPU Basic"].thresholds) == (True, ())  # Grafana does not draw them
    assert [variable.name for variable in found.document.variables] == ["job", "nodename", "node"]
    assert "Panel CPU Basic, Panel Network Traffic Basic, Panel Disk Space Used Basic and 3 more: overrides" in told


def test_a_dashboard_of_old_comes_in_with_its_rows_graphs_and_figures():
    found, panels, told = come_in("django")
    places = [(p.kind, p.x, p.y, p.w, p.h) for p in found.document.panels[:5]]
    assert places == [
        ("row", 0, 0, 24, 1), ("stat", 0, 1, 6, 8), ("timeseries", 6, 1, 18, 8), ("timeseries", 0, 9, 12, 8),
        ("timeseries", 12, 9, 12, 8),
    ]  # fmt: skip
    rate, requests, latency = panels["Error rate"], found.document.panels[2], panels["Latency"]
    assert (rate.unit, rate.maximum, [t.value for t in rate.thresholds]) == ("share", None, [0.01, 0.05])
    assert (requests.unit, requests.stacked, requests.minimum) == ("req/s", True, 0.0)
    assert [(t.severity, t.comparison, t.value) for t in latency.thresholds] == [
        ("critical", ">", 1.0),
        ("warning", ">", 0.5),
    ]
    assert 'job=~"${application}"' in requests.queries[0].expression
    assert [(v.name, v.kind, v.values) for v in found.document.variables] == [
        ("application", "query", ("$__all",)), ("interval", "interval", ()), ("top", "query", ("10",)),
    ]  # fmt: skip
    assert not any("top" in line for line in told)


def test_what_is_repeated_kept_in_a_library_or_asked_elsewhere_comes_in_as_far_as_it_can():
    _, panels, told = come_in("postgresql")
    assert panels["Connections"].queries[0].expression.startswith("sum by (state)")
    assert [ask.expression for ask in panels["Size of $datname"].queries] == [
        'pg_database_size_bytes{datname=~"$datname", instance="${instance}"}'
    ]
    assert (panels["By state"].kind, panels["Up"].kind, panels["Latency"].kind) == ("stat", "timeseries", "heatmap")
    assert [(t.value, t.comparison) for t in panels["Cache"].thresholds] == [(95.0, "<")]
    for words in (
        "Panel Lost: its content is kept in Grafana's library", "Panel Log: there is no kind logs",
        "a query of the data source loki", "and query_result(…) are understood; it stands for all",
    ):  # fmt: skip
        assert words in told


@pytest.mark.parametrize("name", ["node-exporter", "django", "postgresql"])
def test_every_expression_that_came_in_is_asked_once_its_variables_are_chosen(name):
    found, _, _ = come_in(name)
    span = span_of({}, now=datetime(2026, 11, 28, tzinfo=UTC))
    values = variables.chosen(
        found.document.variables, {f"var-{v.name}": ["a"] for v in found.document.variables if v.kind == "query"}
    )
    for panel in found.document.panels:
        for ask in answers.asks_of(panel, span, values):
            parse(ask.expression)


def test_a_file_of_the_schema_to_come_is_refused_with_what_to_do():
    with pytest.raises(BadGrafana, match="classic model"):
        grafana.read(orjson.dumps({"kind": "Dashboard", "spec": {"elements": {}, "layout": {}}}))


LETTERS = st.characters(codec="utf-8", exclude_characters="\0{}[]$,", exclude_categories=("Zs", "Cc", "Zl", "Zp"))
WORDS = st.text(LETTERS, min_size=1, max_size=8)
NAMES = st.text("abc_", min_size=1, max_size=6)


@st.composite
def known(draw):
    """A document of what both know, as Grafana numbers its panels."""
    panels = []
    for number in range(1, draw(st.integers(0, 4)) + 1):
        kind = draw(st.sampled_from(sorted(document.KINDS)))
        place = {
            "id": f"p{number}",
            "kind": kind,
            "title": draw(WORDS),
            "x": draw(st.integers(0, 12)),
            "y": number,
            "w": 9,
        }
        height = 1 if kind == "row" else draw(st.integers(1, 20))
        more = {}
        if kind == "text":
            more = {"text": draw(WORDS)}
        elif kind in document.MEASURING:
            values = sorted(draw(st.sets(st.integers(-99, 99), max_size=3)))
            comparison = draw(st.sampled_from((">=", "<")))
            limits = [Threshold(draw(st.sampled_from(document.SEVERITIES)), float(v), comparison) for v in values]
            more = {
                "queries": tuple(Ask(f"up{{a=~'{draw(WORDS)}'}}".replace("'", '"'), f"{draw(WORDS)} {{{draw(NAMES)}}}")
                                 for _ in range(draw(st.integers(0, 2)))),
                "unit": draw(st.sampled_from(document.UNITS)),
                "minimum": draw(st.none() | st.integers(-9, 0).map(float)),
                "maximum": draw(st.none() | st.integers(1, 9).map(float)),
                "stacked": draw(st.booleans()),
                "thresholds": tuple(limits),
                "calculation": draw(st.sampled_from(document.CALCULATIONS)),
            }  # fmt: skip
        panels.append(Panel(**place, h=height, **more))
    options = tuple(dict.fromkeys(draw(st.lists(WORDS, min_size=1, max_size=3))))
    variables = (
        Variable(
            "job", "query", query="label_values(up, job)", regex="web.*", values=("$__all",), multi=True, all=True
        ),
        Variable("env", "custom", draw(WORDS), options=options, values=options[:1]),
        Variable("every", "interval", options=("1m", "5m")),
        Variable("fixed", "constant", values=(draw(WORDS),)),
    )
    return Document(tuple(panels), variables)


@settings(max_examples=60)
@given(known())
def test_what_both_know_comes_back_as_it_went(whole):
    written, report = grafana.write(whole, title="Round", description="trip", uid="round")
    found = grafana.read(orjson.dumps(written))
    assert (found.title, found.description, found.report, report) == ("Round", "trip", (), [])
    assert found.document == whole


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 99) | st.floats() | st.sampled_from(("timeseries", "row", "query")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ("type", "title", "panels", "targets", "expr", "gridPos", "x", "w", "options", "fieldConfig", "defaults",
             "thresholds", "steps", "value", "templating", "list", "name", "query", "current", "annotations")
        ), inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=100)
@given(st.lists(JSON, max_size=4), JSON)
def test_no_shape_of_json_breaks_the_import(panels, templating):
    grafana.read(orjson.dumps({"panels": panels, "templating": templating, "title": templating}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no JSON"),
        (b"[]", "no list of panels"),
        (b'{"panels": 3}', "no list of panels"),
        (b'{"panels": [' + b"[" * 500 + b"]" * 500 + b"]}", "nested too deeply"),
        (b"[" * 100_000, "no JSON"),
        (b'{"panels": [' + b"0," * 300_000 + b"0]}", "holds too much"),
        (b" " * 2_000_001, "larger than 2 MB"),
    ],
    ids=["empty", "list", "number", "deep", "deeper", "many", "large"],
)
def test_a_hostile_file_is_refused_with_a_sentence(text, words):
    with pytest.raises(BadGrafana, match=words):
        grafana.read(text)


def test_a_thousand_panels_are_as_many_as_may_be_and_a_line_in_the_report():
    found = grafana.read(orjson.dumps({"schemaVersion": 39, "panels": [{"type": "stat"}] * 1_000}))
    assert (len(found.document.panels), found.report) == (250, ("750 panels beyond 250 are left out.",))


@pytest.mark.django_db
def test_a_file_becomes_a_dashboard_and_the_page_says_what_did_not_come_along(client, person):
    client.force_login(person("editor"))
    hostile = {**FOREIGN, "title": "<b>x</b>", "panels": [{"type": "<img src=x>", "title": "<img src=y>"}]}
    upload = SimpleUploadedFile("x.json", orjson.dumps(hostile), "application/json")
    page = client.post("/monitoring/dashboards/import/", {"file": upload})
    assert page.status_code == 200
    assert "there is no kind &lt;img" in page.text
    assert "<img" not in page.text
    assert Dashboard.objects.get().title == "<b>x</b>"
    again = client.post("/monitoring/dashboards/import/", {"text": "{"})
    assert (again.status_code, "no JSON" in again.text, Dashboard.objects.count()) == (422, True, 1)


@pytest.mark.django_db
def test_a_dashboard_is_handed_out_as_grafanas_json(client, person):
    row = make()
    client.force_login(person("viewer"))
    answer = client.get(f"/monitoring/dashboards/{row.slug}/grafana.json")
    assert answer["content-disposition"] == 'attachment; filename="shop.json"'
    assert answer.json()["panels"][0]["targets"][0]["legendFormat"] == "{{instance}}"
