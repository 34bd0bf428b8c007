"""Prometheus' HTTP API over the store: shapes, words and codes as a real Prometheus gives them."""

from datetime import UTC, datetime, timedelta

import pytest
import yaml

from apps.accounts.rights import Principal
from apps.metrics import budgets, compaction, services
from apps.metrics.envelope import duration, moment
from apps.metrics.models import CollectorSetting, Metric, QueryBudget, RetentionPolicy, Series
from apps.metrics.samples import Samples
from apps.promql.functions import FUNCTIONS
from tests.wiring.lanes import ask, token

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())


def ingest(*series: dict[str, str], at: datetime = NOW, value: float = 1.0) -> None:
    labels = [{"__name__": "up", **one} for one in series]
    stamps = [int(at.timestamp() * 1000)] * len(labels)
    services.ingest(samples=Samples.of(labels, stamps, [value] * len(labels)), by=Principal.system("test"), now=NOW)


@pytest.fixture
def query(db):
    return token("query")


@pytest.fixture
def stored(transactional_db):
    """As `query`, for tests that ingest: new series commit on a connection of their own, which no roll-back undoes."""
    return token("query", "read")


def test_an_instant_query_answers_a_vector(stored):
    ingest({"job": "api"}, value=0.5)
    said = ask("/api/v1/query", stored, {"query": "up", "time": SECONDS})
    assert said.body == (
        b'{"status":"success","data":{"resultType":"vector","result":'
        b'[{"metric":{"__name__":"up","job":"api"},"value":[%d,"0.5"]}]}}' % SECONDS
    )


def test_a_range_query_answers_a_matrix(stored):
    ingest({"job": "api"}, at=NOW - timedelta(minutes=1))
    said = ask("/api/v1/query_range", stored, {"query": "up", "start": SECONDS - 120, "end": SECONDS, "step": "1m"})
    assert said.data == {
        "resultType": "matrix",
        "result": [{"metric": {"__name__": "up", "job": "api"}, "values": [[SECONDS - 60, "1"], [SECONDS, "1"]]}],
    }


TIME = "Invalid time value for"
MOST = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
STEP = "zero or negative query resolution step widths are not accepted. Try a positive integer"
RANGE = 'invalid expression type "range vector" for range query, must be Scalar or instant Vector'
NOTHING = "1:1: parse error: no expression found in input"
ERRORS = [
    ("query", {}, f'invalid parameter "query": {NOTHING}'),
    ("query", {"query": "up", "time": "abc"},
     f"invalid parameter \"time\": {TIME} 'time': cannot parse \"abc\" to a valid timestamp"),
    ("query", {"query": "up", "timeout": "abc"}, 'invalid parameter "timeout": cannot parse "abc" to a valid duration'),
    ("query", {"query": "up", "lookback_delta": "x"},
     'error parsing lookback delta duration: cannot parse "x" to a valid duration'),
    ("query", {"query": "up", "limit": "-1"}, 'invalid parameter "limit": limit must be non-negative'),
    ("query_range", {"query": "up"}, 'invalid parameter "start": cannot parse "" to a valid timestamp'),
    ("query_range", {"query": "up", "start": 1, "end": 0, "step": 1},
     'invalid parameter "end": end timestamp must not be before start time'),
    ("query_range", {"query": "up", "start": 1, "end": 2, "step": 0}, f'invalid parameter "step": {STEP}'),
    ("query_range", {"query": "up", "start": 1, "end": 2, "step": "x"},
     'invalid parameter "step": cannot parse "x" to a valid duration'),
    ("query_range", {"query": "up", "start": 1, "end": 200_000, "step": 1}, MOST),
    ("query_range", {"query": "up[5m]", "start": 1, "end": 2, "step": 1}, f'invalid parameter "query": {RANGE}'),
    ("series", {}, "no match[] parameter provided"),
    ("series", {"match[]": "up", "start": "x"},
     f"invalid parameter \"start\": {TIME} 'start': cannot parse \"x\" to a valid timestamp"),
    ("labels", {"match[]": '{job=~".*"}'},
     'invalid parameter "match[]": 1:1: parse error: vector selector must contain at least one non-empty matcher'),
    ("metadata", {"limit": "x"}, "limit must be a number"),
    ("format_query", {}, f'invalid parameter "query": {NOTHING}'),
    ("query_exemplars", {}, NOTHING),
]  # fmt: skip


