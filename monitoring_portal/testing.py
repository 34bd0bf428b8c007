"""The pytest plugin that gives a test run a real PostgreSQL and Valkey, and a whole portal to a test that asks.

Load it with `-p monitoring_portal.testing`: the servers must be up before Django reads its settings.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from monitoring_portal import embedded
from monitoring_portal.throwaway import Servers

ROOT: Final = Path(__file__).resolve().parent.parent
EVERYBODY: Final = ("supervisor", "postgres", "valkey", "launcher", "web", "worker", "slow", "beat")

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_servers: Servers | None = None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(args: list[str]) -> Generator[None, object, object]:
    """Start the servers before any plugin's turn: wrappers run first; pytest-django reads the settings in its."""
    global _servers
    wanted = not {"--help", "-h", "--version", "-V"} & set(args)
    if wanted and "PYTEST_XDIST_WORKER" not in os.environ and _servers is None:
        _servers = Servers()
        try:
            _servers.start()
        except embedded.Refused as error:
            _servers.stop()
            raise pytest.UsageError(str(error)) from error
    return (yield)


def pytest_unconfigure() -> None:
    """Stop what this process started; xdist's workers started nothing."""
    global _servers
    if _servers is not None:
        _servers.stop()
        _servers = None


def chromium_path() -> str | None:
    """Return the Chromium of the machine, or the one that `./portal test` unpacked (PORTAL_CHROMIUM)."""
    return os.environ.get("PORTAL_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


class Portal:
    """A whole portal of its own, started as a person starts it, on a free port and with its own data folder.

    Use it as a context manager. `environment` adds variables; DATABASE_URL and REDIS_URL of the test run are not passed
    on, so that it brings its own servers. `arguments` follow `run`. `root` is the checkout to run (this one), `python`
    its interpreter, `command` what comes before that (such as setpriv with a user).
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        arguments: Sequence[str] = (),
        root: Path = ROOT,
        command: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        self.data = folder / "var"
        self.root = root
        self.output_path = folder / "output.txt"
        self.arguments = arguments
        # The program itself, not the entry: the environment is there already, and the process is ours to signal.
        self.command = [*command, python, "-m", "monitoring_portal.supervisor"]
        own = {"DATABASE_URL", "REDIS_URL", "PORT", "PORTAL_URL", "PORTAL_PROCESS", "DJANGO_SETTINGS_MODULE"}
        given = {name: value for name, value in os.environ.items() if name not in own and not name.startswith("PYTEST")}
        self.environment = {**given, "PORT": "0", "PORTAL_DATA": str(self.data), **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, patience: float = 120) -> Portal:
        """Start it and wait until it says that it runs."""
        self.launch()
        self.wait(lambda: bool(self.state.get("ready_at")), patience, "the portal to be ready")
        return self

    def launch(self) -> None:
        """Start it and return at once."""
        with self.output_path.open("ab") as output:
            self.process = subprocess.Popen(
                [*self.command, *self.arguments], cwd=self.root, env=self.environment, stdout=output, stderr=output
            )

    def wait(self, condition: Callable[[], bool], patience: float, what: str) -> None:
        """Wait for something of this portal; its end or the time-out shows what it had to say."""
        deadline = time.monotonic() + patience
        while not condition():
            ended = self.process is None or self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"Waited in vain for {what}:\n{self.output}\n{self.tail()}")
            time.sleep(0.05)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.output_path.read_text(errors="replace") if self.output_path.exists() else ""

    def tail(self, lines: int = 15) -> str:
        """The ends of its logs."""
        logs = sorted((self.data / "log").glob("*.log"))
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) for log in logs
        )

    @property
    def state(self) -> dict[str, Any]:
        """What it writes about itself; nothing while the last word is an earlier run's."""
        state = embedded.read_state(self.data)
        ours = self.process is not None and state.get("pids", {}).get("supervisor", [0])[0] == self.process.pid
        return state if ours else {}

    @property
    def url(self) -> str:
        """Its address, such as http://127.0.0.1:40123."""
        return str(self.state["url"])

    @property
    def database_url(self) -> str:
        return str(self.state["database_url"])

    @property
    def redis_url(self) -> str:
        return str(self.state["redis_url"])

    @property
    def password(self) -> str:
        """The password of the first administrator, `admin`, as it was printed."""
        found = re.search(r"Password: +(\S+)", self.output)
        assert found, self.output
        return found[1]

    @property
    def pids(self) -> dict[str, int]:
        """Its processes: supervisor, postgres, valkey, launcher, web, worker, slow, beat."""
        return {name: int(pid) for name, (pid, _) in self.state.get("pids", {}).items()}

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.data / "log" / f"{name}.log"

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a Django command against it."""
        return subprocess.run(
            [sys.executable, str(self.root / "manage.py"), *arguments],
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )

    def answers(self) -> bool:
        """Whether its web process says that it is ready, its database included."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, KeyError):
            return False

    def kill(self, name: str, signum: int = signal.SIGKILL) -> int:
        """Signal one of its processes, which may just be starting again; return the process number."""
        self.wait(lambda: name in self.pids, 30, f"{name} to run")
        pid = self.pids[name]
        os.kill(pid, signum)
        return pid

    def wait_back(self, name: str, before: int, patience: float = 30) -> int:
        """Wait until a process that was killed has a successor, everybody is there, and the portal answers."""

        def back() -> bool:
            pids = self.pids
            return pids.get(name, before) != before and len(pids) == len(EVERYBODY) and self.answers()

        self.wait(back, patience, f"{name} to come back")
        return self.pids[name]

    def stop(self, signum: int = signal.SIGINT, patience: float = 60) -> int:
        """Stop it as Ctrl-C does; return its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(patience)

    def __enter__(self) -> Portal:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
