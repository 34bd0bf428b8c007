"""A PostgreSQL and a Valkey that live as long as one command: a test run, or one that only looks at models.

Standard library only. Nothing in them is meant to survive, so nothing is flushed to disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from monitoring_portal import embedded

ROOT = Path(__file__).resolve().parent.parent


class Servers:
    """A throw-away PostgreSQL and Valkey for one test run."""

    def __init__(self) -> None:
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"portal-test-{os.getpid()}-"))
        self.processes: list[tuple[embedded.Server, subprocess.Popen[bytes]]] = []

    def start(self) -> None:
        """Start what no variable replaces, and point DATABASE_URL and REDIS_URL at it."""
        sockets = self.folder / "s"
        given = {"DATABASE_URL": "PORTAL_TEST_DATABASE_URL", "REDIS_URL": "PORTAL_TEST_REDIS_URL"}
        servers: dict[str, embedded.Server] = {}
        if not os.environ.get(given["DATABASE_URL"]):
            postgres = embedded.Postgres(
                self.folder, sockets, log=self.folder / "postgres.log", settings=embedded.TEST_SETTINGS
            )
            if not postgres.account.reaches(self.folder / "postgres"):
                self.folder.chmod(0o711)
            postgres.template = template(postgres)
            servers["DATABASE_URL"] = postgres
        if not os.environ.get(given["REDIS_URL"]):
            servers["REDIS_URL"] = embedded.Valkey(self.folder, sockets, log=self.folder / "valkey.log")
        for server in servers.values():
            server.prepare()
            self.processes.append((server, server.start()))
        for server, process in self.processes:
            embedded.wait_ready(server, process)
        for variable, source in given.items():
            os.environ[variable] = servers[variable].url if variable in servers else os.environ[source]

    def stop(self) -> None:
        """End the servers and remove every trace; nothing of theirs is worth a clean end."""
        for server, process in self.processes:
            embedded.stop(process, signal.SIGQUIT if server.name == "postgres" else server.stop_signal, 10)
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep() -> None:
    """Remove the folders of test runs that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob("portal-test-*-*"):
        owner = folder.name.split("-")[2]
        if owner.isdigit() and embedded.started_at(int(owner)) is None:
            shutil.rmtree(folder, ignore_errors=True)


def template(postgres: embedded.Postgres) -> Path:
    """A new cluster kept under `var` and copied for each run: a copy takes a tenth of the time of initdb."""
    key = f"{postgres.version} {postgres.programs} {postgres.account.way} {postgres.account.files_of}"
    home = embedded.make_folder(embedded.data_folder(ROOT), "the tests' data")
    kept = home / f"test-pg-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not kept.exists():
        making = Path(tempfile.mkdtemp(prefix="portal-template-"))
        making.chmod(0o711)
        try:
            postgres.create(making / "pg")
            staged = home / f"{kept.name}.{os.getpid()}"
            shutil.copytree(making / "pg", staged, symlinks=True)
            try:
                staged.rename(kept)
            except OSError:  # Another run was faster; its template is as good.
                shutil.rmtree(staged)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return kept
