"""`./portal backup` and `./portal restore`: the embedded database and the folder's secret, out and verified in again.

A backup is a folder `portal-backup-<time>` with the server's files (or a dump), the secret key, the list of stored rows
that it must hold, and a manifest written last. Until then its name ends in `.partial`, and no restore takes it. What
a restore makes stands in `restoring` inside the data folder until every check has passed; then it is renamed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg

from monitoring_portal import embedded, environment
from monitoring_portal.embedded import Postgres, Refused

ROOT: Final = Path(__file__).resolve().parent.parent
PREFIX: Final = "portal-backup-"
PARTIAL: Final = ".partial"
MANIFEST: Final = "manifest.json"
ROWS: Final = "rows.txt"
DUMP: Final = "portal.dump"
KEY: Final = "secret-key"
LAST: Final = "last-backup.json"
"""In the data folder: when the last backup was made, where, and how large; the portal's own series tell of it."""
FORMAT: Final = 1
RECOVERY: Final = 3600.0
"""Seconds that a restored server may take to work off its log."""
ELSEWHERE: Final = (
    "The database is the one of DATABASE_URL, which the portal does not run: {verb} it with the tools of whoever does "
    "(for example {example}), and keep a copy of SECRET_KEY; docs/how-to/backup.md says what must go together."
)
STORED: Final = {
    "block": "SELECT id, crc FROM metrics_block",
    "batch": "SELECT id, samples FROM metrics_batch",
}
"""Rows of samples never change, so (id, number) tells whether a row is the same one."""

Rows = dict[str, dict[int, int]]


def say(text: str) -> None:
    """One line for the operator."""
    tell(f"{text}\n")


def tell(text: str) -> None:
    """Write as it is; a terminal that is gone stops nobody."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(text)
        sys.stdout.flush()


def refused(text: str, status: int = 2) -> int:
    """Say why nothing came of it."""
    sys.stderr.write(f"portal: {text}\n")
    return status


class Bar:
    """Progress in per cent: drawn anew on a terminal, a line every ten per cent elsewhere."""

    def __init__(self, what: str) -> None:
        self.what, self.shown, self.begun = what, -1, time.monotonic()

    def at(self, done: float) -> None:
        """`done`: from 0 to 1."""
        percent = min(100, int(done * 100))
        terminal = sys.stdout.isatty()
        if percent == self.shown or (not terminal and percent // 10 == self.shown // 10):
            return
        self.shown = percent
        spent = time.monotonic() - self.begun
        left = f", about {spent / done - spent:.0f} s left" if 0.01 < done < 1 else ""
        ending = "\n" if not terminal or percent == 100 else ""
        begin = "\r" if terminal else ""
        tell(f"{begin}{self.what}: {percent} %{left}    {ending}")


# --- servers ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(data: Path) -> Iterator[Postgres]:
    """The embedded server over a data folder: the one that runs, else one of our own until we are done."""
    if embedded.running(data):
        yield Postgres(data, embedded.socket_folder(data))
        return
    if not (data / "postgres" / "PG_VERSION").exists():
        raise Refused(f"There is no database in {data}: nothing to back up (PORTAL_DATA names another data folder).")
    lock = embedded.DataLock(data)
    lock.acquire()
    try:
        with started(Postgres(data, embedded.socket_folder(data), log=data / "backup.log")) as postgres:
            yield postgres
    finally:
        lock.release()


@contextlib.contextmanager
def started(postgres: Postgres) -> Iterator[Postgres]:
    """A server of our own, ended in peace."""
    postgres.prepare()
    process = postgres.start()
    try:
        embedded.wait_ready(postgres, process, patience=RECOVERY)
        yield postgres
    finally:
        embedded.stop(process, postgres.stop_signal, 60)
        shutil.rmtree(postgres.sockets, ignore_errors=True)


def program(postgres: Postgres, name: str) -> Path:
    """One of the server's own tools."""
    path = postgres.programs / name
    if not os.access(path, os.X_OK):
        raise Refused(f"The program {name} is missing in {postgres.programs}: point PORTAL_PG_BIN to a complete one.")
    return path


