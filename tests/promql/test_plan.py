"""What a query will read: ranges of selectors, merged requests, parts that stay the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.promql.ast import Expr, Selector, walk
from apps.promql.plan import Clock, merge, needs, prepare
from apps.promql.printer import render
from apps.promql.series import Grid
from apps.promql.source import Matcher, Request

MINUTE = 60_000


@pytest.mark.parametrize(
    ("expr", "ranges"),
    [
        ("x", [(5, 20)]),
        ("x offset 3m", [(2, 17)]),
        ("x offset -3m", [(8, 23)]),
        ("rate(x[2m])", [(8, 20)]),
        ("x @ 60", [(-4, 1)]),
        ("x @ start() + x @ end()", [(5, 10), (15, 20)]),
        ("rate(x[2m] @ 600 offset 1m)", [(7, 9)]),
        ("max_over_time(x[4m:3m])", [(4, 18)]),
        ("max_over_time(rate(x[2m])[4m:3m] offset 1m)", [(4, 18)]),
        ("max_over_time(x[4m:3m] @ 600)", [(4, 9)]),
        ("max_over_time(max_over_time(x @ end()[4m:3m])[1h:5m])", [(15, 20)]),
        ("max_over_time(x[1m:3m] @ 601)", []),
        ("1 + time()", []),
    ],
)
def test_selectors_read_left_open_ranges(expr: str, ranges: list[tuple[int, int]]) -> None:
    grid = Grid(10 * MINUTE, 5 * MINUTE, 3)
    clock = Clock(grid.start, grid.end, 5 * MINUTE)
    found = [need.request for need in needs(prepare(expr).expr, grid, clock, 1000)]
    assert [(request.tmin / MINUTE, request.tmax / MINUTE) for request in found] == ranges


REQUESTS = st.lists(
    st.builds(
        lambda name, start, length: Request((Matcher("__name__", "=", name),), start, start + length),
        st.sampled_from("ab"),
        st.integers(0, 1000),
        st.integers(1, 300),
    ),
    min_size=1,
    max_size=12,
)


@given(REQUESTS)
def test_merged_requests_cover_all_and_read_at_most_twice_as_much(requests: list[Request]) -> None:
    fewer, where = merge(requests)
    for request, index in zip(requests, where, strict=True):
        assert fewer[index].matchers == request.matchers
        assert fewer[index].tmin <= request.tmin
        assert request.tmax <= fewer[index].tmax
    for index, request in enumerate(fewer):
        asked = {t for r, i in zip(requests, where, strict=True) if i == index for t in range(r.tmin, r.tmax)}
        assert request.tmax - request.tmin <= 2 * len(asked)


def fixed(expr: str) -> set[str]:
    prepared = prepare(expr)
    return {render(node) for node in walk(prepared.expr) if id(node) in prepared.fixed}


@pytest.mark.parametrize(
    ("expr", "parts"),
    [
        ("x", set()),
        ("sum(x @ 1) + y", {"sum(x @ 1.000)", "x @ 1.000"}),
        ("rate(x[5m] @ 1)", {"rate(x[5m] @ 1.000)", "x @ 1.000"}),
        ("timestamp(x @ 1)", {"x @ 1.000"}),
        ("predict_linear(x[5m] @ 1, 60)", {"x @ 1.000"}),
        ("day_of_week() + x @ 1", {"x @ 1.000"}),
        ("max_over_time(rate(x[5m])[1h:] @ 1)", {"max_over_time(rate(x[5m])[1h:] @ 1.000)"}),
    ],
)
def test_pinned_parts_are_known(expr: str, parts: set[str]) -> None:
    assert fixed(expr) == parts


def test_a_tree_can_be_run_as_well_as_a_text() -> None:
    tree: Expr = prepare("x").expr
    assert isinstance(tree, Selector)
    assert prepare(tree).expr is tree


@pytest.mark.parametrize(
    ("expr", "fields", "hours"),
    [
        ("max_over_time(x[1h])", {"max"}, True),
        ("avg_over_time((x[2h] offset 1h))", {"sum", "count"}, True),
        ("rate(x[30m])", {"count", "first", "first_at", "last", "last_at", "lost"}, False),
        ("max_over_time(x[1h] offset 5m)", {"max"}, False),
        ("quantile_over_time(0.5, x[1h])", {"last", "last_at"}, False),
        ("increase(x[1h] anchored)", {"last", "last_at"}, False),
        ("max_over_time(x[1h:])", {"last", "last_at"}, False),
        ("sum(x)", {"last", "last_at"}, False),
        ("max_over_time(x[1h]) - min_over_time(x[1h])", {"max", "min"}, True),
    ],
)
def test_what_of_roll_ups_a_selector_can_use_is_told_with_its_request(expr: str, fields: set[str], hours: bool) -> None:
    grid = Grid(7_200_000, 3_600_000, 5)
    found = needs(prepare(expr).expr, grid, Clock(grid.start, grid.end, 300_000), 1000)
    [request], _ = merge([need.request for need in found])
    assert (set(request.fields), request.hours) == (fields, hours)
