"""What stands in the way of a start is told in one sentence: what, where, what to do; never a stack trace."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from monitoring_portal import embedded, supervisor
from monitoring_portal.testing import ROOT, Portal

pytestmark = pytest.mark.slow


def refusal(portal: Portal) -> str:
    """Start a portal that must refuse; return what it printed."""
    portal.launch()
    assert portal.process is not None
    assert portal.process.wait(60) == 2, portal.output
    assert "Traceback" not in portal.output
    lines = [line for line in portal.output.splitlines() if line.startswith("portal: ")]
    assert len(lines) == 1, portal.output
    return lines[0]


@pytest.mark.parametrize(
    ("environment", "arguments", "words"),
    [
        ({"PORT": "http"}, (), ("PORT is 'http'", "whole number")),
        ({"PORT": "70000"}, (), ("PORT is '70000'", "65535")),
        ({}, ("--bind", "127.0.0.1:web"), ("--bind is '127.0.0.1:web'", "whole number")),
        ({}, ("--bind", "192.0.2.1:3000"), ("cannot serve on 192.0.2.1 port 3000", "--bind")),
        ({}, ("--bind", "no.such.host.invalid:3000"), ("'no.such.host.invalid'", "unknown")),
        ({"PORTAL_PG_BIN": "/no/such/folder"}, (), ("PORTAL_PG_BIN is /no/such/folder", "unset it")),
        ({"PORTAL_VALKEY": "/no/such/program"}, (), ("PORTAL_VALKEY is /no/such/program", "unset it")),
        ({"PORTAL_DATA": "/dev/null/data"}, (), ("/dev/null/data", "cannot be written", "PORTAL_DATA")),
    ],
)
def test_a_wrong_value_is_named(
    tmp_path: Path, environment: dict[str, str], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    said = refusal(Portal(tmp_path, environment, arguments=arguments))
    for word in words:
        assert word in said


def test_a_port_asked_for_by_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(Portal(tmp_path, {"PORT": str(port)}))
    assert f"cannot serve on 127.0.0.1 port {port} (address already in use)" in said
    assert not embedded.socket_folder(tmp_path / "var").exists()


def test_a_port_not_asked_for_by_name_that_is_taken_is_left_to_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PORT", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(supervisor, "DEFAULT_PORT", taken.getsockname()[1])
        line, url = supervisor.listen(None)
        with line:
            assert line.getsockname()[1] != taken.getsockname()[1]
            assert url.endswith(f":{line.getsockname()[1]}")


@pytest.mark.parametrize(
    ("bind", "port", "found"),
    [
        (None, "", ("127.0.0.1", 3000, False)),
        (None, "8080", ("127.0.0.1", 8080, True)),
        ("192.0.2.1:80", "8080", ("192.0.2.1", 80, True)),
        ("192.0.2.1", "", ("192.0.2.1", 3000, False)),
        ("192.0.2.1", "8080", ("192.0.2.1", 8080, True)),
        (":8080", "", ("127.0.0.1", 8080, True)),
        ("8080", "", ("127.0.0.1", 8080, True)),
        ("[::1]:8080", "", ("::1", 8080, True)),
        ("::1", "", ("::1", 3000, False)),
    ],
)
def test_where_to_serve(
    monkeypatch: pytest.MonkeyPatch, bind: str | None, port: str, found: tuple[str, int, bool]
) -> None:
    monkeypatch.setenv("PORT", port)
    assert supervisor.wanted_address(bind) == found


def test_data_of_another_postgresql_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "var" / "postgres"
    folder.mkdir(parents=True)
    (folder / "PG_VERSION").write_text("14\n")
    said = refusal(Portal(tmp_path))
    assert "is of PostgreSQL 14, but the portal has PostgreSQL 18" in said


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LEAST_FREE_BYTES", 10**18)
    postgres = embedded.Postgres(embedded.make_folder(tmp_path / "var", "data"), tmp_path / "s")
    with pytest.raises(embedded.Refused, match=r"disk of .* is full .* PORTAL_DATA"):
        postgres.prepare()


def test_somebody_elses_socket_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").symlink_to(tmp_path)
    with pytest.raises(embedded.Refused, match="belongs to somebody else"):
        embedded.make_socket_folder(tmp_path / "s")


def test_a_wrong_database_address_is_a_sentence(tmp_path: Path) -> None:
    said = refusal(Portal(tmp_path, {"DATABASE_URL": "postgresql://someone:hidden@127.0.0.1:1/none"}))
    assert "DATABASE_URL" in said
    assert "refused" in said
    assert "hidden" not in said


def test_a_wrong_redis_address_is_a_sentence(tmp_path: Path) -> None:
    said = refusal(Portal(tmp_path, {"REDIS_URL": "redis://:hidden@127.0.0.1:1/0"}))
    assert "REDIS_URL" in said
    assert "hidden" not in said


@pytest.mark.parametrize("words", [(), ("--help",), ("dance",), ("bench", "no-such-benchmark")])
def test_the_entry_explains_itself(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, ROOT / "portal", *words], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert ("usage: ./portal" in said) or ("there are:" in said)
    assert done.returncode == (0 if words == ("--help",) else 2)


def test_a_command_that_needs_the_running_portal_says_how_to_run_it(tmp_path: Path) -> None:
    done = Portal(tmp_path).manage("migrate")
    assert done.returncode == 1
    assert "./portal run" in done.stderr
    assert "Traceback" not in done.stderr
