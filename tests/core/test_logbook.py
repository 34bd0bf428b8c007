"""Whoever logs never waits and never fails, whatever happens to what was logged."""

import json
import logging
import os
import sys

import pytest

from apps.core.logbook import DROPPED, Logbook, LogFeed


@pytest.fixture
def book():
    made = Logbook("shop", most=3, avoid=("urllib3",))
    logger = logging.getLogger("test.logbook")
    logger.addHandler(made)
    yield made
    logger.removeHandler(made)


@pytest.fixture
def log():
    return logging.getLogger("test.logbook")


def test_a_record_becomes_a_row_with_what_the_application_gave(book, log):
    log.error("order %d is late", 7, extra={"order": 7, "odd": object()})
    (row,) = book.take(10)
    assert (row["service"], row["level"], row["message"]) == ("shop", "error", "order 7 is late")
    assert row["extra.order"] == 7
    assert "extra.odd" not in row


def test_an_exception_brings_its_trace(book, log):
    try:
        int("x")
    except ValueError:
        log.exception("it broke")
    (row,) = book.take(10)
    assert row["exception"] == "builtins.ValueError"
    assert row["message"].startswith("it broke\nTraceback")


def test_what_does_not_fit_is_dropped_and_counted(book, log):
    before = DROPPED.value()
    for number in range(5):
        log.error("n %d", number)
    assert [row["message"] for row in book.take(2)] == ["n 0", "n 1"]
    assert len(book.take(10)) == 1
    assert DROPPED.value() == before + 2


def test_what_cannot_be_written_does_not_end_the_application(book, log):
    book.handle(logging.LogRecord("x", 40, "", 0, "%d", ("no number",), None))
    book.handle(logging.LogRecord("x", 40, "", 0, "m", (), (None, None, None)))
    assert [row["message"] for row in book.take(10)] == ["m"]


def test_what_sending_logs_is_left_out(book):
    logging.getLogger("urllib3.pool").addHandler(book)
    logging.getLogger("urllib3.pool").error("away")
    logging.getLogger("urllib3.pool").removeHandler(book)
    book.quiet.is_on = True
    logging.getLogger("test.logbook").error("mine")
    assert book.take(10) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_process_begins_with_nothing(book, log):
    log.error("the parent's")
    child = os.fork()
    if child == 0:
        book.forked()
        log.error("the child's")
        os._exit(0 if [row["message"] for row in book.take(9)] == ["the child's"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(book.take(9)) == 1


def test_a_parcel_has_a_key_of_its_own_and_says_what_was_refused(book, log):
    feed = LogFeed(book)
    assert feed.take(last=False) is None
    log.error("one")
    log.warning("two")
    told = json.loads(feed.take(last=False) or b"")
    assert [row["message"] for row in told["records"]] == ["one", "two"]
    assert len(told["key"]) == 32
    assert feed.refused_of(b'{"refused": 2, "rejected": [{"error": "too old"}]}') == "2 log records, too old"
    assert feed.refused_of(b'{"success": true, "refused": 0}') == feed.refused_of(b"<html>") == ""