@pytest.mark.parametrize(("path", "parameters", "words"), ERRORS)
def test_a_wrong_request_is_told_in_the_words_of_prometheus(query, path, parameters, words):
    assert ask(f"/api/v1/{path}", query, parameters).error == (400, "bad_data", words)


# --- Answers --------------------------------------------------------------------------------------------------------


def test_a_form_is_read_like_an_address(query):
    assert ask("/api/v1/query", query, method="POST", form={"query": "1 + 1", "time": 7}).data == {
        "resultType": "scalar",
        "result": [7, "2"],
    }


def test_a_range_vector_is_a_matrix_and_a_string_a_string(stored):
    ingest({"job": "api"})
    said = ask("/api/v1/query", stored, {"query": "up[1m]", "time": SECONDS}).data
    assert (said["resultType"], said["result"][0]["values"]) == ("matrix", [[SECONDS, "1"]])
    assert ask("/api/v1/query", stored, {"query": '"é\\n"', "time": 1.5}).data == {
        "resultType": "string",
        "result": [1.5, "é\n"],
    }


@pytest.mark.parametrize(
    ("expression", "value"),
    [("NaN", "NaN"), ("-Inf", "-Inf"), ("1e21", "1e+21"), ("0.0000001", "1e-07"), ("123456789012", "123456789012")],
)
def test_values_are_written_as_prometheus_writes_them(query, expression, value):
    (row,) = ask("/api/v1/query", query, {"query": f"vector({expression})"}).data["result"]
    assert row["value"][1] == value


def test_times_are_seconds_or_text(query):
    for text in ("1795435200.1234", "2026-11-23T12:00:00.123Z", "2026-11-23T13:00:00.123+01:00"):
        assert ask("/api/v1/query", query, {"query": "1", "time": text}).data["result"][0] == 1795435200.123


@pytest.mark.parametrize(
    "text", ["1e999", "9" * 400, "-1e15", "NaN", "Inf", "0x10", "1_0", "2026-13-01T00:00:00Z", "٣"]
)
def test_senseless_times_are_refused(query, text):
    status, kind, _ = ask("/api/v1/query", query, {"query": "1", "time": text}).error
    assert (status, kind) == (400, "bad_data")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("1h30m", 5400), ("1d", 86_400), ("1y", 31_536_000), ("10ms", 0.01)]
)
def test_durations_are_seconds_or_units(text, seconds):
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "m", "30m1h", "1.5h", "-1m", "1e400", "９s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="cannot parse"):
        duration(text)


@pytest.mark.parametrize("read", [duration, moment])
@pytest.mark.parametrize("end", ["x", "y", "ex", ".x", ""])
def test_a_million_digits_are_refused_in_one_pass(read, end):
    with pytest.raises(ValueError, match="cannot parse"):  # in the square of their length they would take hours
        read("9" * 1_000_000 + end)


def test_a_limit_cuts_the_answer_and_says_so(stored):
    ingest({"job": "a"}, {"job": "b"}, {"job": "c"})
    paths: list[tuple[str, dict[str, object]]] = [
        ("query", {"query": "up", "time": SECONDS}),
        ("query_range", {"query": "up", "start": SECONDS, "end": SECONDS, "step": 1}),
        ("series", {"match[]": "up"}),
        ("label/job/values", {}),
        ("labels", {}),
    ]
    for path, parameters in paths:
        said = ask(f"/api/v1/{path}", stored, {**parameters, "limit": 1}).json
        found = said["data"] if isinstance(said["data"], list) else said["data"]["result"]
        assert (len(found), said["warnings"]) == (1, ["results truncated due to limit"]), path
        whole = ask(f"/api/v1/{path}", stored, {**parameters, "limit": 3}).json
        assert "warnings" not in whole, path


