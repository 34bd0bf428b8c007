"""Starts PostgreSQL, Valkey and the launcher, watches them, and stops everything in order.

Standard library only: it stays at a few megabytes and outlives whatever the rest runs into. It has one thread, because
the death of the thread that made a child is what ends the child on Linux; elsewhere a watchdog process does that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from monitoring_portal import embedded
from monitoring_portal.backoff import Backoff
from monitoring_portal.embedded import Refused

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 3000
PORTS_TRIED = 100
LOG_BYTES = 5_000_000
SHOWN_A_MINUTE = 20
READY_PATH, HEALTH_PATH = "/-/ready", "/api/monitoring/health"
ANSWER_PATIENCE = 10.0
PREPARE_PATIENCE, READY_PATIENCE = 600.0, 60.0
PR_SET_CHILD_SUBREAPER = 36
ROLES: Final = ("web", "worker", "slow", "beat", "statsd", "demo")
IMPORTANT: Final[Mapping[str, re.Pattern[str]]] = {
    "postgres": re.compile(r"\b(FATAL|PANIC):"),
    "valkey": re.compile(r"# (Fatal|Out Of Memory|Failed)"),
    "": re.compile(r"^.{0,80}\b(WARNING|ERROR|CRITICAL)\b"),
}
# The watchdog for systems without a parent-death signal: it lives until its input ends, then ends what is left.
WATCHDOG: Final = """
import os, signal, sys, time
alive = {}
for line in sys.stdin:
    sign, pid, how = line.split()
    alive[int(pid)] = int(how)
    if sign == "-":
        del alive[int(pid)]
for patience in (10, 0):
    for pid, how in list(alive.items()):
        try:
            os.kill(pid, how if patience else signal.SIGKILL)
        except OSError:
            del alive[pid]
    end = time.monotonic() + patience
    while alive and time.monotonic() < end:
        time.sleep(0.1)
        for pid in list(alive):
            try:
                os.kill(pid, 0)
            except OSError:
                del alive[pid]
