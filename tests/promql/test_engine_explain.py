"""The tree of a query: every part of it, with what it came to."""

import json
from typing import Any

import pytest

from apps.promql import evaluator
from apps.promql.ast import Range, children, walk
from apps.promql.engine import Explained, Limits, explain
from apps.promql.errors import ParseError
from apps.promql.explain import SHOWN
from apps.promql.parser import parse
from apps.promql.source import MemorySource
from tests.promql.test_engine import HOSTS
from tests.promql.test_engine_pieces import Sized


def at_once(query: str, **options: Any) -> Explained:
    return explain(query, HOSTS, 120_000, 120_000, None, **options)


def flat(tree: dict[str, Any]) -> list[dict[str, Any]]:
    return [tree, *(node for child in tree["children"] for node in flat(child))]


def test_a_node_tells_its_place_its_type_and_its_values() -> None:
    query = "sum by (host) (load) > 5"
    tree = at_once(query).tree
    assert json.loads(json.dumps(tree)) == tree
    assert (tree["kind"], tree["type"], tree["text"]) == ("binary", "vector", query)
    total, limit = tree["children"]
    assert (total["kind"], total["series"]) == ("aggregate", 1)
    assert total["values"] == [{"metric": {"host": "a"}, "value": "9"}]
    assert query[total["start"] : total["end"]] == "sum by (host) (load)"
    assert (limit["kind"], limit["type"], limit["values"]) == ("number", "scalar", [{"metric": {}, "value": "5"}])
    [load] = total["children"]
    assert (load["kind"], load["samples"], load["text"]) == ("selector", 9, "load")
    assert [value["metric"]["cpu"] for value in load["values"]] == ["0", "1"]
    assert tree["samples"] == total["samples"] == 9
    assert limit["samples"] is None


@pytest.mark.parametrize(
    "query",
    [
        "-((up))",
        "label_replace(up, 'a', '$1', 'host', '(.*)')",
        "topk(2, load) or vector(1)",
        "max_over_time(rate(load[2m])[2m:1m]) + time() * 2",
        "absent(((nothing)))",
        "quantile_over_time(0.5, load[5m] @ 60 offset -10s)",
        "timestamp(up) + up @ start() + 1",
        "histogram_quantile(0.9, load)",
        "count_values('v', up)",
        "clamp(up, 0, scalar(up{host='a'}))",
        "'text'",
        "1 + 2",
        "load[5m]",
        "up and on (host) load unless nothing",
    ],
)
def test_every_part_of_a_query_is_in_its_tree(query: str) -> None:
    nodes = flat(at_once(query).tree)
    below_ranges = [child for node in walk(parse(query)) if isinstance(node, Range) for child in children(node)]
    assert len(nodes) == len(list(walk(parse(query)))) - len(below_ranges)
    for node in nodes:
        assert set(node) == {
            *("kind", "text", "start", "end", "type", "series", "samples", "seconds", "values", "children")
        }
        assert parse(node["text"]) == parse(query[node["start"] : node["end"]])
        assert node["seconds"] >= 0


@pytest.mark.parametrize("query", ["sum(load @ 60) + 1", "((up))", "sort(-up)", "vector(2) * 3", "timestamp(load)"])
def test_the_top_of_the_tree_is_the_answer(query: str) -> None:
    explained = at_once(query)
    rows = explained.result.to_api()["result"]
    assert explained.tree["values"] == [{"metric": row["metric"], "value": row["value"][1]} for row in rows]
    assert explained.tree["series"] == len(rows)


def test_a_range_shows_the_newest_sample_of_its_last_window() -> None:
    [window] = at_once("rate(load[1m])").tree["children"]
    assert (window["kind"], window["type"], window["text"]) == ("range", "matrix", "load[1m]")
    assert [value["value"] for value in window["values"]] == ["3", "6"]


def test_a_long_query_in_parts_tells_its_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = explain("max(rate(a[1m])) by (g)", Sized(), 100_000, 200_000, 10_000).tree
    monkeypatch.setattr(evaluator, "PART_CELLS", 30)
    parts = explain("max(rate(a[1m])) by (g)", Sized(), 100_000, 200_000, 10_000, limits=Limits(held=30)).tree
    for one, other in zip(flat(whole), flat(parts), strict=True):
        assert [one[key] for key in ("text", "values", "series")] == [
            other[key] for key in ("text", "values", "series")
        ]


def test_no_more_than_a_few_values_are_shown() -> None:
    many = MemorySource([({"__name__": "m", "i": str(i)}, [0], [1.0]) for i in range(SHOWN + 5)])
    tree = explain("m", many, 0, 0, None).tree
    assert (len(tree["values"]), tree["series"]) == (SHOWN, SHOWN + 5)


def test_plain_promql_knows_no_function_of_the_portal() -> None:
    from apps.promql.functions import FUNCTIONS

    ours = next(function.name for function in FUNCTIONS.values() if function.extension)
    with pytest.raises(ParseError, match=ours):
        at_once(f"{ours}(load[5m])", plain=True)