def test_statistics_are_told_when_they_are_asked_for(stored):
    ingest({"job": "a"})
    stats = ask("/api/v1/query", stored, {"query": "up", "time": SECONDS, "stats": "all"}).data["stats"]
    assert (stats["samples"]["totalQueryableSamples"], stats["series"]) == (1, 1)
    assert ask("/api/v1/query", stored, {"query": "1", "stats": "1"}).data["stats"]["timings"]["execTotalTime"] >= 0


def test_infos_and_warnings_stand_beside_the_data(stored):
    ingest({"job": "a"})
    said = ask("/api/v1/query", stored, {"query": "quantile(2, up)", "time": SECONDS}).json
    assert any("quantile value should be between 0 and 1" in text for text in said["warnings"])


def test_an_error_of_the_evaluation_is_422(stored):
    ingest({"job": "a"}, {"job": "b"})
    status, kind, words = ask("/api/v1/query", stored, {"query": "up * on () up", "time": SECONDS}).error
    assert (status, kind) == (422, "execution")
    assert "found duplicate series for the match group" in words


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ('label_replace(up, "a", "", "", "(")', "invalid regular expression in label_replace(): ("),
        ('label_replace(up, "", "", "", "")', "invalid destination label name in label_replace(): "),
        ('label_join(up, "a", ",", "")', "invalid source label name in label_join(): "),
    ],
)
def test_a_constant_that_cannot_work_is_422_in_prometheus_words(stored, query, words):
    assert ask("/api/v1/query", stored, {"query": query, "time": SECONDS}).error == (422, "execution", words)


def test_a_timeout_of_the_caller_counts(stored):
    ingest({"job": "a"})
    status, kind, _ = ask("/api/v1/query", stored, {"query": "sum(up) + 1", "time": SECONDS, "timeout": "0"}).error
    assert (status, kind) == (503, "timeout")


def test_the_lookback_of_the_caller_counts(stored):
    ingest({"job": "a"})
    asked = {"query": "up", "time": SECONDS + 60}
    assert len(ask("/api/v1/query", stored, asked).data["result"]) == 1
    assert ask("/api/v1/query", stored, {**asked, "lookback_delta": "30s"}).data["result"] == []


def test_plain_promql_refuses_the_portals_own_functions(query):
    own = next(one.name for one in FUNCTIONS.values() if one.extension)
    asked = {"query": f"{own}(up[5m])", "dialect": "prometheus"}
    status, kind, words = ask("/api/v1/query", query, asked).error
    assert (status, kind, own in words) == (400, "bad_data", True)


# --- What there is --------------------------------------------------------------------------------------------------


def test_series_are_united_sorted_and_each_once(stored):
    ingest({"job": "b"}, {"job": "a", "env": "x"}, {"job": "c"})
    said = ask("/api/v1/series", stored, {"match[]": ['up{job=~"a|b"}', 'up{job!="c"}']}).data
    assert said == [{"__name__": "up", "env": "x", "job": "a"}, {"__name__": "up", "job": "b"}]


def test_labels_and_their_values(stored):
    ingest({"job": "b"}, {"job": "a", "http.method": "GET"}, {"__name__": "other", "zone": "z"})
    assert ask("/api/v1/labels", stored).data == ["__name__", "http.method", "job", "zone"]
    assert ask("/api/v1/labels", stored, {"match[]": "other"}).data == ["__name__", "zone"]
    assert ask("/api/v1/label/job/values", stored).data == ["a", "b"]
    assert ask("/api/v1/label/__name__/values", stored).data == ["other", "up"]
    assert ask("/api/v1/label/job/values", stored, {"match[]": '{zone="z"}'}).data == []
    assert ask("/api/v1/label/U__http_2e_method/values", stored).data == ["GET"]
    assert ask("/api/v1/label/nope/values", stored).data == []


