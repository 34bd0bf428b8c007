"""Log records come in whole, are found again, narrowed by who asks, packed, and go when their time is over."""

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from django.core.exceptions import ValidationError
from django.db import connections
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Principal, Quota, Scope
from apps.accounts.rights import ROLES, Forbidden, Right
from apps.core.lanes import Request
from apps.core.logbook import Logbook
from apps.metrics.intake import REFUSED
from apps.metrics.models import RetentionPolicy
from apps.metrics.services import StoreFull
from apps.sources.logs import api, columns, learning, own, search, services, upkeep
from apps.sources.logs.records import Record
from apps.sources.logs.search import BadSearch, Cursor, Wanted
from apps.sources.models import LogIntake, LogRun, LogShare, LogTemplate
from tests.sources.conftest import ADMIN, NOW

pytestmark = pytest.mark.django_db
MS = int(NOW.timestamp() * 1000)
EVERYTHING = Scope()
AGENT = Principal("token", "7", "agent", frozenset({Right.INGEST}))
LOKI = orjson.dumps({"streams": [{"stream": {"job": "web"}, "values": [[str(MS * 10**6), line] for line in "ab"]}]})
ALWAYS = Wanted(MS - 86_400_000, MS + 600_000)


@pytest.fixture(autouse=True)
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.utils.timezone.now", lambda: NOW)


def record(
    message: str, at: int = 0, *, level: str = "info", service: str = "web", host: str = "h1", attributes: str = ""
) -> Record:
    return Record(MS + at, level, service, host, message, attributes)


def put(*records: Record, by: Principal = AGENT, now: datetime = NOW, **more: Any) -> services.Written:
    return services.ingest(records=records, by=by, now=now, **more)


def messages(wanted: Wanted = ALWAYS, scope: Scope = EVERYTHING, **more: Any) -> list[str]:
    return [line.message for line in search.page(wanted, scope=scope, **more).lines]


def post(
    body: Any, path: str = "/api/v1/portal/logs", by: Principal = AGENT, query: bytes = b"", **headers: str
) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    said = api.LANES[path].serve(by, Request("POST", path, query, raw, pairs))
    return said.status, orjson.loads(said.body) if said.body[:1] == b"{" else said.body


def get(path: str, query: bytes = b"", by: Principal = ADMIN) -> Any:
    return orjson.loads(api.LANES[path].serve(by, Request("GET", path, query)).body)


# --- In and out ----------------------------------------------------------------------------------------------------
def test_what_is_stored_is_found_newest_first():
    assert put(record("one", -2), record("two", -1, attributes='{"a":"b"}')).accepted == 2
    assert messages() == ["two", "one"]
    assert search.page(ALWAYS, scope=EVERYTHING).lines[0].as_dict()["attributes"] == {"a": "b"}


def test_records_are_chosen_by_what_they_have():
    put(record("user 1 in", -9), record("user 2 in", -8, level="error"), record("Bye", -7, service="pay", host="h2"))
    template = LogTemplate.objects.get(level="error").pk
    for wanted, found in (
        ({"service": "pay"}, ["Bye"]), ({"levels": ("error", "debug")}, ["user 2 in"]), ({"text": "bYE"}, ["Bye"]),
        ({"template": template}, ["user 2 in"]), ({"host": "h2"}, ["Bye"]), ({"service": "none"}, []),
    ):  # fmt: skip
        assert messages(Wanted(ALWAYS.start, ALWAYS.end, **wanted)) == found
    assert messages(Wanted(MS - 8, MS - 7)) == ["user 2 in"]


def test_only_what_may_be_is_stored_and_the_rest_is_named():
    written = put(record("ok"), record("late", 700_000), record("old", -15 * 86_400_000))
    assert written.accepted == 1
    assert written.rejected == ((1, "too_far_ahead"), (2, "too_old_log"))


def test_a_sender_speaks_and_a_reader_sees_within_their_labels():
    narrow = Principal("token", "8", "pay", frozenset({Right.INGEST}), Scope((("service", "=", "pay"),)))
    assert put(record("a"), record("b", service="pay"), by=narrow).rejected == ((0, "out_of_scope"),)
    put(record("c"))
    assert messages(scope=narrow.scope) == ["b"]
    assert messages(scope=Scope((("team", "=", "x"),))) == []
    assert search.services(narrow.scope) == ["pay"]
    assert (
        sum(v.sum() for v in search.counts(ALWAYS, scope=narrow.scope, step=timedelta(minutes=1)).levels.values()) == 1
    )


