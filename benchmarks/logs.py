"""What log records cost: taken in and packed, bytes a record, and how fast they are found; beside plain rows and gzip.

`./portal bench logs`, or `python -m benchmarks.logs`. The made-up clinic's lines and 20 other services', 500 a request
as NDJSON, stored in a PostgreSQL of its own. Plain rows: the same records as rows of a table with an index on the time.
"""

import argparse
import gzip
import logging
import random
import time
from collections.abc import Sequence
from typing import Final

import orjson

from benchmarks.store import Cpu, server

REQUEST: Final = 500
LEAST: Final = 1_000
"""Records a second that two cores have to take while they do other things: a tenth of a core at most."""
WORDS: Final = (
    "GET /api/v2/orders/{n} 200 in {ms} ms", "cache miss for key session:{id}", "user {n} logged in from 10.1.{k}.{m}",
    "job {id} finished after {ms} ms, {k} rows", "connection from 192.0.2.{k} port {n} closed by peer",
    "retry {m} of request {id} to https://pay.example/v1/charge/{n}",
    "slow query ({ms} ms): SELECT * FROM t WHERE id = {n}",
)  # fmt: skip
LEVELS: Final = ("info", "info", "info", "info", "info", "debug", "warning", "error")


def records(count: int, begin_ms: int) -> list[dict[str, object]]:
    """So many records within a hundred seconds."""
    rng = random.Random(7)
    rows: list[dict[str, object]] = []
    for number in range(count):
        words = WORDS[number % len(WORDS)].format(
            n=rng.randrange(10**6),
            ms=rng.randrange(3000),
            id=f"{rng.getrandbits(64):016x}",
            k=rng.randrange(256),
            m=rng.randrange(9),
        )
        service = f"service-{number % 20}"
        rows.append(
            {
                "time": begin_ms + number * 100_000 // count, "level": rng.choice(LEVELS), "service": service,
                "host": f"web-{number % 8}", "message": words, "request_id": f"{rng.getrandbits(48):012x}",
                "logger": f"{service}.views",
            }
        )  # fmt: skip
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    options = parser.parse_args(argv)
    with server() as pid:
        import django

        django.setup()
        logging.disable(logging.WARNING)  # nobody listens to live pushes here
        from django.core.management import call_command
        from django.db import connection
        from django.utils import timezone

        call_command("migrate", verbosity=0)
        from datetime import timedelta

        from apps.accounts.permissions import EVERYTHING, Principal
        from apps.core.lanes import Request
        from apps.sources.logs import api, search, services, upkeep
        from apps.sources.logs.search import Wanted

        by, now = Principal.system("bench"), timezone.now()
        begin = int(now.timestamp() * 1000) - 120_000
        rows = records(options.records, begin)
        lines = [orjson.dumps(row) for row in rows]
        bodies = [b"\n".join(lines[at : at + REQUEST]) for at in range(0, len(lines), REQUEST)]
        kind = ((b"content-type", b"application/x-ndjson"),)
        cpu, started = Cpu(pid), time.perf_counter()
        for body in bodies:
            said = api.LANES["/api/v1/portal/logs"].serve(by, Request("POST", "/api/v1/portal/logs", b"", body, kind))
            assert said.status == 200, said.body
        wall = time.perf_counter() - started
        here, there = cpu.lap()
        each = (here + there) / len(rows) * 1e6
        print(f"taken in: {len(rows) / wall:9,.0f} records/s; {here / len(rows) * 1e6:5.1f} µs here + "
              f"{there / len(rows) * 1e6:5.1f} µs in PostgreSQL a record")  # fmt: skip
        share = each * LEAST / 1e4
        print(f"    {LEAST} records/s are {share:.1f} % of a core: {'kept' if share <= 10 else 'BROKEN'} (limit 10 %)")
        while upkeep.pack(now=now + timedelta(minutes=10)):
            pass
        here, there = cpu.lap()
        print(f"packed:   {(here + there) / len(rows) * 1e6:5.1f} µs a record")
        with connection.cursor() as cursor:
            cursor.execute("SELECT sum(stored), sum(records), count(*) FROM sources_logrun")
            stored, kept, runs = cursor.fetchone()
            cursor.execute("SELECT count(*) FROM sources_logtemplate")
            templates = cursor.fetchone()[0]
            plain, packed = sum(map(len, lines)) / len(lines), len(gzip.compress(b"\n".join(lines), 6)) / len(lines)
            size = float(stored) / float(kept)
            rows_size = _plain_rows(cursor, rows, cpu)
        print(f"on disk:  {size:5.1f} bytes a record in {runs} rows, {templates} templates; JSON {plain:.0f} "
              f"(1 : {plain / size:.1f}), gzip of all at once {packed:.1f} ({size / packed:.2f} of it), "
              f"plain rows {rows_size:.0f} (1 : {rows_size / size:.0f})")  # fmt: skip
        wanted = Wanted(begin, begin + 200_000)
        for what, ask in (
            ("newest 100", lambda: search.page(wanted, scope=EVERYTHING)),
            ("errors of one service", lambda: search.page(
                Wanted(begin, begin + 200_000, "service-3", ("error",)), scope=EVERYTHING)),
            ("a text that nothing holds", lambda: search.page(
                Wanted(begin, begin + 200_000, text="no such words"), scope=EVERYTHING)),
            ("counts by level", lambda: search.counts(
                Wanted(begin // 15_000 * 15_000, begin + 200_000), scope=EVERYTHING, step=timedelta(seconds=15))),
            ("templates", lambda: search.templates(wanted, scope=EVERYTHING)),
        ):  # fmt: skip
            started = time.perf_counter()
            ask()
            print(f"found:    {what:28} {1000 * (time.perf_counter() - started):7.1f} ms of {len(rows):,} records")
        services.forget()


def _plain_rows(cursor, rows, cpu) -> float:
    """Bytes a record as rows of a table with an index on the time."""
    cursor.execute("CREATE TABLE plain (id bigserial PRIMARY KEY, at timestamptz, level text, service text, host text,"
                   " message text, attributes jsonb)")  # fmt: skip
    cursor.execute("CREATE INDEX ON plain (service, at)")
    given = ("time", "level", "service", "host", "message")
    for begin in range(0, len(rows), REQUEST):
        cursor.executemany(
            "INSERT INTO plain (at, level, service, host, message, attributes)"
            " VALUES (to_timestamp(%s / 1000.0), %s, %s, %s, %s, %s)",
            [
                (
                    *(row[name] for name in given),
                    orjson.dumps({k: v for k, v in row.items() if k not in given}).decode(),
                )
                for row in rows[begin : begin + REQUEST]
            ],
        )
    here, there = cpu.lap()
    print(f"plain rows: {(here + there) / len(rows) * 1e6:5.1f} µs a record, written by executemany")
    cursor.execute("SELECT pg_total_relation_size('plain')")
    return float(cursor.fetchone()[0]) / len(rows)


if __name__ == "__main__":
    main()