def run(command: Sequence[str | Path], what: str, line: Callable[[str], None] | None = None, **options: Any) -> None:
    """Run a tool to its end, telling `line` what it says; its failure is a refusal with its last words."""

    def before_exec() -> None:
        os.umask(0o077)
        embedded.die_with_parent(signal.SIGTERM)

    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
    child = subprocess.Popen(
        [os.fspath(word) for word in command],
        **{"cwd": "/", "env": env, **options},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=before_exec,  # noqa: PLW1509 - one thread
    )
    last = "it said nothing"
    try:
        for text in child.stdout or ():
            if text.strip():
                last = text.strip()
                if line is not None:
                    line(last)
        status = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if status:
        cause = "the disk is full" if os.strerror(28) in last else last
        raise Refused(f"{what} failed ({cause}).")


# --- what must be there afterwards ------------------------------------------------------------------------------------


def stored_rows(line: psycopg.Connection[Any]) -> Rows:
    """Every row of samples, by table and id."""
    return {name: {int(key): int(number) for key, number in line.execute(sql)} for name, sql in STORED.items()}


def counts(line: psycopg.Connection[Any]) -> dict[str, int]:
    """How many rows each table has."""
    names = line.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
    found = {}
    for (name,) in names:
        counted = line.execute(f'SELECT count(*) FROM "{name}"').fetchone()
        found[str(name)] = int(counted[0]) if counted else 0
    return found


def in_both(before: Rows, after: Rows) -> Rows:
    """What was there at the begin and at the end was there at every moment between, the backup's own included."""
    return {
        name: {key: number for key, number in rows.items() if after.get(name, {}).get(key) == number}
        for name, rows in before.items()
    }


def write_rows(path: Path, rows: Rows) -> None:
    with path.open("w") as file:
        for name, found in rows.items():
            file.writelines(f"{name} {key} {number}\n" for key, number in sorted(found.items()))


def read_rows(path: Path) -> Rows:
    rows: Rows = {name: {} for name in STORED}
    with path.open() as file:
        for line in file:
            name, key, number = line.split()
            rows[name][int(key)] = int(number)
    return rows


def missing(wanted: Rows, found: Rows) -> list[str]:
    """The rows that are not there or are others."""
    return [
        f"{name} {key}"
        for name, rows in wanted.items()
        for key, number in rows.items()
        if found.get(name, {}).get(key) != number
    ]


def outside(wanted: Mapping[str, Sequence[int]], found: Mapping[str, int]) -> list[str]:
    """Tables whose count is not between those before and after the backup; in words."""
    return [
        f"{name}: {found.get(name, 0)} rows, {' to '.join(map(str, sorted(set(between))))} were there"
        for name, between in wanted.items()
        if not min(between) <= found.get(name, -1) <= max(between)
    ]


