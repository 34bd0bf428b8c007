"""One run of faults over the way out: alerts come in, and whoever tells of them is killed meanwhile.

A real portal, real receivers over HTTP. Each alert is a group of its own and goes to every contact, so that what must
arrive is known: each number once at each contact. Nothing is simulated: the parts die by SIGKILL at moments of chance.
"""

import json
import random
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from monitoring_portal.testing import EVERYBODY, Portal
from tests.faults.sender import Kill
from tests.notifications.receivers import HttpReceiver

TOKEN: Final = "fault-run-token-0123456789-abcdef"
PARTS: Final = ("worker", "valkey", "beat")
CONTACTS: Final = 5
PATIENCE: Final = 120.0


@dataclass
class Told:
    """What a run tells: messages that had to arrive, those that did not, came twice, or out of order."""

    alerts: int = 0
    wanted: int = 0
    missing: list[tuple[str, int]] = field(default_factory=list)
    doubled: int = 0
    """Arrivals that a receiver which honours the idempotency key drops."""
    told_again: int = 0
    """Messages of another key about what a contact had been told: no receiver could know that."""
    misordered: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def doubles_in_a_thousand(self) -> float:
        return 1000 * (self.doubled + self.told_again) / max(self.wanted, 1)


class TellingRun:
    """A portal that tells, its receiver, and the faults done to it."""

    def __init__(self, folder: Path, *, seed: int | None = None) -> None:
        self.portal = Portal(folder, {"MONITORING_AUTH_TOKEN": TOKEN, "OUTBOUND_ALLOW": "127.0.0.1"})
        self.chance = random.Random(seed)
        self.receiver = HttpReceiver()
        self.told = Told()

    def go(self, *, alerts: int, a_second: float, kills: int) -> Told:
        """Post so many alerts at that pace, kill so often meanwhile, wait until nothing is due; compare."""
        try:
            with self.portal:
                self._prepare()
                started = time.monotonic()
                spread = alerts / a_second
                moments = sorted(self.chance.uniform(0.05, 0.95) * spread for _ in range(kills))
                parts = self._parts()
                for number in range(alerts):
                    self._post(number)
                    while moments and time.monotonic() > started + moments[0]:
                        moments.pop(0)
                        self._kill(next(parts))
                    time.sleep(max(0.0, started + (number + 1) / a_second - time.monotonic()))
                self.told.alerts = alerts
                self._until(lambda: len(self.portal.pids) == len(EVERYBODY), "everybody to be back")
                self._until(lambda: self._open() == 0, "everything to be told")
                self.told.seconds = time.monotonic() - started
                self._compare(alerts)
        finally:
            self.receiver.close()
        return self.told

    def _prepare(self) -> None:
        with httpx.Client(base_url=self.portal.url, timeout=20) as admin:
            admin.get("/accounts/login/")
            form = {"username": "admin", "password": self.portal.password}
            admin.post("/accounts/login/", data=form | {"csrfmiddlewaretoken": admin.cookies["csrftoken"]})

            def send(path: str, body: Any) -> None:
                headers = {"X-CSRFToken": admin.cookies["csrftoken"]}
                answer = admin.post(f"/api/v1/portal/{path}", json=body, headers=headers)
                assert answer.status_code < 300, answer.text

            names = [f"fault {number}" for number in range(CONTACTS)]
            for number, name in enumerate(names):
                url = f"{self.receiver.url}/{number}"
                send("contacts/", {"name": name, "kind": "webhook", "settings": {"url": url}})
            route = {"name": "faults", "matchers": ["alertname=Fault"], "contacts": names, "group_by": ["..."]}
            send("routes/", {**route, "group_wait": 0, "group_interval": 1})

    def _post(self, number: int) -> None:
        """Until it is acknowledged: the web process is not killed, but its wake may have to wait for a dead broker."""
        labels = {"alertname": "Fault", "number": str(number), "severity": "critical", "service": f"s{number}"}
        request = urllib.request.Request(
            f"{self.portal.url}/api/v2/alerts",
            data=json.dumps([{"labels": labels, "endsAt": "2099-01-01T00:00:00Z"}]).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(request, timeout=20).close()
            except (OSError, urllib.error.HTTPError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _parts(self) -> Iterator[str]:
        """Every part in an order of chance, again and again; the worker each second time: it is who sends."""
        while True:
            for part in self.chance.sample(PARTS, len(PARTS)):
                yield part
                if part != "worker":
                    yield "worker"

    def _kill(self, part: str) -> None:
        at = time.monotonic()
        try:
            self.portal.kill(part)
        except ProcessLookupError:
            return  # An earlier fault has ended it just now.
        self.told.kills.append(Kill(part, at))

    def _open(self) -> int:
        with psycopg.connect(self.portal.database_url) as database:
            row = database.execute(
                "SELECT (SELECT count(*) FROM notifications_delivery WHERE state = 'queued')"
                " + (SELECT count(*) FROM alerting_transition WHERE told_at IS NULL)"
                " + (SELECT count(*) FROM oncall_notificationgroup WHERE due_at <= now())"
            ).fetchone()
        return int(row[0]) if row else 0

    def _until(self, condition: Any, what: str) -> None:
        self.portal.wait(condition, PATIENCE, what)

    def _compare(self, alerts: int) -> None:
        """Hold what arrived against what was posted, and each contact's order against that of the outbox."""
        with psycopg.connect(self.portal.database_url) as database:
            place = {str(key): pk for pk, key in database.execute("SELECT id, key FROM notifications_delivery")}
        keys: dict[str, set[str]] = defaultdict(set)
        numbers: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        last: dict[str, int] = defaultdict(int)
        for request in list(self.receiver.requests):
            contact, key = request.path, request.headers["idempotency-key"]
            if key in keys[contact]:
                self.told.doubled += 1
                continue
            keys[contact].add(key)
            if place[key] < last[contact]:
                self.told.misordered.append(f"{key} at {contact}")
            last[contact] = max(last[contact], place[key])
            for alert in request.json()["alerts"]:
                if alert["status"] == "firing":
                    numbers[contact][int(alert["labels"]["number"])] += 1
        for which in range(CONTACTS):
            found = numbers[f"/hook/{which}"]
            self.told.missing += [(f"fault {which}", number) for number in range(alerts) if number not in found]
            self.told.told_again += sum(count - 1 for count in found.values())
        self.told.wanted = alerts * CONTACTS
