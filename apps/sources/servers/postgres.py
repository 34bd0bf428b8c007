"""A PostgreSQL server, primary or replica, measured under postgres_exporter's names; and one read-only question to it.

pg_monitor is enough. A part that is not allowed is left out and says so (`pg_scrape_collector_success`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from apps.core.telemetry import Reading
from apps.metrics.collectors import postgres as own
from apps.sources.servers import Access, Away, reasons

PORT: Final = 5432
TOP: Final = 20
"""Statements and tables that are shown: those that take most."""
UP: Final = Reading("pg_up", 0.0, help="Whether PostgreSQL answered.")

Row = Sequence[Any]

DATABASES: Final = f"{own.DATABASE_COLUMNS} WHERE datname !~ '^template'"
SIZES: Final = """
    SELECT datname, pg_database_size(oid) FROM pg_database
     WHERE datallowconn AND NOT datistemplate AND has_database_privilege(oid, 'CONNECT')
"""
LOCKS: Final = """
    SELECT d.datname, l.mode, count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database GROUP BY 1, 2
"""
REPLICATION: Final = """
    SELECT coalesce(application_name, ''), coalesce(client_addr::text, ''), coalesce(state, ''),
           pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                           replay_lsn),
           extract(epoch FROM coalesce(replay_lag, interval '0'))
      FROM pg_stat_replication WHERE replay_lsn IS NOT NULL
"""
SLOTS: Final = "SELECT slot_name, active FROM pg_replication_slots WHERE NOT temporary"
REPLICA: Final = """
    SELECT pg_is_in_recovery(),
           CASE WHEN NOT pg_is_in_recovery() OR pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                ELSE greatest(0, extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())) END,
           coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0),
           EXISTS (SELECT FROM pg_stat_wal_receiver)
"""
TABLES: Final = f"""
    SELECT schemaname, relname, pg_table_size(relid), pg_indexes_size(relid), n_live_tup, n_dead_tup,
           seq_scan, coalesce(idx_scan, 0)
      FROM pg_stat_user_tables ORDER BY pg_total_relation_size(relid) DESC LIMIT {TOP}
"""
EXTENSION: Final = """
    SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE e.extname = 'pg_stat_statements'
"""
STATEMENTS: Final = f"""
    SELECT d.datname, s.queryid::text, sum(s.calls), sum(s.total_exec_time) / 1000, sum(s.rows),
           CASE WHEN min(s.query) ~* '^\\s*(select|insert|update|delete|merge|with)'
                THEN left(regexp_replace(min(s.query), '\\s+', ' ', 'g'), 120) ELSE '' END
      FROM {{}}.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
     WHERE s.queryid IS NOT NULL
     GROUP BY 1, 2 ORDER BY 4 DESC LIMIT {TOP}
"""
"""Statements with constants taken out. Of others (ALTER ROLE … PASSWORD) the text may hold a secret: it is left out."""


def connect(access: Access) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection that can only read. Raises Away."""
    host, literal, port = access.place(PORT)
    milliseconds = int(access.seconds * 1000)
    with reasons(psycopg.Error):
        return psycopg.connect(
            host=host,
            hostaddr=literal,
            port=port,
            dbname=access.database or "postgres",
            user=access.user,
            password=access.password or None,
            sslmode=access.tls,
            sslrootcert="system" if access.tls == "verify-full" else None,
            connect_timeout=max(2, int(access.seconds)),
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=milliseconds + 5_000,
            application_name="monitoring-portal",
            options=f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} "
            "-c default_transaction_read_only=on",
            autocommit=True,
        )


def measure(access: Access) -> list[Reading]:
    """Return everything that the server tells of itself. Raises Away where it tells nothing."""
    with connect(access) as line, reasons(psycopg.Error):

        def rows(text: Any) -> list[Row]:
            return list(line.execute(text).fetchall())

        limits = rows(own.LIMITS)[0]
        found = list(own.server(limits))
        found += own.activity(rows(own.ACTIVITY), limits[4])
        parts: dict[str, Callable[[], Iterable[Reading]]] = {
            "database": lambda: [reading for row in rows(DATABASES) for reading in own.database(row)],
            "database_size": lambda: sizes(rows(SIZES), limits[4]),
            "locks": lambda: [reading for name, *row in rows(LOCKS) for reading in own.locks([row], name)],
            "replication": lambda: replica(rows(REPLICA)[0]),
            "stat_replication": lambda: replication(rows(REPLICATION)),
            "replication_slot": lambda: slots(rows(SLOTS)),
            "stat_user_tables": lambda: tables(rows(TABLES), limits[4]),
            "stat_statements": lambda: _statements(rows),
        }
        for name, part in parts.items():
            is_read = True
            try:
                found += part()
            except psycopg.Error:
                is_read = False
                if line.closed:
                    raise
            help_text = "Whether this part could be read."
            found.append(Reading("pg_scrape_collector_success", float(is_read), {"collector": name}, help=help_text))
        return found