def test_who_may_not_write_is_refused():
    with pytest.raises(Forbidden):
        put(record("x"), by=Principal("user", "3", "vi", ROLES["viewer"]))


def test_a_request_counts_once_under_its_key():
    assert not put(record("once"), key="k").is_repeated
    assert put(record("once"), key="k").is_repeated
    assert put(record("once"), key="k", by=Principal("token", "9", "other", AGENT.rights)).accepted == 1
    assert messages() == ["once", "once"]


def test_a_parcel_that_is_sent_again_counts_once():
    parcel = {"key": "k1", "records": [{"message": "one"}, {"message": "two"}]}
    assert post(parcel)[1]["accepted"] == 2
    assert post(parcel)[1] == {"success": True, "accepted": 2, "refused": 0, "repeated": True}
    assert len(messages()) == 2


def test_secrets_are_blacked_out_unless_that_is_switched_off():
    put(record("password=x1", attributes='{"token":"x2"}'))
    services.save_log_intake(by=ADMIN, settings=LogIntake(pk=1, masks=False))
    services.forget()
    put(record("password=x3", 1))
    assert messages() == ["password=x3", "password=[secret]"]


def test_a_full_day_is_over_until_midnight():
    LogIntake.objects.create(pk=1, records_per_day=1_000)
    services.forget()
    put(*(record(f"n {n}") for n in range(1_000)))
    services.forget()
    status, said = post([{"message": "one more"}])
    assert status == 429
    assert "1000 log records came today" in said["error"]


def test_a_token_that_has_brought_its_share_leaves_the_rest_of_the_day_to_others():
    LogIntake.objects.create(pk=1, records_per_day=10_000, per_token=1_000)
    services.forget()
    put(*(record(f"n {n}") for n in range(999)))
    services.forget()
    before = REFUSED.value(protocol="loki", token="agent", reason="log_share")
    said = api.LANES["/loki/api/v1/push"].serve(
        AGENT, Request("POST", "/loki/api/v1/push", b"", LOKI, [(b"content-type", b"application/json")])
    )
    assert (said.status, b"as many as a token may" in said.body) == (429, True)
    assert dict(said.headers)[b"retry-after"] == b"3600"
    assert REFUSED.value(protocol="loki", token="agent", reason="log_share") == before + 1
    assert put(record("the last")).accepted == 1
    assert put(record("another's"), by=Principal("token", "9", "other", AGENT.rights)).accepted == 1
    assert put(record("of a person"), by=Principal("user", "9", "ann", AGENT.rights)).accepted == 1
    shares = LogShare.objects.values_list("sender", "records")
    assert dict(shares) == {"token 7": 1_000, "token 9": 1, "user 9": 1}
    services.forget()
    assert put(record("a day later"), now=NOW + timedelta(days=1)).accepted == 1
    upkeep.expire(now=NOW + timedelta(days=40))
    assert not LogShare.objects.filter(day=NOW.date()).exists()


def test_a_full_disk_is_said(monkeypatch):
    def full() -> None:
        raise StoreFull("The disk is full.")

    monkeypatch.setattr(services, "ensure_space", full)
    assert post({"message": "x"})[0] == 503


def test_services_are_bounded(monkeypatch):
    monkeypatch.setattr(learning, "MOST_SERVICES", 1)
    assert put(record("a")).accepted == 1
    assert put(record("a", service="more")).rejected == ((0, "service_limit"),)


def test_a_request_that_names_thousands_of_services_asks_once_which_are_too_many(
    monkeypatch, django_assert_max_num_queries
):
    put(record("a"))
    monkeypatch.setattr(learning, "MOST_SERVICES", 2)
    learning.forget()
    with django_assert_max_num_queries(40):
        written = put(*(record("a", service=f"s{number}") for number in range(300)), record("a"))
    assert written.accepted == 2


