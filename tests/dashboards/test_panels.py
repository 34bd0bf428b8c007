"""Panels are data: every expression parses, every unit is known, and the numbers come out on the asked grid."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import youplot
from django.conf import settings
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.permissions import Principal, Scope
from apps.accounts.rights import ROLES
from apps.alerting.units import unit_of
from apps.dashboards import document, measured_panels, row_panels
from apps.dashboards.panels import FRONTEND, PANELS, PERFORMANCE, SECURITY, SYSTEM, TABLES, TILES
from apps.dashboards.plots import legend
from apps.dashboards.templatetags.portal import measured
from apps.dashboards.timespan import POINTS, RANGES, BadSpan, Span, floor, span_of
from apps.notifications.models import Contact
from apps.promql.parser import parse

NOW = datetime(2026, 11, 23, 6, 7, 8, tzinfo=UTC)
UNITS = {"ms", "seconds", "percent", "bytes", "bytes/s", "req/s", "/s", "count"}
EVERY = [*PANELS.values(), *measured_panels.PANELS.values()]
EXPRESSIONS = [(panel.key, part.expression) for panel in EVERY for part in panel.queries] + [
    (table.key, column.expression) for table in TABLES.values() for column in table.columns
]


@pytest.mark.parametrize(("key", "expression"), EXPRESSIONS)
def test_every_expression_parses(key, expression):
    parse(expression.replace("$window", "60s").replace("$range", "3600s"))


def test_every_panel_has_its_own_key():
    everything = [
        *TILES,
        *PERFORMANCE,
        *FRONTEND,
        *SECURITY,
        *(panel for section in SYSTEM for panel in section.panels),
    ]
    assert len(PANELS) == len(everything)
    assert not PANELS.keys() & measured_panels.PANELS.keys()


@pytest.mark.parametrize("panel", EVERY, ids=lambda panel: panel.key)
def test_every_panel_has_a_unit_that_the_browser_can_write_and_no_second_series_without_a_name(panel):
    assert panel.unit in UNITS
    assert len(panel.queries) == 1 or all(part.legend for part in panel.queries)


def test_the_units_of_the_browser_are_those_of_the_panels_and_of_dashboards():
    script = (settings.ROOT / "static/portal/format.js").read_text()
    body = script.split("const UNITS = {")[1].split("\n};")[0]
    assert set(re.findall(r'^  "?([\w/]+)"?: ', body, re.MULTILINE)) == UNITS | set(document.UNITS)


@pytest.mark.parametrize("name", RANGES)
def test_a_range_has_at_most_three_hundred_steps_on_its_grid(name):
    span = span_of({"range": name}, now=NOW)
    assert span.count <= POINTS + 1
    assert span.start.timestamp() % span.step.total_seconds() == 0
    assert span.end <= NOW < span.end + span.step


def test_only_new_points_are_asked_for_with_since():
    whole = span_of({"range": "1h"}, now=NOW)
    since = int((NOW - timedelta(minutes=1)).timestamp() * 1000)
    fresh = span_of({"range": "1h", "since": str(since)}, now=NOW)
    assert (fresh.step, fresh.end, fresh.begin) == (whole.step, whole.end, whole.begin)
    assert fresh.count == 5


@given(
    begin=st.integers(min_value=1_600_000_000, max_value=1_760_000_000),
    length=st.integers(min_value=1, max_value=400 * 86400),
    wait=st.integers(min_value=0, max_value=10_000),
)
def test_any_custom_range_stays_on_its_grid_and_within_bounds(begin, length, wait):
    now = datetime.fromtimestamp(begin + length + wait, tz=UTC)
    span = span_of({"from": str(begin * 1000), "to": str((begin + length) * 1000)}, now=now)
    assert 1 <= span.count <= POINTS + 1
    assert span.start == floor(span.start, span.step)
    assert span.end == floor(span.end, span.step)


@pytest.mark.parametrize(
    "query",
    [
        {"range": "2h"},
        {"from": "x", "to": "1"},
        {"from": "5000"},
        {"from": "2000", "to": "1000"},
        {"from": "0", "to": "1763000000000"},
        {"range": "1h", "since": "soon"},
        {"from": "99999999999999999999", "to": "1"},
    ],
)
def test_a_range_that_there_is_not_is_refused_with_a_sentence(query):
    with pytest.raises(BadSpan, match=r"\.$"):
        span_of(query, now=NOW)


@pytest.mark.parametrize(("seconds", "window"), [(15, "60s"), (60, "60s"), (300, "300s")])
def test_the_window_of_rates_covers_four_scrapes_and_the_step(seconds, window):
    assert Span(NOW, NOW, NOW, timedelta(seconds=seconds)).window == window


@pytest.mark.parametrize(
    ("text", "labels", "name"),
    [
        ("{device} read", {"device": "sda"}, "sda read"),
        ("{mode}", {}, "other"),
        ("", {"__name__": "up", "job": "node"}, 'up{job="node"}'),
        ("", {}, "value"),
    ],
)
def test_a_legend_names_a_series_by_its_labels(text, labels, name):
    assert legend(text, labels) == name


@pytest.mark.parametrize(
    ("expression", "unit"),
    [
        ("responseTime", "ms"),
        ("cpuUsage", "percent"),
        ("100 * (1 - a / b)", "percent"),
        ("node_memory_MemFree_bytes", "bytes"),
        ("portal_store_room_bytes / clamp_min(-deriv(portal_store_room_bytes[6h]), 1) / 3600", "count"),
        ("rate(node_network_receive_bytes_total[1m])", "bytes/s"),
        ("throughput", "req/s"),
        ("pg_stat_activity_max_tx_duration_seconds", "seconds"),
        ("(time() - portal_backup_last_success_timestamp_seconds) / 86400", "count"),
        ("sum(increase(portal_login_failures_total[5m]))", "count"),
    ],
)
def test_the_unit_of_a_rule_is_read_from_the_names_in_it(expression, unit):
    assert unit_of(expression) == unit


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "–"),
        (5000, "ms", "5 s"),
        (12.34, "ms", "12.3 ms"),
        (80, "percent", "80 %"),
        (1536, "bytes", "1.5 KiB"),
        (0.25, "seconds", "250 ms"),
        (3, "req/s", "3 req/s"),
        (100, "count", "100"),
        ("NaN", "ms", "NaN"),
        (1.5e300, "count", "1.5e+300"),
    ],
)
def test_numbers_in_tables_carry_their_unit(value, unit, text):
    assert measured(value, unit) == text


def test_the_charting_library_is_the_one_that_was_looked_at():
    folder = Path(youplot.__file__).parent / "vendor"
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("uplot*")}
    assert found == {
        "uplot.iife.min.js": "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
        "uplot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    }


@pytest.mark.django_db
def test_charts_of_the_admins_forms_are_closed_to_whom_a_team_narrows():
    contact = Contact.objects.create(name="night", kind="webhook", config={"url": "https://night.example/"})
    span, asked = span_of({}, now=NOW), {"contact": str(contact.pk)}
    for scope, found in ((Scope(), {"contact-sent"}), (Scope((("service", "=", "shop"),)), set())):
        who = Principal("user", "1", "ada", ROLES["viewer"], scope)
        assert set(row_panels.answers(who, ["contact-sent"], asked, span)) == found


@pytest.mark.parametrize("key", ["pg-connections", "pg-transactions", "pg-cache", "redis-commands", "redis-memory"])
def test_a_panel_of_the_portals_own_servers_counts_no_other_server_in(key):
    for query in PANELS[key].queries:
        assert query.expression.count('{job="portal"}') == query.expression.count("pg_") + query.expression.count(
            "redis_"
        )
