"""The pieces under the supervisor: folders, locks, pauses, states, what is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from monitoring_portal import backoff, embedded, launcher, supervisor


def test_the_path_of_a_socket_is_always_short_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("deep" * 40)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(long))
    folder = embedded.socket_folder(long / "data")
    assert len(os.fsencode(folder / embedded.POSTGRES_SOCKET)) <= embedded.LONGEST_SOCKET_PATH


def test_two_data_folders_have_two_socket_folders(tmp_path: Path) -> None:
    assert embedded.socket_folder(tmp_path / "a") != embedded.socket_folder(tmp_path / "b")
    assert embedded.socket_folder(tmp_path / "a") == embedded.socket_folder(tmp_path / "x" / ".." / "a")


def test_the_data_lock_is_held_once_and_let_go(tmp_path: Path) -> None:
    first, second = embedded.DataLock(tmp_path), embedded.DataLock(tmp_path)
    first.acquire()
    with pytest.raises(embedded.Refused, match=f"process {os.getpid()}"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_pauses_double_up_to_half_a_minute_and_start_anew_after_a_minute_of_peace() -> None:
    pauses = backoff.Backoff()
    found = []
    for _ in range(7):
        pauses.started(now=0.0)
        found.append(pauses.pause(now=1.0))
    assert found == [1, 2, 4, 8, 16, 30, 30]
    pauses.started(now=0.0)
    assert pauses.pause(now=61.0) == 1


def test_a_process_number_used_again_is_not_mistaken(tmp_path: Path) -> None:
    assert embedded.started_at(os.getpid())
    embedded.write_state(tmp_path, {"pids": {"supervisor": [os.getpid(), "another start"]}, "url": "http://x"})
    assert embedded.running(tmp_path) == {}
    embedded.write_state(tmp_path, {"pids": {"supervisor": [os.getpid(), embedded.started_at(os.getpid())]}})
    assert embedded.running(tmp_path)


def test_a_dead_process_has_no_start() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert embedded.started_at(child.pid) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("DATABASE_URL=postgres://x/y\n", True),
        ("export DATABASE_URL = x\n", True),
        ("DATABASE_URL_FILE=/run/url\n", True),
        ("DATABASE_URL=\n", False),
        ("# DATABASE_URL=x\n", False),
        ("OTHER_DATABASE_URL=x\n", False),
        ("", False),
    ],
)
def test_a_variable_can_stand_in_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: bool
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    (tmp_path / ".env").write_text(text)
    assert embedded.given(tmp_path, "DATABASE_URL") is found


def test_the_embedded_postgresql_has_what_the_portal_relies_on(tmp_path: Path) -> None:
    postgres = embedded.Postgres(embedded.make_folder(tmp_path / "var", "data"), tmp_path / "s")
    command = " ".join(postgres.command())
    for setting in (
        "listen_addresses= ",
        "unix_socket_permissions=0700",
        "shared_preload_libraries=pg_stat_statements",
        "jit=off",
    ):
        assert setting in command
    assert "fsync" not in command


def test_a_log_shows_its_important_lines_and_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "web.log"
    path.write_text("2026-01-01 ERROR old: before our time\n")
    log = supervisor.Log(path)
    with path.open("a") as file:
        file.write("2026-01-01 INFO x: fine\n2026-01-01 WARNING x: look\n2026-01-01 ERROR x: half a li")
        file.flush()
        assert log.important(0) == ["2026-01-01 WARNING x: look"]
        file.write("ne\n")
        file.flush()
        assert log.important(1) == ["2026-01-01 ERROR x: half a line"]
        monkeypatch.setattr(supervisor, "LOG_BYTES", 10)
        file.write("2026-01-01 INFO x: more\n")
        file.flush()
        log.important(2)
        file.write("after\n")
        file.flush()
    assert path.read_text() == "after\n"
    assert "half a line" in path.with_name("web.log.1").read_text()


def test_a_noisy_log_is_cut_to_a_screenful_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    path.touch()
    log = supervisor.Log(path)
    path.write_text("2026-01-01 ERROR x: again\n" * 100)
    shown = log.important(0)
    assert len(shown) == supervisor.SHOWN_A_MINUTE + 1
    assert str(path) in shown[-1]
    with path.open("a") as file:
        file.write("2026-01-01 ERROR x: again\n")
    assert log.important(30) == []
    with path.open("a") as file:
        file.write("2026-01-01 ERROR x: again\n")
    assert len(log.important(60)) == 1


def test_static_files_are_collected_anew_when_one_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "ROOT", tmp_path)
    (tmp_path / "static").mkdir()
    before = launcher.static_state([])
    (tmp_path / "static" / "page.css").write_text("a {}")
    after = launcher.static_state([])
    assert before != after
    assert after == launcher.static_state([])
    assert after != launcher.static_state(["apps.core"])


@pytest.mark.parametrize(
    ("code", "words"), [(3, "exit code 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")]
)
def test_an_exit_status_is_told_in_words(code: int, words: str) -> None:
    assert supervisor.ending(code) == words


@pytest.mark.parametrize("linked", [False, True])
def test_a_database_is_discarded_wherever_it_lies(tmp_path: Path, linked: bool) -> None:
    postgres = embedded.Postgres(embedded.make_folder(tmp_path / "var", "data"), tmp_path / "s")
    inside, outside = tmp_path / "var" / "postgres", tmp_path / "outside"
    folder = outside if linked else inside
    folder.mkdir()
    (folder / "PG_VERSION").write_text("18")
    if linked:
        inside.symlink_to(outside)
    postgres.discard()
    assert not inside.is_symlink()
    assert not folder.exists()
