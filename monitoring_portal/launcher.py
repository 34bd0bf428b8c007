"""One process that imports everything, opens nothing, and forks the roles; it starts again what crashes.

The roles share its memory (measured: four of them 129 MB instead of 430), so it must stay without threads and without
connections. It obeys the supervisor over a socket, one JSON object a line: `prepare`, `start`, `stop`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import gc
import hashlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from monitoring_portal import embedded
from monitoring_portal.backoff import Backoff

ROOT = Path(__file__).resolve().parent.parent
START_ORDER: Final = ("web", "worker", "slow", "beat", "statsd", "demo")
# Who makes work goes before who does it, and who does it before who shows it. Seconds until it is killed.
STOP_ORDER: Final = ((("demo", "beat", "statsd"), 3.0), (("worker", "slow"), 10.0), (("web",), 8.0))
IMPORTS: Final = (
    "numpy",
    "redis.asyncio",
    "psycopg_pool",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "celery.apps.worker",
    "celery.apps.beat",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "kombu.transport.redis",
)


@dataclass
class Role:
    """A role and the process that plays it."""

    name: str
    pid: int | None = None
    due: float | None = None
    backoff: Backoff = field(default_factory=Backoff)


class Launcher:
    """Forks roles and watches them."""

    def __init__(self, control: socket.socket, listening: socket.socket, logs: Path) -> None:
        self.control, self.listening, self.logs = control, listening, logs
        self.roles: dict[str, Role] = {}
        self.helper: int | None = None
        self.pending = b""
        self.wake_in, self.wake_out = socket.socketpair()
        self.wake_in.setblocking(False)
        self.wake_out.setblocking(False)
        self.over = False

    def tell(self, **event: Any) -> None:
        """Send the supervisor one event; a supervisor that is gone is noticed where its orders are read."""
        with contextlib.suppress(OSError):
            self.control.sendall(json.dumps(event).encode() + b"\n")

    # --- imports ----------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Import all that any role needs, then move it out of the garbage collector's sight."""
        import importlib

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "monitoring_portal.settings")
        # Read by the settings: what is served from here gets a pool of connections (3 ms a request without it).
        os.environ["PORTAL_PROCESS"] = "launcher"
        import django

        django.setup(set_prefix=False)
        # WhiteNoise lists the files when the application is imported, so they must be there before.
        self._in_child(collect_static, "Collecting static files failed")
        importlib.import_module("monitoring_portal.asgi")
        for name in IMPORTS:
            importlib.import_module(name)
        importlib.import_module("monitoring_portal.roles")
        from django.urls import get_resolver

        assert get_resolver().url_patterns is not None
        gc.collect()
        gc.freeze()
        with contextlib.suppress(AttributeError):  # glibc only: what the imports have freed goes back to the system.
            ctypes.CDLL(None).malloc_trim(0)

    def _in_child(self, work: Callable[[Launcher], None], failure: str) -> None:
        pid = self._fork(lambda: work(self), "setup", log=None)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != 0:
            raise SystemExit(f"{failure}.")

    # --- processes --------------------------------------------------------------------------------------------------

    def _fork(self, work: Callable[[], None], name: str, log: Path | None) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(work, name, log, parent)
        return pid

    def _become(self, work: Callable[[], None], name: str, log: Path | None, parent: int) -> NoReturn:
        """The child's whole life."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(signum, signal.SIG_DFL)
            os.setpgid(0, 0)
            embedded.die_with_parent(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            rename(name)
            if log is not None:
                descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                os.close(descriptor)
            work()
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except KeyboardInterrupt:
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def start(self, name: str) -> None:
        """Fork a role."""
        role = self.roles.setdefault(name, Role(name))
        role.due = None
        role.pid = self._fork(lambda: self._play(name), name, self.logs / f"{name}.log")
        role.backoff.started()
        self.tell(event="role", name=name, pid=role.pid)

    def _play(self, name: str) -> None:
        from monitoring_portal.roles import ROLES

        self.control.close()
        if name != "web":
            self.listening.close()
        ROLES[name](self.listening)

    def prepare(self) -> None:
        """Set the database up in a child, which keeps this process free of connections."""
        self.helper = self._fork(lambda: prepare(self), "setup", log=None)

    def reap(self) -> None:
        """Notice who has ended; a role gets a new process after its pause."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid == self.helper:
                self.helper = None
                if code != 0:
                    self.tell(event="failed", text=f"Setting up the database ended early (code {code})")
            for role in self.roles.values():
                if role.pid == pid:
                    _end_group(pid)
                    role.pid = None
                    pause = role.backoff.pause()
                    role.due = time.monotonic() + pause
                    self.tell(event="exit", name=role.name, code=code, again_in=pause)

    def stop(self) -> None:
        """End the roles in order; what does not end in its time is killed."""
        for names, patience in STOP_ORDER:
            group = [role for name in names if (role := self.roles.get(name)) and role.pid is not None]
            for role in group:
                _signal(role.pid, signal.SIGTERM)
            deadline = time.monotonic() + patience
            for role in group:
                if not _ended(role.pid, deadline):
                    _signal(role.pid, signal.SIGKILL)
                    _ended(role.pid, time.monotonic() + 5)
                    self.tell(event="killed", name=role.name)
                _end_group(role.pid)
                role.pid = None
                self.tell(event="stopped", name=role.name)
        self.over = True

    # --- orders -----------------------------------------------------------------------------------------------------

    def obey(self) -> None:
        """Read orders; the end of the stream is the end of the supervisor."""
        try:
            received = self.control.recv(65536)
        except OSError:
            received = b""
        if not received:
            self.stop()
            return
        *lines, self.pending = (self.pending + received).split(b"\n")
        for line in lines:
            order = json.loads(line)["order"]
            if order == "prepare":
                self.prepare()
            elif order == "start":
                for name in START_ORDER:
                    if self.wants(name):
                        self.start(name)
            elif order == "stop":
                self.stop()

    def wants(self, name: str) -> bool:
        """Whether this portal has the role: not each takes StatsD packets or is a demo."""
        from django.conf import settings

        return {"statsd": bool(settings.STATSD_BIND), "demo": settings.DEMO}.get(name, True)

    def watch(self) -> None:
        """Obey and watch until the end."""
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(signum, self._noted)
        signal.set_wakeup_fd(self.wake_in.fileno())
        self.tell(event="ready", threads=_threads())
        while not self.over:
            dues = [role.due for role in self.roles.values() if role.due is not None]
            pause = max(0.0, min(dues) - time.monotonic()) if dues else None
            ready, _, _ = select.select([self.control, self.wake_out], [], [], pause)
            if self.wake_out in ready and {*self.wake_out.recv(4096)} & {signal.SIGTERM, signal.SIGINT}:
                self.stop()
                return
            self.reap()
            if self.control in ready:
                self.obey()
            for role in self.roles.values():
                if role.due is not None and role.due <= time.monotonic() and not self.over:
                    self.start(role.name)

    def _noted(self, signum: int, frame: object) -> None:
        """The wake-up descriptor carries the signal."""


