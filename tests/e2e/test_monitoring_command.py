"""`manage.py monitoring …` as an operator types it, against a running portal."""

import json
import re
import socket
import subprocess

import httpx
import pytest

from monitoring_portal.testing import Portal
from tests.e2e.conftest import TOKEN
from tests.e2e.receivers import until

pytestmark = pytest.mark.slow


@pytest.fixture
def monitoring(portal: Portal):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return portal.manage("monitoring", *arguments)

    return run


def test_collection_is_switched_and_the_switch_is_audited(portal, monitoring):
    assert monitoring("stop").stdout == "Collection is off.\n"
    assert json.loads(monitoring("status", "--json").stdout)["running"] is False
    assert monitoring("start").stdout == "Collection is on.\n"
    status = json.loads(monitoring("status", "--json").stdout)
    assert status["running"] is True
    assert status["collectors"] > 10
    assert status["series"] > 100


def test_the_latest_values_can_be_filtered(monitoring):
    found = until(lambda: json.loads(monitoring("metrics", "node_load1", "--json").stdout), 30, "a round")
    assert found[0]["name"] == "node_load1"
    assert "node_load1{" in monitoring("metrics", "node_load1").stdout


def test_health_ends_with_zero_while_the_portal_can_work(portal, monitoring):
    done = monitoring("health", "--url", portal.url, "--token", TOKEN, "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert answer["checks"]["database"]["status"] == "pass"


def test_watch_looks_as_often_as_asked(portal, monitoring):
    done = monitoring("watch", "--url", portal.url, "--interval", "0.1", "--count", "2")
    assert len(done.stdout.splitlines()) == 2


def test_waiting_for_a_portal_that_is_not_there_times_out_with_one(monitoring):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = monitoring("watch", "wait", "300", "--url", address)
    assert done.returncode == 1
    assert "No portal answers" in done.stdout
    assert monitoring("health", "--url", address).returncode == 1


def test_waiting_ends_with_zero_once_it_is_healthy(portal, monitoring):
    done = monitoring("watch", "wait", "60000", "--url", portal.url, "--token", TOKEN)
    assert done.returncode == 0, done.stdout


def test_the_dashboard_can_be_drawn_in_the_terminal(monitoring):
    drawn = monitoring("dashboard", "--text").stdout
    assert drawn.startswith("Monitoring Portal: ")
    assert "Memory" in drawn


def test_the_uptime_is_that_of_the_portal_whoever_tells_it(portal, monitoring):
    asked = json.loads(monitoring("health", "--url", portal.url, "--json").stdout)["uptime"]
    drawn = json.loads(monitoring("dashboard", "--text", "--json").stdout)["health"]["uptime"]
    assert drawn > asked


def test_without_a_portal_the_commands_say_how_to_run_it(tmp_path, portal):
    stranger = Portal(tmp_path)
    done = stranger.manage("monitoring", "status")
    assert done.returncode != 0
    assert "./portal run" in done.stdout + done.stderr


def test_no_process_warns_of_itself_in_its_log(portal):
    page = httpx.get(f"{portal.url}/accounts/login/", timeout=20).text
    script = re.search(r'src="(/static/[^"]+\.js)"', page)
    assert script is not None
    assert httpx.get(portal.url + script[1], timeout=20).status_code == 200
    for name in ("web", "worker", "slow", "beat"):
        assert "Warning:" not in portal.log(name).read_text(), name
