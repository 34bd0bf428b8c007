"""Real servers for tests: Debian's PostgreSQL as a primary with a streaming replica, and a Valkey."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import redis

from monitoring_portal.embedded import Account, spawn, stop, valkey_program

BIN = Path("/usr/lib/postgresql/15/bin")
CONF = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
max_connections = 20
shared_buffers = 16MB
wal_level = replica
max_wal_senders = 4
wal_sender_timeout = 2s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
deadlock_timeout = 100ms
shared_preload_libraries = 'pg_stat_statements'
compute_query_id = on
"""


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


class Postgres:
    """One server over a folder of its own; `start` and `stop` may be called again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.account = Account.choose()
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, name: str, *arguments: str | Path) -> None:
        process = spawn([BIN / name, *arguments], account=self.account, log=self.folder.parent / f"{name}.log")
        assert process.wait(60) == 0, (self.folder.parent / f"{name}.log").read_text()

    def make(self) -> None:
        self.run("initdb", "-D", self.folder, "-U", "owner", "--auth=trust", "--no-sync", "-E", "UTF8")
        with (self.folder / "postgresql.conf").open("a") as file:
            file.write(CONF)

    def copy_of(self, primary: "Postgres") -> None:
        """Become a streaming replica that reads from the slot `second`."""
        line = f"host=127.0.0.1 port={primary.port} user=owner application_name=second"
        self.run("pg_basebackup", "-D", self.folder, "-d", line, "-R", "-C", "-S", "second", "--no-sync", "-c", "fast")

    def start(self) -> None:
        command: list[str | Path] = [BIN / "postgres", "-D", self.folder, "-p", str(self.port)]
        self.process = spawn(command, account=self.account, log=self.folder.parent / f"{self.folder.name}.log")
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(psycopg.OperationalError), self.connect():
                return
            assert time.monotonic() < deadline, (self.folder.parent / f"{self.folder.name}.log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, signal.SIGINT, 20)
            self.process = None

    def connect(self, user: str = "owner") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host="127.0.0.1", port=self.port, user=user, dbname="postgres", autocommit=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A primary with a user `watcher` who may look, and a table of bookings."""
    if os.geteuid() == 0 and Account.choose().way == "nobody":
        shutil.chown(folder, Account.choose().uid)
    server = Postgres(folder / "primary")
    server.make()
    server.start()
    try:
        with server.connect() as line:
            line.execute("CREATE ROLE watcher LOGIN PASSWORD 'hidden-word' IN ROLE pg_monitor")
            line.execute("CREATE EXTENSION pg_stat_statements")
            line.execute("CREATE TABLE booking (clinic text, amount numeric, person int)")
            line.execute("INSERT INTO booking SELECT CASE WHEN n < 40 THEN 'north' ELSE 'south' END, n, n "
                         "FROM generate_series(1, 42) n")  # fmt: skip
            line.execute("GRANT SELECT ON booking TO watcher")
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def valkey(folder: Path, *more: str) -> Iterator[int]:
    """A Valkey with a password on a port of its own."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--requirepass", "hidden-word", "--dir", str(folder)]
    command: list[str | Path] = [valkey_program(), *options, "--save", "", *more]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port, password="hidden-word")
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(20)