"""


@dataclass
class Child:
    """A process the supervisor started: a server or the launcher."""

    name: str
    begin: Callable[[], subprocess.Popen[bytes]]
    stop_signal: int
    ready: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = None
    settled: bool = False  # It has been ready since it was last started.
    proven: bool = False  # It has ever been ready: its end is a crash now, no failed start.
    due: float | None = None
    backoff: Backoff = field(default_factory=Backoff)


class Log:
    """A log file that children append to: its important new lines, and its size kept in bounds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pattern = IMPORTANT.get(path.stem, IMPORTANT[""])
        self.position = path.stat().st_size if path.exists() else 0
        self.rest = b""
        self.minute, self.shown, self.hidden = 0, 0, 0

    def important(self, now: float) -> list[str]:
        """The important lines since the last call; at most a screenful a minute."""
        try:
            size = self.path.stat().st_size
            if size < self.position:
                self.position = 0
            if size == self.position:
                return []
            with self.path.open("rb") as file:
                file.seek(max(self.position, size - 1_000_000))
                *lines, self.rest = (self.rest + file.read(1_000_000)).split(b"\n")
                self.position = file.tell()
            if self.position > LOG_BYTES:
                self._rotate()
        except OSError:
            return []
        if int(now // 60) != self.minute:
            self.minute, self.shown, self.hidden = int(now // 60), 0, 0
        found = [line.decode(errors="replace") for line in lines if self.pattern.search(line.decode(errors="replace"))]
        room = max(0, SHOWN_A_MINUTE - self.shown)
        shown = [line[:400] for line in found[:room]]
        if len(found) > room and not self.hidden:
            shown.append(f"… and more: see {self.path}")
        self.shown += len(shown)
        self.hidden += len(found) - len(shown)
        return shown

    def _rotate(self) -> None:
        """Copy and empty: the writers keep their descriptors, which append."""
        shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
        os.truncate(self.path, 0)
        self.position = 0


class Supervisor:
    """The whole running portal."""

    def __init__(self, bind: str | None) -> None:
        self.born = time.monotonic()
        self.bind = bind
        self.data = embedded.make_folder(embedded.data_folder(ROOT), "the portal's data")
        self.lock = embedded.DataLock(self.data)
        self.logs = self.data / "log"
        self.sockets = embedded.socket_folder(self.data)
        self.tails: dict[str, Log] = {}
        self.children: dict[str, Child] = {}
        self.pids: dict[str, int] = {}
        self.state: dict[str, Any] = {}
        self.control: socket.socket | None = None
        self.pending = b""
        self.events: dict[str, dict[str, Any]] = {}
        self.seen: set[str] = set()
        self.question: Question | None = None
        self.question_path = READY_PATH
        self.signals = 0
        self.stopping = False
        self.watchdog: subprocess.Popen[bytes] | None = None
        self.wake_in, self.wake_out = socket.socketpair()
        self.wake_in.setblocking(False)
        self.wake_out.setblocking(False)

    # --- words ------------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Print a line with the seconds since the start; a terminal that is gone stops nobody."""
        with contextlib.suppress(OSError, ValueError):
            print(f"{time.monotonic() - self.born:6.1f} s  {text}", flush=True)

    # --- start ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring everything up, a line per step."""
        self.lock.acquire()
        self._await_the_last_run()
        embedded.make_folder(self.logs, "logs")
        self._subreap()
        listening, self.url = listen(self.bind)
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.environ["MALLOC_ARENA_MAX"] = "2"
        os.environ["PORTAL_DATA"] = str(self.data)
        if not embedded.given(ROOT, "PORTAL_URL"):
            os.environ["PORTAL_URL"] = self.url
        self.state = {"url": self.url, "started_at": time.time(), "pids": {}}
        servers = self._servers()
        self._add_launcher(listening)
        for server in servers:
            self._add_server(server)
        for server in servers:
            self._until(partial(self._settled, server.name), READY_PATIENCE, f"{server.name} does not answer")
            version = f"PostgreSQL {server.version}" if isinstance(server, embedded.Postgres) else "Valkey"
            self.say(f"{version} is ready")
        self._until(lambda: "ready" in self.events, READY_PATIENCE, "The portal's code takes too long to load")
        self._order("prepare")
        self._until(lambda: "prepared" in self.events, PREPARE_PATIENCE, "Setting up the database takes too long")
        self._order("start")
        self._until(self._web_ready, READY_PATIENCE, f"The web process does not answer; see {self.logs / 'web.log'}")
        self.say(f"Web, worker, slow worker and beat are running (logs: {self.logs})")
        for warning in self.events["prepared"].get("warnings", ()):
            self.say(f"Warning: {warning}")
        password = self.events["prepared"].get("admin_password")
        if password:
            self._show_password(password)
        self.say(f"The portal runs at {self.url}/monitoring/ (Ctrl-C stops it)")
        self.state["ready_at"] = time.time()
        self._write_state()

    def _settled(self, name: str) -> bool:
        return self.children[name].settled

    def _await_the_last_run(self) -> None:
        """What a killed supervisor left ends by itself within seconds; wait for it before touching its files."""
        left = embedded.read_state(self.data).get("pids", {})
        embedded.wait_gone(
            {int(pid): mark for name, (pid, mark) in left.items() if name != "supervisor" and mark}, patience=15
        )
        if self.sockets.is_dir():
            shutil.rmtree(self.sockets, ignore_errors=True)

    def _subreap(self) -> None:
        """Inherit what our children leave behind, so that stopping can end it; raise the limit on open files."""
        if embedded.LINUX:
            embedded._libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # noqa: SLF001
        if not embedded.LINUX or os.environ.get("PORTAL_WATCHDOG"):
            self.watchdog = subprocess.Popen(
                [sys.executable, "-S", "-c", WATCHDOG],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 65536 if most == resource.RLIM_INFINITY else min(most, 65536)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))

    def _servers(self) -> list[embedded.Server]:
        """The embedded servers that no variable replaces, in the order of their start."""
        servers: list[embedded.Server] = []
        if embedded.given(ROOT, "DATABASE_URL"):
            self.say("PostgreSQL: the one of DATABASE_URL")
        else:
            postgres = embedded.Postgres(self.data, self.sockets, log=self.logs / "postgres.log")
            os.environ["DATABASE_URL"] = self.state["database_url"] = postgres.url
            servers.append(postgres)
        if embedded.given(ROOT, "REDIS_URL"):
            self.say("Redis: the one of REDIS_URL")
        else:
            valkey = embedded.Valkey(self.data, self.sockets, log=self.logs / "valkey.log")
            os.environ["REDIS_URL"] = self.state["redis_url"] = valkey.url
            servers.append(valkey)
        return servers

    def _add_server(self, server: embedded.Server) -> None:
        def begin() -> subprocess.Popen[bytes]:
            if server.prepare():
                self.say(f"PostgreSQL data created in {server.folder}")
            return server.start()

        self._tail(server.name)
        self._begin(Child(server.name, begin, server.stop_signal, server.ready))

    def _add_launcher(self, listening: socket.socket) -> None:
        def begin() -> subprocess.Popen[bytes]:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self.events.pop("ready", None)
            for role in ROLES:
                self.pids.pop(role, None)
            if self.control is not None:
                self.control.close()
            self.control, self.pending = ours, b""
            with theirs:
                return embedded.spawn(
                    [
                        *(sys.executable, "-m", "monitoring_portal.launcher", "--control", str(theirs.fileno())),
                        *("--listen", str(listening.fileno()), "--logs", self.logs),
                    ],
                    log=self.logs / "launcher.log",
                    pass_fds=(theirs.fileno(), listening.fileno()),
                    cwd=ROOT,
                )

        for name in ("launcher", *ROLES):
            self._tail(name)
        self._begin(Child("launcher", begin, signal.SIGTERM, lambda: "ready" in self.events))

    def _tail(self, name: str) -> None:
        self.tails[name] = Log(self.logs / f"{name}.log")

    def _begin(self, child: Child) -> None:
        child.process = child.begin()
        child.due, child.settled = None, False
        child.backoff.started()
        self.children[child.name] = child
        self._note_pid(child.name, child.process.pid, child.stop_signal)

    def _show_password(self, password: str) -> None:
        lines = [
            "First administrator:  admin",
            f"Password:             {password}",
            "Shown this once; keep it, or change it in the portal.",
        ]
        wide = max(map(len, lines))
        rule = "+" + "-" * (wide + 2) + "+"
        with contextlib.suppress(OSError, ValueError):
            print("\n".join([rule, *(f"| {line.ljust(wide)} |" for line in lines), rule]), flush=True)

    def _web_ready(self) -> bool:
        """Whether the portal says so. It is asked without waiting: the socket is open long before anybody serves it."""
        if "web" not in self.pids:
            return False
        if self.question is None:
            self.question = Question(self.url, self.question_path)
        status = self.question.status()
        if status is None:
            return False
        self.question = None
        if status == 404 and self.question_path == READY_PATH:
            self.question_path = HEALTH_PATH
            return False
        return status == 200 or (status > 0 and self.question_path == HEALTH_PATH)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _until(self, condition: Callable[[], bool], patience: float, failure: str, every: float = 0.02) -> None:
        """Run the loop until a condition holds."""
        deadline = time.monotonic() + patience
        while not condition():
            self.turn(every)
            if self.signals:
                raise KeyboardInterrupt
            if "failed" in self.events:
                raise Refused(str(self.events["failed"]["text"]))
            if time.monotonic() > deadline:
                raise Refused(f"{failure} (waited {patience:.0f} s).")

    def run(self) -> None:
        """Watch until a signal."""
        while not self.signals:
            dues = [child.due for child in self.children.values() if child.due is not None]
            unsettled = any(not child.settled and child.process for child in self.children.values())
            self.turn(min([0.05 if unsettled else 1.0, *(max(0.0, due - time.monotonic()) for due in dues)]))

    def turn(self, pause: float) -> None:
        """One round: signals, events of the launcher, ends of children, starts that are due, logs."""
        waiting: list[socket.socket] = [self.wake_out]
        if self.control is not None:
            waiting.append(self.control)
        ready, _, _ = select.select(waiting, [], [], pause)
        if self.wake_out in ready:
            self.wake_out.recv(4096)
        if self.control is not None and self.control in ready:
            self._hear()
        self._reap()
        if not self.stopping:
            self._settle()
            self._restart()
        self._show_logs()

    def _hear(self) -> None:
        assert self.control is not None
        try:
            received = self.control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self.control.close()
            self.control = None
            return
        *lines, self.pending = (self.pending + received).split(b"\n")
        for line in lines:
            self._event(json.loads(line))

    def _event(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        self.events[kind] = event
        if kind == "ready" and event.get("threads", 1) > 1:
            self.say(f"launcher: {event['threads']} threads in the forking process; a module starts one when imported")
        if kind == "progress":
            self.say(event["text"])
        elif kind == "role":
            again = event["name"] in self.seen
            self.seen.add(event["name"])
            self._note_pid(event["name"], event["pid"], signal.SIGKILL)
            if again:
                self.say(f"{event['name']} was started again (process {event['pid']})")
        elif kind == "exit":
            self._forget_pid(event["name"])
            self.say(f"{event['name']} ended ({ending(event['code'])}); starting it again in {event['again_in']:.0f} s")
        elif kind == "killed":
            self.say(f"{event['name']} did not stop in its time and was killed")
        elif kind == "stopped":
            self._forget_pid(event["name"])

    def _reap(self) -> None:
        """Notice every end, also of orphans that became ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self.children.values():
                if child.process is not None and child.process.pid == pid:
                    child.process.returncode = os.waitstatus_to_exitcode(status)
                    self._ended(child)

    def _ended(self, child: Child) -> None:
        assert child.process is not None
        code = child.process.returncode
        child.process = None
        self._forget_pid(child.name)
        if self.stopping:
            return
        log = self.logs / f"{child.name}.log"
        if not child.proven:
            raise Refused(f"{child.name} did not start: {embedded.why(log)} (log: {log})")
        pause = child.backoff.pause()
        child.due = time.monotonic() + pause
        self.say(f"{child.name} ended ({ending(code)}); starting it again in {pause:.0f} s")

    def _settle(self) -> None:
        for child in self.children.values():
            if child.process is not None and not child.settled and child.ready():
                child.settled = True
                if child.proven:
                    self.say(f"{child.name} was started again (process {child.process.pid})")
                    if child.name == "launcher":
                        self._order("start")
                child.proven = True

    def _restart(self) -> None:
        for child in self.children.values():
            if child.due is not None and child.due <= time.monotonic():
                try:
                    self._begin(child)
                except Refused as refusal:
                    child.due = time.monotonic() + child.backoff.pause()
                    self.say(str(refusal))

    def _show_logs(self) -> None:
        now = time.monotonic()
        for name, log in self.tails.items():
            for line in log.important(now):
                if not self.stopping:
                    self.say(f"{name}: {line}")

    def _order(self, order: str) -> None:
        if self.control is not None:
            with contextlib.suppress(OSError):
                self.control.sendall(json.dumps({"order": order}).encode() + b"\n")

    # --- who runs ---------------------------------------------------------------------------------------------------

    def _note_pid(self, name: str, pid: int, how: int) -> None:
        self.pids[name] = pid
        self._tell_watchdog("+", pid, how)
        self._write_state()

    def _forget_pid(self, name: str) -> None:
        pid = self.pids.pop(name, None)
        if pid is not None:
            self._tell_watchdog("-", pid, 0)
            self._write_state()

    def _tell_watchdog(self, sign: str, pid: int, how: int) -> None:
        if self.watchdog is not None and self.watchdog.stdin is not None:
            with contextlib.suppress(OSError):
                self.watchdog.stdin.write(f"{sign} {pid} {int(how)}\n".encode())
                self.watchdog.stdin.flush()

    def _write_state(self) -> None:
        everyone = {"supervisor": os.getpid(), **self.pids}
        self.state["pids"] = {name: [pid, embedded.started_at(pid)] for name, pid in everyone.items()}
        with contextlib.suppress(OSError):  # A full disk must not end what runs.
            embedded.write_state(self.data, self.state)

    # --- stop -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End everything in order: beat, worker, slow, web (the launcher does it), Valkey, PostgreSQL."""
        if self.stopping or not self.lock.held:
            return  # Without the lock these files and processes are another portal's.
        self.stopping = True
        asked = self.signals
        for name, patience in (("launcher", 25.0), ("valkey", 5.0), ("postgres", 30.0)):
            child = self.children.get(name)
            if child is None or child.process is None:
                continue
            if self.signals > asked or not self._end(child, patience, asked):
                self._kill(child)
        self._end_orphans()
        self._clean()

    def _end(self, child: Child, patience: float, asked: int) -> bool:
        assert child.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.process.pid, child.stop_signal)
        deadline = time.monotonic() + patience
        while child.process is not None:
            self.turn(0.02)
            if self.signals > asked or time.monotonic() > deadline:
                break
        return child.process is None

    def _kill(self, child: Child) -> None:
        """PostgreSQL's "immediate" end takes its children along; everything else is simply killed."""
        deadline = time.monotonic() + 5
        while child.process is not None:
            hard = child.name != "postgres" or time.monotonic() > deadline - 3
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.process.pid, signal.SIGKILL if hard else signal.SIGQUIT)
            self.turn(0.1)
            if time.monotonic() > deadline:
                self.say(f"{child.name} does not end even when killed")
                return

    def _end_orphans(self) -> None:
        """End what our children left to us, and theirs."""
        for _ in range(50):
            orphans = [pid for pid in children_of(os.getpid()) if self.watchdog is None or pid != self.watchdog.pid]
            if not orphans:
                return
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
            self._reap()

    def _clean(self) -> None:
        shutil.rmtree(self.sockets, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.data / "run.json").unlink()
        if self.watchdog is not None and self.watchdog.stdin is not None:
            with contextlib.suppress(OSError):
                self.watchdog.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.watchdog.wait(5)
        self.lock.release()

    def catch_signals(self) -> None:
        """Ctrl-C, SIGTERM and a closed terminal stop the portal; each more of them hurries it."""

        def noted(signum: int, frame: object) -> None:
            self.signals += signum != signal.SIGCHLD

        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(signum, noted)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, noted)
        signal.set_wakeup_fd(self.wake_in.fileno(), warn_on_full_buffer=False)


