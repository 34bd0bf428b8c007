"""Which panels an open page follows, and when each is due."""

import pytest

from apps.dashboards.watching import APART, MOST, SETTLE, SLIDE, BadWatch, Followed, read

GIVEN = {"number": 1, "place": "page", "query": "range=1h", "panels": {"cpu": 1_000, "table": None}}


def followed(**fields):
    return Followed(**({"since": 0, "step": 15.0, "changed": None, "pushed": 100.0} | fields))


def test_a_page_says_what_it_follows_and_from_when_on():
    watch = read(GIVEN, now=100.0)
    assert {key: panel.since for key, panel in watch.panels.items()} == {"cpu": 1_000, "table": None}
    assert set(watch.due(100.0)) == {"cpu", "table"}, "what it has is looked at at once: it may be behind"


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        GIVEN | {"panels": ["cpu"]},
        GIVEN | {"panels": {"cpu": "soon"}},
        GIVEN | {"panels": {"cpu": -1}},
        GIVEN | {"panels": {str(number): 0 for number in range(MOST + 1)}},
        GIVEN | {"number": "1"},
        GIVEN | {"query": "x" * 5_000},
        {"panels": {}},
    ],
)
def test_what_cannot_be_followed_is_refused(wrong):
    with pytest.raises(BadWatch):
        read(wrong, now=0.0)


@pytest.mark.parametrize(
    ("panel", "at"),
    [
        pytest.param(followed(), 100.0 + SLIDE, id="nothing arrives: when its window has slid"),
        pytest.param(followed(changed=100.5), 105.0, id="at most once in a cell of five seconds"),
        pytest.param(followed(pushed=104.9, changed=104.95), 105.0, id="cells are the same for all pages"),
        pytest.param(followed(changed=112.0), 105.0, id="later cells: at once"),
        pytest.param(followed(step=3600.0, changed=101.0), 120.0, id="long steps: every twenty seconds"),
        pytest.param(followed(step=1.0, changed=100.5), 101.0, id="short steps: every second"),
        pytest.param(followed(pushed=float("-inf"), changed=7.0), 7.0, id="never pushed: at once"),
    ],
)
def test_a_panel_is_due(panel, at):
    assert panel.due_at() == at


def test_of_what_is_pushed_the_first_request_is_announced_so_the_next_cell_is_looked_at_too():
    watch = read(GIVEN, now=100.0)
    for key in watch.panels:
        watch.looked(key, 100.0)
    watch.note({"push"}, 111.0)
    watch.looked("cpu", 111.0)
    assert watch.panels["cpu"].due_at() == 115.0
    watch.looked("cpu", 115.0)
    assert watch.panels["cpu"].due_at() == 115.0 + SLIDE


def test_what_a_source_brings_after_a_quiet_time_is_pushed_at_once_and_what_follows_in_the_next_cell():
    watch = read(GIVEN, now=100.0)
    cpu = watch.panels["cpu"]
    watch.looked("cpu", 110.0)
    watch.note({"push"}, 112.0)
    assert cpu.due_at() == 112.0 + SETTLE, "though it was looked at in the same cell"
    watch.looked("cpu", 112.5)
    for moment in (113.0, 114.0, 115.0, 116.0):
        watch.note({"push"}, moment)
        assert cpu.due_at() == 115.0, "it goes on arriving"
    watch.looked("cpu", 116.0)
    watch.note({"host"}, 116.1)
    assert cpu.due_at() == 116.0 + APART, "another source, but not more often than that"
    watch.note({"redis"}, 116.3)
    assert cpu.due_at() == 116.0 + APART, "they come together"


def test_only_what_its_sources_bring_makes_a_panel_due():
    watch = read(GIVEN, now=100.0)
    for panel in watch.panels.values():
        panel.pushed, panel.changed = 100.0, None
    watch.panels["cpu"].sources = frozenset({"host"})
    watch.panels["table"].sources = frozenset({"*"})
    watch.note({"requests"}, 110.0)
    assert set(watch.due(111.0)) == {"table"}
    watch.note({"host"}, 110.0)
    assert set(watch.due(111.0)) == {"cpu", "table"}
    watch.panels["cpu"].changed = watch.panels["cpu"].first = None
    watch.note({None}, 111.0)
    assert set(watch.due(112.0)) == {"cpu", "table"}, "no particular source: all of them"
