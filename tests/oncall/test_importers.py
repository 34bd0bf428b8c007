"""Importers: Alertmanager's tree against Alertmanager's own words, OnCall's and Opsgenie's shapes, hostile files."""

import contextlib
import io
import json
import random
import shutil
import subprocess
import zipfile
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.alerting.matching import accept
from apps.oncall import alertmanager_file
from apps.oncall.alertmanager_file import Branch, Receiver, inhibit_rule
from apps.oncall.blueprint import Blueprint, Route, Step, Timers
from apps.oncall.grouping import RouteSpec, matching
from apps.oncall.importers import ImportFileError, importers
from apps.oncall.importers.grafana_oncall import conditions
from apps.oncall.importers.opsgenie import restriction
from apps.promql.source import Matcher
from tests.oncall.importer_files import ONCALL, OPSGENIE

AMTOOL = shutil.which("amtool")


def blueprint(kind: str, content: Any) -> Blueprint:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return importers.get(kind)().read(raw)


def alertmanager(document: Any) -> Blueprint:
    return blueprint("alertmanager", document if isinstance(document, bytes) else yaml.safe_dump(document).encode())


def config(route: dict[str, Any], **others: Any) -> dict[str, Any]:
    names = sorted(receivers_of(route))
    hooks = [{"name": name, "webhook_configs": [{"url": f"https://hooks.example/{name}"}]} for name in names]
    return {"route": route, "receivers": hooks, **others}


def receivers_of(route: dict[str, Any]) -> set[str]:
    below = [receivers_of(child) for child in route.get("routes", ())]
    return set().union({route["receiver"]} if "receiver" in route else set(), *below)


# --- Alertmanager: who is told --------------------------------------------------------------------------------------
def told_by_tree(route: dict[str, Any], labels: dict[str, str], inherited: str = "") -> list[str]:
    """Receivers as Alertmanager's dispatch/route.go finds them: down the tree, a route where no child matched."""
    receiver = route.get("receiver", inherited)
    found: list[str] = []
    for child in route.get("routes", ()):
        if all(labels.get(name, "") == value for name, value in child.get("match", {}).items()):
            found += told_by_tree(child, labels, receiver)
            if not child.get("continue"):
                break
    return found or [receiver]


def told_by_list(found: Blueprint, labels: dict[str, str]) -> list[str]:
    specs = [RouteSpec(place, tuple(one.matchers), one.goes_on) for place, one in enumerate(found.routes)]
    return [found.routes[place].contacts[0] for place in matching(specs, labels)]


LABELS = {"team": ("db", "web"), "severity": ("page", "ticket"), "zone": ("a", "b")}
matches = st.dictionaries(st.sampled_from(sorted(LABELS)), st.sampled_from(["db", "web", "page", "a"]), max_size=2)


def routes(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    children = st.lists(routes(depth - 1), max_size=3) if depth else st.just([])
    fields = {"receiver": st.sampled_from("abcdef"), "match": matches, "continue": st.booleans(), "routes": children}
    return st.fixed_dictionaries(fields)


@settings(max_examples=150)
@given(st.lists(routes(2), max_size=4), st.data())
def test_the_list_tells_whom_the_tree_tells(children: list[dict[str, Any]], data: st.DataObject):
    tree = {"receiver": "root", "routes": children}
    try:
        found = alertmanager(config(tree))
    except ImportFileError as error:
        assert "siblings with continue multiply" in str(error)  # noqa: PT017 - a bound that chance may reach
        return
    for _ in range(10):
        labels = data.draw(st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in LABELS.items()}))
        # Alertmanager tells a receiver once for each route that leads to it; whom it tells is what counts here.
        assert set(told_by_list(found, labels)) == set(told_by_tree(tree, labels)), (tree, labels)


