"""The running portal: time to the first chart, second start, memory at rest, and from a change to the browser's socket.

`./portal bench portal`. Starts a portal of its own on a free port; goals stand beside the figures.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import websockets

from monitoring_portal.testing import Portal

TOKEN = "benchmark-token-of-the-portal"


def call(portal: Portal, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        portal.url + path,
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        data=None if body is None else json.dumps(body).encode(),
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def first_chart(portal: Portal) -> float:
    """Seconds until the system page has real figures of this machine."""
    started = time.perf_counter()
    while True:
        rows = call(portal, "/api/monitoring/metrics?type=system")["data"]["metrics"]
        if rows and rows[-1].get("memory", {}).get("total") and rows[-1].get("cpu", {}).get("loadAverage") is not None:
            return time.perf_counter() - started
        if time.perf_counter() - started > 60:
            raise SystemExit("No figures within a minute:\n" + portal.tail())
        time.sleep(0.1)


def memory(portal: Portal) -> dict[str, float]:
    """Proportional set size in MB by process, its children included."""
    sizes = {}
    for name, pid in portal.pids.items():
        family = [psutil.Process(pid), *(psutil.Process(pid).children(recursive=True) if name == "postgres" else [])]
        sizes[name] = sum(one.memory_full_info().pss for one in family) / 1e6
    return sizes


async def push(portal: Portal, rounds: int) -> list[float]:
    """Seconds from posting an alert to its frame on a logged-in page's socket."""
    cookie = await asyncio.to_thread(login, portal)
    address = portal.url.replace("http", "ws", 1) + "/ws/live"
    took = []
    async with websockets.connect(address, additional_headers={"Cookie": cookie}, origin=portal.url) as socket:  # type: ignore[arg-type]
        await socket.send(json.dumps({"view": "alerts"}))
        for number in range(rounds):
            await asyncio.sleep(0.3)
            message = f"benchmark {number} {time.time()}"
            started = time.perf_counter()
            body = {"type": "benchmark", "severity": "INFO", "message": message}
            posting = asyncio.create_task(asyncio.to_thread(call, portal, "/api/monitoring/alerts", body))
            while message not in str(await asyncio.wait_for(socket.recv(), 10)):
                pass
            took.append(time.perf_counter() - started)
            await posting
    return took


def login(portal: Portal) -> str:
    import httpx

    with httpx.Client(base_url=portal.url) as client:
        client.get("/accounts/login/")
        answer = client.post(
            "/accounts/login/",
            data={"username": "admin", "password": portal.password, "csrfmiddlewaretoken": client.cookies["csrftoken"]},
        )
        if answer.status_code != 302:
            raise SystemExit(f"Login failed with {answer.status_code}.")
        return f"sessionid={client.cookies['sessionid']}"


def row(name: str, value: str, goal: str) -> None:
    print(f"{name:<46} {value:>14}   {goal}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rest", type=float, default=60, help="seconds before memory is read")
    options.add_argument("--rounds", type=int, default=40)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        portal = Portal(Path(folder), {"MONITORING_AUTH_TOKEN": TOKEN})
        started = time.perf_counter()
        with portal:
            row("first start, environment present", f"{time.perf_counter() - started:.1f} s", "")
            row("URL printed to first real figures", f"{first_chart(portal):.1f} s", "goal ≤ 15 s")
            time.sleep(given.rest)
            sizes = memory(portal)
            for name, size in sizes.items():
                row(f"  memory of {name}", f"{size:.0f} MB", "")
            row("memory at rest, PSS in all", f"{sum(sizes.values()):.0f} MB", "goal ≤ 400 MB, aim 300")
            took = sorted(asyncio.run(push(portal, given.rounds)))
            row("alert posted to frame on the page's socket, p50", f"{statistics.median(took) * 1000:.0f} ms", "")
            row("the same, p95", f"{took[int(0.95 * len(took))] * 1000:.0f} ms", "goal < 1000 ms")
        started = time.perf_counter()
        with portal:
            row("second start", f"{time.perf_counter() - started:.1f} s", "goal ≤ 5 s")


if __name__ == "__main__":
    main()
