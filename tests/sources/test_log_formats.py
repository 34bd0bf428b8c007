"""What senders' bodies hold becomes records; what is secret or a person's is blacked out; columns lose nothing."""

import struct
from datetime import UTC, datetime

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.metrics.codec import Corrupt
from apps.metrics.protocols.protobuf import Malformed, encoded
from apps.sources.logs import columns, formats, templates
from apps.sources.logs.columns import Run
from apps.sources.logs.formats import Defaults, labels_in, of_line
from apps.sources.logs.masking import masked, masked_attributes
from apps.sources.logs.records import LONGEST_MESSAGE, Level, level_of, moment_of, record_of

NOW = int(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp() * 1000)
HERE = Defaults(NOW, "web", "h1")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


def message(number: int, body: bytes) -> bytes:
    return encoded(number << 3 | 2) + encoded(len(body)) + body


# --- Fields --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("told", "level"),
    [
        ("WARN", "warning"), ("fatal", "critical"), (40, "error"), ("30", "warning"), (3, "error"), (7, "debug"),
        ("notice", "info"), (20, "info"), (5, "info"), ("odd", None), (True, None), (None, None), (float("nan"), None),
    ],
)  # fmt: skip
def test_a_level_is_read_as_libraries_write_it(told, level):
    assert level_of(told) == level


@pytest.mark.parametrize(
    "told",
    [
        "2026-11-01T12:00:00Z", "2026-11-01 12:00:00,000", "2026-11-01T13:00:00.000000000+01:00", NOW, NOW / 1000,
        str(NOW * 1_000_000), NOW * 1000,
    ],
)  # fmt: skip
def test_a_time_is_read_in_every_unit(told):
    assert moment_of(told) == NOW


@pytest.mark.parametrize("told", ["yesterday", "", None, -5, float("inf"), True, [], 10**30])
def test_a_time_that_is_none_is_not_guessed(told):
    assert moment_of(told) is None


def test_hostile_texts_are_cut_and_cleaned():
    made = record_of(
        at=NOW, level="info", service="a\nb\0" + "x" * 300, host="\ud800", message="m\0\x1b[2J" + "x" * 99_999,
        attributes=[("k" * 200, {"deep": {"er": [1, "\0"]}}), *((f"n{n}", n) for n in range(99))],
    )  # fmt: skip
    assert len(made.message) == LONGEST_MESSAGE
    assert "\0" not in made.message + made.service + made.attributes
    assert len(made.service) <= 100
    assert "\n" not in made.service
    assert len(orjson.loads(made.attributes)) == 50


PINO = {"level": 30, "time": NOW, "pid": 9545, "hostname": "vm", "msg": "x"}
SYSLOG_NG = {"PROGRAM": "su", "PRIORITY": "crit", "PID": "12", "MESSAGE": "failed", "HOST": "db1", "FACILITY": "auth",
             "ISODATE": "2026-11-01T12:00:00+00:00"}  # fmt: skip
JOURNALD = {"__REALTIME_TIMESTAMP": str(NOW * 1000), "_HOSTNAME": "vm", "PRIORITY": "3", "MESSAGE": "oops",
            "SYSLOG_IDENTIFIER": "kernel", "_PID": "1"}  # fmt: skip
GELF = {"version": "1.1", "host": "vm", "short_message": "oops", "timestamp": NOW / 1000, "level": 4, "_user": "7"}


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (PINO, ("info", "web", "vm", "x", {"pid": "9545"})),
        (PINO | {"level": 50}, ("error", "web", "vm", "x", {"pid": "9545"})),
        (SYSLOG_NG, ("critical", "su", "db1", "failed", {"PID": "12", "FACILITY": "auth"})),
        (JOURNALD, ("error", "kernel", "vm", "oops", {"_PID": "1"})),
        (GELF, ("warning", "web", "vm", "oops", {"_user": "7", "version": "1.1"})),
    ],
    ids=["pino info", "pino error", "syslog-ng", "journald", "gelf"],
)
def test_what_agents_write_is_read_under_their_own_names(told, read):
    (found,) = formats.read_json(orjson.dumps(told), HERE).records
    assert (found.level, found.service, found.host, found.message, orjson.loads(found.attributes)) == read
    assert found.at == NOW


def test_a_level_that_a_stream_names_stays_where_its_lines_are_pinos():
    line = orjson.dumps(PINO | {"level": 40}).decode()
    body = {"streams": [{"stream": {"application": "shop", "level": "warning"}, "values": [[str(NOW * 10**6), line]]}]}
    (found,) = formats.read_loki_json(orjson.dumps(body)).records
    assert (found.level, found.service) == ("warning", "shop")


