"""From the outbox to the receiver: bursts, a steady load beside receivers that are slow or never answer, and e-mail.

`./portal bench deliveries`, or `python -m benchmarks.deliveries [--only NAME] [--count N] [--rate N] [--seconds N]`.
A portal of its own, as `./portal run` starts it, with its one worker process and its threads. This process writes
deliveries as on-call does, in transactions of twenty; a third process receives over HTTP and SMTP on loopback and
keeps when each one came, by its idempotency key. The clock starts before the transaction of the decision and ends when
the receiver has read the whole message. CPU is of the portal's processes, PostgreSQL and Valkey among them.
Limits (issue 6): 10,000 deliveries in 60 s; from decision to receiver 2 s at the 95th percentile under that load; what
is slow or hangs delays nobody else.
"""

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import psutil

from monitoring_portal.testing import Portal

CONTACTS: Final = 200
AT_ONCE: Final = 20
"""Deliveries in one transaction: a group's message to the contacts of its route."""
HANGING: Final = 20
SLOW: Final = 5
EVERY: Final = 2.0
"""Seconds between two messages to a contact that hangs or is slow."""
PATIENCE: Final = 150.0
LIMIT: Final = 60.0
LIMIT_P95: Final = 2.0

Arrivals = list[tuple[str, float]]
"""(key of the delivery, epoch seconds) in the order of arrival."""


# --- The receiver, a process of its own -------------------------------------------------------------------------------
class Web(asyncio.Protocol):
    """One connection: answers 200 at once under /quick, after a second under /slow, never under /hang."""

    def __init__(self, arrivals: Arrivals) -> None:
        self.arrivals = arrivals
        self.read = bytearray()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.read += data
        while (end := self.read.find(b"\r\n\r\n")) >= 0:
            lines = self.read[:end].decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:])
            length = end + 4 + int(headers.get("content-length", "0"))
            if len(self.read) < length:
                return
            del self.read[:length]
            self.arrivals.append((headers.get("idempotency-key", ""), time.time()))
            path = lines[0].split(" ")[1]
            if path.startswith("/slow"):
                asyncio.get_running_loop().call_later(1.0, self.answer)
            elif not path.startswith("/hang"):
                self.answer()

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Mail:
    """Takes any e-mail; its key is the local part of the Message-ID."""

    def __init__(self, arrivals: Arrivals) -> None:
        self.arrivals = arrivals

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        head = envelope.content.split(b"\r\n\r\n", 1)[0].decode("latin-1").lower()
        key = head.partition("message-id: <")[2].partition("@")[0]
        self.arrivals.append((key, time.time()))
        return "250 OK"


def receive(line: Connection) -> None:
    """Tell the ports, then answer each word on the line: the arrivals so far (count, read) or the end (stop)."""

    async def serve() -> None:
        from aiosmtpd.smtp import SMTP

        arrivals: Arrivals = []
        loop = asyncio.get_running_loop()
        web = await loop.create_server(lambda: Web(arrivals), "127.0.0.1", 0, backlog=1024)
        mail = await loop.create_server(lambda: SMTP(Mail(arrivals), hostname="bench"), "127.0.0.1", 0, backlog=1024)
        line.send([server.sockets[0].getsockname()[1] for server in (web, mail)])
        while True:
            if not line.poll():
                await asyncio.sleep(0.05)
                continue
            match line.recv():
                case "count":
                    line.send(len(arrivals))
                case "read":
                    line.send(list(arrivals))
                    arrivals.clear()
                case _:
                    return

    asyncio.run(serve())


class Receiver:
    """The other end of that process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, theirs = context.Pipe()
        self.process = context.Process(target=receive, args=(theirs,), daemon=True)
        self.process.start()
        self.http, self.smtp = self.line.recv()

    def count(self) -> int:
        self.line.send("count")
        return int(self.line.recv())

    def read(self) -> Arrivals:
        self.line.send("read")
        found: Arrivals = self.line.recv()
        return found

    def stop(self) -> None:
        self.line.send("stop")
        self.process.join(10)


# --- What is measured -------------------------------------------------------------------------------------------------
@dataclass
class Told:
    """Deliveries that were written: by key the contact's name and the time of the decision."""

    rows: dict[str, tuple[str, float]] = field(default_factory=dict)

    def latencies(self, arrivals: Arrivals, prefix: str = "") -> list[float]:
        """Seconds to the first arrival of each whose contact's name begins so."""
        first: dict[str, float] = {}
        for key, at in arrivals:
            first.setdefault(key, at)
        return [first[key] - at for key, (name, at) in self.rows.items() if key in first and name.startswith(prefix)]


