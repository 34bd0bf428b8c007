"""The child process that asks mounts: kept while it answers, given up when it hangs."""

import os
import subprocess
import sys

import pytest

from apps.metrics import mount_probe
from apps.metrics.collectors import filesystem
from apps.metrics.mount_probe import MountProbe, Unanswered, measure


@pytest.fixture
def probe():
    made = MountProbe(seconds=5.0)
    yield made
    made.close()


def hanging_child(tmp_path, monkeypatch) -> None:
    """Have children that hang on the path /dead and answer all others with ones."""
    script = tmp_path / "child.py"
    script.write_text(
        "import sys, time\n"
        "for line in sys.stdin:\n"
        "    time.sleep(600 if 'dead' in line else 0)\n"
        "    print('[1, 1, 1, 1, 1]', flush=True)\n"
    )
    monkeypatch.setattr(mount_probe, "__file__", str(script))


def test_the_child_says_what_the_system_call_says(probe):
    assert probe.ask("/").size == measure("/").size


def test_one_child_answers_round_after_round(probe):
    probe.ask("/")
    first = probe.child.pid
    probe.ask("/tmp")
    assert probe.child.pid == first


def test_a_mount_that_gives_an_error_says_why_and_the_child_lives(probe):
    with pytest.raises(Unanswered, match="No such file"):
        probe.ask("/no/such/mount")
    assert probe.child.poll() is None


def test_a_child_that_was_killed_is_replaced(probe):
    probe.ask("/")
    probe.child.kill()
    probe.child.wait()
    assert probe.ask("/").size > 0


def test_a_mount_that_hangs_is_given_up_and_the_next_one_answered(tmp_path, monkeypatch):
    hanging_child(tmp_path, monkeypatch)
    probe = MountProbe(seconds=0.5)
    with pytest.raises(Unanswered, match="did not answer within"):
        probe.ask("/dead")
    probe.seconds = 10.0
    assert probe.ask("/alive").size == 1
    assert probe.stuck["/dead"].wait(10) != 0
    probe.close()


def test_a_mount_whose_child_cannot_be_killed_is_not_asked_again(tmp_path, monkeypatch):
    hanging_child(tmp_path, monkeypatch)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda self: None)  # as in an uninterruptible wait
    probe = MountProbe(seconds=0.5)
    with pytest.raises(Unanswered):
        probe.ask("/dead")
    child = probe.stuck["/dead"]
    with pytest.raises(Unanswered, match="still does not answer"):
        probe.ask("/dead")
    assert (probe.child, probe.stuck["/dead"]) == (None, child)
    monkeypatch.undo()
    child.kill()
    child.wait()


def test_the_child_ends_with_its_parent(probe):
    probe.ask("/")
    child = probe.child
    child.stdin.close()
    assert child.wait(10) == 0
    probe.child = None


def test_a_dead_network_mount_costs_its_own_figures_only(tmp_path, monkeypatch):
    hanging_child(tmp_path, monkeypatch)
    monkeypatch.setattr(filesystem, "read", lambda path: "nas:/x /dead nfs4 rw 0 0\n/dev/sda / ext4 rw 0 0\n")
    monkeypatch.setattr(sys, "platform", "linux")
    collector = filesystem.FileSystems({})
    collector.probe.seconds = 0.5
    found = {(r.name, r.labels["mountpoint"]): r.value for r in collector.collect()}
    assert found["node_filesystem_device_error", "/dead"] == 1.0
    assert found["node_filesystem_device_error", "/"] == 0.0
    assert ("node_filesystem_size_bytes", "/dead") not in found
    assert found["node_filesystem_size_bytes", "/"] == os.statvfs("/").f_blocks * os.statvfs("/").f_frsize
    collector.probe.stuck["/dead"].wait(10)
    collector.close()