def _statements(rows: Callable[[Any], list[Row]]) -> list[Reading]:
    schemas = rows(EXTENSION)
    return list(statements(rows(sql.SQL(STATEMENTS).format(sql.SQL(schemas[0][0]))))) if schemas else []


def sizes(rows: Sequence[Row], own_name: str) -> Iterator[Reading]:
    """`rows`: database, bytes; that of the connection itself is known already."""
    for name, size in rows:
        if name != own_name:
            yield Reading(
                "pg_database_size_bytes", float(size), {"datname": name}, help="Size of the database on disk."
            )


def replication(rows: Sequence[Row]) -> Iterator[Reading]:
    """`rows`: name, address, state, bytes and seconds that a replica of this server is behind."""
    for name, address, state, size, seconds in rows:
        labels = {"application_name": name, "client_addr": address, "state": state}
        yield Reading("pg_stat_replication_pg_wal_lsn_diff", float(size), labels, help="Bytes the replica is behind.")
        help_text = "Seconds the replica is behind, as the primary sees it."
        yield Reading("pg_stat_replication_replay_lag_seconds", float(seconds), labels, help=help_text)


def slots(rows: Sequence[Row]) -> Iterator[Reading]:
    """`rows`: slot, whether somebody reads from it."""
    for name, active in rows:
        labels = {"slot_name": name}
        help_text = "Whether a replica reads from the slot; else the server keeps WAL for it without end."
        yield Reading("pg_replication_slot_slot_is_active", float(active), labels, help=help_text)


def replica(row: Row) -> Iterator[Reading]:
    """`row`: is it a replica, seconds and bytes that it has to replay, is it connected to its primary."""
    is_replica, seconds, size, is_connected = row
    yield Reading("pg_replication_is_replica", float(is_replica), help="Whether the server is a replica.")
    yield Reading("pg_replication_lag_seconds", float(seconds or 0), help="Seconds a replica has to replay.")
    if is_replica:
        yield Reading("pg_replication_lag_bytes", float(size), help="Bytes a replica has received and not replayed.")
        help_text = "Whether the replica is connected to its primary; if not, its lag says nothing."
        yield Reading("pg_replication_is_connected", float(is_connected), help=help_text)


def tables(rows: Sequence[Row], database: str) -> Iterator[Reading]:
    """`rows`: schema, table, bytes, bytes of its indexes, rows alive and dead, scans."""
    for schema, name, size, indexes, alive, dead, scans, lookups in rows:
        labels = {"datname": database, "schemaname": schema, "relname": name}
        for end, value, help_text in (
            ("table_size_bytes", size, "Bytes of the table without its indexes."),
            ("index_size_bytes", indexes, "Bytes of its indexes."),
            ("n_live_tup", alive, "Rows alive, as PostgreSQL estimates."),
            ("n_dead_tup", dead, "Rows dead and not yet vacuumed, as PostgreSQL estimates."),
        ):
            yield Reading(f"pg_stat_user_tables_{end}", float(value), labels, help=help_text)
        yield Reading("pg_stat_user_tables_seq_scan", float(scans), labels, "counter", "Scans of the whole table.")
        yield Reading("pg_stat_user_tables_idx_scan", float(lookups), labels, "counter", "Scans of an index.")


def statements(rows: Sequence[Row]) -> Iterator[Reading]:
    """`rows`: database, fingerprint, calls, seconds, rows, text without constants."""
    for database, fingerprint, calls, seconds, count, text in rows:
        labels = {"datname": database, "queryid": fingerprint}
        yield Reading("pg_stat_statements_calls_total", float(calls), labels, "counter", "Statements executed.")
        yield Reading("pg_stat_statements_seconds_total", float(seconds), labels, "counter", "Seconds in them.")
        yield Reading("pg_stat_statements_rows_total", float(count), labels, "counter", "Rows returned or changed.")
        if text:
            help_text = "What a fingerprint stands for."
            yield Reading("pg_stat_statements_query_id", 1.0, {**labels, "query": text}, help=help_text)


def ask(access: Access, query: str, *, most: int) -> tuple[list[str], list[Row]]:
    """Ask one question and return (columns, at most `most` + 1 rows). Raises Away with what the server said.

    A cursor takes one SELECT and nothing else, and the transaction cannot write, whoever the user is.
    """
    with connect(access) as line, reasons(psycopg.Error):
        line.autocommit = False
        line.read_only = True
        with line.cursor(name="question") as cursor:
            cursor.execute(query.strip().rstrip(";").encode())
            rows = cursor.fetchmany(most + 1)
            if cursor.description is None:
                raise Away("The statement gives no rows: write one SELECT.")
            columns = [column.name for column in cursor.description]
        line.rollback()  # what a function managed to change all the same is undone
        return columns, list(rows)