# --- The portal's own ----------------------------------------------------------------------------------------------
def test_json_is_read_under_the_names_that_libraries_use():
    body = orjson.dumps(
        [
            {"@timestamp": "2026-11-01T12:00:00Z", "log.level": "error", "service.name": "pay", "msg": "x", "code": 7},
            {"levelname": "WARNING", "message": "y", "extra": {"user": 3}, "hostname": "h2"},
            {"level": "odd", "message": "z"}, {"message": ""}, 5, {"message": "t", "time": "soon"},
        ]
    )  # fmt: skip
    found = formats.read_json(body, HERE)
    assert [(r.level, r.service, r.host, r.message, r.attributes) for r in found.records] == [
        ("error", "pay", "h1", "x", '{"code":"7"}'), ("warning", "web", "h2", "y", '{"user":"3"}'),
        ("info", "web", "h1", "z", '{"level":"odd"}'),
    ]  # fmt: skip
    assert found.refused == [(3, "no_message"), (4, "no_object"), (5, "invalid_time")]
    assert found.places == [0, 1, 2]


def test_one_bad_line_of_ndjson_does_not_cost_the_others():
    found = formats.read_ndjson(b'{"message": "a"}\n\n{bad\n{"message": "b"}\n', HERE)
    assert [r.message for r in found.records] == ["a", "b"]
    assert found.refused == [(1, "malformed")]


def test_a_traceback_belongs_to_the_line_before_it():
    text = (
        "2026-11-01 12:00:00,000 ERROR it broke\nTraceback (most recent call last):\n  File x\nValueError: no\n"
        "[2026-11-01T12:00:01Z] INFO fine\n"
    )
    one, two = formats.read_lines(text.encode(), Defaults(0, "web")).records
    assert one.level == "error"
    assert one.message.endswith("ValueError: no")
    assert one.at == NOW
    assert (two.message, two.at, two.level) == ("INFO fine", NOW + 1000, "info")


def test_records_without_a_time_keep_their_order():
    found = formats.read_lines(b"one\ntwo\n2026-11-01T12:00:00Z three", Defaults(0, "web"))
    found.date(NOW + 5)
    assert [record.at - NOW for record in found.records] == [4, 5, 0]
    many = formats.read_lines(b"x\n" * 5_000, Defaults(0, "web"))
    many.date(NOW)
    times = [record.at for record in many.records]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (NOW - 999, NOW)


def test_a_line_that_is_json_is_read_as_such():
    assert of_line('{"level":"warn","msg":"slow","ms":7}', HERE).attributes == '{"ms":"7"}'
    assert of_line('{"no": "message"}', HERE).message == '{"no": "message"}'


# --- Loki and OTLP -------------------------------------------------------------------------------------------------
def test_loki_is_read_the_same_as_json_and_as_protobuf():
    told = {
        "streams": [
            {
                "stream": {"app": "shop", "level": "warn", "zone": "a"},
                "values": [[str(NOW * 10**6), "slow", {"trace": "t1"}]],
            }
        ]
    }
    stamp = b"\x08" + encoded(NOW // 1000) + b"\x10" + encoded(0)
    entry = message(1, stamp) + message(2, b"slow") + message(3, message(1, b"trace") + message(2, b"t1"))
    packed = message(1, message(1, b'{app="shop", level="warn", zone="a"}') + message(2, entry))
    one, two = formats.read_loki_json(orjson.dumps(told)), formats.read_loki(packed)
    assert one.records == two.records
    assert one.records[0].attributes == '{"trace":"t1","zone":"a"}'
    assert (one.records[0].service, one.records[0].level, one.records[0].at) == ("shop", "warning", NOW)


@pytest.mark.parametrize("text", ["", "{a=1}", '{a="b"', '{="x"}', "a"])
def test_labels_that_cannot_be_read_are_refused(text):
    with pytest.raises(Malformed):
        labels_in(text)


def test_labels_may_be_escaped():
    assert labels_in(r'{a="x\"y\\", b="1",}') == {"a": 'x"y\\', "b": "1"}


def test_otlp_is_read_the_same_as_json_and_as_protobuf():
    text = lambda value: message(1, value)  # noqa: E731
    record = (
        b"\x09" + struct.pack("<Q", NOW * 10**6) + b"\x10\x11" + message(5, text(b"it broke"))
        + message(6, message(1, b"user") + message(2, b"\x18\x07")) + message(9, bytes.fromhex("ab" * 16))
    )  # fmt: skip
    resource = message(1, message(1, b"service.name") + message(2, text(b"pay")))
    packed = message(1, message(1, resource) + message(2, message(1, message(1, b"app.views")) + message(2, record)))
    told = {"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "pay"}}]},
        "scopeLogs": [{"scope": {"name": "app.views"}, "logRecords": [{
            "timeUnixNano": str(NOW * 10**6), "severityNumber": "SEVERITY_NUMBER_ERROR",
            "body": {"stringValue": "it broke"},
            "attributes": [{"key": "user", "value": {"intValue": "7"}}], "traceId": "ab" * 16,
        }]}],
    }]}  # fmt: skip
    one, two = formats.read_otlp(packed).records, formats.read_otlp_json(orjson.dumps(told)).records
    assert one == two
    assert (one[0].service, one[0].level, one[0].at, one[0].message) == ("pay", Level.ERROR, NOW, "it broke")
    assert orjson.loads(one[0].attributes) == {"logger": "app.views", "user": "7", "trace_id": "ab" * 16}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_by_name(body):
    for read in (formats.read_otlp, formats.read_loki):
        try:
            read(body)
        except Malformed:
            continue
    formats.read_lines(body, HERE)
    formats.read_ndjson(body, HERE)


