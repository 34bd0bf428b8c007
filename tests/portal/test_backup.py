"""Backup beside a running portal, restore into an empty folder: the same answers to the byte, or a refusal."""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

import pytest

from monitoring_portal import backup
from monitoring_portal.testing import ROOT, Portal

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("portal-backup")]
TOKEN = "a-token-for-the-queries-of-this-test"
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
SERIES, SAMPLES = 40, 600


class Place:
    """A portal, its folder of backups, and the command that makes them."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self.backups = folder, folder / "backups"
        self.portal = Portal(folder, {"MONITORING_AUTH_TOKEN": TOKEN, **(environment or {})})

    def command(self, *words: str, data: Path | None = None, **variables: str) -> subprocess.Popen[str]:
        env = {**self.portal.environment, "PORTAL_HERE": str(self.folder), **variables}
        if data is not None:
            env["PORTAL_DATA"] = str(data)
        return subprocess.Popen(
            [sys.executable, "-m", "monitoring_portal.backup", *words],
            env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *words: str, data: Path | None = None, status: int = 0, **variables: str) -> str:
        child = self.command(*words, data=data, **variables)
        said, _ = child.communicate(timeout=240)
        assert child.returncode == status, said
        assert "Traceback" not in said
        return said


@pytest.fixture(scope="module")
def begin() -> int:
    """Where the test's samples begin (s): within every retention."""
    return int(time.time()) // 3600 * 3600 - 6 * 3600


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, begin: int) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("backed"))
    lines = (
        f'kept{{n="{n}",half="{n % 2}"}} {(n * 7919 + at * 104_729) % 1_000_003 / 7!r} {(begin + at * 15) * 1000}\n'
        for n in range(SERIES)
        for at in range(SAMPLES)
    )
    file = place.folder / "samples.prom"
    file.write_text("".join(lines))
    with place.portal:
        done = place.portal.manage("store", "import", str(file))
        assert done.returncode == 0, done.stderr
        assert place.portal.manage("store", "compact").returncode == 0
        yield place


def questions(begin: int) -> list[str]:
    """A hundred queries over the test's own samples."""
    parts = [
        "kept", "rate(kept[5m])", "sum by (half) (kept)", "quantile_over_time(0.9, kept[10m])", "topk(3, kept)",
        "kept > on (n) group_left () (kept offset 15m)", "avg_over_time(kept[1h:1m])", "stddev(kept)",
        "changes(kept[30m])", "sort_desc(max_over_time(kept[20m]))",
    ]  # fmt: skip
    asked = [f"query?{urlencode({'query': text, 'time': begin + 900 + 700 * n})}" for text in parts for n in range(5)]
    spans = [{"start": begin + 600 * n, "end": begin + 600 * n + 5400, "step": 45} for n in range(5)]
    plain = [text for text in parts if not text.startswith("sort")] + ["count(kept)"]
    return asked + [f"query_range?{urlencode({'query': text, **span})}" for text in plain for span in spans]