def test_what_ended_long_before_is_not_there(stored):
    old = NOW - timedelta(hours=6)
    ingest({"job": "old"}, at=old)
    ingest({"job": "new"})
    compaction.compact_log(now=NOW)
    Series.objects.filter(labels__job="old").update(first_at=old, last_at=old)
    Series.objects.filter(labels__job="new").update(first_at=NOW, last_at=NOW)
    table = [
        ({}, ["new", "old"]),
        ({"start": SECONDS - 3600}, ["new"]),
        ({"end": SECONDS - 3600}, ["old"]),
        ({"start": SECONDS - 7 * 3600, "end": SECONDS}, ["new", "old"]),
    ]
    for span, jobs in table:
        assert ask("/api/v1/label/job/values", stored, span).data == jobs, span
        assert [one["job"] for one in ask("/api/v1/series", stored, {"match[]": "up", **span}).data] == jobs, span
    assert ask("/api/v1/label/__name__/values", stored, {"end": SECONDS - 10 * 3600}).data == []


def test_what_is_too_young_to_be_compacted_is_not_there_long_before(stored):
    ingest({"job": "new"})
    for span, jobs in (({"end": 0}, []), ({"end": SECONDS - 3600}, []), ({"end": SECONDS}, ["new"])):
        assert [one["job"] for one in ask("/api/v1/series", stored, {"match[]": "up", **span}).data] == jobs, span
        assert ask("/api/v1/label/job/values", stored, span).data == jobs, span
        assert ask("/api/v1/label/__name__/values", stored, span).data == (["up"] if jobs else []), span


def test_what_is_back_since_compaction_is_there(stored):
    old = NOW - timedelta(hours=6)
    ingest({"job": "back"}, at=old)
    Series.objects.update(first_at=old, last_at=old)
    span = {"start": SECONDS - 600}
    assert ask("/api/v1/label/job/values", stored, span).data == []
    assert ask("/api/v1/label/__name__/values", stored, span).data == []
    ingest({"job": "back"})
    assert ask("/api/v1/label/job/values", stored, span).data == ["back"]
    assert ask("/api/v1/label/__name__/values", stored, span).data == ["up"]


def test_metadata_is_by_family(stored):
    ingest({})
    retention = RetentionPolicy.objects.earliest("pk")
    for name in ("took_seconds_bucket", "took_seconds_sum", "took_seconds_count"):
        Metric.objects.create(name=name, type="histogram", help="How long.", unit="seconds", retention=retention)
    everything = ask("/api/v1/metadata", stored).data
    assert everything == {
        "took_seconds": [{"type": "histogram", "help": "How long.", "unit": "seconds"}],
        "up": [{"type": "unknown", "help": "", "unit": ""}],
    }
    assert list(ask("/api/v1/metadata", stored, {"limit": 1}).data) == ["took_seconds"]
    assert list(ask("/api/v1/metadata", stored, {"metric": "up"}).data) == ["up"]
    assert ask("/api/v1/metadata", stored, {"metric": "nope"}).data == {}
    assert ask("/api/v1/metadata", stored, {"limit": 0}).data == {}


def test_exemplars_are_none(query):
    assert ask("/api/v1/query_exemplars", query, {"query": "up", "start": 1, "end": 2}).data == []


def test_an_expression_is_formatted_and_taken_apart(query):
    assert ask("/api/v1/format_query", query, {"query": "sum(up)by(job)"}).data.split() == [
        "sum",
        "by",
        "(job)",
        "(up)",
    ]
    assert ask("/api/v1/parse_query", query, {"query": "-rate(up[5m] offset 1m) > bool 2"}).data == {
        "type": "binaryExpr",
        "op": ">",
        "bool": True,
        "matching": None,
        "rhs": {"type": "numberLiteral", "val": "2"},
        "lhs": {
            "type": "unaryExpr",
            "op": "-",
            "expr": {
                "type": "call",
                "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
                "args": [
                    {
                        "type": "matrixSelector",
                        "name": "up",
                        "range": 300_000,
                        "offset": 60_000,
                        "matchers": [{"name": "__name__", "value": "up", "type": "="}],
                        "timestamp": None,
                        "startOrEnd": None,
                        "anchored": False,
                        "smoothed": False,
                    }
                ],
            },
        },
    }