# --- work in children -------------------------------------------------------------------------------------------------


def prepare(launcher: Launcher) -> None:
    """Migrate, write defaults, make the first administrator; every step is told to the supervisor."""
    from monitoring_portal import setup

    try:
        reach_servers()
        result = setup.prepare(lambda text: launcher.tell(event="progress", text=text))
    except embedded.Refused as refusal:
        launcher.tell(event="failed", text=str(refusal))
        return
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        launcher.tell(
            event="failed", text=f"Setting up the database failed ({reason}); more in {launcher.logs / 'launcher.log'}"
        )
        return
    launcher.tell(event="prepared", admin_password=result.admin_password, warnings=result.warnings)


def reach_servers() -> None:
    """Refuse with a sentence where a server of the settings cannot be used; the pool would only say "time-out"."""
    import psycopg
    import redis
    from django.conf import settings
    from django.db import connection

    parameters = connection.get_connection_params()
    parameters.pop("pool", None)
    where = f"{settings.DATABASES['default'].get('HOST') or 'the local socket'}, database {parameters.get('dbname')}"
    try:
        with psycopg.connect(**{**parameters, "connect_timeout": 5}) as line:
            version = line.info.server_version
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        raise embedded.Refused(
            f"The database of DATABASE_URL ({where}) cannot be used ({reason}): start it, or correct the address."
        ) from error
    if version < 150_000:
        raise embedded.Refused(
            f"The database of DATABASE_URL ({where}) is PostgreSQL {version // 10_000}, but 15 or later is needed: "
            "use a newer server, or unset DATABASE_URL to use the built-in one."
        )
    try:
        with redis.Redis.from_url(
            os.environ.get("REDIS_URL") or settings.REDIS_URL, socket_connect_timeout=5
        ) as client:
            client.ping()
    except (redis.RedisError, OSError, ValueError) as error:
        raise embedded.Refused(
            f"The server of REDIS_URL cannot be used ({error}): start it, or correct the address."
        ) from error


