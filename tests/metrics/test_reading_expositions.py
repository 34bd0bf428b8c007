"""What targets show is read as the reference parser reads it; what no parser takes is refused line by line."""

import math
import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as oracle_openmetrics
from prometheus_client.parser import text_string_to_metric_families as oracle_text

from apps.metrics.protocols import exposition
from apps.metrics.protocols.exposition import NO_TIME, Exposition, Family, Format, Reader, Unreadable, format_of
from apps.metrics.samples import Meta

TEXT, OPENMETRICS = Format.TEXT, Format.OPENMETRICS
names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True).filter(lambda name: not name.startswith("__"))
label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('\n\\"{}#, ='), max_size=12)
numbers = st.floats().map(lambda value: math.nan if math.isnan(value) else value) | st.integers(-(10**9), 10**9).map(
    float
)
labels = st.dictionaries(label_names, texts, max_size=4)
rows = st.tuples(names, labels, numbers, st.none() | st.integers(-(10**12), 4 * 10**12))


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def line(name: str, some: dict[str, str], value: float, ms: int | None, form: Format = TEXT) -> str:
    inside = ",".join(f'{label}="{escaped(text)}"' for label, text in some.items())
    number = {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN" if math.isnan(value) else repr(value))
    time = "" if ms is None else f" {ms}" if form is TEXT else f" {ms / 1000}"
    return f"{name}{{{inside}}} {number}{time}\n" if inside else f"{name} {number}{time}\n"


def told(reader: Reader, found: Exposition) -> list[tuple[Any, bytes, int | None]]:
    return [
        (reader.labels(number), struct.pack("<d", value), None if ms == NO_TIME else ms)
        for number, ms, value in zip(found.numbers.tolist(), found.ts.tolist(), found.v.tolist(), strict=True)
    ]


def read(body: str | bytes, form: Format = TEXT) -> list[tuple[object, bytes, int | None]]:
    reader = Reader()
    return told(reader, reader.read(body if isinstance(body, bytes) else body.encode(), form))


def by_oracle(body: str, form: Format = TEXT) -> list[tuple[object, bytes, int | None]]:
    parse = oracle_text if form is TEXT else oracle_openmetrics
    return [
        (
            {"__name__": sample.name, **sample.labels},
            struct.pack("<d", sample.value),
            None if sample.timestamp is None else round(float(sample.timestamp) * 1000),
        )
        for family in parse(body)
        for sample in family.samples
    ]


def in_any_order(found: list) -> list[str]:
    return sorted(map(repr, found))


@given(st.lists(rows, max_size=8))
@example([("a", {"b": "x # y"}, 1.0, None), ("a", {"b": "x # y"}, 1.0, 5)])
def test_text_is_read_as_the_reference_parser_reads_it(some):
    body = "".join(line(*row) for row in some)
    found = read(body)
    assert found == [({"__name__": name, **told}, struct.pack("<d", v), ms) for name, told, v, ms in some]
    assert in_any_order(found) == in_any_order(by_oracle(body))


@given(st.lists(st.tuples(labels, numbers, st.none() | st.integers(0, 4 * 10**12)), max_size=5))
def test_openmetrics_is_read_as_the_reference_parser_reads_it(some):
    by_labels = {repr(sorted(told.items())): (told, value, ms) for told, value, ms in some}
    # The reference wants either each sample or none to have a time.
    stamped = all(ms is not None for _, _, ms in some)
    body = "# TYPE g gauge\n# HELP g Some.\n"
    body += "".join(
        line("g", told, value, ms if stamped else None, OPENMETRICS) for told, value, ms in by_labels.values()
    )
    body += "# EOF\n"
    assert in_any_order(read(body, OPENMETRICS)) == in_any_order(by_oracle(body, OPENMETRICS))


HISTOGRAM = """\
# HELP rpc_seconds Time.
# TYPE rpc_seconds histogram
# UNIT rpc_seconds seconds
rpc_seconds_bucket{le="0.1"} 3 # {trace_id="a # b"} 0.07 1520879607.789
rpc_seconds_bucket{le="+Inf"} 4.0 # {} 0.3
rpc_seconds_count 4
rpc_seconds_sum 0.71
rpc_seconds_created 1520430000.123
# TYPE built info
built_info{version="1"} 1
# TYPE calls counter
calls_total 7 1520879607.789 # {trace_id="c"} 1
# EOF
"""


def test_openmetrics_with_exemplars_units_and_every_kind_is_read_as_the_reference_does():
    assert in_any_order(read(HISTOGRAM, OPENMETRICS)) == in_any_order(by_oracle(HISTOGRAM, OPENMETRICS))
    found = Reader().read(HISTOGRAM.encode(), OPENMETRICS)
    assert not found.problems
    assert found.families["rpc_seconds"] == Family("histogram", "Time.", "seconds")
    assert found.meta["rpc_seconds_bucket"] == Meta("histogram", "Time.", "seconds")
    assert found.meta["calls_total"].type == "counter"
    assert found.meta["built_info"].type == "gauge"


def test_types_and_help_of_text_are_kept_by_the_names_of_samples():
    body = (
        b'# HELP s A \\\\ text\\nof two lines\n# TYPE s summary\ns{quantile="0.5"} 1\ns_sum 2\n# TYPE u untyped\nu 1\n'
    )
    meta = Reader().read(body).meta
    assert meta["s_sum"] == Meta("summary", "A \\ text\nof two lines")
    assert meta["u"] == Meta("unknown")


def test_comments_are_told_only_where_they_differ_from_the_last_bodys():
    reader = Reader()
    assert reader.read(b"# TYPE a gauge\na 1\n").families
    assert not reader.read(b"# TYPE a gauge\na 2\n").families
    assert reader.read(b"# TYPE a counter\na 2\n").families == {"a": Family("counter")}


odd_lines = r"""
a 1|a  1|a<1|a < 1 2|a 1 2|a 1 2 3| a 1|a 1 |a|a 1>|>a 1| |>
a{b="c"} 1|a {b="c"} 1|a {b="c"}1|a{b="c"}1|a{ b = "c" , } 1|a{} 1|a{ } 1|a{b="c" 1|a{b=c} 1
a{b="c"} 1 # {} 1|a 1 # {x="y"} 1 2|a 1 2 # {} 1|a 1 # 2|a 1 #2|a{b="x # y"} 1
{"a"} 1|{"a.b", c="d"} 1|{"a","b"} 1|{b="c"} 1|a{"x y"="z"} 1|a{b="c",b="d"} 1|a{__name__="b"} 1
a 1_0|a 0x1p3|a nan|a +Inf|a 1 nan|a 1 1e99|a 1 1.5|a 1 2 |a ١|a{b="\x\\"} 1|é 1
# EOF|#|  # x|# TYPE a counter|# HELP a|# TYPE "a.b" gauge|# TYPE
"""
pieces = st.one_of(
    rows.map(lambda row: line(*row)),
    rows.map(lambda row: line(*row, OPENMETRICS)),
    st.sampled_from([odd.translate({60: "\t", 62: "\r"}) + "\n" for odd in odd_lines.replace("\n", "|").split("|")]),
    st.text(max_size=8),
)
bodies = st.lists(pieces, max_size=8).map("".join)


def outcome(reader: Reader, body: str, form: Format) -> object:
    try:
        found = reader.read(body.encode(errors="replace"), form)
    except Unreadable as error:
        return str(error)
    return told(reader, found), found.problems, found.refused


@settings(max_examples=50)
@given(st.lists(bodies, min_size=2, max_size=5), st.sampled_from(Format))
@example(["a 1\n", 'a {b="c"} 1\n', 'a {b="c"}1\n'], TEXT)
@example(["a  1\n", "a 1 2\n", "a 1 # {} 1\n"], OPENMETRICS)
def test_whatever_came_before_a_body_is_read_as_if_it_were_the_first(some, form):
    reader = Reader()
    for body in some:
        assert outcome(reader, body, form) == outcome(Reader(), body, form)


@given(st.binary(max_size=300) | bodies.map(str.encode), st.sampled_from(Format))
def test_whatever_is_sent_each_line_is_a_sample_a_comment_or_a_problem(body, form):
    reader = Reader()
    try:
        found = reader.read(body, form)
    except Unreadable:
        assert form is OPENMETRICS
        return
    lines = [text.lstrip(b" \t") for text in body.split(b"\n")]
    rest = [text for text in lines if text.strip(b" \t\r") and not text.startswith(b"#")]
    assert len(found) + found.refused == len(rest)
    assert all("__name__" in reader.labels(number) for number in found.numbers.tolist())
    assert all(problem.why and 1 <= problem.line <= len(lines) for problem in found.problems)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"a", "it has no value"),
        (b"a x", "'x' is no number"),
        (b"a 1_000", "'1_000' is no number"),
        (b"a 1 soon", "'soon' is no number"),
        (b"a 1 99999999999999999999", "is no time"),
        (b"a 1 1.5", "'1.5' is no time"),
        (b"a 1 2 3", "'3' follows its value and time"),
        (b'a{b="c" 1', "no label can be read"),
        (b"a{b=c} 1", "no label can be read"),
        (b'a{b="c",b="d"} 1', "the label b twice"),
        (b'{b="c"} 1', "no metric name"),
        (b'{"a","b"} 1', "two names"),
        (b'a{__name__="b"} 1', "two names"),
        (b"a.b 1", "'.' cannot stand in a name without quotes"),
        (b"\xff 1", "its byte 1 is not UTF-8"),
        (b'a{b="' + 200_000 * b"x" + b'"} 1', "longer than 131072 bytes"),
        (b"a" * 1_000_000, "longer than 131072 bytes"),
        (b"a{" + b",".join(b'l%d="v"' % i for i in range(100_000)) + b"} 1", "longer than 131072 bytes"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_kept(bad, why):
    reader = Reader()
    found = reader.read(b"# TYPE good gauge\ngood 1\n" + bad + b'\ngood{b="c"} 2 1000\n')
    assert [labels for labels, _, _ in told(reader, found)] == [{"__name__": "good"}, {"__name__": "good", "b": "c"}]
    assert [problem.line for problem in found.problems] == [3]
    assert why in found.problems[0].why
    assert len(str(found.problems[0])) < 300


def test_names_in_quotes_may_be_any_text():
    assert read('{"http.requests", "server name"="a"} 1\n') == [
        ({"__name__": "http.requests", "server name": "a"}, struct.pack("<d", 1.0), None)
    ]


def test_openmetrics_that_does_not_end_may_have_been_cut_off_and_is_refused_whole():
    for body in (b"", b"a 1\n", b"a 1\n# EO", b"# EOF\na 1\n"):
        with pytest.raises(Unreadable, match="does not end in"):
            Reader().read(body, OPENMETRICS)
    with pytest.raises(Unreadable, match="line 1"):
        Reader().read(b"# EOF\na 1\n# EOF\n", OPENMETRICS)


def test_what_is_too_large_is_refused_before_it_is_read(monkeypatch):
    with pytest.raises(Unreadable, match="more than 500000 lines"):
        Reader().read(b"\n" * 600_000)
    with pytest.raises(Unreadable, match="3 samples, and 2 are taken"):
        Reader().read(b"a 1\nb 1\nc 1\n", most=2)
    monkeypatch.setattr(exposition, "MOST_BAD", 3)
    with pytest.raises(Unreadable, match="More than 3 of its lines"):
        Reader().read(b"a\n" * 10)


def test_the_series_that_a_body_is_the_first_to_show_are_told():
    reader = Reader()
    assert list(reader.read(b"a 1\nb 2\n").new) == [0, 1]
    found = reader.read(b"b 2\nc 3 5\na 1\n")
    assert list(found.new) == [2]
    assert found.numbers.tolist() == [1, 2, 0]
    assert [reader.text(number) for number in range(3)] == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ("Application/OpenMetrics-Text", OPENMETRICS),
        ("text/plain; version=0.0.4", TEXT),
        ("", TEXT),
        ("application/json", TEXT),
    ],
)
def test_the_content_type_tells_the_format(content_type, form):
    assert format_of(content_type) is form
