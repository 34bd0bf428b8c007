"""Connections of the fast lane: looked at instead of asked, kept by few threads, and never used once they are dead."""

import threading

import psycopg
import pytest
from django.db import connection, connections

from monitoring_portal.postgresql.base import look
from monitoring_portal.postgresql.kept import Kept

pytestmark = pytest.mark.django_db(transaction=True)


def in_thread(work):
    """What `work` gives in a thread of its own, whose connection is closed at the end."""
    found = []

    def run():
        try:
            found.append(work())
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def pid():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def end(number):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [number])


def test_a_live_connection_is_only_looked_at_and_a_dead_one_is_told():
    with psycopg.connect(**connection.get_connection_params()) as raw:
        look(raw)
        end(raw.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            look(raw)


def test_a_thread_with_a_seat_keeps_its_connection_and_the_next_thread_has_none():
    kept = Kept(1)

    def three_requests():
        seen = []
        for _ in range(3):
            kept.begin()
            seen.append(pid())
            kept.end()
        return len(set(seen)), connection.connection is not None

    assert in_thread(three_requests) == (1, True)
    assert in_thread(three_requests) == (3, False)


def test_a_kept_connection_that_died_is_replaced_before_it_is_used():
    kept = Kept(1)

    def outlive():
        kept.begin()
        first = pid()
        kept.end()
        in_thread(lambda: end(first))
        kept.begin()
        return first, pid()

    first, second = in_thread(outlive)
    assert first != second


def test_a_connection_within_a_transaction_is_not_kept():
    def leave_open():
        kept = Kept(1)
        kept.begin()
        connection.set_autocommit(False)
        pid()
        kept.end()
        return connection.connection is None

    assert in_thread(leave_open)