@pytest.mark.skipif(AMTOOL is None, reason="amtool is not installed")
def test_amtool_finds_the_same_receivers(tmp_path: Path):
    chance = random.Random(7)
    tree = {
        "receiver": "root",
        "routes": [
            {"receiver": "audit", "matchers": ['severity=~"page|ticket"'], "continue": True},
            {"receiver": "db", "match": {"team": "db"},
             "routes": [{"receiver": "db-page", "match": {"severity": "page"}}]},
            {"receiver": "web", "match_re": {"team": "web|shop"}, "continue": True,
             "routes": [{"matchers": ["zone!=a"], "receiver": "web-b"}]},
            {"receiver": "night", "matchers": ["zone=b"]},
        ],
    }  # fmt: skip
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config(tree)))
    found = alertmanager(file.read_bytes())
    values = {"team": ("", "db", "web", "shop"), "severity": ("", "page", "ticket", "info"), "zone": ("", "a", "b")}
    for _ in range(12):
        labels = {name: value for name, options in values.items() if (value := chance.choice(options))}
        words = [f"{name}={value}" for name, value in labels.items()]
        done = subprocess.run(
            [str(AMTOOL), "config", "routes", "test", f"--config.file={file}", *words],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip().split(",") == told_by_list(found, labels), labels


NAMES = st.sampled_from(["team", "severity", "service"])
OPS: Any = st.sampled_from(["=", "!=", "=~", "!~"])
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
matchers = st.builds(Matcher, NAMES, st.sampled_from(["=", "!="]), texts) | st.builds(
    Matcher, NAMES, OPS, st.sampled_from(["db|web", "a.*", "x"])
)
spans = st.integers(60, 100_000).map(lambda seconds: timedelta(seconds=seconds))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.lists(matchers, max_size=3, unique=True), st.booleans(), spans), max_size=5), spans)
def test_our_own_export_comes_back_as_the_same_routes(rows: list[Any], repeat: timedelta):
    root = Branch("root", (), ["alertname"], timedelta(seconds=30), timedelta(minutes=5), repeat)
    branches = [
        Branch(f"route {place}", found, ["alertname", "team"], timedelta(0), span, repeat, goes_on)
        for place, (found, goes_on, span) in enumerate(rows)
        if found
    ]
    hooks = [
        Receiver(one.receiver, {"webhook_configs": [{"url": f"https://hooks.example/{place}"}]})
        for place, one in enumerate([root, *branches])
    ]
    found = alertmanager(alertmanager_file.render(root, branches, hooks).encode())
    *children, last = found.routes
    assert last == Route(
        "root", group_by=("alertname",), timers=Timers(repeat=repeat), contacts=("root",), is_root=True
    )
    shown = [(one.name, set(one.matchers), one.goes_on, one.timers.interval) for one in children]
    reached = [one for place, one in enumerate(branches) if not _is_hidden(one, branches[:place])]
    assert shown == [(one.receiver, set(one.matchers), one.goes_on, one.group_interval) for one in reached if _may(one)]


def _is_hidden(one: Branch, before: list[Branch]) -> bool:
    return any(set(other.matchers) <= set(one.matchers) and not other.goes_on for other in before)


def _may(one: Branch) -> bool:
    """Whether its matchers can hold together."""
    fixed = {m.name: m.value for m in one.matchers if m.op == "="}
    return all(m.matches(fixed[m.name]) for m in one.matchers if m.name in fixed)


# --- Alertmanager: the rest -----------------------------------------------------------------------------------------
FULL = b"""
global: {slack_api_url: 'https://hooks.slack.com/services/T/B/x', smtp_from: 'Alerts <alerts@example.org>'}
templates: ['/etc/alertmanager/*.tmpl']
route:
  receiver: ops
  group_by: [alertname, cluster]
  group_wait: 10s
  repeat_interval: 1h30m
  routes:
    - receiver: night
      matchers: ['{severity="page", team=~"db|web"}']
      group_by: ['...']
      mute_time_intervals: [weekends]
time_intervals:
  - name: weekends
    time_intervals:
      - {weekdays: ['saturday:sunday'], location: Europe/Berlin}
      - {times: [{start_time: '18:00', end_time: '24:00'}], weekdays: ['monday:friday'], months: ['december']}
      - {years: ['2026']}
inhibit_rules:
  - {source_match: {severity: critical}, target_match_re: {severity: 'warning|info'}, equal: [alertname]}
receivers:
  - name: ops
    slack_configs: [{channel: '#ops', title: '{{ .X }}'}]
    email_configs: [{to: 'a@example.org, Bea <b@example.org>'}]
    pushover_configs: [{user_key: u, token: t}]
  - name: night
    pagerduty_configs: [{routing_key: R0123456789abcdef0123456789abcdef}]
"""


