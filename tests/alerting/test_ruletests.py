"""promtool's tests of rules on our own clock: notation, recording rules that feed alerts, and what a failure says."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from apps.alerting import plainrules, rulefiles, ruletests
from apps.alerting.rulefiles import RuleFileError
from apps.promql.limits import Watch
from apps.promql.result import number
from apps.promql.series import STALE_BITS

RULES = """
groups:
- name: requests
  interval: 30s
  rules:
  - alert: Slow
    expr: path:latency:mean > 0.5
    for: 2m
    keep_firing_for: 2m
    labels:
      severity: warning
      team: '{{ $labels.path }}-team'
    annotations:
      summary: '{{ $labels.path }} takes {{ $value | humanize }} s on {{ $externalLabels.site }}'
  - record: path:latency:mean
    expr: avg by (path) (latency)
"""

TESTS = """
evaluation_interval: 1m
tests:
- name: slow for a while
  interval: 1m
  external_labels:
    site: home
  input_series:
  - series: latency{path="/a", host="x"}
    values: 0.1 0.7x4 0.1x9
  - series: latency{path="/a", host="y"}
    values: 0.1 0.9x4 0.1x9
  - series: latency{path="/b", host="x"}
    values: 0.1x3 _x2 stale
  alert_rule_test:
  - alertname: Slow
    eval_time: 2m
  - alertname: Slow
    eval_time: 3m30s
    exp_alerts:
    - exp_labels: {path: /a, severity: warning, team: /a-team}
      exp_annotations:
        summary: /a takes 800m s on home
  - alertname: Slow
    eval_time: 7m
    exp_alerts:
    - exp_labels: {path: /a, severity: warning, team: /a-team}
      exp_annotations: {summary: /a takes 800m s on home}
  - alertname: Slow
    eval_time: 8m
  promql_expr_test:
  - expr: path:latency:mean
    eval_time: 4m
    exp_samples:
    - {labels: 'path:latency:mean{path="/a"}', value: 0.8}
    - {labels: 'path:latency:mean{path="/b"}', value: 0.1}
  - expr: count_over_time(ALERTS{alertstate="firing"}[20m])
    eval_time: 10m
    exp_samples:
    - {labels: '{alertname="Slow", alertstate="firing", path="/a", severity="warning", team="/a-team"}', value: 5}
  - expr: path:latency:mean{path="/b"}
    eval_time: 6m
    exp_samples: []
  - expr: sum(latency) * 1
    eval_time: 0
    exp_samples:
    - {labels: '{}', value: 3.0000000000000004e-1}