class Cpu:
    """CPU-seconds of the portal's processes since the last look, by name."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self.before = self._now()

    def _now(self) -> dict[str, float]:
        found = {}
        for name, pid in self.portal.pids.items():
            one = psutil.Process(pid)
            family = [one, *(one.children(recursive=True) if name == "postgres" else [])]
            times = [each.cpu_times() for each in family]
            # Backends that ended are counted by their parent.
            ended = times[0].children_user + times[0].children_system if name == "postgres" else 0.0
            found[name] = ended + sum(each.user + each.system for each in times)
        return found

    def lap(self) -> str:
        now, before = self._now(), self.before
        self.before = now
        used = {name: now[name] - before.get(name, 0.0) for name in now}
        told = ", ".join(f"{name} {used[name]:.1f}" for name in ("worker", "postgres", "valkey", "web") if name in used)
        return f"CPU {sum(used.values()):.1f} s ({told})"


class Bench:
    """A portal, its receiver, and Django in this process over the portal's database and broker."""

    def __init__(self, portal: Portal, receiver: Receiver) -> None:
        self.portal, self.receiver = portal, receiver
        self.cpu = Cpu(portal)

    def contacts(self, name: str, count: int, kind: str = "webhook") -> list[Any]:
        from apps.notifications.models import Contact

        Contact.objects.filter(name__startswith="bench ").update(enabled=False)
        made = []
        for number in range(count):
            url = f"http://127.0.0.1:{self.receiver.http}/{name}/{number}"
            config = {"url": url} if kind == "webhook" else {"to": [f"{name}-{number}@example.org"]}
            made.append(
                Contact.objects.update_or_create(
                    name=f"bench {name} {number}", defaults={"kind": kind, "config": config, "enabled": True}
                )[0]
            )
        return made

    def also(self, name: str, count: int) -> list[Any]:
        from apps.notifications.models import Contact

        made = [
            Contact(
                name=f"bench {name} {number}",
                kind="webhook",
                config={"url": f"http://127.0.0.1:{self.receiver.http}/{name}/{number}"},
            )
            for number in range(count)
        ]
        Contact.objects.filter(name__in=[one.name for one in made]).delete()
        return list(Contact.objects.bulk_create(made))

    def write(self, contacts: Sequence[Any], told: Told, number: int) -> None:
        """One decision: a message to each of these contacts, in one transaction."""
        from django.db import transaction
        from django.utils import timezone

        from apps.notifications import outbox

        with transaction.atomic():
            now = timezone.now()
            for contact in contacts:
                one = message(number)
                row = outbox.enqueue(contact=contact, message=one, purpose="firing", now=now)
                told.rows[str(row.key)] = (contact.name, now.timestamp())

    def settle(self, count: int, since: float) -> Arrivals:
        """Wait until so many have arrived."""
        while (arrived := self.receiver.count()) < count:
            if time.monotonic() > since + PATIENCE:
                print(f"  only {arrived:,} of {count:,} arrived within {PATIENCE:g} s")
                break
            time.sleep(0.1)
        return self.receiver.read()

    def burst(self, title: str, name: str, contacts: int, count: int, kind: str = "webhook") -> None:
        """Write all of them as fast as it goes, and wait for the last."""
        chosen = self.contacts(name, contacts, kind)
        told, number = Told(), 0
        self.cpu.lap()
        started = time.monotonic()
        while len(told.rows) < count:
            size = min(AT_ONCE, count - len(told.rows))
            self.write([chosen[(number * AT_ONCE + each) % contacts] for each in range(size)], told, number)
            number += 1
        written = time.monotonic() - started
        arrivals = self.settle(count, started)
        took = time.monotonic() - started
        print(f"{title}: {count:,} in {took:.1f} s ({count / took:,.0f}/s), limit {LIMIT * count / 10_000:g} s")
        print(f"  written in {written:.1f} s; {self.cpu.lap()}; {doubles(arrivals)}", flush=True)

    def steady(self, title: str, rate: int, seconds: float, *, hanging: int = 0, slow: int = 0) -> None:
        """Write evenly for so long, beside contacts that hang or are slow."""
        chosen = self.contacts("quick", CONTACTS)
        odd = [*self.also("hang", hanging), *self.also("slow", slow)]
        told, number, quick = Told(), 0, 0
        self.cpu.lap()
        started = time.monotonic()
        next_odd = started
        while (now := time.monotonic()) < started + seconds:
            if odd and now >= next_odd:
                next_odd += EVERY
                self.write(odd, told, number)
            if quick >= (now - started) * rate:
                time.sleep(0.005)
                continue
            self.write([chosen[(quick + each) % CONTACTS] for each in range(AT_ONCE)], told, number)
            quick += AT_ONCE
            number += 1
        ended = time.monotonic()
        arrivals: Arrivals = []
        while True:
            arrivals += self.receiver.read()
            found = told.latencies(arrivals, "bench quick")
            if len(found) == quick or time.monotonic() > ended + 60:
                break
            time.sleep(0.2)
        missing = "" if len(found) == quick else f", {quick - len(found):,} NOT ARRIVED within a minute"
        print(f"{title}: {quick:,} at {quick / (ended - started):.0f}/s{missing}")
        cuts = statistics.quantiles(found, n=100, method="inclusive")
        print(
            f"  decision to receiver p50 {cuts[49] * 1000:.0f} ms, p95 {cuts[94] * 1000:.0f} ms, p99 "
            f"{cuts[98] * 1000:.0f} ms, max {max(found) * 1000:.0f} ms; limit p95 {LIMIT_P95:g} s; {self.cpu.lap()}"
        )
        if slow:
            late = told.latencies(arrivals, "bench slow")
            print(f"  to the slow ones: {len(late)} arrived, p95 {sorted(late)[int(len(late) * 0.95)]:.1f} s")
        from apps.notifications.models import Contact, Delivery

        names = [one.pk for one in odd]
        Delivery.objects.filter(contact__in=names, state="queued").update(
            state="cancelled", finished_at="2026-01-01T00:00Z", claim=None, claimed_until=None, error="over"
        )
        Contact.objects.filter(pk__in=names).update(enabled=False)
        sys.stdout.flush()
        time.sleep(31 if hanging else 1)  # Tries that hang end by themselves.
        self.receiver.read()