# --- Doors ---------------------------------------------------------------------------------------------------------
def test_the_portals_own_door_takes_json_ndjson_and_lines():
    assert post({"message": "one"}) == (200, {"success": True, "accepted": 1, "refused": 0})
    assert post(b'{"message": "a"}\n{"message": "b"}', content_type="application/x-ndjson")[1]["accepted"] == 2
    assert post(b"ERROR it broke\n  at x", query=b"service=shop", content_type="text/plain")[1]["accepted"] == 1
    assert LogTemplate.objects.filter(service="shop", level="error").exists()


def test_partial_success_is_told_exactly():
    status, said = post([{"message": "x"}, {"message": ""}, {"message": "y", "time": "2099-01-01T00:00:00Z"}])
    assert (status, said["accepted"], said["refused"]) == (200, 1, 2)
    assert [row["index"] for row in said["rejected"]] == [1, 2]
    status, said = post([{"message": ""}])
    assert status == 400
    assert "1: the log record has no message" in said["error"]


@pytest.mark.parametrize(("body", "headers", "status"), [
    (b"", {}, 400), (b"[{]", {"content_type": "application/json"}, 400),
    (b"7", {"content_type": "application/json"}, 400),
    (b"x", {"content_encoding": "br"}, 415), (b"x", {"content_encoding": "gzip"}, 400),
    ({"message": "x"}, {"idempotency_key": "k" * 201}, 400),
])  # fmt: skip
def test_what_cannot_be_read_is_refused_whole(body, headers, status):
    assert post(body, **headers)[0] == status
    assert not LogRun.objects.exists()


def test_a_token_that_sends_too_much_is_asked_to_wait():
    slow = Principal("token", "10", "slow", AGENT.rights, quota=Quota(samples_per_second=1))
    post([{"message": "x"}] * 50, by=slow)
    assert post({"message": "x"}, by=slow)[0] == 429


def test_loki_and_otlp_answer_in_their_own_words():
    old = str((MS - 20 * 86_400_000) * 10**6)
    streams = {"streams": [{"stream": {"app": "s"}, "values": [[str(MS * 10**6), "a"], [old, "b"]]}]}
    status, said = post(streams, "/loki/api/v1/push", content_type="application/json")
    assert status == 400
    assert "1 log records were stored, 1 refused" in said["message"]
    assert post({"streams": []}, "/loki/api/v1/push", content_type="application/json")[0] == 204
    told = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "c"}}, {}]}]}]}
    status, said = post(told, "/v1/logs", content_type="application/json")
    assert said["partialSuccess"]["rejectedLogRecords"] == "1"
    assert post(b"", "/v1/logs", content_type="application/x-protobuf") == (200, b"")
    assert post(b"x", "/v1/logs", content_type="text/plain")[0] == 415
    assert sorted(messages()) == ["a", "c"]


