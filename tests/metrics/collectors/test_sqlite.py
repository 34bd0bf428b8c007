"""Real SQLite files: sizes, free pages, a write-ahead log, and what is no database."""

import sqlite3
from pathlib import Path

import pytest

from apps.metrics.collectors import NoData, cleaned
from apps.metrics.collectors.sqlite import SQLite, parse


def figures(*files: Path) -> dict[tuple[str, str], float]:
    made = SQLite(cleaned(SQLite, {"paths": "\n".join(map(str, files))}))
    return {(one.name.removeprefix("sqlite_"), Path(one.labels["file"]).name): one.value for one in made.collect()}


def test_a_database_tells_its_pages_and_those_that_are_free(tmp_path):
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as line:
        line.execute("CREATE TABLE t (x)")
        line.executemany("INSERT INTO t VALUES (?)", [(bytes(1000),)] * 500)
        line.commit()
        line.execute("DELETE FROM t WHERE rowid > 100")
        line.commit()
        known = {
            name: line.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size", "freelist_count")
        }
    found = figures(path)
    assert found["up", "shop.db"] == 1
    assert found["pages", "shop.db"] == known["page_count"]
    assert found["page_bytes", "shop.db"] == known["page_size"]
    assert found["free_pages", "shop.db"] == known["freelist_count"] > 50
    assert found["file_bytes", "shop.db"] == known["page_count"] * known["page_size"]
    assert found["wal_bytes", "shop.db"] == 0


def test_a_log_that_grows_is_seen_while_somebody_writes(tmp_path):
    path = tmp_path / "busy.db"
    line = sqlite3.connect(path, isolation_level=None)
    line.execute("PRAGMA journal_mode=wal")
    line.execute("CREATE TABLE t (x)")
    line.execute("BEGIN EXCLUSIVE")
    line.execute("INSERT INTO t VALUES (zeroblob(100000))")
    line.execute("COMMIT")
    line.execute("BEGIN EXCLUSIVE")
    assert figures(path)["wal_bytes", "busy.db"] > 100_000
    line.close()


def test_what_is_gone_and_what_is_no_database_are_down_and_the_others_go_on(tmp_path):
    (tmp_path / "text").write_text("x" * 5_000)
    (tmp_path / "empty").touch()
    sqlite3.connect(tmp_path / "good").execute("CREATE TABLE t (x)")
    files = [tmp_path / name for name in ("gone", "text", "empty", "good")]
    found = figures(*files, tmp_path)
    assert [found["up", path.name] for path in (*files, tmp_path)] == [0, 0, 1, 1, 0]


def test_without_a_file_there_is_nothing_to_measure_and_a_wrong_path_is_refused():
    with pytest.raises(NoData):
        list(SQLite({}).collect())
    for files in ("shop.db", "/a\0b", "\n".join(f"/{n}" for n in range(51))):
        assert not SQLite.Config({"paths": files}).is_valid()


@pytest.mark.parametrize("size", [1, 99, 4096])
def test_a_broken_header_is_none(size):
    assert parse(b"SQLite format 3\0" + bytes(84), size) is None