# --- small matters ----------------------------------------------------------------------------------------------------


def ending(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def children_of(parent: int) -> list[int]:
    """The processes whose parent is a given one, where the system tells (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(path.parent.name))
    return found


def wanted_address(bind: str | None) -> tuple[str, int, bool]:
    """Host, port and whether the port was asked for by name (`--bind`, `PORT`)."""
    host, port, by_name = DEFAULT_HOST, DEFAULT_PORT, False
    if text := os.environ.get("PORT", "").strip():
        port, by_name = _port(text, f"PORT is {text!r}"), True
    if bind:
        host_text, colon, port_text = bind.rpartition(":")
        if not colon or (bind.count(":") > 1 and not bind.startswith("[")):
            host_text, port_text = (bind, "") if not bind.isdigit() else ("", bind)
        host = host_text.strip("[]") or DEFAULT_HOST
        if port_text:
            port, by_name = _port(port_text, f"--bind is {bind!r}"), True
    return host, port, by_name


def _port(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 65535:
        raise Refused(
            f"{what}, but a port is a whole number from 0 to 65535: give it as in PORT=3000 or --bind 127.0.0.1:3000."
        )
    return int(text)


def listen(bind: str | None) -> tuple[socket.socket, str]:
    """Bind the portal's socket before anything else starts, and return it with the portal's URL."""
    host, port, by_name = wanted_address(bind)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise Refused(
            f"The address {host!r} to serve on is unknown ({error.strerror}): "
            "give one of this machine, as in --bind 127.0.0.1:3000."
        ) from error
    last: OSError | None = None
    for candidate in range(port, port + 1 if by_name else min(port + PORTS_TRIED, 65536)):
        line = socket.socket(family, socket.SOCK_STREAM)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            line.bind((address[0], candidate, *address[2:]))
            line.listen(1024)
        except OSError as error:
            line.close()
            last = error
            continue
        line.setblocking(False)
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        name = f"[{shown}]" if ":" in shown else shown
        return line, f"http://{name}:{line.getsockname()[1]}"
    reason = (last.strerror or str(last)).lower() if last else "no port left"
    raise Refused(
        f"The portal cannot serve on {host} port {port} ({reason}): "
        "stop what uses it, or choose another with --bind HOST:PORT or PORT."
    )


class Question:
    """One GET asked without waiting for the answer; by hand, which keeps the HTTP client out of this process."""

    def __init__(self, url: str, path: str) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.asked = time.monotonic()
        self.line: socket.socket | None = None
        with contextlib.suppress(OSError):
            self.line = socket.create_connection((host.strip("[]"), int(port)), timeout=1)
            self.line.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nUser-Agent: portal\r\n\r\n".encode())

    def status(self) -> int | None:
        """The status of the answer, 0 when there will be none, None while it is not there yet."""
        if self.line is None:
            return 0
        if not select.select([self.line], [], [], 0)[0]:
            if time.monotonic() - self.asked < ANSWER_PATIENCE:
                return None
            self.line.close()
            return 0
        with self.line:
            try:
                words = self.line.recv(256).split()
            except OSError:
                return 0
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def become_demo(root: Path) -> None:
    """Turn to a data folder of the demo's own: it must not meet real data, nor its messages real people."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        if embedded.given(root, name):
            raise Refused(
                f"--demo brings servers of its own, and {name} names another: unset it, or run without --demo."
            )
    folder = embedded.data_folder(root)
    os.environ["PORTAL_DATA"] = str(folder.with_name(f"{folder.name}-demo"))
    os.environ["PORTAL_DEMO"] = "1"
    os.environ["EMAIL_BACKEND"] = "django.core.mail.backends.dummy.EmailBackend"
    for name in ("ALERT_EMAIL_TO", "SLACK_WEBHOOK_URL", "WEBHOOK_URL"):
        os.environ[name] = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the portal until it is told to stop; 0 after an ordinary stop, 2 when something stood in the way."""
    parser = argparse.ArgumentParser(prog="./portal run", description="Run the whole portal until Ctrl-C.")
    parser.add_argument(
        "--bind", metavar="HOST:PORT", help="where to serve (127.0.0.1:3000); PORT alone comes from PORT"
    )
    parser.add_argument(
        "--demo", action="store_true", help="a made-up clinic with a week of data, in a data folder of its own"
    )
    chosen = parser.parse_args(arguments)
    os.umask(0o077)
    supervisor: Supervisor | None = None
    try:
        if chosen.demo:
            become_demo(ROOT)
        supervisor = Supervisor(chosen.bind)
        supervisor.catch_signals()
        supervisor.start()
        supervisor.run()
    except Refused as refusal:
        if supervisor is not None:
            supervisor.stop()
        print(f"portal: {refusal}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        pass
    assert supervisor is not None
    supervisor.say("Stopping")
    supervisor.stop()
    supervisor.say("Stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
