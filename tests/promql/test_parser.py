"""The parser: what it reads, how it prints it again, and what it says where it cannot."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.promql.ast import Selector, walk
from apps.promql.errors import ParseError, PromQLError
from apps.promql.functions import AGGREGATIONS, FUNCTIONS, VECTOR, Aggregation, Function
from apps.promql.parser import parse, parse_matchers
from apps.promql.printer import render
from apps.promql.source import Matcher

CANONICAL = [
    ("1", "1"),
    ("-1", "-1"),
    ("0x1F", "31"),
    ("1_000", "1000"),
    ("5m", "5m"),
    (".5e3", "500"),
    ("Inf", "+Inf"),
    ("'it'", '"it"'),
    ("`a\\n`", '"a\\\\n"'),
    ("up", "up"),
    ("up{}", "up"),
    ('up{job="a",}', 'up{job="a"}'),
    ('{__name__="up"}', '{__name__="up"}'),
    ('{"up"}', '{__name__="up"}'),
    ('{"odd name", "odd label"="x"}', '{"odd label"="x",__name__="odd name"}'),
    ('up{y!="", job=~"a|b", x!~"c"}', 'up{job=~"a|b",x!~"c",y!=""}'),
    ("job:rate5m:sum[5m]", "job:rate5m:sum[5m]"),
    ("rate(x[90])", "rate(x[1m30s])"),
    ("x offset 5m @ 1.5", "x @ 1.500 offset 5m"),
    ("x @ start() offset -1h", "x @ start() offset -1h"),
    ("max_over_time(rate(x[5m])[1h:])", "max_over_time(rate(x[5m])[1h:])"),
    ("max_over_time(x[1h:1m] offset 1d @ end())", "max_over_time(x[1h:1m] @ end() offset 1d)"),
    ("a+b*c", "a + b * c"),
    ("-a ^ 2", "-a ^ 2"),
    ("2 ^ 3 ^ 2", "2 ^ 3 ^ 2"),
    ("(a)", "(a)"),
    ("a AND b Or c unless d", "a and b or c unless d"),
    ("a == bool 1", "a == bool 1"),
    ("a / on(x) group_left(y) b", "a / on (x) group_left (y) b"),
    ("a * ignoring(x, y) group_right b", "a * ignoring (x, y) group_right () b"),
    ("a + on (x) group_left fill(0) b", "a + on (x) group_left () fill (0) b"),
    ("a / fill_right (-1) fill", "a / fill_right (-1) fill"),
    ("sum(x) by (a, b)", "sum by (a, b) (x)"),
    ("SUM without () (x)", "sum without () (x)"),
    ("topk(3, x)", "topk(3, x)"),
    ('count_values("v", x)', 'count_values("v", x)'),
    ('label_replace(x, "a", "$1", "b", "(.*)")', 'label_replace(x, "a", "$1", "b", "(.*)")'),
    ("sum", "sum"),
    ("offset", '{__name__="offset"}'),
    ("rate(x[26m+4m])", "rate(x[30m])"),
    ("x offset (2 * 2)", "x offset 4s"),
    ("x # a comment\n + 1", "x + 1"),
    ("day_of_week()", "day_of_week()"),
    ("-1h30m", "-1h30m"),
    ("x[STEP()]", "x[step()]"),
    ("x[1+(step()-5)*2:range()]", "x[1s + ((step() - 5s) * 2s):range()]"),
    ("x offset -(min_of(step(), 1s)-5)", "x offset (-(min_of(step(), 1s) - 5s))"),
    ("x offset -step()*2", "x offset (-step()) * 2"),
    ("x offset +step()", "x offset step()"),
    ("x[(-step()) ^ 2]", "x[(-step()) ^ 2s]"),
    ("x[-step() ^ 2]", "x[-(step() ^ 2s)]"),
    ("x[step() / 0.7]", "x[step() / 700ms]"),
    ("x[step() * 0.12345]", "x[step() * 0.12345]"),
    ("rate(x[5m] smoothed @ 1 offset 5m)", "rate(x[5m] smoothed @ 1.000 offset 5m)"),
    ("x offset 5m @ 1 smoothed", "x @ 1.000 smoothed offset 5m"),
    ("info(rate(x[5m]), {a=~'.*'})", 'info(rate(x[5m]), {a=~".*"})'),
    ("info(x)", "info(x)"),
    ("info(x, {})", "info(x, {})"),
    ("1e21 + 1e-7", "1000000000000000000000 + 0.0000001"),
    ("a - ignoring() b", "a - b"),
    ("'\\a\\x00\\u00ad é'", '"\\a\\x00\\u00ad é"'),
]


def content(text: str) -> list[object]:
    """The nodes of a text one by one, with matchers in an order of their own."""
    nodes = list(walk(parse(text)))[::-1]
    return [sorted(map(str, node.matchers)) if isinstance(node, Selector) else node for node in nodes]


@pytest.mark.parametrize(("text", "printed"), CANONICAL)
def test_expressions_have_one_canonical_text(text: str, printed: str) -> None:
    assert render(parse(text)) == printed
    assert content(printed) == content(text)


ERRORS = [
    ("", 1, 1, "no expression"),
    ("   ", 1, 1, "no expression"),
    ("1 +", 1, 4, "unexpected end of input"),
    ("(1", 1, 3, 'expected ")"'),
    ("a\n  + +", 2, 6, "unexpected end of input"),
    ("'open", 1, 1, "unterminated"),
    ("'it''", 1, 5, "unterminated"),
    ("5x", 1, 1, "bad number or duration"),
    ("1m1h", 1, 1, "not a valid duration"),
    ("x[5m", 1, 5, 'expected "]"'),
    ("x[0s]", 1, 3, "greater than 0"),
    ("x[-5m]", 1, 3, "greater than 0"),
    ("x[5m:0]", 1, 6, "greater than 0"),
    ("x[5m] offset 1m offset 2m", 1, 17, "multiple times"),
    ("x @ 1 @ 2", 1, 7, "multiple times"),
    ("(x) offset 5m", 1, 5, "must be preceded by"),
    ("x offset 5m [5m]", 1, 13, "no offset modifiers allowed before range"),
    ("(x)[5m]", 1, 4, "ranges only allowed for vector selectors"),
    ("1[5m:]", 1, 1, "subquery is only allowed on instant vector"),
    ("rate(x)", 1, 6, "expected type range vector"),
    ("rate(x[5m], 1)", 1, 1, "expected 1 argument(s)"),
    ("rates(x[5m])", 1, 1, "unknown function"),
    ("sum(x, y)", 1, 1, "wrong number of arguments"),
    ("sum()", 1, 1, "no arguments"),
    ("topk(x, y)", 1, 6, "expected type scalar"),
    ('{job=""}', 1, 1, "at least one non-empty matcher"),
    ("{}", 1, 1, "at least one non-empty matcher"),
    ('x{__name__="y"}', 1, 3, "must not be set twice"),
    ('x{a=~"("}', 1, 6, "invalid regular expression"),
    ("x{a=b}", 1, 5, "expected string"),
    ("1 > 2", 1, 3, "must use BOOL"),
    ("x + bool y", 1, 3, "only be used on comparison"),
    ("1 and x", 1, 3, "not allowed in binary scalar"),
    ("x + on(a) 1", 1, 3, "only allowed between instant vectors"),
    ("x and on(a) group_left b", 1, 13, "no grouping allowed"),
    ("x + on(a) group_left(a) y", 1, 11, "must not occur in ON and GROUP"),
    ("x[5m] + 1", 1, 1, "only scalar and instant vector"),
    ("-x[5m]", 1, 1, "unary expression only allowed"),
    ('-"a"', 1, 1, "unary expression only allowed"),
    ("x @ inf", 1, 5, "out of bounds"),
    ("x offset 99999999999y", 1, 10, "out of range"),
    ("x y", 1, 3, 'unexpected identifier "y"'),
    ("x;", 1, 2, "unexpected character"),
    ("deriv(x[5m] anchored)", 1, 7, "anchored modifier can only be used with: changes, delta, increase, rate, resets"),
    ("changes(x[5m] smoothed)", 1, 9, "smoothed modifier can only be used with: delta, increase, rate - not with"),
    ("(x[5m] smoothed)", 1, 1, "smoothed range vectors are supported as arguments of"),
    ("x anchored", 1, 3, "anchored modifier can only be used with range vectors"),
    ("x[5m:] smoothed", 1, 8, "smoothed modifier is not supported for subqueries"),
    ("x smoothed anchored", 1, 12, "anchored modifier can only be used with range vectors"),
    ("rate(x[5m] smoothed anchored)", 1, 21, "anchored modifier cannot follow the smoothed modifier"),
    ("x smoothed [5m]", 1, 12, "no smoothed modifier allowed before range"),
    ("info(x, y)", 1, 9, 'expected label matchers in "{"'),
    ("info(x, {a=~'.*'}, y)", 1, 18, 'expected ")"'),
    ("x and fill(0) y", 1, 7, "filling in missing series is not allowed"),
    ("x + fill(y) z", 1, 10, "takes a number"),
    ("x + fill(0) fill_left(1) z", 1, 13, "filled twice"),
    ("x + fill(0) 1", 1, 3, "only allowed between instant vectors"),
    ("histogram_count(x)", 1, 1, "native histograms"),
    ("x </ 5", 1, 3, "the trim operator </ works on native histograms"),
    ("x >/ 5", 1, 3, "the trim operator >/ works on native histograms"),
    ("x[1/0]", 1, 4, "division by zero"),
    ("x[step]", 1, 7, 'expected "("'),
    ("x[start()]", 1, 3, "expected a duration"),
    ("x[min_of(1)]", 1, 11, 'expected ","'),
    ("x[2 ^ 0.5 ^ -1 - 4]", 1, 3, "greater than 0"),
    ('label_replace(x, "", "", "", "")', 1, 18, "invalid destination label name"),
    ('label_replace(x, "a", "", "", "(")', 1, 31, "invalid regular expression"),
    ('"\\q"', 1, 1, "unknown escape"),
    ('x{a="\\xff"}', 1, 5, "must be UTF-8"),
    ('x{a=~"\\xff"}', 1, 6, "must be UTF-8"),
    ('x{"\\xff"="a"}', 1, 3, "invalid label name"),
    ('{"\\xff"}', 1, 2, "invalid label name"),
    ('{""}', 1, 2, "invalid label name"),
    ('label_replace(x, "a", "", "", "\\xff")', 1, 31, "invalid regular expression"),
    ("1e999", 1, 1, "out of range"),
]


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("1 + on() 1", "1 + 1"),
        ("x + ignoring() group_left(y) 1", "x + 1"),
        ("1 > bool on() x", "1 > bool x"),
    ],
)
def test_matching_on_nothing_means_nothing_beside_a_scalar(text: str, means: str) -> None:
    assert render(parse(text)) == means


@pytest.mark.parametrize(("text", "line", "column", "says"), ERRORS)
def test_errors_point_at_the_place(text: str, line: int, column: int, says: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert says in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)
    assert caught.value.kind == ("execution" if text.startswith("label_replace") else "bad_data")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20_000,
        "(" * 10_000 + "1" + ")" * 10_000,
        "-" * 20_000 + "1",
        "1" + "+1" * 10_000,
        " or ".join(["x"] * 1_001),
        "2" + "^2" * 10_000,
        "x[" + "(" * 20_000,
        "x[" + "-" * 20_000 + "1]",
        "x[1" + "^1" * 20_000 + "]",
        "x offset " + "-" * 20_000 + "1",
        "x" + "[1m:]" * 10_000,
        "abs(" * 5_000 + "x" + ")" * 5_000,
        "{" * 20_000,
        "[" + "a:" * 30_000,
        "x[" + "a:" * 30_000,
        "x" * 70_000,
    ],
    ids=lambda text: text[:8],
)
def test_what_is_too_deep_or_too_long_is_an_error_and_never_a_crash(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


def test_chains_and_nests_within_the_limits_are_read() -> None:
    parse("(" * 90 + "1" + ")" * 90)
    parse("1" + " + 1" * 998)
    matchers = ", ".join(f"l{i}!='v'" for i in range(3000))
    parse(f"x{{{matchers}}}")


WORDS = (
    "x up sum rate ( ) [ ] { } , : @ + - * / % ^ == != > < = =~ and or unless by without on ignoring group_left bool "
    "offset 5m 1h 1 0.5 'a' `c` start() end() topk avg_over_time inf nan # é 0x step label_replace atan2 \\ ' \" "
    "step() range() min_of( anchored smoothed [5m] [1m:] info( limit_ratio( fill(0) </ >/ {a=~'.*'}"
)
PIECES = st.sampled_from([*WORDS.split(), "\n"])


@given(st.lists(PIECES, max_size=25).map(" ".join) | st.text(max_size=30))
@settings(max_examples=400)
def test_any_text_gives_a_tree_or_a_parse_error(text: str) -> None:
    with contextlib.suppress(ParseError):
        tree = parse(text)
        again = parse(render(tree))
        assert render(again) == render(tree)


def test_errors_are_new_each_time_though_parsing_is_cached() -> None:
    def fail() -> PromQLError:
        with pytest.raises(ParseError) as caught:
            parse("sum(")
        return caught.value

    assert fail() is not fail()


def test_a_plain_selector_gives_its_matchers() -> None:
    assert parse_matchers('up{job!="a"}') == (Matcher("__name__", "=", "up"), Matcher("job", "!=", "a"))
    with pytest.raises(ParseError, match="not a plain series selector"):
        parse_matchers("rate(up[5m])")


def test_bytes_that_are_no_utf8_are_kept_in_strings() -> None:
    assert render(parse('"a\\xc5z"')) == '"a\\xc5z"'


def test_plain_promql_has_no_extensions_and_names_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUNCTIONS, "own", Function("own", (VECTOR,), extension=True))
    parse("1 + own(up)")
    with pytest.raises(ParseError) as caught:
        parse("1 + own(up)", plain=True)
    assert caught.value.message == "own() is an extension of the portal, not PromQL"
    assert (caught.value.line, caught.value.column) == (1, 5)
    parse("1 + own(up)")
    assert parse("abs(up)", plain=True) == parse("abs(up)")


@pytest.mark.parametrize("each", [*FUNCTIONS.values(), *AGGREGATIONS.values()], ids=lambda each: each.name)
def test_every_function_and_aggregation_says_in_a_sentence_what_it_does(each: Function | Aggregation) -> None:
    assert each.help.endswith(".")
    assert each.help[0].isupper() or not each.help[0].isalpha() or each.help.startswith("e to")
    assert each.signature.startswith(each.name)
