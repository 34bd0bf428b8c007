"""The portal's own PostgreSQL: connections, cache hits, transactions, deadlocks, sizes, time in statements."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

from django.db import DatabaseError, connection, transaction

from apps.core.telemetry import Reading
from apps.metrics.collectors import OWN, Collector

STATES = (
    "active",
    "idle",
    "idle in transaction",
    "idle in transaction (aborted)",
    "fastpath function call",
    "disabled",
)
TIMEOUT = "3s"
Row = Sequence[Any]

ACTIVITY = """
    SELECT coalesce(datname, ''), coalesce(state, 'unknown'), count(*),
           coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)
      FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1, 2
"""
DATABASE_COLUMNS = """
    SELECT datname, xact_commit, xact_rollback, blks_read, blks_hit, deadlocks, temp_bytes, conflicts,
           tup_returned, tup_fetched, tup_inserted, tup_updated, tup_deleted, numbackends, stats_reset
      FROM pg_stat_database
"""
DATABASES = f"{DATABASE_COLUMNS} WHERE datname = current_database()"
LOCKS = """
    SELECT mode, count(*) FROM pg_locks
     WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database()) GROUP BY 1
"""
LIMITS = """
    SELECT current_setting('max_connections')::int, pg_database_size(current_database()),
           extract(epoch FROM pg_postmaster_start_time()), current_setting('server_version'), current_database()
"""
STATEMENTS = """
    SELECT sum(calls), sum(total_exec_time) / 1000, sum(rows)
      FROM pg_stat_statements(false)
     WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
COLUMNS: tuple[tuple[str, Literal["counter", "gauge"], str], ...] = (
    ("xact_commit", "counter", "Transactions committed."),
    ("xact_rollback", "counter", "Transactions rolled back."),
    ("blks_read", "counter", "Blocks that were not in PostgreSQL's cache."),
    ("blks_hit", "counter", "Blocks found in PostgreSQL's cache."),
    ("deadlocks", "counter", "Deadlocks detected."),
    ("temp_bytes", "counter", "Bytes written to temporary files."),
    ("conflicts", "counter", "Queries cancelled by conflicts with recovery."),
    ("tup_returned", "counter", "Rows read by scans."),
    ("tup_fetched", "counter", "Rows fetched for queries."),
    ("tup_inserted", "counter", "Rows inserted."),
    ("tup_updated", "counter", "Rows updated."),
    ("tup_deleted", "counter", "Rows deleted."),
    ("numbackends", "gauge", "Connections to the database."),
)
"""Columns of pg_stat_database after its name, under postgres_exporter's names."""


class PostgreSQL(Collector):
    """The database that the portal itself lives in, through its own connection."""

    kind = "postgres"
    label = "The portal's PostgreSQL"
    job = OWN

    def collect(self) -> list[Reading]:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = '{TIMEOUT}'")

            def rows(sql: str) -> list[Row]:
                cursor.execute(sql)
                return list(cursor.fetchall())

            limits = rows(LIMITS)[0]
            found = [
                *server(limits),
                *activity(rows(ACTIVITY), limits[4]),
                *database(rows(DATABASES)[0]),
                *locks(rows(LOCKS), limits[4]),
            ]
            # The function exists only where somebody created the extension in this database, and works only where the
            # server preloads its library; what it preloads is not for everyone to see, so the attempt decides.
            if rows("SELECT to_regproc('pg_stat_statements') IS NOT NULL")[0][0]:
                with contextlib.suppress(DatabaseError), transaction.atomic():
                    found += statements(rows(STATEMENTS)[0], limits[4])
        return found


def server(row: Row) -> Iterator[Reading]:
    """`row`: maximum of connections, bytes of the database, start (epoch), version, database."""
    maximum, size, started, version, name = row
    yield Reading("pg_up", 1.0, help="Whether PostgreSQL answered.")
    yield Reading("pg_settings_max_connections", float(maximum), help="Connections that the server accepts.")
    yield Reading("pg_database_size_bytes", float(size), {"datname": name}, help="Size of the database on disk.")
    yield Reading("pg_postmaster_start_time_seconds", float(started), help="When the server was started.")
    yield Reading("pg_static", 1.0, {"short_version": version.split()[0]}, help="Version of the server.")


def activity(rows: Sequence[Row], own: str) -> Iterator[Reading]:
    """`rows`: database, state, connections, age of the oldest transaction (s). Every state of our database shows."""
    ages = {(name, state): float(age) for name, state, _, age in rows}
    counts = {(own, state): 0.0 for state in STATES} | {(name, state): float(n) for name, state, n, _ in rows}
    for (name, state), count in counts.items():
        labels = {"datname": name, "state": state}
        yield Reading("pg_stat_activity_count", count, labels, help="Connections by state.")
        help_text = "Age of the oldest transaction in this state, in seconds."
        yield Reading("pg_stat_activity_max_tx_duration", ages.get((name, state), 0.0), labels, help=help_text)


def database(row: Row) -> Iterator[Reading]:
    """`row`: as DATABASES selects."""
    name, *values, reset = row
    labels = {"datname": name}
    for (column, kind, help_text), value in zip(COLUMNS, values, strict=True):
        yield Reading(f"pg_stat_database_{column}", float(value), labels, kind, help_text)
    if isinstance(reset, datetime):
        help_text = "When the counters were last set to zero."
        yield Reading("pg_stat_database_stats_reset", reset.timestamp(), labels, "counter", help_text)


def locks(rows: Sequence[Row], name: str) -> Iterator[Reading]:
    """`rows`: mode, count; modes as postgres_exporter writes them."""
    for mode, count in rows:
        labels = {"datname": name, "mode": mode.lower()}
        yield Reading("pg_locks_count", float(count), labels, help="Locks held or awaited, by mode.")


def statements(row: Row, name: str) -> Iterator[Reading]:
    """`row`: calls, seconds, rows over all statements of the database (None while there are none)."""
    labels = {"datname": name}
    calls, seconds, rows = (float(value or 0) for value in row)
    yield Reading("pg_stat_statements_calls_total", calls, labels, "counter", "Statements executed.")
    yield Reading("pg_stat_statements_seconds_total", seconds, labels, "counter", "Seconds spent executing them.")
    yield Reading("pg_stat_statements_rows_total", rows, labels, "counter", "Rows they returned or changed.")