def test_receivers_become_contacts_and_what_cannot_is_told():
    found = alertmanager(FULL)
    assert [(one.name, one.kind, dict(one.values)) for one in found.contacts] == [
        ("ops slack", "slack", {"webhook_url": "https://hooks.slack.com/services/T/B/x", "channel": "#ops"}),
        ("ops email", "email", {"to": ["a@example.org", "b@example.org"], "from_address": "alerts@example.org"}),
        ("night", "pagerduty", {"routing_key": "R0123456789abcdef0123456789abcdef"}),
    ]
    assert found.contacts[0].remarks[0] == "not carried over: title"
    lost = {(one.kind, one.name) for one in found.lost}
    assert {("receiver", "ops pushover"), ("template", "/etc/alertmanager/*.tmpl")} < lost


def test_routes_inherit_and_keep_their_timers():
    night, root = alertmanager(FULL).routes
    assert night.matchers == (Matcher("severity", "=", "page"), Matcher("team", "=~", "db|web"))
    assert (night.group_by, night.contacts, night.is_root) == (("...",), ("night",), False)
    timers = Timers(timedelta(seconds=10), timedelta(minutes=5), timedelta(minutes=90))
    assert (night.timers, root.timers) == (timers, timers)
    assert (root.group_by, root.contacts, root.is_root) == (("alertname", "cluster"), ("ops slack", "ops email"), True)


def test_mute_times_become_windows_that_come_again():
    found = alertmanager(FULL)
    weekend, evening = found.windows
    assert (weekend.recurrence, weekend.begins, weekend.lasts, weekend.zone) == (
        "FREQ=WEEKLY;BYDAY=SA,SU", time(0), timedelta(days=1), "Europe/Berlin",
    )  # fmt: skip
    assert (evening.recurrence, evening.begins, evening.lasts) == (
        "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR;BYMONTH=12", time(18), timedelta(hours=6),
    )  # fmt: skip
    assert any("A year has no place" in one.why for one in found.lost)


def test_a_mute_time_never_silences_what_another_route_tells():
    weekend = [{"name": "weekend", "time_intervals": [{"weekdays": ["saturday", "sunday"]}]}]
    muted = {"receiver": "chat", "match": {"team": "db"}, "mute_time_intervals": ["weekend"]}
    for before, is_carried in (({"severity": "critical"}, False), ({"team": "web"}, True)):
        tree = {"receiver": "root", "routes": [{"receiver": "pager", "match": before}, muted]}
        found = alertmanager(config(tree, time_intervals=weekend))
        assert bool(found.windows) is is_carried
        assert bool(found.lost) is not is_carried
    tree = {"receiver": "root", "routes": [{**muted, "continue": True}, {"receiver": "pager"}]}
    assert alertmanager(config(tree, time_intervals=weekend)).windows == []


def test_an_inhibition_in_the_old_spelling_is_read():
    [one] = alertmanager(FULL).inhibitions
    assert (one.source, one.target, one.equal) == (
        (Matcher("severity", "=", "critical"),), (Matcher("severity", "=~", "warning|info"),), ("alertname",),
    )  # fmt: skip
    told = inhibit_rule(one.source, one.target, one.equal)
    tree = config({"receiver": "a"}, inhibit_rules=[told])
    assert alertmanager(tree).inhibitions[0] == one


def test_a_masked_secret_is_missing():
    text = b"route: {receiver: a}\nreceivers: [{name: a, slack_configs: [{api_url: <secret>}]}]"
    [one] = alertmanager(text).contacts
    assert (one.missing, dict(one.values)) == (("webhook_url",), {})


BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n" % (n + 1, n + 1, *[n] * 9) for n in range(97, 110)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no route"),
        (b"- a", "no route"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"route: {receiver: a", "Line 2: did not find"),
        (b"route: {receiver: a}", "no receiver 'a'"),
        (b"route: !!python/object/apply:os.system ['true']", "tag"),
        (BOMB, "unfolded"),
        (b"[" * 100, "nested deeper"),
        (b"x" * (4 * 2**20 + 1), "more than the limit"),
        (b"route: {receiver: a, group_wait: soon}\nreceivers: [{name: a}]", "no duration"),
        (b"route: {receiver: a, routes: [{matchers: ['x=~\"(\"']}]}\nreceivers: [{name: a}]", "regular expression"),
        (b"route: {receiver: a, matchers: ['a=b']}\nreceivers: [{name: a}]", "must not have matchers"),
    ],
)
def test_a_file_that_is_no_alertmanager_yml_says_why(content: bytes, said: str):
    with pytest.raises(ImportFileError, match=said):
        alertmanager(content)


