"""What the store holds, what it costs, and what waits to be done with it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.core.telemetry import Reading
from apps.metrics import services, space, stock
from apps.metrics.collectors import OWN, Collector
from apps.metrics.space import Room
from apps.metrics.stock import Part

TIMEOUT = "10s"
COUNTED_EVERY = 300.0
"""Seconds for which what takes a look at every block's row is told again as it was."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What takes a look at every block's row."""

    parts: list[Part] = field(default_factory=list)
    due: Mapping[str, int] = field(default_factory=dict)
    overdue: Mapping[tuple[str, str], timedelta] = field(default_factory=dict)


class Store(Collector):
    """The store of samples itself: size, damage, and how far compaction, roll-ups, retention and backups are behind."""

    kind = "store"
    label = "The portal's store of samples"
    job = OWN
    every = timedelta(seconds=60)
    deadline = 15.0

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self._counted: tuple[float, Counted] | None = None

    def collect(self) -> list[Reading]:
        now = timezone.now()
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = '{TIMEOUT}'")
            counted = self._count(now)
            found = [
                *contents(counted),
                *costs(counted.parts, stock.table_bytes()),
                *damage(stock.damaged()),
                *log(stock.log_bytes()),
            ]
        found += room(space.tightest(share=services.FREE_SHARE, least=services.FREE_BYTES))
        return [*found, *backup(stock.last_backup())]

    def _count(self, now: datetime) -> Counted:
        if self._counted is None or monotonic() - self._counted[0] >= COUNTED_EVERY:
            parts = stock.parts()
            self._counted = monotonic(), Counted(parts, stock.work_due(now), stock.overdue(parts, now))
        return self._counted[1]


def contents(counted: Counted) -> Iterator[Reading]:
    """By category and resolution: blocks, samples, bytes, and how far retention is behind. Windows that wait."""
    for part in counted.parts:
        labels = {"category": part.category, "resolution": part.label}
        yield Reading("portal_store_blocks", float(part.blocks), labels, help="Blocks of compacted samples.")
        yield Reading("portal_store_samples", float(part.samples), labels, help="Samples (or buckets) in blocks.")
        yield Reading("portal_store_block_bytes", float(part.stored), labels, help="Bytes of the blocks themselves.")
        lag = counted.overdue.get((part.category, part.label), timedelta(0)).total_seconds()
        help_text = "By how much the oldest samples have outlived their retention policy, in seconds."
        yield Reading("portal_store_retention_lag_seconds", lag, labels, help=help_text)
    for work, count in counted.due.items():
        help_text = "Windows that wait to be merged, or to be rolled up."
        yield Reading("portal_store_windows_due", float(count), {"work": work}, help=help_text)


def costs(parts: Iterable[Part], tables: Mapping[str, int]) -> Iterator[Reading]:
    """Bytes on disk, and what a sample costs of them."""
    for name, size in tables.items():
        help_text = "Bytes of a table of the store on disk, indexes included."
        yield Reading("portal_store_table_bytes", float(size), {"table": name}, help=help_text)
    if samples := sum(part.samples for part in parts if part.resolution == 0):
        help_text = "Bytes that a sample takes on disk, with indexes, roll-ups and free pages."
        yield Reading("portal_store_bytes_per_sample", tables.get("block", 0) / samples, help=help_text)


def damage(rows: Mapping[str, int]) -> Iterator[Reading]:
    """Rows that are marked."""
    for table, count in rows.items():
        help_text = "Stored rows that fail their checksum and are skipped."
        yield Reading("portal_store_damaged_rows", float(count), {"table": table}, help=help_text)


def log(size: int | None) -> Iterator[Reading]:
    """PostgreSQL's write-ahead log, where we may look at it."""
    if size is not None:
        yield Reading("pg_wal_size_bytes", float(size), help="Bytes of PostgreSQL's write-ahead log.")


def room(found: Room | None) -> Iterator[Reading]:
    """The disk of our own database."""
    if found is not None:
        help_text = "Bytes on the database's disk until samples are refused; below zero they are."
        yield Reading("portal_store_room_bytes", float(found.left), help=help_text)


def backup(last: Mapping[str, Any] | None) -> Iterator[Reading]:
    """The last one, if there ever was one."""
    if last is not None:
        yield Reading(
            "portal_backup_last_success_timestamp_seconds", float(last["at"]), help="When the last backup was made."
        )
        yield Reading("portal_backup_last_size_bytes", float(last["bytes"]), help="Bytes of the last backup.")