"""


def failures(tests: str, rules: str = RULES) -> list[str]:
    groups = plainrules.plans(rulefiles.read(rules).groups)
    return ruletests.run(ruletests.read(tests), groups)


def promtool(tmp_path: Path, tests: str, rules: str = RULES) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "rules.yml").write_text(rules)
    (tmp_path / "tests.yml").write_text(f"rule_files: [rules.yml]\n{tests}")
    command = ["promtool", "test", "rules", str(tmp_path / "tests.yml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")


def test_recording_rules_feed_alerts_on_a_simulated_clock() -> None:
    assert failures(TESTS) == []


@needs_promtool
def test_promtool_agrees(tmp_path: Path) -> None:
    # There the recording rule has to come first; here its place in the file does not matter.
    head, alert, record = RULES.partition("  - alert")[0], *RULES.partition("  - alert")[2].split("  - record")
    ran = promtool(tmp_path, TESTS, f"{head}  - record{record}  - alert{alert}")
    assert ran.returncode == 0, ran.stdout + ran.stderr


# --- Notation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1 -2 +3.5 1e2 .5", [1, -2, 3.5, 100, 0.5]),
        ("1+2x3", [1, 3, 5, 7]),
        ("1-2x3", [1, -1, -3, -5]),
        ("-2+4x3", [-2, 2, 6, 10]),
        ("1x3", [1, 1, 1, 1]),
        ("0x10", [0] * 11),
        ("_ 1 _x3 2", [None, 1, None, None, None, 2]),
        ("0.1+0.1x2", [0.1, 0.2, 0.1 + 0.1 + 0.1]),
        ("Inf -Inf +inf", [float("inf"), float("-inf"), float("inf")]),
        ("", []),
    ],
)
def test_series_notation(text: str, values: list[float | None]) -> None:
    assert list(ruletests.sequence(text)) == values


def test_stale_is_the_marker_that_ends_a_series() -> None:
    (value,) = ruletests.sequence("stale")
    assert value is not None
    assert np.float64(value).view(np.uint64) == STALE_BITS


@pytest.mark.parametrize(
    "text", ["x3", "1x", "1+x3", "stalex3", "1++2x3", "a", "1x1_0", "{{schema:0}}", "1x999999999999"]
)
def test_what_is_no_notation_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"none of|more than"):
        list(ruletests.sequence(text))


@pytest.mark.parametrize("text", ["9" * 1_000_000 + "?", "1x" + "9" * 5_000, "_x" + "9" * 5_000])
def test_a_million_digits_are_refused_in_one_pass(text: str) -> None:
    with pytest.raises(ValueError, match=r"none of|more than"):  # in the square of their length they would take hours
        list(ruletests.sequence(text))


@pytest.mark.parametrize(
    "text", ["1 -2 +3.5", "1+2x3 -2+4x3", "1x3 _ _x2 4", "1 stale 2", "Inf NaN 0x4 1e2 .5x1 7. 1e1x2"]
)
@needs_promtool
def test_promtool_reads_the_same_values(tmp_path: Path, text: str) -> None:
    values = list(ruletests.sequence(text))
    tests = f"tests:\n- interval: 1m\n  input_series: [{{series: x, values: '{text}'}}]\n  promql_expr_test:\n"
    for minute, value in enumerate(values):
        samples = "" if value is None or value != value else f"{{labels: '{{}}', value: {number(value)}}}"
        expression = f"sum(last_over_time(x[1m]) == {number(value or 0)})"
        tests += f"  - {{expr: '{expression}', eval_time: {minute}m, exp_samples: [{samples}]}}\n"
    tests = tests.replace("value: +Inf", "value: .inf")
    ran = promtool(tmp_path, tests, ONE_RULE)
    assert ran.returncode == 0, ran.stdout + ran.stderr + tests
    assert failures(tests, ONE_RULE) == []


# --- Files ------------------------------------------------------------------------------------------------------------

ONE_RULE = """
groups:
- name: g
  rules:
  - alert: Low
    expr: x < 5
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("test: []", "test:1: a file of tests has the unknown field 'test'"),
        ("tests: [{interval: 1}]", "interval: '1' is no duration"),
        ("tests: [{input_series: [{series: 'x=1', values: 1}]}]", "'x=1' is no series"),
        ("tests: [{input_series: [{series: 'x{a=~\"b\"}', values: 1}]}]", "its labels are given with ="),
        ("tests:\n- input_series:\n  - series: x\n    values: 1y2", "test:4: values: '1y2' is none of"),
        ("tests: [{alert_rule_test: [{eval_time: 1m}]}]", "an alert_rule_test needs `alertname`"),
        ("tests: [{promql_expr_test: [{expr: 'sum('}]}]", "expr: 1:5: parse error"),
        ("tests: [{promql_expr_test: [{expr: x, exp_samples: [{histogram: '{{}}'}]}]}]", "native histograms"),
        ("tests: [{promql_expr_test: [{expr: x, exp_samples: [{value: many}]}]}]", "value: 'many' is no number"),
        ("tests: [{start_timestamp: yesterday}]", "start_timestamp: 'yesterday' is neither"),
        ("group_eval_order: [a, a]", "group name repeated in evaluation order: a"),
        ("fuzzy_compare: perhaps", "fuzzy_compare is true or false"),
    ],
)
def test_what_is_no_test_is_said_with_its_line(text: str, words: str) -> None:
    with pytest.raises(RuleFileError) as error:
        ruletests.read(text)
    assert words in str(error.value)


def case(expected: str, **fields: str) -> str:
    more = "".join(f"  {name}: {value}\n" for name, value in fields.items())
    return f"tests:\n- interval: 1m\n{more}  input_series: [{{series: 'x{{a=\"b\"}}', values: 3 4 0.1}}]\n{expected}"


def test_a_failure_says_what_was_expected_and_what_came() -> None:
    text = case("  alert_rule_test: [{alertname: Low, eval_time: 1m}]\n", name="the name")
    assert failures(text, ONE_RULE) == [
        'the name: alertname: Low, time: 1m\n  expected: nothing\n  got:      \n    labels {a="b", alertname="Low"}'
    ]
    text = case("  promql_expr_test: [{expr: x, eval_time: 1m, exp_samples: [{labels: 'x{a=\"c\"}', value: 4}]}]\n")
    assert failures(text, ONE_RULE) == ['expr: x, time: 1m\n  expected: \n    x{a="c"} 4\n  got:      \n    x{a="b"} 4']


def test_a_name_that_no_rule_has_is_no_test_that_passes() -> None:
    assert failures(case("  alert_rule_test: [{alertname: Lo, eval_time: 1m}]\n"), ONE_RULE) == [
        "There is no alert Lo among the rules under test (Low)."
    ]


