"""`manage.py monitoring …`: collection on and off, status, latest values, health, watch and the dashboard.

`health`, `watch` and `dashboard` speak to the portal over HTTP, as any other client; the rest reads its database.
"""

import json
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils import timezone

from apps.accounts.permissions import EVERYTHING, Principal
from apps.dashboards import overview_text
from apps.metrics import query, services
from apps.metrics.models import CollectorSetting

NOT_RUNNING = "The portal is not running (its database does not answer). Start it with `./portal run`."
BY = Principal.system("manage.py monitoring", via="command")


class Command(BaseCommand):
    help = __doc__
    requires_system_checks = []
    stealth_options = ("subcommand",)

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

        def verb(name: str, text: str, *, http: bool = False) -> Any:
            added = verbs.add_parser(name, help=text)
            added.add_argument("--json", action="store_true", help="answer in JSON")
            if http:
                added.add_argument("--url", default="", help=f"the portal's address (default {settings.PORTAL_URL})")
                added.add_argument(
                    "--token", default="", help="a token for the details (default MONITORING_AUTH_TOKEN)"
                )
            return added

        verb("start", "switch collection on")
        verb("stop", "switch collection off")
        verb("status", "is it running, last round, series, lag, errors")
        verb("metrics", "latest values").add_argument("filter", nargs="?", default="", help="part of the metric's name")
        verb("health", "ask the portal for its health: 0 healthy or degraded, 1 unhealthy", http=True)
        watch = verb("watch", "show the health again and again, or `wait MILLISECONDS` for it", http=True)
        watch.add_argument("wait", nargs="?", choices=["wait"], help="end with 0 once healthy, with 1 at the time-out")
        watch.add_argument("milliseconds", nargs="?", type=int, default=300_000)
        watch.add_argument("--interval", type=_seconds, default=5.0, help="seconds between two looks")
        watch.add_argument("--count", type=int, default=0, help="stop after so many looks")
        board = verb("dashboard", "open the dashboard in the browser", http=True)
        board.add_argument("--text", action="store_true", help="draw it in the terminal instead")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        run: Callable[..., int | None] = getattr(self, f"_{verb}")
        try:
            code = run(now=timezone.now(), **options)
        except DatabaseError as error:
            raise CommandError(NOT_RUNNING, returncode=1) from error
        except KeyboardInterrupt:
            code = 130
        if code:
            sys.exit(code)

    def _say(self, data: dict[str, Any] | list[Any], text: str, *, as_json: bool) -> None:
        self.stdout.write(json.dumps(data, indent=2, default=str) if as_json else text)

    def _start(self, *, now: datetime, **options: Any) -> None:
        self._switch(on=True, now=now, as_json=options["json"])

    def _stop(self, *, now: datetime, **options: Any) -> None:
        self._switch(on=False, now=now, as_json=options["json"])

    def _switch(self, *, on: bool, now: datetime, as_json: bool) -> None:
        services.switch_collection(by=BY, on=on, now=now)
        self._say({"collection": on}, f"Collection is {'on' if on else 'off'}.", as_json=as_json)

    def _status(self, *, now: datetime, **options: Any) -> int:
        settings_of = list(CollectorSetting.objects.filter(enabled=True))
        rounds = [row.last_at for row in settings_of if row.last_at]
        last = max(rounds, default=None)
        errors = {row.kind: row.error for row in settings_of if row.error}
        data = {
            "running": query.collection_on(),
            "lastRound": last,
            "lagSeconds": round((now - last).total_seconds(), 1) if last else None,
            "collectors": len(settings_of),
            "series": query.series_count(),
            "errors": errors,
        }
        seen = f"{last:%Y-%m-%d %H:%M:%S} UTC, {data['lagSeconds']} s ago" if last else "none yet"
        lines = [
            f"Collection    {'on' if data['running'] else 'off'}",
            f"Last round    {seen}",
            f"Collectors    {data['collectors']}, failing: {', '.join(errors) or 'none'}",
            f"Series        {data['series']}",
            *(f"  {kind}: {error}" for kind, error in errors.items()),
        ]
        self._say(data, "\n".join(lines), as_json=options["json"])
        return 0

    def _metrics(self, *, now: datetime, **options: Any) -> int:
        wanted = options["filter"].lower()
        rows = [row for row in query.latest_values(scope=EVERYTHING, at=now) if wanted in row.name.lower()]
        data = [{"name": r.name, "labels": r.labels, "value": r.value, "timestamp": r.timestamp_ms} for r in rows]
        text = "\n".join(f"{r.name}{_braces(r.labels)} {r.value:g}" for r in rows)
        self._say(
            data,
            text or "No series matches; `monitoring status` tells whether collection runs.",
            as_json=options["json"],
        )
        return 0

    def _health(self, *, now: datetime, **options: Any) -> int:
        answer = self._ask(options)
        self._say(answer, _health_text(answer), as_json=options["json"])
        return 0 if answer["status"] in {"healthy", "degraded"} else 1

    def _watch(self, *, now: datetime, **options: Any) -> int:
        if options["wait"]:
            return self._wait(options)
        for _ in _every(options["interval"], options["count"]):
            answer = self._ask(options)
            stamp = timezone.now().strftime("%H:%M:%S")
            problems = "; ".join(
                f"{name}: {check['message']}"
                for name, check in answer.get("checks", {}).items()
                if check["status"] != "pass"
            )
            self._say(answer, f"{stamp} {answer['status']:<10} {problems}", as_json=options["json"])
        return 0

    def _wait(self, options: dict[str, Any]) -> int:
        deadline = time.monotonic() + options["milliseconds"] / 1000
        answer: dict[str, Any] = {"status": "unreachable"}
        while True:
            answer = self._ask(options)
            if answer["status"] == "healthy":
                self._say(answer, "healthy", as_json=options["json"])
                return 0
            if time.monotonic() >= deadline:
                self._say(answer, f"Not healthy in time: {_health_text(answer)}", as_json=options["json"])
                return 1
            time.sleep(min(1.0, max(deadline - time.monotonic(), 0.05)))

    def _dashboard(self, *, now: datetime, **options: Any) -> int:
        url = f"{_address(options)}/monitoring/"
        if options["text"]:
            data = overview_text.collect(now=now)
            self._say(data, overview_text.draw(data), as_json=options["json"])
            return 0
        opened = webbrowser.open(url)
        self._say(
            {"url": url, "opened": opened}, url if opened else f"No browser here; open {url}", as_json=options["json"]
        )
        return 0

    def _ask(self, options: dict[str, Any]) -> dict[str, Any]:
        """Ask the portal; one that does not answer is `unreachable`, which is not yet healthy."""
        token = options["token"] or settings.MONITORING_AUTH_TOKEN
        url = f"{_address(options)}/api/monitoring/health" + ("?detailed=true" if token else "")
        try:
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
            # The operator's own question to the portal: not an outbound request of the portal.
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            try:
                body = json.load(error)
            except ValueError:
                body = {}
            if "status" in body:
                return dict(body)
            return {"status": "unhealthy", "message": body.get("error") or f"HTTP {error.code} from {url}"}
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            return {"status": "unreachable", "message": f"No portal answers at {_address(options)} ({reason})."}


def _seconds(text: str) -> float:
    """Read a pause: a tenth of a second at least, so that watching is no load."""
    seconds = float(text)
    if not 0.1 <= seconds <= 86_400:
        raise ArgumentTypeError(f"{text} is not between 0.1 and 86400 seconds")
    return seconds


def _address(options: dict[str, Any]) -> str:
    return str(options["url"] or settings.PORTAL_URL).rstrip("/")


def _every(interval: float, count: int) -> Iterator[int]:
    """Yield 1, 2, 3 … `count` (0: for ever), `interval` seconds apart."""
    look = 0
    while True:
        look += 1
        yield look
        if look == count:
            return
        time.sleep(interval)


def _braces(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items())) + "}" if labels else ""


def _health_text(answer: dict[str, Any]) -> str:
    lines = [answer["status"] + (f": {answer['message']}" if "message" in answer else "")]
    lines += [f"  {check['status']:<4} {name}: {check['message']}" for name, check in answer.get("checks", {}).items()]
    if answer["status"] != "healthy" and len(lines) == 1 and "message" not in answer:
        lines.append("  Why? With --token (or the variable MONITORING_AUTH_TOKEN) the checks are told.")
    return "\n".join(lines)
