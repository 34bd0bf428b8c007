"""`manage.py store`: look at the store of samples, check every row of it, compact it now, or import samples."""

import csv
import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.metrics import compaction, services, storage
from apps.metrics.codec import Corrupt, View, decode_batch
from apps.metrics.samples import Samples

CHUNK: Final = 50_000
BY: Final = Principal.system("manage.py store", via="command")

Row = tuple[dict[str, str], int, float]


class Command(BaseCommand):
    help = "stats: what is stored; check: decode every row; compact: do it now; import: samples of any age."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        for name, text in (("stats", "rows, samples and bytes"), ("compact", "compact and merge what is due, now")):
            verbs.add_parser(name, help=text).add_argument("--json", action="store_true")
        verbs.add_parser("check", help="decode every row; exit 1 when one is damaged").add_argument(
            "--json", action="store_true"
        )
        load = verbs.add_parser("import", help="back-fill samples; doing it twice changes nothing")
        load.add_argument(
            "file",
            help="*.csv with columns name, timestamp (ms), value and one per label; else JSON lines "
            '{"metric": {"__name__": …}, "values": […], "timestamps": [ms, …]}; - is stdin',
        )
        load.add_argument("--csv", action="store_true", help="the file is CSV whatever its name")

    def handle(self, *args: Any, **options: Any) -> None:
        problem = getattr(self, f"_{options['verb']}")(options)
        if problem:
            raise CommandError(problem, returncode=1)

    def _say(self, data: dict[str, Any], as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(data, indent=2))
            return
        for key, value in data.items():
            self.stdout.write(f"{key.replace('_', ' '):28} {value}")

    def _stats(self, options: dict[str, Any]) -> None:
        self._say(_stats(), options["json"])

    def _check(self, options: dict[str, Any]) -> str:
        damaged = list(_damaged())
        self._say({"damaged_rows": len(damaged), **dict(damaged)}, options["json"])
        return f"{len(damaged)} rows are damaged: restore them from a backup." if damaged else ""

    def _compact(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        rows = 0
        while taken := compaction.compact_log(now=now):
            rows += taken
        merged = [compaction.merge_window(due=due, now=now) for due in compaction.due_windows(now)]
        self._say({"log_rows": rows, "windows_merged": len(merged)}, options["json"])

    def _import(self, options: dict[str, Any]) -> None:
        try:
            self._import_file(options)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise CommandError(f"{options['file']} cannot be read: {error}.", returncode=1) from error

    def _import_file(self, options: dict[str, Any]) -> None:
        name = options["file"]
        as_csv = options["csv"] or name.endswith(".csv")
        accepted = refused = 0
        with sys.stdin if name == "-" else Path(name).open(encoding="utf-8", newline="") as file:
            rows = _csv_rows(file) if as_csv else _json_rows(file)
            while chunk := list(islice(rows, CHUNK)):
                samples = Samples.of([row[0] for row in chunk], [row[1] for row in chunk], [row[2] for row in chunk])
                written = services.backfill(samples=samples, by=BY, now=timezone.now(), source=name)
                accepted += written.accepted
                refused += len(written.rejected)
                for rejection in written.rejected[:5]:
                    self.stderr.write(f"{chunk[rejection.index][0]}: {rejection.text}")
        self._say({"samples": accepted, "refused": refused}, as_json=False)


def _csv_rows(lines: Iterable[str]) -> Iterator[Row]:
    reader = csv.DictReader(lines)
    missing = {"name", "timestamp", "value"} - set(reader.fieldnames or ())
    if missing:
        raise CommandError(f"The first line must name the columns; missing: {', '.join(sorted(missing))}.")
    for number, row in enumerate(reader, 2):
        try:
            labels = {"__name__": row.pop("name"), **{k: v for k, v in row.items() if k not in {"timestamp", "value"}}}
            yield labels, int(row["timestamp"]), float(row["value"])
        except (ValueError, TypeError) as error:
            raise CommandError(
                f"Line {number}: {error}. Samples before it are stored; importing again is safe."
            ) from error


def _json_rows(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            labels = {str(name): str(value) for name, value in row["metric"].items()}
            for stamp, value in zip(row["timestamps"], row["values"], strict=True):
                yield labels, int(stamp), float(value)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CommandError(
                f"Line {number} is not {{metric, values, timestamps}} ({error!r}). What precedes it may be stored; "
                "repeating is safe."
            ) from error


_STATS: Final = """
SELECT (SELECT count(*) FROM metrics_metric), (SELECT count(*) FROM metrics_series WHERE gone_at IS NULL),
       (SELECT count(*) FROM metrics_batch), (SELECT coalesce(sum(samples), 0) FROM metrics_batch),
       pg_total_relation_size('metrics_batch'),
       count(*) FILTER (WHERE level = 0), count(*) FILTER (WHERE level = 1), coalesce(sum(samples), 0),
       coalesce(sum(octet_length(directory) + octet_length(payload)), 0), pg_total_relation_size('metrics_block'),
       to_timestamp(min(t_min) / 1000.0), to_timestamp(max(t_max) / 1000.0), count(*) FILTER (WHERE bad_at IS NOT NULL)
  FROM metrics_block
"""


def _stats() -> dict[str, Any]:
    names = (
        *("metrics", "series", "log_rows", "log_samples", "log_bytes_on_disk"),
        *("blocks_level_0", "blocks_level_1", "block_samples", "block_bytes", "block_bytes_on_disk"),
        *("oldest", "newest", "damaged_blocks"),
    )
    with storage.cursor() as cur:
        found = dict(zip(names, cur.execute(_STATS).fetchone() or (), strict=True))
    samples = int(found["block_samples"])
    found["bytes_a_sample"] = round(int(found["block_bytes"]) / samples, 2) if samples else None
    plain = (int, float, type(None))
    return {key: value if isinstance(value, plain) else str(value) for key, value in found.items()}


def _damaged() -> Iterator[tuple[str, str]]:
    """(row, what is wrong with it) of every row that does not decode, values included."""
    import numpy as np

    for kind, table in enumerate(("metrics_batch", "metrics_block")):
        with storage.cursor() as cur:
            ids = [row[0] for row in cur.execute(f"SELECT id FROM {table} ORDER BY id").fetchall()]
            for begin in range(0, len(ids), 100):
                for ident, *parts in storage.fetch(cur, kind, ids[begin : begin + 100]):
                    try:
                        if kind == 0:
                            decode_batch(parts[0])
                            continue
                        view = View(*parts)
                        for chunk, size in enumerate(np.diff(view.off[view.chunk_off]).tolist()):
                            view.values(chunk, np.empty(size))
                    except Corrupt as error:
                        yield f"{table.removeprefix('metrics_')} {ident}", str(error)