@pytest.mark.parametrize(
    "text", ["sum by (a) (topk(2, x)) / on (a) group_left (b) y", '"s"', "(x[5m:1m] @ end())", "x or y"]
)
def test_every_kind_of_node_is_taken_apart(query, text):
    assert ask("/api/v1/parse_query", query, {"query": text}).data["type"]


@pytest.mark.parametrize("edges", ["anchored", "smoothed"])
def test_the_tree_tells_how_a_window_treats_its_edges(query, edges):
    (window,) = ask("/api/v1/parse_query", query, {"query": f"rate(up[5m] {edges})"}).data["args"]
    assert {name for name in ("anchored", "smoothed") if window[name]} == {edges}


# --- Scopes ---------------------------------------------------------------------------------------------------------


def test_a_scope_narrows_every_answer(transactional_db):
    narrow = token("query", "read", matchers=(("team", "=", "web"),))
    ingest(
        {"team": "web", "host": "a"}, {"team": "db", "host": "b"}, {"__name__": "secret", "team": "db", "shelf": "c"}
    )
    assert [
        one["metric"]["host"] for one in ask("/api/v1/query", narrow, {"query": "up", "time": SECONDS}).data["result"]
    ] == ["a"]
    assert len(ask("/api/v1/series", narrow, {"match[]": '{team=~".+"}'}).data) == 1
    assert ask("/api/v1/labels", narrow).data == ["__name__", "host", "team"]
    assert ask("/api/v1/label/host/values", narrow).data == ["a"]
    assert ask("/api/v1/label/__name__/values", narrow).data == ["up"]
    assert list(ask("/api/v1/metadata", narrow).data) == ["up"]
    assert ask("/api/v1/status/tsdb", narrow).data["headStats"]["numSeries"] == 1
    assert ask("/api/v1/targets", narrow).data["activeTargets"] == []
    cost = ask("/api/monitoring/query/cost", narrow, {"query": '{team=~".+"}', "time": SECONDS}).data
    assert cost["series"] == 1
    tree = ask("/api/monitoring/query/explain", narrow, {"query": "up", "time": SECONDS}).data["tree"]
    assert [one["metric"]["host"] for one in tree["values"]] == ["a"]


# --- About itself ---------------------------------------------------------------------------------------------------


@pytest.fixture
def reader(db):
    return token("read")


def test_collectors_are_targets(reader):
    CollectorSetting.objects.all().delete()
    CollectorSetting.objects.create(kind="cpu", every=timedelta(seconds=15))
    CollectorSetting.objects.create(
        kind="meminfo", every=timedelta(minutes=1), last_at=NOW, duration=timedelta(seconds=0.25), error="It broke."
    )
    CollectorSetting.objects.create(kind="filesystem", every=timedelta(minutes=1), enabled=False)
    said = ask("/api/v1/targets", reader).data
    cpu, memory = said["activeTargets"]
    assert (cpu["health"], cpu["lastScrape"], cpu["scrapeInterval"]) == ("unknown", "0001-01-01T00:00:00Z", "15s")
    assert (memory["health"], memory["lastError"], memory["lastScrapeDuration"]) == ("down", "It broke.", 0.25)
    assert memory["lastScrape"] == "2026-11-23T12:00:00Z"
    assert [one["discoveredLabels"]["__collector__"] for one in said["droppedTargets"]] == ["filesystem"]
    assert ask("/api/v1/targets", reader, {"state": "dropped"}).data["activeTargets"] == []
    assert ask("/api/v1/targets", reader, {"scrapePool": "nope"}).data["activeTargets"] == []
    assert ask("/api/v1/scrape_pools", reader).data == {"scrapePools": ["node"]}


