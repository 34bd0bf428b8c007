"""Rule files as text: what is refused and where, what is written, and that both are the same again. No database."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.alerting import plainrules, rulefiles, ruletests, yamltext
from apps.alerting.lifecycle import Severity
from apps.alerting.plainrules import LevelRule, Unportable, levelled, plain
from apps.alerting.rulefiles import PlainAlert, PlainGroup, PlainRecord, RuleFileError
from apps.alerting.thresholds import Level
from apps.promql.parser import parse

ONE = """groups:
- name: g
  rules:
  - alert: A
    expr: up == 0
"""


def problems(text: str) -> str:
    with pytest.raises(RuleFileError) as error:
        rulefiles.read(text, "f.yml")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "f.yml:1: the file is empty"),
        ("groups:\n- nam: g\n", "f.yml:2: a group needs `name`"),
        ("groups:\n- name: g\n  limt: 3\n", "f.yml:3: the group 'g' has the unknown field 'limt'"),
        ("groups:\n- name: g\n  limit: 3\n", "f.yml:3: the group 'g' has `limit: 3`, which the portal does not apply"),
        ("groups:\n- name: g\n  query_offset: 1m\n", "f.yml:3: the group 'g' has a `query_offset`"),
        ("groups:\n- name: g\n- name: h\n- name: g\n", "f.yml:4: the group 'g' stands in line 2 already"),
        ("groups:\n- name: g\n  name: h\n", "f.yml:3: 'name' stands twice here (first in line 2)"),
        ("groups:\n- name: g\n  interval: 5\n", "f.yml:3: interval: '5' is no duration"),
        ("groups: 7", "f.yml:1: groups is a list"),
        ("[1, 2", "f.yml:2: did not find expected ',' or ']'"),
        ("--- 1\n--- 2\n", "f.yml:2: a second document begins here"),
        ("groups: !!python/object:os.system []", "f.yml:1: the tag tag:yaml.org,2002:python/object:os.system is not"),
        ("groups: *x", "*x stands for nothing"),
        ('groups: ["a\\0b"]', "f.yml:1: the character with the number 0"),
        ("groups:\n- \x07", "the character with the number 7 cannot stand in YAML"),
        ("[" * 200, "nested deeper than 24 levels"),
        (ONE.replace("up == 0", "sum(up"), "f.yml:5: expr of the alert A: 1:7: parse error"),
        (ONE.replace("up == 0", "up[5m]"), "f.yml:5: expr of the alert A: a rule needs a vector or a number"),
        (ONE + "    record: b\n", "f.yml:4: a rule has either `record` or `alert`, not both"),
        (ONE.replace("alert: A", "for: 5m"), "f.yml:4: a rule has either `record` or `alert`"),
        (
            ONE.replace("alert:", "record:") + "    for: 5m\n",
            "f.yml:6: the recording rule A has the unknown field 'for'",
        ),
        (ONE.replace("alert: A", "record: a-b"), "f.yml:4: 'a-b' is no name that a recording rule can write"),
        (ONE + "    labels: {a-b: x}\n", "f.yml:6: 'a-b' is no label name here"),
        (ONE + "    labels: {alertname: x}\n", "f.yml:6: the label alertname is set by the evaluation"),
        (ONE + "    labels: [x]\n", "f.yml:6: labels is a mapping"),
        (ONE + "    annotations: {a: '{{ $x }}'}\n", "f.yml:6: the template of a: line 1: undefined variable"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, words: str) -> None:
    assert words in problems(text)


def test_all_wrong_rules_of_a_file_are_named_at_once() -> None:
    text = ONE + "  - alert: B\n    expr: (\n  - record: c\n  - alert: D\n    expr: up\n    expression: up\n"
    assert [problem.partition(": ")[0] for problem in problems(text).splitlines()] == ["f.yml:7", "f.yml:8", "f.yml:11"]


def test_a_bomb_of_aliases_is_refused_before_it_unfolds() -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    assert "unfolded, these are more than 500000 values" in problems("\n".join(lines))


def test_aliases_that_stay_small_are_understood() -> None:
    text = ONE + "    labels: &l {team: web}\n  - alert: B\n    expr: up\n    labels: *l\n"
    assert [alert.labels for alert in rulefiles.read(text).groups[0].alerts] == [(("team", "web"),)] * 2


def test_values_are_texts_as_they_were_written() -> None:
    text = ONE + "    labels: {a: 1, b: yes, c: 1_000, d: 2020-01-01, e: ~, f: 0x10}\n"
    labels = dict(rulefiles.read(text).groups[0].alerts[0].labels)
    assert labels == {"a": "1", "b": "yes", "c": "1_000", "d": "2020-01-01", "e": "", "f": "0x10"}


def test_labels_of_a_group_go_into_its_rules_and_the_rules_own_win() -> None:
    text = ONE.replace("  rules:", "  labels: {team: web, tier: x}\n  rules:") + "    labels: {tier: y}\n"
    found = rulefiles.read(text)
    assert found.groups[0].alerts[0].labels == (("team", "web"), ("tier", "y"))
    assert "the labels of the group 'g' were copied" in found.notes[0]


@given(st.text(max_size=60) | st.text(alphabet=" \n:#'\"-|>{}[]&*!%@`,?\\aé\x85\u2028\ufeff😀\t", max_size=20))
def test_a_scalar_is_read_back_as_it_was(text: str) -> None:
    if any("\ud800" <= char <= "\udfff" or char == "\0" for char in text):
        return  # no text that a database keeps
    written = f"k:\n  x: {yamltext.scalar(text, 4)}\n  y: z\n"
    node = yamltext.read(written)
    assert isinstance(node, yamltext.Mapping)
    inner = node.pairs["k"]
    assert isinstance(inner, yamltext.Mapping)
    found = inner.pairs["x"]
    assert isinstance(found, yamltext.Scalar)
    assert (found.text, found.null) == (text, False)
    assert yaml.safe_load(written.replace("x: ", "x: !!str ", 1)) == {"k": {"x": text, "y": "z"}}


# --- Levels and plain rules ------------------------------------------------------------------------------------------

WARN, CRIT = Level(Severity.WARNING, ">", 80.0), Level(Severity.CRITICAL, ">", 90.0)


@pytest.mark.parametrize(
    ("expression", "level", "written"),
    [
        ("sum( up )", Level(Severity.INFO), "sum(up)"),
        ("a + b", Level(Severity.INFO, ">=", 5.0), "a + b >= 5"),
        ("a or b", Level(Severity.INFO, "<", -0.5), "(a or b) < -0.5"),
        ("a > b", Level(Severity.INFO, "==", float("inf")), "(a > b) == +Inf"),
        ("scalar(a)", Level(Severity.INFO, "!=", 1e21), "vector(scalar(a)) != 1e+21"),
    ],
)
def test_a_level_becomes_a_condition(expression: str, level: Level, written: str) -> None:
    assert plainrules.condition(parse(expression), level) == written


def test_each_level_is_a_plain_rule_and_together_they_are_the_rule_again() -> None:
    rule = LevelRule("hot", "Hot", "t", (WARN, CRIT), 60_000, 0, (("team", "x"),), (("summary", "{{ $value }}"),))
    found = plain(rule)
    assert [(one.expression, dict(one.labels)["severity"]) for one in found] == [
        ("t > 80", "warning"),
        ("t > 90", "critical"),
    ]
    assert levelled(found) == rule
    text = rulefiles.write([PlainGroup("g", 30_000, (), found)])
    assert levelled(rulefiles.read(text).groups[0].alerts) == rule


def test_marked_levels_that_were_made_to_differ_are_refused() -> None:
    text = rulefiles.write([PlainGroup("g", None, (), plain(LevelRule("hot", "Hot", "t", (WARN, CRIT), 60_000)))])
    edited = text.replace("for: 1m", "for: 2m", 1)
    with pytest.raises(RuleFileError, match="marked as a level of the rule hot, but its for differs"):
        levelled(rulefiles.read(edited).groups[0].alerts)


@pytest.mark.parametrize(
    ("label", "severity", "labels"),
    [
        ("critical", "critical", {}),
        ("page", "critical", {"severity": "page"}),
        ("P3", "warning", {"severity": "P3"}),
        (None, "warning", {"severity": "{{ $labels.severity }}"}),
    ],
)
def test_the_severity_comes_from_the_label_and_the_label_stays(
    label: str | None, severity: str, labels: dict[str, str]
) -> None:
    alert = PlainAlert("A", "up == 0", labels=() if label is None else (("severity", label),))
    rule = levelled([alert])
    assert (str(rule.levels[0].severity), dict(rule.labels)) == (severity, labels)
    assert plain(rule) == (alert,)


def test_what_has_no_plain_counterpart_is_refused_by_name() -> None:
    with pytest.raises(Unportable, match="recovery"):
        plain(LevelRule("a", "A", "up", (Level(Severity.WARNING, recovers="down"),)))
    with pytest.raises(Unportable, match="label severity"):
        plain(LevelRule("a", "A", "up", (WARN, CRIT), labels=(("severity", "x"),)))


@pytest.mark.parametrize(
    ("level", "expression"),
    [
        (
            Level(Severity.WARNING, ">", 5.0, 4.0),
            (
                "(up > 5) or ((up > 4) and ignoring (alertname, alertstate, severity) "
                'ALERTS{alertname="A",alertstate="firing",severity="warning"})'
            ),
        ),
        (
            Level(Severity.WARNING, ">", 5.0, None, "down"),
            (
                "(up > 5) or (((up) unless (down)) and ignoring (alertname, alertstate, severity) "
                'ALERTS{alertname="A",alertstate="firing",severity="warning"})'
            ),
        ),
    ],
)
def test_a_recovery_goes_out_as_what_prometheus_itself_says_of_what_fires_and_comes_back(level, expression) -> None:
    rule = LevelRule("a", "A", "up", (level,))
    (alert,) = plain(rule)
    assert alert.expression == expression
    assert levelled([alert]) == rule


@pytest.mark.parametrize(
    ("rule", "target", "missing"),
    [
        (PlainAlert("A", "up", keep=1000), "2.41", ["keep_firing_for (since 2.42)"]),
        (PlainAlert("A", "up", keep=1000), "v2.42.1", []),
        (PlainRecord("a", '{"my.metric", "a.b"="c"}'), "2.53", ["a.b", "my.metric"]),
        (PlainRecord("a", '{"my.metric"}'), "3.x", []),
        (PlainRecord("a", 'sum by ("a.b") (up)'), "2.42", ["a.b"]),
        (PlainRecord("a", 'sort_by_label(up, "x")'), "3.0", ["the experimental function sort_by_label"]),
        (PlainRecord("a", "histogram_fraction(0, 1, x)"), "3.0", ["the function histogram_fraction (since 3.4)"]),
        (PlainAlert("A", "up", annotations=(("a", "{{ now }}"),)), "2.42", ["now in a template"]),
    ],
)
def test_what_a_target_lacks_is_named(rule: PlainAlert | PlainRecord, target: str, missing: list[str]) -> None:
    found = plainrules.lacks(rule, plainrules.target(target))
    assert len(found) == len(missing)
    assert all(word in text for word, text in zip(missing, found, strict=True))


@pytest.mark.parametrize("text", ["", "2.x.1", "new", "1.8", "2.53.1.0", "3.0-rc"])
def test_a_target_is_a_version(text: str) -> None:
    with pytest.raises(ValueError, match=r"version|too old"):
        plainrules.target(text)


# --- Against promtool ------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["up", "node_load1", "job:up:sum", "http_requests_total"])
LABELS = st.sampled_from(["job", "instance", "path"])
NUMBERS = st.integers(-10, 10).map(str) | st.floats(allow_nan=False).map(repr)
MATCHED = st.builds(
    lambda name, label, op, value: f"{name}{{{label}{op}{value}}}",
    NAMES, LABELS, st.sampled_from(["=", "!=", "=~", "!~"]), st.sampled_from(['"a"', "'b.*'", '"ü\\n"', "`c`"]),
)  # fmt: skip
VECTORS = st.recursive(
    NAMES | MATCHED | st.builds(lambda name: f"rate({name}[5m] offset 90s)", MATCHED),
    lambda inner: (
        st.builds(
            lambda op, label, x: f"{op} by ({label}) ({x})", st.sampled_from(["sum", "max", "group"]), LABELS, inner
        )
        | st.builds(lambda x, op, y: f"({x}) {op} on ({'job'}) ({y})", inner, st.sampled_from("+-*/"), inner)
        | st.builds(lambda x, op, y: f"{x} {op} {y}", inner, st.sampled_from(["and", "or", "unless"]), inner)
        | st.builds(lambda x, op, n: f"{x} {op} {n}", inner, st.sampled_from(["+", "^", ">", "== bool", "<="]), NUMBERS)
        | st.builds(lambda x: f"max_over_time(({x})[1h:90s])", inner)
        | st.builds(lambda x: f"-abs({x})", inner)
    ),
    max_leaves=4,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00{"), max_size=30)
LEVELS = st.lists(
    st.builds(
        Level, st.sampled_from(Severity), st.sampled_from([">", "<", ">=", "!="]), st.floats(allow_nan=False)
    ),
    min_size=1, max_size=3, unique_by=lambda level: level.severity,
)  # fmt: skip
RULES = st.builds(
    LevelRule,
    slug=st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True),
    name=TEXTS.filter(str.strip),
    expression=VECTORS,
    levels=LEVELS.map(tuple),
    pending=st.integers(0, 10**7),
    keep=st.integers(0, 10**7),
    labels=st.dictionaries(LABELS, TEXTS).map(lambda found: tuple(sorted(found.items()))),
    annotations=st.dictionaries(LABELS, TEXTS).map(lambda found: tuple(sorted(found.items()))),
    service=TEXTS,
)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(RULES, min_size=1, max_size=25, unique_by=lambda rule: rule.slug), TEXTS.filter(str.strip))
def test_whatever_rules_there_are_promtool_takes_them_and_they_come_back(
    tmp_path_factory: pytest.TempPathFactory, rules: list[LevelRule], group: str
) -> None:
    rules = [rule for rule in rules if "service" not in dict(rule.labels)]
    text = rulefiles.write([PlainGroup(group, 30_000, (), tuple(one for rule in rules for one in plain(rule)))])
    found = rulefiles.read(text).groups[0]
    again = [one for alerts in plainrules.gathered(found) for one in plain(levelled(alerts))]
    assert rulefiles.write([PlainGroup(found.name, found.interval, (), tuple(again))]) == text
    if shutil.which("promtool") is None:
        return
    file = tmp_path_factory.mktemp("rules") / "rules.yml"
    file.write_text(text)
    accepts(file)


def accepts(file: Path) -> None:
    command = ["promtool", "check", "rules", "--lint=none", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr}\n{file.read_text()}"


@given(
    st.text(max_size=200)
    | st.text(alphabet=" \n-:{}[]&*!%@'\"#|>abgroupsnamerulesalertexpr0\x00\x07\ufeff\ud800", max_size=200)
)
def test_whatever_comes_is_a_file_or_refused(text: str) -> None:
    for tried in (text, f"groups:\n- name: g\n  rules:\n  - alert: a\n    expr: up\n    labels: {text}"):
        with contextlib.suppress(RuleFileError):
            assert all(group.name for group in rulefiles.read(tried).groups)


@given(st.text(alphabet="0123456789+-x_. eEstalNInf", max_size=40))
def test_whatever_stands_as_values_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert len(list(ruletests.sequence(text, 1000))) <= 1000