def test_siblings_that_multiply_are_refused_by_number():
    many = [{"receiver": "a", "match": {f"l{n}": "x"}, "continue": True} for n in range(20)]
    with pytest.raises(ImportFileError, match="siblings with continue multiply"):
        alertmanager(config({"receiver": "root", "routes": many}))


def test_thirty_teams_that_continue_stay_thirty_routes():
    teams = [{"receiver": f"t{n}", "match": {"team": f"t{n}"}, "continue": True} for n in range(30)]
    found = alertmanager(config({"receiver": "root", "routes": teams}))
    assert [one.contacts for one in found.routes] == [(f"t{n}",) for n in range(30)] + [("root",)]
    assert not any(one.goes_on for one in found.routes)


# --- Archives and JSON ----------------------------------------------------------------------------------------------
def archive(**files: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return target.getvalue()


@pytest.mark.parametrize("kind", ["grafana_oncall", "opsgenie"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no JSON"),
        (b"[]", "one JSON object"),
        (b"{}", "Nothing is in it"),
        (b'{"users": [1]}', "JSON objects"),
        (b'{"users": ' + b"[" * 5000, "no JSON"),
        (b"PK\x03\x04garbage", "cannot be unpacked"),
        (archive(**{"users.json": b"[" + b" " * (21 * 2**20) + b"]"}), "more than the limit"),
        (json.dumps({"users": [{}] * 2001}).encode(), "more than the limit"),
    ],
)
def test_hostile_files_are_refused(kind: str, content: bytes, said: str):
    with pytest.raises(ImportFileError, match=said):
        blueprint(kind, content)


ODD: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WORDS = (
    "id", "name", "type", "users", "rules", "delay", "recipient", "rotations", "participants", "criteria", "notify",
    "timeRestriction", "restriction", "startDate", "username", "rolling_users", "start", "duration", "shifts",
    "members", "repeat", "length", "frequency", "routing_regex", "escalation_chain_id", "position",
)  # fmt: skip


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["users", "teams", "schedules", "escalations", "teamroutingrules", "rotations", "overrides",
                         "on_call_shifts", "escalation_chains", "escalation_policies", "routes", "integrations"]),
        st.lists(st.dictionaries(st.sampled_from(WORDS), ODD, max_size=6), max_size=3),
    )
)  # fmt: skip
def test_odd_values_are_told_or_refused_and_never_an_error(document: dict[str, Any]):
    for kind in ("grafana_oncall", "opsgenie"):
        with contextlib.suppress(ImportFileError):
            assert isinstance(blueprint(kind, document), Blueprint)


# --- Grafana OnCall -------------------------------------------------------------------------------------------------
def test_an_oncall_export_becomes_people_schedules_and_policies():
    found = blueprint("grafana_oncall", ONCALL)
    assert [one.email for one in found.people] == ["ada@example.org", "bob@example.org"]
    [team] = found.teams
    assert (team.name, list(team.members)) == ("Platform", ["ada@example.org"])
    [schedule] = found.schedules
    [weekly, office] = schedule.layers
    assert (weekly.rotation, weekly.every, weekly.people, weekly.hand_over, weekly.weekday, weekly.hours) == (
        "weekly", 1, ["ada@example.org", "bob@example.org"], time(9), 0, "",
    )  # fmt: skip
    assert weekly.starts_at == datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
    assert office.hours == "mon,tue,wed,thu,fri 09:00-17:00"
    [override] = schedule.overrides
    assert (override.person, override.ends_at - override.starts_at) == ("bob@example.org", timedelta(hours=12))
    [policy] = found.policies
    assert policy.steps == [
        Step("schedule", {"schedule": "Primary", "important": False}),
        Step("wait", {"minutes": 5.0}),
        Step("people", {"people": ["ada@example.org"], "important": True}),
        Step("round_robin", {"people": ["ada@example.org", "bob@example.org"], "important": False}),
        Step("team", {"team": "Platform", "important": False}),
        Step("repeat", {"times": 5}),
    ]
    assert {(one.kind, one.name) for one in found.lost} >= {
        ("step", "resolve of Standard"),
        ("personal rules", "bob@example.org"),
    }


