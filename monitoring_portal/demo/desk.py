"""The database of the clinic's front desk: beds and appointments in real tables, in a database of its own.

It lies in the demo's own PostgreSQL, beside the portal's. A role that may read its three tables and the server's
statistics, and nothing else, is what the portal measures it with and what business metrics ask it with.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from django.db import connection
from django.utils.crypto import salted_hmac
from psycopg import sql

from monitoring_portal.demo import clinic

DATABASE: Final = "clinic"
READER: Final = "clinic_reader"
WARDS: Final = (("Surgery", 34, 0.82), ("Medicine", 46, 0.74), ("Paediatrics", 18, 0.55), ("Intensive care", 10, 0.7))
"""Name, beds, and which share of them is taken on a usual morning."""
DEPARTMENTS: Final = (("Cardiology", 34), ("Surgery", 22), ("Paediatrics", 28), ("Radiology", 41), ("Sleep lab", 3))
"""Name and appointments a day: so few people in the sleep laboratory that no figure about them is ever stored."""
OPENS: Final = timedelta(hours=7)
OPEN_FOR: Final = timedelta(hours=11)
AHEAD: Final = timedelta(days=14)
SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS bed (ward text, number int, is_taken boolean NOT NULL, PRIMARY KEY (ward, number));
    CREATE TABLE IF NOT EXISTS appointment (
        department text, at timestamptz, waited interval, PRIMARY KEY (department, at)
    );
    CREATE INDEX IF NOT EXISTS appointment_at ON appointment (at);
"""
WAITED: Final = """
    SELECT department, avg(extract(epoch FROM waited)) / 60 AS value, count(*) AS people
      FROM appointment WHERE at > now() - interval '1 day' AND waited IS NOT NULL GROUP BY department
"""
METRICS: Final[tuple[tuple[str, str, str, dict[str, Any]], ...]] = (
    # name, help, query, what else is set
    (
        "clinic_beds_free",
        "Beds that are free now.",
        "SELECT ward, count(*) FILTER (WHERE NOT is_taken) AS value FROM bed GROUP BY ward",
        {"floor": 0},
    ),
    (
        "clinic_appointments_today",
        "Appointments of today.",
        "SELECT department, count(*) AS value FROM appointment WHERE at::date = current_date GROUP BY department",
        {},
    ),
    (
        "clinic_waiting_minutes",
        "Minutes that people waited, on average of a day.",
        WAITED,
        {"size_column": "people", "small": "mean"},
    ),
)


def password() -> str:
    """Return the reader's, the same at every start."""
    return salted_hmac("monitoring_portal.demo.desk", READER).hexdigest()


@contextmanager
def connected(database: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect to a database of the portal's own server."""
    with psycopg.connect(**{**connection.get_connection_params(), "dbname": database}, autocommit=True) as line:
        yield line


def make() -> None:
    """Make the database, its role and its tables where they are missing."""
    base = str(connection.settings_dict["NAME"])
    reader, database = sql.Identifier(READER), sql.Identifier(DATABASE)
    with connected(base) as line:
        if not line.execute("SELECT FROM pg_roles WHERE rolname = %s", [READER]).rowcount:
            line.execute(sql.SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT 8 IN ROLE pg_monitor").format(reader))
        line.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(reader))
        if not line.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
            line.execute(sql.SQL("CREATE DATABASE {}").format(database))
        line.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(base)))
        line.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, reader))
    with connected(DATABASE) as line:
        line.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        line.execute(SCHEMA)
        line.execute(sql.SQL("GRANT SELECT ON bed, appointment TO {}").format(reader))


def live_on(now: datetime) -> None:
    """Bring the tables to now: two weeks are booked ahead, who was called in has waited, beds fill and empty."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    with connected(DATABASE) as line, line.transaction(), line.cursor() as cursor:
        newest = cursor.execute("SELECT max(at) FROM appointment").fetchone()
        day = midnight - timedelta(days=7)
        if newest is not None and newest[0] is not None:
            day = newest[0].replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        while day <= midnight + AHEAD:
            cursor.executemany("INSERT INTO appointment (department, at) VALUES (%s, %s)", appointments(day))
            day += timedelta(days=1)
        cursor.execute(
            "UPDATE appointment SET waited = (5 + abs(hashtext(department || at::text)) %% 25) * interval '1 minute' "
            "WHERE waited IS NULL AND at < %s",
            [now],
        )
        for ward, beds, share in WARDS:
            cursor.execute(
                "INSERT INTO bed SELECT %(ward)s, n, n <= %(taken)s FROM generate_series(1, %(beds)s) AS n "
                "ON CONFLICT (ward, number) DO UPDATE SET is_taken = excluded.is_taken "
                "WHERE bed.is_taken <> excluded.is_taken",
                {"ward": ward, "beds": beds, "taken": taken(now.timestamp(), beds, share)},
            )


def appointments(day: datetime) -> list[tuple[str, datetime]]:
    """Return department and time of each appointment of a day."""
    return [
        (name, day + OPENS + OPEN_FOR * number / pace)
        for name, pace in DEPARTMENTS
        for number in range(pace if day.weekday() < 5 else max(2, pace // 3))
    ]


def taken(at: float, beds: int, share: float) -> int:
    """Return how many beds of a ward are taken then (s): more in the day, a few come and go."""
    moment = np.full(1, at)
    part = share + 0.1 * float(clinic.busy(moment)[0]) + 0.06 * (float(clinic.wave(moment, beds)[0]) - 0.5)
    return min(beds, math.floor(beds * part))