def test_it_says_what_runs(reader):
    assert ask("/api/v1/status/buildinfo", reader).data["version"].startswith("3.")
    assert ask("/api/v1/status/runtimeinfo", reader).data["corruptionCount"] == 0
    flags = ask("/api/v1/status/flags", reader).data
    assert "promql-duration-expr" in flags["enable-feature"].split(",")
    assert flags["web.enable-remote-write-receiver"] == "true"
    assert (flags["query.lookback-delta"], {type(value) for value in flags.values()}) == ("5m", {str})
    assert yaml.safe_load(ask("/api/v1/status/config", reader).data["yaml"])["global"]["scrape_interval"] == "15s"
    assert ask("/api/v1/alertmanagers", reader).data == {"activeAlertmanagers": [], "droppedAlertmanagers": []}
    assert ask("/api/v1/status/walreplay", reader).data == {"min": 0, "max": 0, "current": 0}


def test_it_says_what_makes_the_most_series(stored):
    ingest({"job": "a"}, {"job": "b"}, {"__name__": "other", "job": "a"})
    said = ask("/api/v1/status/tsdb", stored, {"limit": 1}).data
    assert said["headStats"] == {
        "numSeries": 3, "numLabelPairs": 4, "chunkCount": 1, "minTime": SECONDS * 1000, "maxTime": SECONDS * 1000,
    }  # fmt: skip
    assert said["seriesCountByMetricName"] == [{"name": "up", "value": 2}]
    assert said["labelValueCountByLabelName"] == [{"name": "__name__", "value": 2}]
    assert said["memoryInBytesByLabelName"] == [{"name": "__name__", "value": 7}]
    assert said["seriesCountByLabelValuePair"] == [{"name": "__name__=up", "value": 2}]
    assert ask("/api/v1/status/tsdb", stored, {"limit": 0}).error[0] == 400


# --- The portal's own -----------------------------------------------------------------------------------------------


def test_a_cost_is_told_beside_the_budget(stored):
    ingest({"job": "a"}, {"job": "b"})
    asked = {"query": "sum(up)", "start": SECONDS - 60, "end": SECONDS, "step": 15}
    said = ask("/api/monitoring/query/cost", stored, asked).data
    assert (said["series"], said["steps"], said["heavy"], said["refused"]) == (2, 5, False, None)
    assert set(said["budget"]) == {"series", "samples", "points", "seconds"}


def test_the_parts_of_a_query_are_told(stored):
    ingest({"job": "a"}, {"job": "b"})
    said = ask("/api/monitoring/query/explain", stored, {"query": "sum(up)", "time": SECONDS}).data
    assert (said["tree"]["kind"], said["tree"]["values"]) == ("aggregate", [{"metric": {}, "value": "2"}])
    [below] = said["tree"]["children"]
    assert (below["kind"], below["series"], below["start"], below["end"]) == ("selector", 2, 4, 6)
    assert said["stats"]["samples"] == 2


def test_functions_are_listed_by_name(query):
    said = ask("/api/monitoring/query/functions", query).data
    found = {one["name"]: one for one in said}
    assert list(found) == sorted(found)
    assert (found["rate"]["kind"], found["sum"]["kind"], found["rate"]["extension"]) == (
        "function",
        "aggregation",
        False,
    )
    assert all(one["help"] and one["signature"].startswith(one["name"]) for one in said)


def test_a_query_over_its_budget_names_it_with_its_limit_and_its_own_cost(stored):
    ingest({"job": "a"}, {"job": "b"}, {"job": "c"})
    row, _ = QueryBudget.objects.get_or_create(role="token", defaults=dict.fromkeys(budgets.BUDGETS, 2))
    for name, value in {"series": 2, "samples": 100, "points": 100, "seconds": 5}.items():
        setattr(row, name, value)
    row.save()
    budgets.forget()
    try:
        status, kind, words = ask("/api/v1/query", stored, {"query": "up", "time": SECONDS}).error
        told = ask("/api/monitoring/query/cost", stored, {"query": "up", "time": SECONDS}).data
    finally:
        budgets.forget()
    assert (status, kind) == (422, "execution")
    assert "3 series" in words
    assert "limit of 2" in words
    assert (told["refused"], told["budget"]["series"]) == (words, 2)