def digest_of(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mark_of(key: str) -> str:
    """By which a secret key is recognised without being told."""
    return hashlib.sha256(b"portal-backup " + key.encode()).hexdigest()[:16]


# --- backup -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """What the command line asks of a backup."""

    folder: Path
    keep: int | None = None
    dump: bool = False
    rate: str | None = None


def backup(wish: Wish, data: Path) -> Path:
    """Make one backup beside the running portal (or of one that stands still); return its folder."""
    if embedded.given(ROOT, "DATABASE_URL"):
        raise Refused(ELSEWHERE.format(verb="back up", example="pg_basebackup --wal-method=stream"))
    folder = embedded.make_folder(wish.folder, "backups")
    with alone(folder), serving(data) as postgres:
        for left in folder.glob(f"{PREFIX}*{PARTIAL}"):
            shutil.rmtree(left)  # Of a backup that was killed: the lock says that nobody works on it.
        name = f"{PREFIX}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        making, final = folder / f"{name}{PARTIAL}", folder / name
        making.mkdir(mode=0o700)
        begun = time.monotonic()
        try:
            manifest = fill(making, wish, postgres, data)
            (making / MANIFEST).write_text(json.dumps(manifest, indent=1))
            making.rename(final)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        note(postgres, data, final, manifest)
        for old in complete(folder)[: -wish.keep] if wish.keep else ():
            shutil.rmtree(old)
            say(f"Removed the older backup {old.name}")
    say(
        f"Backed up to {final}: {manifest['bytes'] / 1e6:.0f} MB, {manifest['samples']} samples in "
        f"{manifest['rows']} rows ({time.monotonic() - begun:.0f} s)"
    )
    if manifest["secret_key"] == "environment":  # noqa: S105 - a word
        say("The secret key comes from SECRET_KEY and is not in the backup: keep it, or contacts' secrets stay locked.")
    return final


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One backup at a time into one folder."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"Another backup into {folder} is under way: wait for it.") from None
        yield


def fill(making: Path, wish: Wish, postgres: Postgres, data: Path) -> dict[str, Any]:
    """Write everything but the manifest; return that."""
    with psycopg.connect(postgres.url, autocommit=True) as line:
        found = line.execute("SELECT pg_database_size(current_database())").fetchone()
        size = int(found[0]) if found else 0
        free = shutil.disk_usage(making).free
        if not wish.dump and free < size * 1.05 + 100_000_000:
            raise Refused(
                f"The disk of {making.parent} has {free / 1e9:.1f} GB free, but the database has {size / 1e9:.1f} GB: "
                "make room, or name a folder on another disk."
            )
        before, counted = stored_rows(line), counts(line)
        dump(making, postgres) if wish.dump else base(making, postgres, wish.rate)
        rows = in_both(before, stored_rows(line))
        after = counts(line)
        samples = line.execute(
            "SELECT (SELECT coalesce(sum(samples), 0) FROM metrics_batch)"
            " + (SELECT coalesce(sum(samples), 0) FROM metrics_block WHERE resolution = 0)"
        ).fetchone()
    write_rows(making / ROWS, rows)
    key = embedded.given(ROOT, "SECRET_KEY")
    if not key:
        shutil.copyfile(data / KEY, making / KEY)
        (making / KEY).chmod(0o600)
    manifest_of_server = making / "postgres" / "backup_manifest"
    kept = [path for path in (making / ROWS, making / KEY, making / DUMP, manifest_of_server) if path.exists()]
    secret = environment.raw("SECRET_KEY") if key else (data / KEY).read_text().strip()
    return {
        "format": FORMAT,
        "kind": "dump" if wish.dump else "base",
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "portal": environment.version(ROOT / "CHANGELOG.md"),
        "postgresql": postgres.version,
        "bytes": sum(path.stat().st_size for path in making.rglob("*") if path.is_file()),
        "database_bytes": size,
        "samples": int(samples[0]) if samples else 0,
        "rows": sum(map(len, rows.values())),
        "tables": {name: [counted.get(name, 0), after[name]] for name in after},
        "secret_key": "environment" if key else "included",
        "secret_key_mark": mark_of(secret) if secret else "",
        "files": {str(path.relative_to(making)): digest_of(path) for path in kept},
    }


def base(making: Path, postgres: Postgres, rate: str | None) -> None:
    """A base backup with the log that belongs to it, read once more against its own checksums."""
    bar = Bar("Copying the database")

    def line(text: str) -> None:
        if found := re.search(r"(\d+)/(\d+) kB", text):
            bar.at(int(found[1]) / max(1, int(found[2])))

    target = making / "postgres"
    command: list[str | Path] = [
        *(program(postgres, "pg_basebackup"), "--pgdata", target, "--host", postgres.sockets),
        *("--username", embedded.OWNER, "--no-password", "--checkpoint=fast", "--wal-method=stream", "--progress"),
        *("--label", "portal", *(("--max-rate", rate) if rate else ())),
    ]
    run(command, "The base backup", line)
    bar.at(1.0)
    say("Checking what was copied")
    run([program(postgres, "pg_verifybackup"), "--quiet", target], "The check of the copied files")


def dump(making: Path, postgres: Postgres) -> None:
    """A dump, which another major version of PostgreSQL can read."""
    say("Dumping the database")
    command: list[str | Path] = [
        *(program(postgres, "pg_dump"), "--format=custom", "--compress=1", "--file", making / DUMP),
        *("--host", postgres.sockets, "--username", embedded.OWNER, "--no-password", embedded.DATABASE),
    ]
    run(command, "The dump")


def note(postgres: Postgres, data: Path, final: Path, manifest: Mapping[str, Any]) -> None:
    """Tell the portal: a file for its series, an entry in its audit trail."""
    told = {"at": time.time(), "path": str(final), "bytes": manifest["bytes"], "kind": manifest["kind"]}
    fresh = data / f"{LAST}.new"
    fresh.write_text(json.dumps(told))
    fresh.replace(data / LAST)
    recorded(postgres.url, data, "portal.backup", final.name, {key: manifest[key] for key in ("kind", "bytes", "rows")})


def recorded(url: str, data: Path, verb: str, label: str, after: dict[str, Any]) -> None:
    """Leave an entry in the audit trail of the database at `url`."""
    os.environ |= {
        "DATABASE_URL": url,
        "PORTAL_DATA": str(data),
        "DJANGO_SETTINGS_MODULE": "monitoring_portal.settings",
    }
    import django

    django.setup()
    from django.db import connection

    from apps.accounts import audit
    from apps.accounts.permissions import Principal

    by = Principal.system("./portal", via="command")
    audit.record(by=by, verb=verb, target=("portal.backup", "", label), after=after)
    connection.close()


def complete(folder: Path) -> list[Path]:
    """The whole backups in a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.suffix != PARTIAL and (path / MANIFEST).is_file())


# --- restore ----------------------------------------------------------------------------------------------------------


def chosen(folder: Path) -> Path:
    """The backup that a folder is, or the newest whole one in it."""
    if folder.name.endswith(PARTIAL):
        raise Refused(f"{folder} is of a backup that was not finished: take an earlier one.")
    if (folder / MANIFEST).is_file():
        return folder
    if found := complete(folder):
        return found[-1]
    if any(folder.glob(f"{PREFIX}*{PARTIAL}")):
        raise Refused(f"In {folder} is only a backup that was not finished: take another folder.")
    raise Refused(f"There is no backup in {folder}: name the folder that ./portal backup has written to.")


def checked_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, its files compared with their checksums, and whether this portal can use it."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        files = dict(manifest["files"])
        if manifest["format"] != FORMAT:
            raise Refused(f"{folder} is a backup of format {manifest['format']}, but this portal reads {FORMAT}.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"The manifest of {folder} cannot be read ({error}): take an earlier backup.") from error
    for name, digest in files.items():
        path = folder / name
        if not path.is_file() or digest_of(path) != digest:
            raise Refused(f"The file {name} of {folder} is not what was written: take an earlier backup.")
    ours = environment.version(ROOT / "CHANGELOG.md")
    if numbers(manifest["portal"]) > numbers(ours):
        raise Refused(f"The backup is of portal {manifest['portal']}, this one is {ours}: use the newer portal.")
    return manifest


def numbers(version: str) -> tuple[int, ...]:
    """A version for comparing.

    >>> numbers("0.10.1") > numbers("0.9")
    True
    """
    return tuple(int(part) for part in re.findall(r"\d+", version))


def restore(folder: Path, data: Path) -> None:
    """Put a backup into an empty data folder, and say so only when everything that it must hold was found in it."""
    if embedded.given(ROOT, "DATABASE_URL"):
        raise Refused(ELSEWHERE.format(verb="restore", example="a copied base backup"))
    source = chosen(folder)
    embedded.make_folder(data, "the portal's data")
    lock = embedded.DataLock(data)
    lock.acquire()
    try:
        refuse_to_overwrite(data)
        manifest = checked_manifest(source)
        say(f"The backup {source.name} of {manifest['made_at']} (PostgreSQL {manifest['postgresql']})")
        key = key_for(source, data, manifest)
        work = data / "restoring"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        if key is not None:
            write_key(work / KEY, key)
        postgres = Postgres(work, embedded.socket_folder(work), log=work / "restore.log")
        postgres.discard()  # What a restore that was killed has left may lie outside of the folder.
        bring(source, manifest, postgres)
        with started(postgres):
            if manifest["kind"] == "dump":
                load(source, postgres)
            examine(source, manifest, postgres, work)
        shutil.move(postgres.folder, data / "postgres")
        if key is not None and not (data / KEY).exists():
            (work / KEY).rename(data / KEY)
        shutil.rmtree(work, ignore_errors=True)
    finally:
        lock.release()
    say(f"Restored into {data}: start it with ./portal run")


def refuse_to_overwrite(data: Path) -> None:
    there = data / "postgres"
    if there.is_symlink() or (there.exists() and any(there.iterdir())):
        raise Refused(
            f"{there} holds a database, and a restore overwrites nothing: move it away, or set PORTAL_DATA to an empty "
            "folder."
        )


def key_for(source: Path, data: Path, manifest: Mapping[str, Any]) -> str | None:
    """The secret key to be written; None where it comes from the environment."""
    carried = (source / KEY).read_text().strip() if (source / KEY).is_file() else None
    if (given := environment.raw("SECRET_KEY")) is not None:
        if mark_of(given) != manifest["secret_key_mark"]:
            say("SECRET_KEY is not the key of the backup: contacts' secrets stay locked without SECRET_KEY_FALLBACKS.")
        return None
    here = (data / KEY).read_text().strip() if (data / KEY).is_file() else None
    if here and carried and here != carried:
        raise Refused(f"{data / KEY} is another key than the backup's: move it away, or set SECRET_KEY.")
    if not (carried or here):
        say("The backup has no secret key (it came from SECRET_KEY): set that variable before the portal runs.")
    return carried or here


def write_key(path: Path, key: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(key)


def bring(source: Path, manifest: Mapping[str, Any], postgres: Postgres) -> None:
    """Copy the server's files where they are to be tried, once they are known to be right."""
    if manifest["kind"] == "dump":
        return
    major = str(manifest["postgresql"]).partition(".")[0]
    if major != postgres.major:
        raise Refused(
            f"The backup is of PostgreSQL {major}, but the portal has PostgreSQL {postgres.major}: set PORTAL_PG_BIN "
            f"to the bin folder of PostgreSQL {major}, restore, and move it on with ./portal backup --dump."
        )
    say("Checking the files of the backup")
    run([program(postgres, "pg_verifybackup"), "--quiet", source / "postgres"], "The check of the backup's files")
    free, size = shutil.disk_usage(postgres.data).free, int(manifest["bytes"])
    if free < size * 1.05 + 100_000_000:
        raise Refused(
            f"The disk of {postgres.data} has {free / 1e9:.1f} GB free, the backup {size / 1e9:.1f}: make room."
        )
    bar, done = Bar("Copying"), 0

    def copied(origin: str, target: str) -> None:
        nonlocal done
        shutil.copy2(origin, target)
        done += Path(target).stat().st_size
        bar.at(done / max(1, size))

    shutil.copytree(source / "postgres", postgres.data / "postgres", symlinks=True, copy_function=copied)
    (postgres.data / "postgres").chmod(0o700)
    bar.at(1.0)


def load(source: Path, postgres: Postgres) -> None:
    """Fill a new database from a dump."""
    say("Loading the dump")
    command: list[str | Path] = [
        *(program(postgres, "pg_restore"), "--no-owner", "--exit-on-error", "--dbname", embedded.DATABASE),
        *("--host", postgres.sockets, "--username", embedded.OWNER, "--no-password", source / DUMP),
    ]
    run(command, "Loading the dump")


def examine(source: Path, manifest: Mapping[str, Any], postgres: Postgres, work: Path) -> None:
    """Raise unless everything is there: rows of samples one by one, counts of tables, every checksum."""
    say("Counting what is there")
    with psycopg.connect(postgres.url, autocommit=True) as line:
        gone = missing(read_rows(source / ROWS), stored_rows(line))
        others = outside(manifest["tables"], counts(line))
    if gone:
        raise Refused(f"{len(gone)} rows of samples are missing ({', '.join(gone[:5])}): take an earlier backup.")
    for other in others:
        say(f"Note: {other} at the time of the backup")
    if short := [other for other in others if other.startswith("accounts_auditentry:")]:
        raise Refused(f"The audit trail is not whole ({short[0]}): take an earlier backup.")
    if numbers(manifest["portal"]) != numbers(environment.version(ROOT / "CHANGELOG.md")):
        manage(postgres, work, "migrate", "--no-input", "--verbosity", "0")
    if manifest["kind"] == "dump":
        # Numbers of transactions mean nothing in another cluster; the order of writes hangs on them.
        manage(postgres, work, "store", "repair", "--yes")
    say("Checking every stored row")
    manage(postgres, work, "store", "check")
    after = {"kind": manifest["kind"], "made_at": manifest["made_at"], "rows": manifest["rows"]}
    recorded(postgres.url, work, "portal.restore", source.name, after)


def manage(postgres: Postgres, work: Path, *words: str) -> None:
    """Run a Django command on the restored database."""
    env = {**os.environ, "DATABASE_URL": postgres.url, "PORTAL_DATA": str(work), "PORTAL_ENTERED": "1"}
    env.setdefault("REDIS_URL", f"unix://{work / 'none.sock'}")
    command = [sys.executable, str(ROOT / "manage.py"), *words]
    run(
        command,
        f"`manage.py {' '.join(words)}` on the restored database",
        lambda text: say(f"  {text}"),
        env=env,
        cwd=ROOT,
    )


# --- the command line -------------------------------------------------------------------------------------------------


def main(words: Sequence[str]) -> int:
    """`backup` or `restore` with their arguments; relative folders are those of the caller."""
    parser = argparse.ArgumentParser(prog="./portal")
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("backup", help="back up the embedded database and the secret key, also while running")
    making.add_argument("folder", help="where backups are kept; each becomes a folder in it")
    making.add_argument("--keep", type=int, metavar="N", help="afterwards remove all but the N newest backups")
    making.add_argument("--dump", action="store_true", help="a dump, which another major version of PostgreSQL reads")
    making.add_argument("--rate", metavar="RATE", help="copy at most so much a second, such as 20M")
    bringing = verbs.add_parser("restore", help="restore into an empty data folder (PORTAL_DATA), verified")
    bringing.add_argument("folder", help="a backup, or the folder of backups (then the newest whole one)")
    given = parser.parse_args(words)
    folder = Path(os.environ.get("PORTAL_HERE", "."), given.folder).expanduser().resolve()
    data = embedded.data_folder(ROOT)
    if given.verb == "backup" and given.keep is not None and given.keep < 1:
        parser.error("--keep wants at least 1")
    try:
        if given.verb == "backup":
            backup(Wish(folder, given.keep, given.dump, given.rate), data)
        else:
            restore(folder, data)
    except Refused as refusal:
        return refused(str(refusal))
    except psycopg.Error as error:
        return refused(f"the database does not answer ({' '.join(str(error).split())}).")
    except KeyboardInterrupt:
        return refused("stopped", 130)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