def test_a_rule_that_fails_ends_the_test_and_is_named() -> None:
    rules = ONE_RULE + "  - record: y\n    expr: x * on (c) group_left x\n"
    text = case("  promql_expr_test: [{expr: '1', eval_time: 2m, exp_samples: [{value: 1}]}]\n")
    text = text.replace("input_series: [", "input_series: [{series: x, values: 1x9}, ")
    (failure,) = failures(text, rules)
    assert failure.startswith("at 0s: the recording rule y fails: ")


def test_neighbouring_numbers_are_equal_only_where_the_test_says_so() -> None:
    text = case(
        "  promql_expr_test: [{expr: x * 3, eval_time: 2m, exp_samples: [{labels: '{a=\"b\"}', value: 0.3}]}]\n"
    )
    assert len(failures(text, ONE_RULE)) == 1
    assert failures(f"fuzzy_compare: true\n{text}", ONE_RULE) == []


@pytest.mark.parametrize("start", ["1609459200", "2021-01-01T00:00:00Z", "'2021-01-01T01:00:00+01:00'"])
def test_a_test_can_begin_at_any_time(start: str) -> None:
    text = case(
        "  promql_expr_test:\n  - expr: timestamp(x)\n    eval_time: 1m\n"
        "    exp_samples: [{labels: '{a=\"b\"}', value: 1609459260}]\n",
        start_timestamp=start,
    )
    assert failures(text, ONE_RULE) == []


def test_groups_are_evaluated_in_the_order_that_is_asked_for() -> None:
    rules = """
groups:
- {name: second, rules: [{record: b, expr: a + 1}]}
- {name: first, rules: [{record: a, expr: x * 10}]}
"""
    expected = "  promql_expr_test: [{expr: b, eval_time: 1m, exp_samples: [{labels: 'b{a=\"b\"}', value: %s}]}]\n"
    assert failures(case(expected % 41), rules) == []
    assert failures("group_eval_order: [first, second]\n" + case(expected % 41), rules) == []
    assert failures("group_eval_order: [second, first]\n" + case(expected % 31), rules) == []


def test_a_test_beyond_what_saving_may_take_is_refused_with_its_own_figure() -> None:
    text = case("  promql_expr_test: [{expr: '1', eval_time: 365d, exp_samples: [{value: 1}]}]\n")
    assert failures(text, ONE_RULE) == [
        "It would take 525601 evaluations of rules, more than 10000: use a shorter eval_time."
    ]


def test_instants_count_without_rules_too() -> None:
    text = case("  promql_expr_test: [{expr: '1', eval_time: 290y, exp_samples: [{value: 1}]}]\n")
    (line,) = failures(text, "groups: []")
    assert "more than 10000" in line


@pytest.mark.parametrize("rules", [RULES, "groups: []"])
def test_what_is_not_through_in_its_time_is_given_up(rules: str) -> None:
    expected = "  promql_expr_test: [{expr: 'x', eval_time: 1m, exp_samples: [{value: 1}]}]\n"
    groups = plainrules.plans(rulefiles.read(rules).groups)
    given_up = ruletests.run(ruletests.read(case(expected)), groups, watch=Watch(-1))
    assert given_up == ["It was given up after -1 seconds: use fewer series or a shorter time."]


def test_the_series_of_all_tests_of_a_file_are_counted_together() -> None:
    entry = "- input_series: [{series: x, values: 1x600000}]\n"
    ruletests.read(f"tests:\n{entry}")
    with pytest.raises(RuleFileError, match="more than 1000000 samples"):
        ruletests.read(f"tests:\n{entry}{entry}")


def test_what_the_future_brings_is_not_known_before() -> None:
    rules = "groups: [{name: g, rules: [{record: y, expr: x offset -1m}]}]"
    text = case("  promql_expr_test: [{expr: y, eval_time: 1m, exp_samples: [{labels: 'y{a=\"b\"}', value: 4}]}]\n")
    assert failures(text, rules) == []


def test_series_that_differ_in_their_name_only_do_not_hide_each_other() -> None:
    """Without the name they are one alert, and it fires as long as one of them is wrong."""
    rules = "groups: [{name: g, rules: [{alert: Low, expr: '{__name__=~\"x|z\"} < 5'}]}]"
    text = case(
        "  alert_rule_test:\n  - {alertname: Low, eval_time: 1m, exp_alerts: [{exp_labels: {a: b}}]}\n"
        "  - {alertname: Low, eval_time: 2m, exp_alerts: [{exp_labels: {a: b}}]}\n"
    )
    more = "{series: 'x{a=\"c\"}', values: 3 9 9}, {series: 'z{a=\"b\"}', values: 9x9}"
    assert failures(text.replace("values: 3 4 0.1}", f"values: 3 4 0.1}}, {more}"), rules) == []
