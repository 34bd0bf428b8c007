"""Annotations read as Prometheus would write them, and nothing in a template can run away."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alerting.template_functions import Sample, number, printf
from apps.alerting.templates import MAX_TEXT, Context, check, expand

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SERIES = {
    "metric": [Sample({"instance": "b"}, 21.0), Sample({"instance": "a"}, 11.0)],
    "none": [],
}


def text(template: str, value: float = 93.5, **labels: str) -> str:
    context = Context(
        labels={"instance": "web-1:9100", "job": "node", **labels},
        value=value,
        now=NOW,
        query=lambda expression: SERIES[expression],
        external_url="http://portal.example:3000/ops",
    )
    return expand(template, context, name="Test")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain text", "plain text"),
        ("{{ $labels.instance }} is at {{ $value }}", "web-1:9100 is at 93.5"),
        ("{{ .Labels.job }}/{{ .Value }}/{{ $.Value }}", "node/93.5/93.5"),
        ("{{ $labels.absent }}|{{ .ExternalLabels.absent }}", "|"),
        ("{{ 1 }} {{ -2.50 }} {{ 0x1F }} {{ 1_000 }} {{ 'a' }} {{ true }}", "1 -2.5 31 1000 97 true"),
        ('{{ "q\\t\\"x\\u00e9" }} {{ `raw\\n` }}', 'q\t"xé raw\\n'),
        ("a  {{- 1 -}}  b {{ 2 }}", "a1b 2"),
        ("x{{/* a comment */}}y {{- /* another */ -}} z", "xyz"),
        ('{{ printf "%.2f%%" $value }}', "93.50%"),
        ('{{ $value | printf "%.1f" }}', "93.5"),
        ('{{ $labels.instance | stripPort | toUpper | printf "<%s>" }}', "<WEB-1>"),
        ("{{ if gt $value 90.0 }}high{{ else }}low{{ end }}", "high"),
        ('{{ if eq $labels.job "db" "node" }}known{{ end }}', "known"),
        ("{{ if $labels.absent }}a{{ else if $labels.job }}b{{ else }}c{{ end }}", "b"),
        ("{{ if and $labels.job (not $labels.absent) }}yes{{ end }}", "yes"),
        ("{{ with $labels.absent }}{{ . }}{{ else }}nothing{{ end }}", "nothing"),
        ("{{ with $labels.job }}{{ . }} on {{ $labels.instance }}{{ end }}", "node on web-1:9100"),
        ("{{ range $k, $v := $labels }}{{ $k }}={{ $v }};{{ end }}", "instance=web-1:9100;job=node;"),
        (
            '{{ range query "metric" | sortByLabel "instance" }}{{ .Labels.instance }}:{{ .Value }} {{ end }}',
            "a:11 b:21 ",
        ),
        ('{{ range query "none" }}x{{ else }}empty{{ end }}', "empty"),
        ('{{ range $i, $s := query "metric" }}{{ if $i }}{{ break }}{{ end }}{{ $s.Value }}{{ end }}', "21"),
        ('{{ query "metric" | first | value | humanize }}', "21"),
        ('{{ with query "metric" }}{{ . | first | label "instance" }}{{ end }}', "b"),
        ('{{ (query "metric" | first).Labels.instance }}', "b"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ end }}{{ $x }}", "1"),
        ('{{ define "pair" }}{{ .arg0 }}-{{ .arg1 }}{{ end }}{{ template "pair" (args 1 "2") }}', "1-2"),
        ("{{ 1435065584.128 | humanizeTimestamp }}", "2015-06-23 13:19:44.128 +0000 UTC"),
        ('{{ ("1435065584.128" | toTime).Format "2006-01-02" }}', "2015-06-23"),
        ('{{ printf "%.2f" (parseDuration "1h2m10ms") }} {{ 90 | toDuration }}', "3720.01 1m30s"),
        ('{{ "aa bb CC" | title }} {{ "aA" | toLower }}', "Aa Bb CC aa"),
        ('{{ match "a+" "xaa" }} {{ match "a+" "b" }}', "true false"),
        ('{{ reReplaceAll "(a)b" "x$1" "ab-ab" }}', "xa-xa"),
        ('{{ "[2001:DB8::1]:12345" | stripPort }} {{ "2001:DB8::1" | stripPort }}', "2001:DB8::1 2001:DB8::1"),
        ('{{ "foo.example.com:12" | stripDomain }} {{ "192.0.2.1:12" | stripDomain }}', "foo:12 192.0.2.1:12"),
        ('{{ graphLink "up == 0" }}', "/graph?g0.expr=up+%3D%3D+0&g0.tab=0"),
        ("{{ externalURL }} {{ pathPrefix }}", "http://portal.example:3000/ops /ops"),
        ('{{ len $labels.job }} {{ index $labels "job" }} {{ slice "abcd" 1 3 }}', "4 node bc"),
        ('{{ print 1 2 "a" }} {{ html "<b>" }} {{ urlquery "a b" }}', "1 2a &lt;b&gt; a+b"),
        ("{{ $labels }}", "map[instance:web-1:9100 job:node]"),
    ],
)
def test_a_template_reads_as_in_prometheus(template: str, expected: str) -> None:
    assert text(template) == expected


@pytest.mark.parametrize(
    ("function", "cases"),
    [
        ("humanize", {0.0: "0", 1.0: "1", 1234567.0: "1.235M", 0.12: "120m", -1.0: "-1", math.inf: "+Inf"}),
        ("humanize1024", {0.0: "0", 1.0: "1", 1048576.0: "1Mi", 0.12: "0.12", 1234567.0: "1.177Mi"}),
        (
            "humanizeDuration",
            {
                0.0: "0s",
                60.0: "1m 0s",
                90000.0: "1d 1h 0m 0s",
                -183845.0: "-2d 3h 4m 5s",
                899.99: "14m 59s",
                0.1: "100ms",
                0.0001: "100us",
                0.12345: "123.5ms",
                12.345: "12.35s",
                math.nan: "NaN",
            },
        ),
        (
            "humanizePercentage",
            {-0.22222: "-22.22%", 0.0: "0%", 0.1234567: "12.35%", 1.23456: "123.5%", 1234567.0: "1.235e+08%"},
        ),
        ("humanizeTimestamp", {0.0: "1970-01-01 00:00:00 +0000 UTC", -1.0: "1969-12-31 23:59:59 +0000 UTC"}),
    ],
)
def test_values_are_made_readable(function: str, cases: dict[float, str]) -> None:
    assert {value: text(f"{{{{ $value | {function} }}}}", value) for value in cases} == cases


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (5000.0, "5000"),
        (123456.0, "123456"),
        (1234567.0, "1.234567e+06"),
        (1e6, "1e+06"),
        (0.0001, "0.0001"),
        (0.00001234, "1.234e-05"),
        (-2.5, "-2.5"),
        (1e21, "1e+21"),
        (math.nan, "NaN"),
        (-math.inf, "-Inf"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_a_number_is_written_as_go_does(value: float, expected: str) -> None:
    assert number(value) == expected


@given(st.floats(allow_nan=False))
def test_a_written_number_reads_back_the_same(value: float) -> None:
    assert float(number(value)) == value


@pytest.mark.parametrize(
    ("pattern", "values", "expected"),
    [
        ("%5.1f|%-5d|%05d|%+d", (3.14159, 7, -42, 3), "  3.1|7    |-0042|+3"),
        ("%s %q %v %t %x", ("a", "b", 1.5, True, 255), 'a "b" 1.5 true ff'),
        ("%d %s", (1.5, 2), "%!d(float64=1.5) %!s(int=2)"),
        ("%d", (), "%!d(MISSING)"),
        ("x", (1,), "x%!(EXTRA int=1)"),
    ],
)
def test_printf_is_gos_with_its_complaints(pattern: str, values: tuple[object, ...], expected: str) -> None:
    assert printf(pattern, *values) == expected


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{", "error parsing template __alert_Test: template: __alert_Test:1: unclosed action"),
        ("{{ nope }}", '1: function "nope" not defined'),
        ("\n{{ $nope }}", '2: undefined variable "$nope"'),
        ("{{ if true }}", "{{if}} has no {{end}}"),
        ("{{ end }}", "unexpected {{end}}"),
        ('{{ humanize "one" }}', 'error calling humanize: strconv.ParseFloat: parsing "one": invalid syntax'),
        ('{{ query "none" | first }}', "error calling first: first() called on vector with no elements"),
        ("{{ .Nope }}", "can't evaluate field Nope in type template.AlertTemplateData"),
        ("{{ if gt $value 5 }}{{ end }}", "incompatible types for comparison"),
        ("{{ humanize }}", "wrong number of args for humanize: want 1 got 0"),
        ('{{ match "(" "a" }}', "invalid regular expression"),
        ('{{ block "x" . }}{{ end }}', "block is not supported"),
        ("{{ break }}", "outside {{range}}"),
        ('{{ "open }}', "unterminated quoted string"),
        ('{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}', "nested deeper"),
        ("{{ range 100000000 }}x{{ end }}", "more than"),
        ('{{ printf "%1000000d" 1 }}', "width or precision"),
        ('{{ range 50 }}{{ printf "%1000d" 1 }}{{ printf "%1000d" 1 }}{{ end }}', "expands to more than"),
        ('{{ range 20 }}{{ query "none" }}{{ end }}', "more than 10 queries"),
        ("{{ if true }}" * 60 + "{{ end }}" * 60, "nested deeper"),
        (
            '{{ $x := "aaaaaaaaaa" }}' + '{{ $x = printf "%s%s%s%s" $x $x $x $x }}' * 30 + "{{ $x }}",
            "is given more than",
        ),
        ("{{ $x := $labels }}" + "{{ $x = args $x $x $x $x }}" * 30 + "{{ eq $x $x }}", "is given more than"),
        ('{{ $x := printf "%1000d" 1 }}{{ reReplaceAll "" (print $x $x $x) $x }}', "too long"),
    ],
)
def test_what_cannot_be_expanded_says_why_in_its_place(template: str, why: str) -> None:
    out = text(template)
    assert out.startswith("<error expanding template: error ")
    assert why in out


def test_grammar_is_checked_before_a_rule_is_saved() -> None:
    assert check("{{ $labels.job }}") == ""
    assert check("\n{{ $lables.job }}") == 'line 2: undefined variable "$lables"'


pieces = st.sampled_from(
    [
        "{{",
        "}}",
        "{{ end }}",
        "{{ if $value }}",
        "{{ range $labels }}",
        "{{ else }}",
        "{{- . -}}",
        "text",
        "$x",
        ":=",
        "(",
        ")",
        "|",
        ".Labels",
        " printf ",
        '"%s"',
        "`",
        "'",
        "{{/*",
        "*/}}",
        "1e999",
        "\\",
        "\n",
    ]
)


@given(st.lists(pieces, max_size=12).map("".join))
def test_no_template_raises_or_grows_without_bound(template: str) -> None:
    assert len(text(template)) <= MAX_TEXT + 500


@pytest.mark.parametrize("inside", ["9" * 60_000 + "x", "1." + "9" * 60_000 + "x", 'printf "%' + "0" * 60_000 + '?" 1'])
def test_a_template_of_digits_is_read_in_one_pass(inside: str) -> None:
    assert len(text(f"{{{{ {inside} }}}}")) <= MAX_TEXT + 500  # in the square of their length it would take minutes


def test_whatever_a_template_breaks_on_is_said_in_its_text():
    assert text('{{ query "no such series" }}') == (
        "<error expanding template: error executing template __alert_Test: KeyError>"
    )
