"""Does a PostgreSQL server let us in and answer a question."""

import time
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from django import forms

from apps.core.telemetry import Reading
from apps.sources.probes import Failed, Found, HostPort, Probe, host_and_port

MODES: Final = ("disable", "prefer", "require", "verify-full")


class Postgres(Probe):
    """A PostgreSQL server accepts a connection and answers; a replica says how far it is behind."""

    kind = "postgres"
    label = "PostgreSQL"
    secrets = ("password",)

    class Config(forms.Form):
        address = HostPort(port=5432, help_text="Host and port, such as db.example.org:5432.")
        database = forms.CharField(max_length=100, initial="postgres")
        user = forms.CharField(max_length=100)
        password = forms.CharField(required=False, max_length=1_000, help_text="Kept encrypted.")
        tls = forms.ChoiceField(choices=[(name, name) for name in MODES], required=False, initial="prefer", label="TLS")
        replica = forms.ChoiceField(
            choices=[("", "either"), ("no", "primary"), ("yes", "replica")],
            required=False,
            help_text="Fails when the server is something else.",
        )
        most_lag = forms.FloatField(
            required=False, min_value=0, help_text="Fails when a replica is more seconds behind."
        )

    @classmethod
    def address_of(cls, values: Mapping[str, Any]) -> str:
        return str(values["address"])

    def run(self) -> Found:
        values = self.values
        host, port = host_and_port(values["address"], 5432)
        literal = self.reach.address(host, port)
        started = time.perf_counter()
        try:
            with psycopg.connect(
                host=host,
                hostaddr=literal,
                port=port,
                dbname=values["database"],
                user=values["user"],
                password=values.get("password") or None,
                sslmode=values.get("tls") or "prefer",
                connect_timeout=max(2, int(self.reach.seconds)),
                application_name="monitoring-portal",
                options=f"-c statement_timeout={int(self.reach.seconds * 1000)} -c default_transaction_read_only=on",
                autocommit=True,
            ) as line:
                connected = time.perf_counter()
                row = line.execute(QUESTION).fetchone()
        except psycopg.Error as error:
            raise Failed(f"{first_line(error)}.") from None
        is_replica, lag = bool(row and row[0]), float((row and row[1]) or 0)
        readings = (
            Reading(DURATION, connected - started, {"phase": "connect"}, help=PHASES),
            Reading(DURATION, time.perf_counter() - connected, {"phase": "query"}, help=PHASES),
            Reading("probe_postgres_is_replica", float(is_replica), help="Whether the server is a replica."),
            Reading("probe_postgres_replay_lag_seconds", lag, help="How far a replica is behind."),
        )
        if values.get("replica") and is_replica != (values["replica"] == "yes"):
            raise Failed(f"The server is a {'replica' if is_replica else 'primary'}.", readings)
        if values.get("most_lag") is not None and lag > values["most_lag"]:
            raise Failed(f"The replica is {lag:.1f} s behind.", readings)
        return Found(readings=readings)


DURATION: Final = "probe_postgres_duration_seconds"
PHASES: Final = "Seconds of each phase."
QUESTION: Final = """
SELECT pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery() AND pg_last_wal_receive_lsn() IS DISTINCT FROM pg_last_wal_replay_lsn()
            THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) ELSE 0 END
"""


def first_line(error: psycopg.Error) -> str:
    """Return what the server said, in one line; libpq never repeats the password."""
    text = " ".join(str(error).split())
    return text[:300].rstrip(".") or type(error).__name__