def nested(levels: int) -> bytes:
    return b'{"message":"m","a":' + b"[" * levels + b"]" * levels + b"}"


def test_what_is_nested_too_deeply_to_be_written_costs_no_request():
    found = formats.read_ndjson(nested(900) + b"\n" + nested(2), HERE)
    assert [orjson.loads(each.attributes)["a"] for each in found.records] == ["[nested too deeply]", "[[]]"]


def test_what_records_share_is_cut_before_it_is_copied_and_a_request_holds_only_so_much(monkeypatch):
    stream = {f"l{number}": "x" * 5_000 for number in range(60)}
    body = orjson.dumps({"streams": [{"stream": stream, "values": [[str(NOW), "m"]] * 30}]})
    otlp = {"attributes": [{"key": name, "value": {"stringValue": text}} for name, text in stream.items()]}
    logs = orjson.dumps({"resourceLogs": [{"resource": otlp, "scopeLogs": [
        {"logRecords": [{"timeUnixNano": str(NOW * 1_000_000), "body": {"stringValue": "m"}}] * 30}]}]})  # fmt: skip
    monkeypatch.setattr(formats, "MOST_CHARACTERS", 500_000)
    for found in (formats.read_loki_json(body), formats.read_otlp_json(logs)):
        assert found.seen == 30
        assert {reason for _, reason in found.refused} == {"too_many_records"}
        assert 5 < len(found.records) < 15
        assert {len(orjson.loads(each.attributes)) for each in found.records} == {50}
    assert {len(value) for value in formats._of_labels(stream)[1].values()} == {1_000}


# --- Masks ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mail to ada.l@example.org now", "mail to [email] now"), ("password=hunter2 ok", "password=[secret] ok"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [secret]"), ("postgres://u:pw@db/x", "postgres://[secret]@db/x"),
        ("card 4111 1111 1111 1111 used", "card [card] used"), ("order 4111111111111112", "order 4111111111111112"),
        ("took 12 tokens", "took 12 tokens"), ("token expired", "token expired"), ("AKIAABCDEFGHIJKLMNOP", "[secret]"),
        ('{"api_key": "x y", "a": 1}', '{"api_key": [secret], "a": 1}'),
    ],
)  # fmt: skip
def test_what_looks_secret_or_personal_is_blacked_out(text, shown):
    assert masked(text) == shown


@pytest.mark.parametrize("text", ["eyJ-", "a-", "token-", "a.", "1 ", "-_", "eyJaaaaaaaa."])
def test_no_text_makes_a_pattern_try_again_and_again(text):
    """Patterns that go back over what they took need hours for these, and the test never ends."""
    for closed in (text * 50_000, text * 50_000 + "=@"):
        assert masked(closed)
        assert templates.masked(closed)


def test_attributes_stay_json():
    assert orjson.loads(masked_attributes('{"db_password":"a\\"b","x":"a@b.de"}')) == {
        "db_password": "[secret]",
        "x": "[email]",
    }


# --- Columns -------------------------------------------------------------------------------------------------------
RECORDS = st.lists(st.tuples(st.integers(0, 2**45), st.integers(1, 9), TEXTS, TEXTS, TEXTS), min_size=1, max_size=30)


def run_of(rows: list[tuple[int, int, str, str, str]]) -> Run:
    at, template, host, text, attributes = zip(*rows, strict=True)
    return Run(np.array(at), np.array(template), host, text, attributes)


def rows_of(run: Run) -> list[tuple[int, int, str, str, str]]:
    return sorted(zip(run.at.tolist(), run.template.tolist(), run.host, run.message, run.attributes, strict=True))


@given(RECORDS)
@settings(max_examples=60)
def test_columns_lose_nothing(rows):
    assert rows_of(columns.decode(columns.encode(run_of(rows)))) == sorted(rows)
    tally = columns.tally_of(run_of(rows))
    again = columns.decode_tally(columns.encode_tally(tally))
    assert again.count.sum() == len(rows)
    assert again.slot.tolist() == tally.slot.tolist()


@given(RECORDS, st.data())
@settings(max_examples=60)
def test_a_flipped_byte_is_found(rows, data):
    payload = bytearray(columns.encode(run_of(rows)))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Corrupt):
        columns.decode(bytes(payload))