def doubles(arrivals: Arrivals) -> str:
    keys = [key for key, _ in arrivals]
    return f"{len(keys) - len(set(keys))} arrived twice"


def message(number: int) -> Any:
    """A message as on-call writes it for one alert."""
    from apps.notifications.message import Item, Message

    item = Item(
        title=f"Memory is high on web-{number}",
        status="firing",
        severity="critical",
        text="93 % of memory is used.",
        url=f"http://127.0.0.1:3000/monitoring/alerts/alert_{number}/",
        labels={"alertname": "Memory", "instance": f"web-{number}", "service": "shop"},
        annotations={"summary": "Memory is high", "runbook": "https://wiki.example.org/memory"},
        started_at="2026-11-23T11:55:00Z",
        fingerprint=f"{number:016x}",
        facts=(("Value", "93 %"), ("Since", "11:55")),
    )
    return Message(
        title=f"[CRITICAL] {item.title}",
        body="1 alert is firing.",
        severity="critical",
        status="firing",
        url=item.url,
        alerts=(item,),
        group_key=f"route:1:{number % 50}",
    )


@contextmanager
def bench() -> Iterator[Bench]:
    """Start everything and join the portal's database and broker."""
    receiver = Receiver()
    with tempfile.TemporaryDirectory(prefix="portal-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        given = {
            "OUTBOUND_ALLOW": "127.0.0.1",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(receiver.smtp),
            "SMTP_TLS": "false",
        }
        with Portal(folder, given) as portal:
            os.environ.update(portal.environment)
            os.environ.update(
                DATABASE_URL=portal.database_url,
                REDIS_URL=portal.redis_url,
                DJANGO_SETTINGS_MODULE="monitoring_portal.settings",
            )
            import django

            django.setup()
            from django.db import connections

            from monitoring_portal.celery import configure

            configure()
            time.sleep(5)  # What a first start does by itself.
            try:
                yield Bench(portal, receiver)
            finally:
                connections.close_all()
    receiver.stop()


def main() -> int:
    """Print what it took, against the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("many", "one", "mail", "steady"))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=170, help="deliveries a second of the steady load")
    parser.add_argument("--seconds", type=float, default=60, help="how long the steady load lasts")
    given = parser.parse_args()

    def wanted(name: str) -> bool:
        return given.only in (None, name)

    with bench() as one:
        if wanted("many"):
            one.burst(f"burst to {CONTACTS} contacts", "quick", CONTACTS, given.count)
        if wanted("one"):
            one.burst("burst to one contact", "quick", 1, given.count)
        if wanted("mail"):
            one.burst(f"burst to {CONTACTS} addresses by SMTP", "mail", CONTACTS, given.count, "email")
        if wanted("steady"):
            one.steady("steady, all well", given.rate, given.seconds)
            title = f"steady, beside {HANGING} that never answer and {SLOW} that take a second"
            one.steady(title, given.rate, given.seconds, hanging=HANGING, slow=SLOW)
            title = f"steady, beside {10 * HANGING} that never answer"
            one.steady(title, given.rate, given.seconds, hanging=10 * HANGING)
    return 0


if __name__ == "__main__":
    threading.current_thread().name = "bench"
    sys.exit(main())
