"""Statements end when their query's time is up, and no other statement does."""

import os

import psycopg
import pytest

from apps.metrics import storage
from apps.metrics.deadlines import Deadlines

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_statement_ends_when_the_time_is_up_and_the_connection_goes_on():
    deadlines = Deadlines()
    with storage.cursor() as cur:
        with pytest.raises(psycopg.errors.QueryCanceled), deadlines.within(cur.connection, 0.05) as watched:
            cur.execute("SELECT pg_sleep(60)")
        assert watched.late
        assert cur.execute("SELECT 1").fetchone() == (1,)


def test_what_was_in_time_is_left_alone_while_a_later_one_ends():
    deadlines = Deadlines()
    with storage.cursor() as cur:
        with deadlines.within(cur.connection, 0.1) as quick:
            assert cur.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.errors.QueryCanceled), deadlines.within(cur.connection, 0.3):
            cur.execute("SELECT pg_sleep(60)")
        assert not quick.late


def test_an_earlier_deadline_is_not_kept_waiting_by_a_later_one():
    deadlines = Deadlines()
    with storage.cursor() as cur, deadlines.within(cur.connection, 3600):
        with pytest.raises(psycopg.errors.QueryCanceled), deadlines.within(cur.connection, 0.05):
            cur.execute("SELECT pg_sleep(60)")
        assert cur.execute("SELECT 1").fetchone() == (1,)


def test_a_forked_process_has_a_thread_of_its_own():
    deadlines = Deadlines()
    with storage.cursor() as cur, deadlines.within(cur.connection, 3600):
        child = os.fork()
        if not child:
            os._exit(0 if deadlines._thread is None else 1)
        assert os.waitpid(child, 0)[1] == 0
