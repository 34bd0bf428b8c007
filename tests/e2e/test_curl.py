"""The lines of Healthchecks' documentation, typed into a shell against a running portal, with the real curl.

Source: https://healthchecks.io/docs/bash/, …/http_api/, …/signaling_failures/, …/measuring_script_run_time/ and
…/attaching_logs/. What each call means is in tests/sources/test_heartbeats.py; here the lines arrive as they are typed.
"""

import shutil
import subprocess
from typing import Any

import pytest

from monitoring_portal.testing import Portal
from tests.e2e.conftest import TOKEN
from tests.e2e.test_story import Administrator

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH")]


@pytest.fixture(scope="module")
def admin(portal: Portal) -> Administrator:
    return Administrator(portal)


class Job:
    """A heartbeat, and a shell that knows its address as $URL, by its key and name as $NAMED."""

    def __init__(self, portal: Portal, admin: Administrator, name: str) -> None:
        self.portal, self.admin = portal, admin
        self.row = admin.send("POST", "heartbeats/", {"name": name})
        self.url = f"{portal.url}/ping/{self.row['code']}"
        self.named = f"{portal.url}/ping/{TOKEN}/{self.row['slug']}"

    def types(self, script: str) -> str:
        """Return what the script prints; it ends well."""
        known = {"PATH": "/usr/bin:/bin", "URL": self.url, "NAMED": self.named}
        command = ["/bin/bash", "-c", script]
        ran = subprocess.run(command, env=known, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def calls(self) -> list[dict[str, Any]]:
        """What the portal kept, the oldest first."""
        found: Any = self.admin.send("GET", f"heartbeats/{self.row['id']}/calls/")
        return list(reversed(found))

    def stands(self) -> dict[str, Any]:
        return self.admin.send("GET", f"heartbeats/{self.row['id']}/")


HABITS = [
    ("plain", "curl -m 10 --retry 5 $URL", [("success", None, "GET", "")], "up"),
    ("quiet", "curl -fsS -m 10 --retry 5 -o /dev/null $URL", [("success", None, "GET", "")], "up"),
    ("head", "curl -fsS -m 10 --retry 5 --head $URL", [("success", None, "HEAD", "")], "up"),
    ("by-name", "curl -m 10 --retry 5 $NAMED", [("success", None, "GET", "")], "up"),
    ("after-success", "true && curl -fsS -m 10 --retry 5 -o /dev/null $URL", [("success", None, "GET", "")], "up"),
    ("fail", "curl -m 10 --retry 5 $URL/fail", [("fail", None, "GET", "")], "down"),
    ("fail-by-name", "curl -m 10 --retry 5 $NAMED/fail", [("fail", None, "GET", "")], "down"),
    ("exit-status", "/bin/false; curl -m 10 --retry 5 $URL/$?", [("fail", 1, "GET", "")], "down"),
    ("exit-status-0", "/bin/true; curl -m 10 --retry 5 $NAMED/$?", [("success", 0, "GET", "")], "up"),
    (
        "log-and-exit-status",
        "m=$(sh -c 'echo no space left; exit 28' 2>&1); curl -fsS -m 10 --retry 5 --data-raw \"$m\" $URL/$?",
        [("fail", 28, "POST", "no space left")],
        "down",
    ),
    (
        "either",
        "curl -fsS -m 10 --retry 5 $URL$([ -e /no/such/file ] || echo -n /fail)",
        [("fail", None, "GET", "")],
        "down",
    ),
    (
        "log",
        'curl -fsS -m 10 --retry 5 --data-raw "Processed 5 items" $URL/log',
        [("log", None, "POST", "Processed 5 items")],
        "unknown",
    ),
    (
        "piped",
        "seq 3 | curl -fsS -m 10 --retry 5 --data-binary @- $URL",
        [("success", None, "POST", "1\n2\n3\n")],
        "up",
    ),
    ("put", "curl -fsS -m 10 --retry 5 -X PUT $URL", [("success", None, "PUT", "")], "up"),
    (
        "timed",
        "curl -fsS -m 10 --retry 5 $URL/start && sleep 0.3 && curl -fsS -m 10 --retry 5 $URL",
        [("start", None, "GET", ""), ("success", None, "GET", "")],
        "up",
    ),
    (
        "timed-by-run",
        """RID=$(cat /proc/sys/kernel/random/uuid)
        curl -fsS -m 10 --retry 5 "$URL/start?rid=$RID"
        sleep 0.3
        curl -fsS -m 10 --retry 5 "$URL/$??rid=$RID" """,
        [("start", None, "GET", ""), ("success", 0, "GET", "")],
        "up",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "line", "kept", "health"), HABITS, ids=[habit[0] for habit in HABITS])
def test_a_line_of_the_documentation_works_as_it_is_typed(
    portal: Portal, admin: Administrator, name: str, line: str, kept: list[tuple[Any, ...]], health: str
) -> None:
    job = Job(portal, admin, name)
    said = job.types(line)
    if name not in ("quiet", "head", "after-success"):
        assert said.endswith("OK")
    found = job.calls()
    assert [(one["signal"], one["exit_status"], one["method"], one["body"]) for one in found] == kept
    assert all(one["agent"].startswith("curl/") for one in found)
    assert job.stands()["health"] == health
    if name.startswith("timed"):
        assert 0.25 < found[-1]["duration"] < 30
        assert len({one["run"] for one in found}) == 1


def test_a_body_beyond_the_limit_is_cut_and_the_limit_is_told(portal: Portal, admin: Administrator) -> None:
    job = Job(portal, admin, "long-winded")
    said = job.types("head -c 300000 /dev/zero | tr '\\0' x | curl -fsS -m 10 --retry 5 -i --data-binary @- $URL")
    assert "ping-body-limit: 10000" in said.lower()
    assert [len(one["body"]) for one in job.calls()] == [10_000]


def test_what_is_wrong_makes_curl_fail_with_a_word(portal: Portal, admin: Administrator) -> None:
    job = Job(portal, admin, "wrong")
    wrong = {"$URL/no-such-thing": 400, "$URL/256": 400, '"$URL?rid=7"': 400, "${NAMED}-nobody": 404}
    for line, status in wrong.items():
        assert job.types(f"curl -sS -o /dev/null -w '%{{http_code}}' {line}") == str(status), line
    assert job.calls() == []
    assert job.types("curl -fsS ${URL%/*}/00000000-0000-4000-8000-000000000000") == "OK (not found)"
