"""Prometheus' own tool asks the portal as if it were a Prometheus."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from monitoring_portal.testing import Portal
from tests.e2e.conftest import TOKEN

PROMTOOL = shutil.which("promtool")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on PATH; CI installs the package prometheus"),
]


class Promtool:
    """`promtool query …`, with the token as a header where this promtool can, else as the password of the address."""

    def __init__(self, portal: Portal, folder: Path) -> None:
        told = subprocess.run([str(PROMTOOL), "query", "--help"], capture_output=True, text=True, check=False)
        self.url, self.options = portal.url, []
        if "--http.config.file" in told.stdout + told.stderr:
            config = folder / "http.yml"
            config.write_text(f"authorization:\n  credentials: {TOKEN}\n")
            self.options = [f"--http.config.file={config}"]
        else:
            self.url = portal.url.replace("://", f"://anybody:{TOKEN}@")

    def query(self, kind: str, *arguments: str, succeeds: bool = True) -> str:
        """Return what it prints; options stand before the address, the rest behind it."""
        options = [one for one in arguments if one.startswith("--")]
        rest = [one for one in arguments if not one.startswith("--")]
        command = [str(PROMTOOL), "query", *self.options, kind, *options, self.url, *rest]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (ran.returncode == 0) is succeeds, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def promtool(portal, tmp_path_factory):
    tool = Promtool(portal, tmp_path_factory.mktemp("promtool"))
    portal.wait(lambda: "up{" in tool.query("instant", 'up{job="node"}'), 60, "the first samples")
    return tool


def test_an_instant_query(promtool):
    assert promtool.query("instant", "1 + 1").startswith("scalar: 2 @[")
    assert 'job="node"' in promtool.query("instant", 'count by (job) (up{job="node"})')


def test_a_range_query(promtool):
    now = int(time.time())
    said = promtool.query("range", f"--start={now - 60}", f"--end={now}", "--step=15s", "vector(time())")
    assert len(said.splitlines()) == 6  # the label set and five points


def test_series_and_labels(promtool):
    assert '__name__="up"' in promtool.query("series", '--match=up{job="node"}', f"--start={int(time.time()) - 600}")
    assert "node" in promtool.query("labels", "job").split()


def test_a_wrong_query_is_told_where_it_is_wrong(promtool):
    assert "1:8: parse error" in promtool.query("instant", "sum(up))", succeeds=False)


def test_a_wrong_token_is_refused(promtool, portal):
    wrong = Promtool(portal, Path())
    wrong.url, wrong.options = portal.url.replace("://", "://anybody:guess@"), []
    assert "401" in wrong.query("instant", "up", succeeds=False)