def test_oncalls_routes_are_on_only_where_their_condition_can_be_read():
    critical, odd, default = blueprint("grafana_oncall", ONCALL).routes
    assert (critical.matchers, critical.enabled, critical.policy) == (
        [Matcher("severity", "=", "critical")], True, "Standard",
    )  # fmt: skip
    assert (odd.matchers, odd.enabled) == ([], False)
    assert (default.name, default.enabled) == ("Alertmanager: default", False)


@pytest.mark.parametrize(
    ("spelled", "found"),
    [
        ('{{ payload.labels.team == "db" and payload.commonLabels["zone"] != "a" }}', 'team="db", zone!="a"'),
        ('"severity": "critical"', 'severity="critical"'),
        ("{{ payload.x > 3 }}", ""),
        (".*", ""),
    ],
)
def test_conditions_of_oncall(spelled: str, found: str):
    assert ", ".join(f'{m.name}{m.op}"{m.value}"' for m in conditions(spelled)) == found


# --- Opsgenie -------------------------------------------------------------------------------------------------------
def test_an_opsgenie_export_becomes_schedules_policies_and_routes():
    found = blueprint("opsgenie", OPSGENIE)
    assert [(one.name, list(one.members)) for one in found.teams] == [("Platform", ["ada@example.org"])]
    assert [(one.name, one.owner) for one in found.contacts] == [("ada@example.org by e-mail", "ada@example.org")]
    [schedule] = found.schedules
    assert schedule.layers[0].people == ["ada@example.org", "bob@example.org"]
    assert schedule.layers[0].hours == "mon-sun 08:00-20:00"
    escalation, by_schedule = found.policies
    assert escalation.steps == [
        Step("schedule", {"schedule": "Primary", "important": False}),
        Step("wait", {"minutes": 10.0}),
        Step("people", {"people": ["bob@example.org"], "important": False}),
        Step("wait", {"minutes": 20.0}),
        Step("repeat", {"times": 2}),
    ]
    assert by_schedule.steps == [Step("schedule", {"schedule": "Primary"})]
    first, second = found.routes
    assert (first.matchers, first.policy, first.enabled) == (
        [Matcher("team", "=", "Platform"), Matcher("severity", "=", "critical")], "Platform_escalation", True,
    )  # fmt: skip
    assert (second.matchers, second.policy) == ([Matcher("team", "=", "Platform")], "On call by Primary")
    assert ("contact", "voice 1-5551234 of ada@example.org") in {(one.kind, one.name) for one in found.lost}


def test_a_backup_of_opsgenie_is_read_by_its_folders():
    files = {
        f"Backup/{name}/{n}.json": json.dumps(row).encode()
        for name, rows in OPSGENIE.items()
        for n, row in enumerate(rows)
    }
    assert blueprint("opsgenie", archive(**files)).policies == blueprint("opsgenie", OPSGENIE).policies


@pytest.mark.parametrize(
    ("row", "hours"),
    [
        (None, ""),
        (
            {"type": "time-of-day", "restriction": {"startHour": 22, "startMin": 0, "endHour": 6, "endMin": 30}},
            "mon-sun 22:00-06:30",
        ),
        (
            {"type": "weekday-and-time-of-day", "restrictions": [
                {"startDay": "friday", "startHour": 18, "startMin": 0, "endDay": "monday", "endHour": 8, "endMin": 0}]},
            "fri 18:00-24:00\nsat 00:00-24:00\nsun 00:00-24:00\nmon 00:00-08:00",
        ),
    ],
)  # fmt: skip
def test_opsgenies_time_restrictions_as_hours(row: Any, hours: str):
    assert restriction(row) == hours


def test_every_matcher_of_an_imported_route_can_be_used():
    for kind, content in (("alertmanager", FULL), ("grafana_oncall", ONCALL), ("opsgenie", OPSGENIE)):
        for route in blueprint(kind, content).routes:
            assert accept(route.matchers, {}) in (True, False)