def answers(portal: Portal, begin: int) -> list[bytes]:
    found = []
    for question in questions(begin):
        request = urllib.request.Request(
            f"{portal.url}/api/v1/{question}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found.append(answer.read())
    return found


def test_a_restored_backup_answers_a_hundred_queries_as_before_to_the_byte(
    place: Place, begin: int, tmp_path: Path
) -> None:
    before = answers(place.portal, begin)
    assert len(before) == 100
    assert all(b'"result":[{' in one for one in before)
    said = place.run("backup", "backups")
    assert "Copying the database: 100 %" in said
    made = backup.complete(place.backups)[-1]
    manifest = json.loads((made / backup.MANIFEST).read_text())
    assert manifest["rows"] > 0
    assert (made / backup.KEY).stat().st_mode & 0o077 == 0
    other = Place(tmp_path)
    said = other.run("restore", str(place.backups))
    assert "Checking every stored row" in said
    assert said.splitlines()[-1].startswith(f"Restored into {other.portal.data}")
    assert (other.portal.data / backup.KEY).read_text() == (place.portal.data / backup.KEY).read_text()
    assert not (other.portal.data / "restoring").exists()
    with other.portal:
        assert answers(other.portal, begin) == before
        done = other.portal.manage("shell", "-c", AUDITED)
        assert done.stdout.split()[-1] == "portal.restore", done.stderr
        assert other.run("restore", str(place.backups), status=2).count("already running") == 1
    assert "holds a database, and a restore overwrites nothing" in other.run("restore", str(place.backups), status=2)


AUDITED = (
    "from apps.accounts.models import AuditEntry as A;"
    "print(*A.objects.filter(verb__startswith='portal.').order_by('id').values_list('verb', flat=True))"
)


def test_a_backup_that_is_killed_leaves_the_portal_alone_and_is_no_backup(place: Place, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    child = place.command("backup", str(slow), "--rate", "64k")
    place.portal.wait(lambda: any(slow.glob("*.partial/postgres/base")), 60, "the copy to begin")
    child.kill()
    child.wait()
    assert place.portal.answers()
    (left,) = slow.glob(f"{backup.PREFIX}*")
    for name in (slow, left):
        assert "not finished" in place.run("restore", str(name), data=tmp_path / "var", status=2)
    assert not (tmp_path / "var" / "postgres").exists()
    # The next one clears it away, and takes its time to no harm.
    assert "Backed up to" in place.run("backup", str(slow))
    assert [path.suffix for path in slow.glob(f"{backup.PREFIX}*")] == [""]


@pytest.mark.parametrize("name", ["postgres/PG_VERSION", backup.ROWS, backup.KEY, backup.MANIFEST])
def test_a_backup_with_a_changed_file_is_refused(place: Place, tmp_path: Path, name: str) -> None:
    if not backup.complete(place.backups):
        place.run("backup", "backups")
    copy = tmp_path / backup.complete(place.backups)[-1].name
    shutil.copytree(backup.complete(place.backups)[-1], copy)
    path = copy / name
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    said = place.run("restore", str(copy), data=tmp_path / "var", status=2)
    assert "portal: " in said
    assert not (tmp_path / "var" / "postgres").exists()


def test_a_row_that_is_missing_is_noticed(place: Place, tmp_path: Path) -> None:
    if not backup.complete(place.backups):
        place.run("backup", "backups")
    copy = tmp_path / backup.complete(place.backups)[-1].name
    shutil.copytree(backup.complete(place.backups)[-1], copy)
    with (copy / backup.ROWS).open("a") as file:
        file.write("block 999999999 1\n")
    manifest = json.loads((copy / backup.MANIFEST).read_text())
    manifest["files"][backup.ROWS] = backup.digest_of(copy / backup.ROWS)
    (copy / backup.MANIFEST).write_text(json.dumps(manifest))
    said = place.run("restore", str(copy), data=tmp_path / "var", status=2)
    assert "1 rows of samples are missing (block 999999999)" in said
    assert not (tmp_path / "var" / "postgres").exists()


def test_only_the_newest_backups_are_kept(place: Place, tmp_path: Path) -> None:
    old = tmp_path / f"{backup.PREFIX}20200101T000000Z"
    old.mkdir()
    (old / backup.MANIFEST).write_text("{}")
    said = place.run("backup", str(tmp_path), "--keep", "1")
    assert f"Removed the older backup {old.name}" in said
    assert len(backup.complete(tmp_path)) == 1


def test_another_servers_database_is_left_to_its_own_tools(place: Place, tmp_path: Path) -> None:
    for verb in ("backup", "restore"):
        said = place.run(verb, str(tmp_path), status=2, DATABASE_URL="postgresql://db.example/portal")
        assert "DATABASE_URL" in said
        assert "SECRET_KEY" in said


@pytest.mark.skipif(not (DEBIAN_15 / "postgres").exists(), reason="needs Debian's PostgreSQL 15")
def test_data_of_another_major_version_moves_by_the_commands_that_the_refusal_names(tmp_path: Path) -> None:
    old = Place(tmp_path, {"PORTAL_PG_BIN": str(DEBIAN_15)})
    begin = int(time.time()) // 3600 * 3600 - 6 * 3600
    (tmp_path / "a.prom").write_text("".join(f"kept {n} {(begin + 15 * n) * 1000}\n" for n in range(SAMPLES)))
    with old.portal:
        assert old.portal.manage("store", "import", str(tmp_path / "a.prom")).returncode == 0
        assert old.portal.manage("store", "compact").returncode == 0
        before = answers(old.portal, begin)
        old.portal.stop()
    new = Portal(tmp_path, {"MONITORING_AUTH_TOKEN": TOKEN})
    new.launch()
    assert new.process is not None
    assert new.process.wait(60) == 2
    said = new.output.rpartition("is of PostgreSQL 15")[2]
    data = old.portal.data
    command = (
        f"./portal backup --dump {data}-moved && mv {data}/postgres {data}/postgres-15 && ./portal restore {data}-moved"
    )
    assert command in said
    assert "kind" not in old.run("backup", "--dump", f"{data}-moved")
    (data / "postgres").rename(data / "postgres-15")
    moved = Place(tmp_path)
    assert "Restored into" in moved.run("restore", f"{data}-moved")
    with moved.portal:
        assert answers(moved.portal, begin) == before


def test_rows_that_came_or_went_during_the_backup_are_not_asked_for() -> None:
    before = {"block": {1: 5, 2: 6, 3: 7}, "batch": {1: 1}}
    after = {"block": {1: 5, 3: 8, 4: 1}, "batch": {}}
    assert backup.in_both(before, after) == {"block": {1: 5}, "batch": {}}
    assert backup.missing({"block": {1: 5, 9: 1}}, after) == ["block 9"]


@pytest.mark.parametrize(("between", "found", "told"), [([3, 5], 4, 0), ([5, 3], 5, 0), ([3, 3], 4, 1), ([3, 5], 2, 1)])
def test_tables_are_compared_with_what_they_held_before_and_after(between: list[int], found: int, told: int) -> None:
    assert len(backup.outside({"t": between}, {"t": found})) == told


def test_an_import_that_is_killed_goes_on_where_it_was_and_doubles_nothing(place: Place, begin: int) -> None:
    samples = 400_000
    file = place.folder / "long.prom"
    lines = (f'long{{n="{n % 100}"}} {n} {(begin + n // 100) * 1000}\n' for n in range(samples))
    file.write_text("".join(lines))
    command = [sys.executable, str(ROOT / "manage.py"), "store", "import", str(file)]
    child = subprocess.Popen(command, env=place.portal.environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    kept = place.portal.data / "imports"
    place.portal.wait(lambda: any(kept.glob("*.json")), 60, "the first portion to be stored")
    child.kill()
    child.communicate()
    (state,) = kept.glob("*.json")
    reached = json.loads(state.read_text())["samples"]
    assert 0 < reached < samples
    done = place.portal.manage("store", "import", str(file))
    assert done.returncode == 0, done.stderr
    assert "Going on behind line" in done.stderr
    assert f"samples                      {samples}" in done.stdout
    out = place.folder / "long.jsonl"
    assert place.portal.manage("store", "export", str(out), "--match", "long").returncode == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    found = sorted(
        (row["metric"]["n"], at, value)
        for row in rows
        for at, value in zip(row["timestamps"], row["values"], strict=True)
    )
    wanted = sorted((str(n % 100), (begin + n // 100) * 1000, float(n)) for n in range(samples))
    assert found == wanted
