"""What dies by SIGKILL comes back by itself; how a portal ends; what it leaves behind."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from monitoring_portal import embedded
from monitoring_portal.testing import EVERYBODY, Portal

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("portal-crashes")]


def processes_of(portal: Portal) -> dict[int, str]:
    """Every living process of a portal: itself, its descendants, PostgreSQL's own children; with start marks."""
    sockets = embedded.socket_folder(portal.data)
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(path.parent.name)] = int(fields[1])
    found = {pid for pid in portal.pids.values() if pid in parents}
    found |= {pid for pid in parents if str(sockets).encode() in command_line(pid)}
    found |= set(embedded.users_of((portal.data / "postgres").resolve()))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: mark for pid in found if (mark := embedded.started_at(pid))}


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_everybody_is_there_and_the_page_answers(portal: Portal) -> None:
    assert set(portal.pids) == set(EVERYBODY)
    assert portal.answers()


def test_the_first_start_prints_the_address_and_the_password_once(portal: Portal, first_output: str) -> None:
    assert "/monitoring/" in first_output
    assert first_output.count("Password:") == 1
    assert len(portal.password) >= 10


@pytest.mark.parametrize("name", [name for name in EVERYBODY if name != "supervisor"])
def test_a_killed_process_comes_back_and_the_portal_answers(portal: Portal, name: str) -> None:
    before = portal.kill(name)
    portal.wait_back(name, before)


def test_no_connection_is_refused_while_the_web_process_is_away(portal: Portal) -> None:
    before = portal.kill("web")
    with urllib.request.urlopen(f"{portal.url}/-/ready", timeout=30) as answer:
        assert answer.status == 200
    portal.wait_back("web", before)


def test_the_launcher_has_one_thread_and_no_connection(portal: Portal) -> None:
    pid = portal.pids["launcher"]
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    targets = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    # Its control line, the wake-up pair and the listening socket.
    assert sum(target.startswith("socket:") for target in targets) == 4


def test_the_supervisor_needs_the_standard_library_only(portal: Portal) -> None:
    maps = Path(f"/proc/{portal.pids['supervisor']}/maps").read_text()
    assert "site-packages" not in maps


def test_a_second_portal_over_the_same_data_says_who_has_it(portal: Portal, tmp_path: Path) -> None:
    second = Portal(tmp_path, {"PORTAL_DATA": str(portal.data)})
    second.launch()
    assert second.process is not None
    assert second.process.wait(30) == 2
    assert f"already running over {portal.data} (process {portal.pids['supervisor']})" in second.output
    assert "Traceback" not in second.output
    assert portal.answers()


def test_another_portal_with_its_own_data_runs_beside(portal: Portal, tmp_path: Path) -> None:
    with Portal(tmp_path) as other:
        assert other.url != portal.url
        assert other.database_url != portal.database_url
        assert portal.answers()
        assert other.answers()
        assert other.stop(signal.SIGTERM) == 0
    assert portal.answers()


def test_manage_uses_the_running_servers(portal: Portal) -> None:
    done = portal.manage(
        "shell", "-c", "from django.db import connection as c; print(c.introspection.table_names()[0])"
    )
    assert done.returncode == 0, done.stderr


def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_is_clean(portal: Portal) -> None:
    password = portal.password
    printed = len(portal.output)
    running = processes_of(portal)
    assert len(running) > len(EVERYBODY)
    portal.kill("supervisor")
    assert portal.process is not None
    portal.process.wait()
    embedded.wait_gone(running, patience=15)
    portal.start()
    again = portal.output[printed:]
    assert password not in again
    assert "Password:" not in again
    assert "ended" not in again
    assert portal.answers()


def test_ctrl_c_ends_every_process_and_removes_every_socket(portal: Portal) -> None:
    running = processes_of(portal)
    sockets = embedded.socket_folder(portal.data)
    assert sockets.is_dir()
    assert portal.stop() == 0
    assert not {pid for pid, mark in running.items() if embedded.started_at(pid) == mark}
    assert not sockets.exists()
    assert not (portal.data / "run.json").exists()
    assert "killed" not in portal.output.rpartition("Stopping")[2]


def test_a_second_ctrl_c_does_not_wait(portal: Portal) -> None:
    running = processes_of(portal)
    os.kill(portal.pids["worker"], signal.SIGSTOP)  # It will not hear that it should stop.
    assert portal.process is not None
    portal.process.send_signal(signal.SIGINT)
    portal.wait(lambda: "Stopping" in portal.output.rpartition("runs at")[2], 10, "the stop to begin")
    portal.process.send_signal(signal.SIGINT)
    assert portal.process.wait(30) == 0
    assert not {pid for pid, mark in running.items() if embedded.started_at(pid) == mark}


def test_without_a_parent_death_signal_the_watchdog_ends_what_is_left(tmp_path: Path) -> None:
    from monitoring_portal.supervisor import WATCHDOG

    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    spared = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    watchdog = subprocess.Popen([sys.executable, "-S", "-c", WATCHDOG], stdin=subprocess.PIPE)
    lines = f"+ {sleeper.pid} {int(signal.SIGTERM)}\n+ {spared.pid} {int(signal.SIGTERM)}\n- {spared.pid} 0\n"
    assert watchdog.stdin is not None
    with watchdog.stdin as orders:
        orders.write(lines.encode())
    assert sleeper.wait(10) == -signal.SIGTERM
    assert watchdog.wait(10) == 0
    assert spared.poll() is None
    spared.kill()
    spared.wait()
