"""The portal as other users: where namespaces are forbidden, and as somebody who is not root."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring_portal import embedded
from monitoring_portal.testing import ROOT, Portal

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("portal-accounts")]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a portal, cleaned also of the data that nobody had to keep elsewhere."""
    yield tmp_path
    kept = (tmp_path / "var" / "postgres").resolve()
    if tmp_path not in kept.parents:
        shutil.rmtree(kept, ignore_errors=True)


@root_only
def test_where_namespaces_are_forbidden_postgresql_runs_as_nobody(folder: Path) -> None:
    with Portal(folder, {"NOUSERNS": "1"}) as portal:
        assert Path(f"/proc/{portal.pids['postgres']}").stat().st_uid == embedded._nobody().pw_uid
        assert portal.answers()
        before = portal.kill("postgres")
        portal.wait_back("postgres", before)
        assert portal.stop(signal.SIGTERM) == 0
    # The same data, the other way of running: it is found, and given back to root.
    with Portal(folder) as portal:
        assert "created" not in portal.output.rpartition("Stopped")[2]
        assert Path(f"/proc/{portal.pids['postgres']}").stat().st_uid == 0


def interpreter(account: embedded.Account, home: Path) -> tuple[str, dict[str, str]] | None:
    """Our Python where the account can run it, and its variables: moved by links when it lies in a home folder."""
    program = Path(sys.executable).resolve()
    if account.reaches(program):
        return str(program), {}
    ignored = shutil.ignore_patterns(
        "test", "tests", "idlelib", "include", "share", "__pycache__", "site-packages", "*.a"
    )
    shutil.copytree(sys.base_prefix, home / "python", symlinks=True, ignore=ignored, copy_function=link)
    copied = home / "python" / program.relative_to(Path(sys.base_prefix).resolve())
    become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    found = {"LD_LIBRARY_PATH": str(home / "python" / "lib")}  # Else a shared libpython of the system would answer.
    asked = [*become, str(copied), "-c", "import ssl, sys; print(sys.version)"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, cwd="/", env={**os.environ, **found})
    return (str(copied), found) if said.stdout.strip() == sys.version else None


def link(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


@root_only
def test_an_ordinary_user_runs_it_from_a_checkout_of_their_own() -> None:
    nobody = embedded._nobody()
    account = embedded.Account("nobody", nobody.pw_uid, nobody.pw_gid)
    # Not below pytest's folder, which only its owner can walk through.
    home = Path(tempfile.mkdtemp(prefix="portal-ordinary-"))
    try:
        home.chmod(0o755)
        found = interpreter(account, home)
        if found is None:
            pytest.skip("this Python cannot be moved to where another user may run it")
        checkout, work = home / "checkout", home / "work"
        ignored = shutil.ignore_patterns(".*", "var", "static-built*", "node_modules", "tests", "__pycache__")
        shutil.copytree(ROOT, checkout, ignore=ignored, symlinks=True)
        packages = Path(pytest.__file__).parent.parent
        if not account.reaches(packages):
            shutil.copytree(packages, home / "packages", symlinks=True)
            packages = home / "packages"
        work.mkdir()
        for folder, _, files in os.walk(checkout):
            for path in (folder, *(str(Path(folder, name)) for name in files)):
                os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
        os.chown(work, nobody.pw_uid, nobody.pw_gid)
        become = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
        python, libraries = found
        environment = {"HOME": str(work), "PYTHONPATH": str(packages), **libraries}
        with Portal(work, environment, root=checkout, command=become, python=python) as portal:
            assert {Path(f"/proc/{pid}").stat().st_uid for pid in portal.pids.values()} == {nobody.pw_uid}
            assert portal.answers()
            assert portal.stop() == 0
    finally:
        shutil.rmtree(home)