def test_logs_are_read_by_token_page_by_page():
    put(*(record(f"n {n}", -n // 2) for n in range(10)))
    seen, cursor = [], ""
    while True:
        page = get("/api/v1/portal/logs", b"limit=3&cursor=" + cursor.encode())
        seen += [row["message"] for row in page["logs"]]
        if (cursor := page["cursor"] or "") == "":
            break
    assert sorted(seen) == sorted(f"n {n}" for n in range(10))
    found = get("/api/v1/portal/logs/templates")
    assert (found["total"], found["templates"][0]["pattern"], found["templates"][0]["new"]) == (10, "n <num>", False)
    put(record("never seen before", -1))
    old, new = get("/api/v1/portal/logs/templates", b"since=%d" % (MS - 3))["templates"]
    assert (old["new"], new["new"]) == (False, True)
    counted = get("/api/v1/portal/logs/counts", b"step=3600")
    assert sum(counted["counts"]["info"]) == 11


def test_a_cursor_that_was_made_up_makes_no_search_keep_more_than_a_page(monkeypatch):
    for burst in range(3):
        put(*(record(f"n {n}", -100 * burst - n) for n in range(20)))
    kept = []
    order = search._order

    def noted(row: Any) -> Any:
        kept.append(row)
        return order(row)

    monkeypatch.setattr(search, "_order", noted)
    found = search.page(ALWAYS, scope=EVERYTHING, limit=2, cursor=Cursor(MS, 10**12))
    assert [line.message for line in found.lines] == ["n 1", "n 2"]
    assert len(kept) < 12


@pytest.mark.parametrize("wanted", [{"levels": ("loud",)}, {"text": "x" * 201}, {"end": 0}, {"service": "\0"}])
def test_what_cannot_be_looked_for_is_refused(wanted):
    with pytest.raises(BadSearch):
        Wanted(**{"start": 1, "end": 2, **wanted}).checked()
    with pytest.raises(BadSearch):
        Cursor.read("x.y")


# --- Templates -----------------------------------------------------------------------------------------------------
def test_ids_of_templates_outlive_the_process():
    put(record("user ada logged in"))
    before = LogTemplate.objects.get()
    learning.forget()
    put(record("user bob logged in"))
    after = LogTemplate.objects.get()
    assert (before.pk, after.pattern) == (after.pk, "user <*> logged in")


def test_a_process_that_knows_an_older_pattern_agrees_with_the_rows():
    put(record("a b c d"))
    with learning._lock:
        stale = dict(learning._groups)
    learning.forget()
    put(record("a b c e"))
    learning._groups.update(stale)
    put(record("a b c f"), record("a b c d"))
    assert LogTemplate.objects.get().pattern == "a b c <*>"


# --- Packing and going ---------------------------------------------------------------------------------------------
@given(
    st.lists(st.tuples(st.integers(-7_200_000, 0), st.sampled_from("ab")), min_size=1, max_size=25), st.integers(1, 4)
)
@settings(max_examples=15)
def test_packing_changes_nothing_that_is_seen(rows, limit):
    LogRun.objects.all().delete()
    for at, text in rows:
        put(record(text, at))
    counted = search.counts(ALWAYS, scope=EVERYTHING, step=timedelta(minutes=10)).levels["info"].tolist()
    first = search.page(ALWAYS, scope=EVERYTHING, limit=limit)
    late = NOW + timedelta(minutes=6)
    while upkeep.pack(now=late):
        pass
    assert not LogRun.objects.filter(is_young=True).exists()
    lines, cursor = list(first.lines), first.cursor
    while cursor is not None:
        page = search.page(ALWAYS, scope=EVERYTHING, limit=limit, cursor=cursor)
        lines += page.lines
        cursor = page.cursor
    assert sorted((line.at - MS, line.message) for line in lines) == sorted(rows)
    assert [line.at for line in lines] == sorted((MS + at for at, _ in rows), reverse=True)
    assert search.counts(ALWAYS, scope=EVERYTHING, step=timedelta(minutes=10)).levels["info"].tolist() == counted


def test_long_records_are_packed_in_smaller_portions(monkeypatch):
    monkeypatch.setattr(upkeep, "READ_CHARACTERS", 300)
    for number in range(5):
        put(record("x" * 200, -number))
    assert [upkeep.pack(now=NOW + timedelta(minutes=6)) for _ in range(4)] == [2, 2, 1, 0]
    assert len(messages()) == 5


def test_packing_tells_templates_what_they_hold():
    put(record("n 1", -50), record("n 2", -10))
    upkeep.tend(now=NOW + timedelta(minutes=6))
    row = LogTemplate.objects.get()
    assert (row.records, int(row.first_at.timestamp() * 1000), int(row.last_at.timestamp() * 1000)) == (
        2,
        MS - 50,
        MS - 10,
    )


def test_what_is_older_than_its_policy_goes_with_a_proof():
    RetentionPolicy.objects.update_or_create(category="logs", defaults={"raw": timedelta(days=1)})
    put(record("old", -23 * 3_600_000), record("new"))
    upkeep.expire(now=NOW + timedelta(hours=2))
    assert messages() == ["new"]
    assert AuditEntry.objects.get(verb="sources.expire_logs", after__records=1)


def test_beyond_their_bytes_the_oldest_go_first():
    put(record("old", -3_600_000))
    put(record("new"))
    LogIntake.objects.create(pk=1)
    LogRun.objects.update(stored=6_000_000)
    LogIntake.objects.update(stored_bytes=10_000_000)
    upkeep.expire(now=NOW)
    assert messages() == ["new"]


def test_a_damaged_run_is_set_aside_and_the_rest_is_found():
    put(record("bad", -10))
    LogRun.objects.update(payload=b"\1\x10\0\0abcdefgh")
    put(record("good"))
    assert messages() == ["good"]
    assert search.page(ALWAYS, scope=EVERYTHING).damaged == 1
    upkeep.pack(now=NOW + timedelta(minutes=6))
    assert LogRun.objects.filter(bad_at__isnull=False).count() == 1


def test_a_search_that_gives_up_says_how_far_it_came(monkeypatch):
    for hour in range(4):
        put(record("x", -hour * 3_600_000), record("y", -hour * 3_600_000 - 1))
    monkeypatch.setattr(search, "MOST_LOOKED", 4)
    found = search.page(Wanted(ALWAYS.start, ALWAYS.end, text="x"), scope=EVERYTHING)
    assert (len(found.lines), found.is_partial) == (2, True)
    rest = search.page(Wanted(ALWAYS.start, ALWAYS.end, text="x"), scope=EVERYTHING, cursor=found.cursor)
    assert len(rest.lines) == 2


def test_counts_of_a_text_are_counted_by_looking():
    put(record("one", -60_000), record("two", -1))
    found = search.counts(Wanted(MS - 120_000, MS, text="one"), scope=EVERYTHING, step=timedelta(minutes=1))
    assert found.levels["info"].tolist() == [0, 1]


def test_settings_have_limits():
    with pytest.raises(ValidationError):
        services.save_log_intake(by=ADMIN, settings=LogIntake(pk=1, records_per_day=5))
    assert columns.QUICK < columns.THOROUGH


# --- The portal's own ----------------------------------------------------------------------------------------------
def test_the_portals_own_warnings_are_kept_and_storing_them_makes_no_more(monkeypatch):
    book = Logbook("portal", level=logging.WARNING, avoid=own.AVOID)
    thread = own._Thread(book)
    book.quiet.is_on = True  # as in the thread that stores
    logger = logging.getLogger("apps.metrics.compaction")
    logger.addHandler(book)
    logging.getLogger("apps.sources.logs.search").addHandler(book)
    logger.warning("made while storing")
    book.quiet.is_on = False
    logger.info("not bad enough")
    logger.warning("window 7 is late")
    logging.getLogger("apps.sources.logs.search").error("about logs")
    monkeypatch.setattr("django.db.connections.close_all", lambda: None)
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime.now(UTC))
    thread.store()
    monkeypatch.setattr(services, "ensure_space", lambda: 1 / 0)
    logger.error("the database is away")
    thread.store()
    for name in ("apps.metrics.compaction", "apps.sources.logs.search"):
        logging.getLogger(name).removeHandler(book)
    found = search.page(Wanted(0, 2**42), scope=EVERYTHING)
    assert [(line.service, line.message) for line in found.lines] == [("portal", "window 7 is late")]
    assert not book.waiting


def test_what_json_cannot_hold_does_not_take_its_other_records_with_it(monkeypatch):
    book = Logbook("portal")
    for text, size in (("no file caf\udce9", 10**30), ("the next one", 1)):
        book.emit(
            logging.makeLogRecord({"name": "shop", "msg": text, "levelno": 40, "levelname": "ERROR", "size": size})
        )
    monkeypatch.setattr("django.db.connections.close_all", lambda: None)
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime.now(UTC))
    own._Thread(book).store()
    found = search.page(Wanted(0, 2**42), scope=EVERYTHING)
    assert {line.message for line in found.lines} == {"no file caf?", "the next one"}


def test_it_begins_once_and_ends(monkeypatch):
    monkeypatch.setattr(own._Thread, "store", lambda self: None)
    before = list(logging.getLogger().handlers)
    own.start("web")
    own.start("web")
    assert len(logging.getLogger().handlers) == len(before) + 1
    own.stop()
    assert logging.getLogger().handlers == before


# --- Several at once -----------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_processes_that_learn_at_once_come_to_the_same_templates_and_a_key_counts_once():
    def send(number: int) -> int:
        try:
            learning.forget()  # as another process, which has learned nothing yet
            records = [record(f"user {name * (number + 1)} logged in", n) for n, name in enumerate("abcde")]
            put(record("once"), key="same")
            return put(*records).accepted
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(send, range(8))) == 40
    assert sorted(LogTemplate.objects.values_list("pattern", flat=True)) == ["once", "user <*> logged in"]
    assert messages(limit=100).count("once") == 1
    while upkeep.pack(now=NOW + timedelta(minutes=6)):
        pass
    assert dict(LogTemplate.objects.values_list("pattern", "records")) == {"once": 1, "user <*> logged in": 40}