def collect_static(launcher: Launcher) -> None:
    """Copy static files to where they are served from, when they or the packages they come from have changed."""
    from django.conf import settings
    from django.core.management import call_command

    target = Path(settings.STATIC_ROOT)
    stamp = target.with_name(target.name + ".stamp")
    with target.with_name(target.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = static_state(settings.INSTALLED_APPS)
        if target.is_dir() and stamp.is_file() and stamp.read_text() == wanted:
            return
        stamp.unlink(missing_ok=True)
        launcher.tell(event="progress", text="Collecting static files")
        call_command("collectstatic", interactive=False, verbosity=0)
        stamp.write_text(wanted)


def static_state(installed: list[str]) -> str:
    """A digest of everything that decides what is collected: our own files, the packages, the list of apps."""
    digest = hashlib.sha256(json.dumps(installed).encode())
    for name in ("requirements.lock", "monitoring_portal/settings.py"):
        with contextlib.suppress(OSError):
            digest.update((ROOT / name).read_bytes())
    folders = [ROOT / "static", *sorted((ROOT / "apps").glob("*/static"))]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            found = path.stat()
            digest.update(f"{path.relative_to(ROOT)} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def rename(name: str) -> None:
    """Show the role in lists of processes: `portal: web` in place of the launcher's command line (Linux)."""
    if not embedded.LINUX:
        return
    title = f"portal: {name}".encode()
    with contextlib.suppress(OSError, ValueError, IndexError):
        ctypes.CDLL(None).prctl(15, title[:15], 0, 0, 0)  # PR_SET_NAME
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        first, last = int(fields[45]), int(fields[46])  # arg_start and arg_end
        room = last - first - 1
        if first and room > len(title):
            ctypes.memmove(first, title.ljust(room, b"\0"), room)


def _threads() -> int:
    """How many threads this process has; a forking process must have one."""
    if not embedded.LINUX:
        return 1
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names only


def _signal(pid: int | None, signum: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def _end_group(pid: int | None) -> None:
    """End what a role has started itself, such as a collector in a child of its own."""
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _ended(pid: int | None, deadline: float) -> bool:
    if pid is None:
        return True
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return True
        except ChildProcessError:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def main() -> int:
    """The launcher's life; its output goes to its log."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--logs", type=Path, required=True)
    chosen = parser.parse_args()
    launcher = Launcher(socket.socket(fileno=chosen.control), socket.socket(fileno=chosen.listen), chosen.logs)
    launcher.load()
    rename("launcher")
    launcher.watch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
