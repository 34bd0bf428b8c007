"""Looks at every stored row and says what is wrong with it; mends what can be mended, and drops nothing unasked.

A row's bytes carry a checksum: what fails it is lost, is marked and skipped by reads, and only a backup brings it back.
Everything else can be told from what is there: the bounds by which a row is found are those of its samples, roll-ups
are made anew where their samples still stand, and numbers of transactions that came from another cluster are counted
anew in the same order.
"""

import base64
import json
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg
from django.db import connection

from apps.accounts import audit
from apps.accounts.permissions import Principal, Right
from apps.metrics import rolling, storage
from apps.metrics.codec import Columns, Corrupt, Int64, View, decode_batch
from apps.metrics.models import RolledWindow
from apps.metrics.storage import WINDOW_MS, WINDOWS_MS

CHECKSUM: Final = "checksum"
MARK: Final = "mark"
BOUNDS: Final = "bounds"
ROLLUP: Final = "rollup"
ROUNDS: Final = "rounds"
SERIES: Final = "series"
OVERLAP: Final = "overlap"

FETCHED: Final = 50
"""Rows whose bytes are held at once, about 100 kB each."""
TABLES: Final = {"batch": "metrics_batch", "block": "metrics_block"}
FIRST_ROUND: Final = 2
"""Rounds from here on belong to samples; what stands before them never wins (`rolling`)."""

Progress = Callable[[int, int], None]
"""Told (rows looked at, rows in all)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: where, what, and what there is to do about it.

    `is_damage`: samples are missing from answers, or will be. `values` are the bounds that the row should have.
    """

    kind: str
    row: str
    text: str
    is_damage: bool = True
    ident: int = 0
    begin: int = 0
    end: int = 0
    samples: int = 0
    values: tuple[tuple[str, int], ...] = ()
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.row}: {self.text}{f' ({self.cure})' if self.cure else ''}"


def moment(ms: int) -> str:
    """Milliseconds since 1970 for people."""
    try:
        return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return f"{ms} ms"


# --- check ------------------------------------------------------------------------------------------------------------


def silent(done: int, total: int) -> None:
    """Tells nobody."""


def examine(progress: Progress = silent) -> Iterator[Finding]:
    """Everything that is wrong, row by row and then between rows. Reads the whole store; holds few rows at a time."""
    known = _registry()
    for table in TABLES:
        with storage.cursor() as cur:
            ids = [row[0] for row in cur.execute(f"SELECT id FROM {TABLES[table]} ORDER BY id").fetchall()]
            spans: defaultdict[tuple[int, ...], list[_Span]] = defaultdict(list)
            for begin in range(0, len(ids), FETCHED):
                for row in _rows(cur, table, ids[begin : begin + FETCHED]):
                    yield from _row(table, row, known, spans)
                progress(min(begin + FETCHED, len(ids)), len(ids))
            yield from _overlaps(spans)
    yield from _between_rows()


@dataclass(frozen=True, slots=True, eq=False)
class _Registry:
    """Ids of all series, sorted, and the metric of each."""

    ids: Int64
    metric: Int64

    def metrics_of(self, series: Int64) -> Int64:
        """The metric of each of these; 0 where there is no such series."""
        if not len(self.ids):
            return np.zeros(len(series), dtype=np.int64)
        at = np.minimum(np.searchsorted(self.ids, series), len(self.ids) - 1)
        found: Int64 = np.where(self.ids[at] == series, self.metric[at], 0)
        return found


def _registry() -> _Registry:
    with storage.cursor() as cur:
        cur.execute("SELECT id, metric_id FROM metrics_series ORDER BY id", binary=True)
        parts = []
        while some := cur.fetchmany(50_000):
            parts.append(np.array(some, dtype=np.int64))
    columns = np.concatenate(parts) if parts else np.zeros((0, 2), dtype=np.int64)
    return _Registry(columns[:, 0].copy(), columns[:, 1].copy())


_BOUNDS: Final = {
    "batch": ("samples", "t_min", "t_max", "series_min", "series_max"),
    "block": ("samples", "t_min", "t_max", "series_min", "series_max", "metric_min", "metric_max"),
}
_PLACE: Final = ("window", "resolution", "field", "level", "round", "retention_id")


def _rows(cur: "psycopg.Cursor[Any]", table: str, ids: Sequence[int]) -> list[dict[str, Any]]:
    names = ["id", "bad_at IS NOT NULL AS bad", *_BOUNDS[table], "payload"]
    if table == "block":
        names += ['"window"', *_PLACE[1:], "directory", "crc"]
    cur.execute(
        f"SELECT {', '.join(names)} FROM {TABLES[table]} WHERE id = ANY(%s) ORDER BY id", [list(ids)], binary=True
    )
    columns = [column.name for column in cur.description or ()]
    return [dict(zip(columns, values, strict=True)) for values in cur.fetchall()]


@dataclass(frozen=True, slots=True)
class _Span:
    """From which to which (metric, series) a block goes."""

    first: tuple[int, int]
    last: tuple[int, int]
    ident: int


def _row(
    table: str, row: dict[str, Any], known: _Registry, spans: "defaultdict[tuple[int, ...], list[_Span]]"
) -> Iterator[Finding]:
    ident, name = int(row["id"]), f"{table} {row['id']}"
    where = {"row": name, "ident": ident, "begin": row["t_min"], "end": row["t_max"], "samples": row["samples"]}
    about = f"{row['samples']} samples from {moment(row['t_min'])} to {moment(row['t_max'])} UTC"
    try:
        held = decode_batch(row["payload"]) if table == "batch" else _decoded(row)
    except Corrupt as error:
        told = "marked and skipped by reads" if row["bad"] else "`store repair` marks it"
        yield Finding(CHECKSUM, text=f"{about} cannot be read: {error}", cure=f"{told}; a backup has them", **where)
        return
    if row["bad"]:
        yield Finding(
            MARK, text=f"{about} are marked as damaged and are sound", cure="`store repair` unmarks it", **where
        )
    right = _bounds_of(held)
    if wrong := {key: number for key, number in right.items() if row[key] != number}:
        said = ", ".join(f"{key} is {row[key]} and should be {number}" for key, number in wrong.items())
        yield Finding(BOUNDS, text=said, values=tuple(right.items()), cure="`store repair` corrects it", **where)
    series = np.unique(held.series)
    metrics = known.metrics_of(series)
    if not metrics.all():
        missing = series[metrics == 0]
        text = f"{len(missing)} series without a row in the registry, such as {missing[0]}"
        yield Finding(SERIES, text=text, is_damage=False, cure="kept, and shown by no query", **where)
    if isinstance(held, View):
        order = np.lexsort((held.series, held.metric))
        first, last = order[0], order[-1]
        group = tuple(int(row[key]) for key in _PLACE)
        span = _Span(
            (int(held.metric[first]), int(held.series[first])), (int(held.metric[last]), int(held.series[last])), ident
        )
        spans[group].append(span)
        length = WINDOWS_MS[row["resolution"]]
        # Windows of roll-ups are closed on the right, as their buckets are.
        latest = row["window"] + length - (0 if row["resolution"] else 1)
        if row["window"] % length or right["t_min"] < row["window"] or right["t_max"] > latest:
            text = f"{about} do not lie in its window, {moment(row['window'])}"
            yield Finding(BOUNDS, text=text, cure="reads may miss them; export and import them again", **where)


def _decoded(row: dict[str, Any]) -> View:
    """The block, its values decoded once."""
    view = View(row["directory"], row["payload"], row["crc"])
    for chunk, size in enumerate(np.diff(view.off[view.chunk_off]).tolist()):
        view.values(chunk, np.empty(size))
    return view


def _bounds_of(held: Columns | View) -> dict[str, int]:
    found = {"series_min": int(held.series.min()), "series_max": int(held.series.max())}
    if isinstance(held, View):
        found |= {"metric_min": int(held.metric.min()), "metric_max": int(held.metric.max())}
        return found | {
            "samples": int(held.off[-1]),
            "t_min": held.vectors.t_min,
            "t_max": held.vectors.t_max,
        }
    return found | {"samples": len(held), "t_min": int(held.ts.min()), "t_max": int(held.ts.max())}


def _overlaps(spans: "defaultdict[tuple[int, ...], list[_Span]]") -> Iterator[Finding]:
    """Merged blocks of one run that both claim a stretch of series: each instant is still read once."""
    for (window, resolution, _, level, *_), found in spans.items():
        ordered = sorted(found, key=lambda span: span.first)
        for one, other in pairwise(ordered):
            if level == 1 and other.first <= one.last:
                text = (
                    f"shares series with block {one.ident} in the window {moment(window)} (resolution {resolution} s)"
                )
                yield Finding(
                    OVERLAP, f"block {other.ident}", text, is_damage=False, ident=other.ident,
                    cure="read once all the same; the next merge of the window ends it",
                )  # fmt: skip


# A window counts as rolled up, but a policy's buckets of it are nowhere: retention would let its samples go.
_UNROLLED: Final = """
SELECT DISTINCT r."window" FROM metrics_rolledwindow r
  JOIN metrics_block b ON b."window" = r."window" AND b.resolution = 0 AND b.bad_at IS NULL AND b.t_max > b."window"
  JOIN metrics_retentionpolicy p ON p.id = b.retention_id
 CROSS JOIN LATERAL (VALUES (300, p.rollup_5m), (3600, p.rollup_1h)) AS wanted(resolution, kept)
 WHERE wanted.kept IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM metrics_block u
     WHERE u.resolution = wanted.resolution AND u.retention_id = b.retention_id AND u.bad_at IS NULL
       AND u.t_max > r."window" AND u.t_min <= r."window" + %s + wanted.resolution * 1000)
 ORDER BY 1
"""
_HIGHEST: Final = """
SELECT (SELECT max(round) FROM metrics_block), (SELECT max(xid::text::bigint) FROM metrics_series),
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""
_LOST_SERIES: Final = """
SELECT count(*) FROM metrics_series s LEFT JOIN metrics_metric m ON m.id = s.metric_id WHERE m.id IS NULL
"""


def _between_rows() -> Iterator[Finding]:
    with storage.cursor() as cur:
        for (window,) in cur.execute(_UNROLLED, [WINDOW_MS]).fetchall():
            text = f"counts as rolled up ({moment(window)}), but roll-ups of it are missing"
            yield Finding(ROLLUP, f"window {window}", text, ident=int(window), cure="`store repair` makes them anew")
        rounds, xids, now = cur.execute(_HIGHEST).fetchone() or (None, None, 0)
        if max(rounds or 0, xids or 0) > now:
            text = "numbers of transactions are ahead of the server's own: the database came from a dump"
            yield Finding(ROUNDS, "rounds", text, cure="`store repair` numbers them anew, in the same order")
        (lost,) = cur.execute(_LOST_SERIES).fetchone() or (0,)
        if lost:
            text = f"{lost} series belong to a metric that is gone"
            yield Finding(SERIES, "registry", text, is_damage=False, cure="no query shows them")


# --- repair -----------------------------------------------------------------------------------------------------------


@audit.verb("metrics.repair_store", right=Right.ADMINISTER)
def repair(*, findings: Sequence[Finding], by: Principal, now: datetime) -> dict[str, int]:
    """Mend what can be mended without losing anything; return how many of each kind were. One entry tells all."""
    done: Tally[str] = Tally()
    windows: set[int] = set()
    with storage.cursor() as cur:
        for one in findings:
            table = TABLES.get(one.row.partition(" ")[0])
            if one.kind == CHECKSUM:
                storage.mark_bad(int(table == TABLES["block"]), [one.ident], now)
                windows |= _windows_of(cur, one)
            elif one.kind == MARK:
                cur.execute(f"UPDATE {table} SET bad_at = NULL WHERE id = %s", [one.ident])
            elif one.kind == BOUNDS and one.values:
                columns = ", ".join(f"{name} = %s" for name, _ in one.values)
                cur.execute(f"UPDATE {table} SET {columns} WHERE id = %s", [*(n for _, n in one.values), one.ident])
            elif one.kind == ROLLUP:
                windows.add(one.ident)
            elif one.kind == ROUNDS:
                renumber(cur)
            else:
                continue
            done[one.kind] += 1
    done["windows rolled up"] = sum(_roll(window, now) for window in sorted(windows))
    mended = {kind: count for kind, count in done.items() if count}
    rows = [one.row for one in findings if one.kind in done][:1000]
    audit.record(
        by=by, verb="metrics.repair_store", target=("metrics.block", "", "store"), after={**mended, "rows": rows}
    )
    return mended


def _windows_of(cur: "psycopg.Cursor[Any]", one: Finding) -> set[int]:
    """The windows of raw samples that are still there behind a damaged block of roll-ups."""
    cur.execute("SELECT resolution FROM metrics_block WHERE id = %s", [one.ident])
    if not one.row.startswith("block") or not (cur.fetchone() or (0,))[0]:
        return set()
    cur.execute(
        'SELECT DISTINCT "window" FROM metrics_block WHERE resolution = 0 AND bad_at IS NULL'
        ' AND "window" > %s AND "window" < %s',
        [one.begin - WINDOW_MS - 3_600_000, one.end],
    )
    return {int(window) for (window,) in cur.fetchall()}


def _roll(window: int, now: datetime) -> int:
    RolledWindow.objects.filter(window=window).delete()
    return int(rolling.roll_window(window=window, now=now) > 0)


def renumber(cur: "psycopg.Cursor[Any]") -> None:
    """Give rounds small numbers in the order they have.

    After a dump was loaded into another cluster its numbers of transactions begin anew: later samples would have
    smaller rounds than earlier ones, and lose against them. `make_way` comes first.
    """
    cur.execute("CREATE TEMPORARY TABLE renumbered (old bigint PRIMARY KEY, new bigint) ON COMMIT DROP")
    cur.execute(
        "INSERT INTO renumbered SELECT round, row_number() OVER (ORDER BY round) + %s FROM"
        " (SELECT round FROM metrics_block UNION SELECT round FROM metrics_rolledwindow) AS found WHERE round >= %s",
        [FIRST_ROUND - 1, FIRST_ROUND],
    )
    for table in ("metrics_block", "metrics_rolledwindow"):
        cur.execute(f"UPDATE {table} t SET round = n.new FROM renumbered n WHERE t.round = n.old AND n.old <> n.new")
    for table, column in _CAPS:
        if _has_column(cur, table, column):
            cur.execute(
                f"UPDATE {table} SET {column} = coalesce((SELECT max(new) FROM renumbered WHERE old <= {column}), 0)"
                f" WHERE {column} < %s",
                [2**63 - 1],
            )
    cur.execute(f"UPDATE metrics_series SET xid = '{FIRST_ROUND}'")


def make_way() -> None:
    """Move the server's counter of transactions beyond as many numbers as `renumber` needs.

    Outside any transaction, since it commits as it goes; some 50,000 numbers a second, nothing is written.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT round) FROM (SELECT round FROM metrics_block"
            " UNION ALL SELECT round FROM metrics_rolledwindow) AS found"
        )
        needed = int(cursor.fetchone()[0]) + FIRST_ROUND + 1
        cursor.execute(f"DO $$ BEGIN WHILE pg_current_xact_id()::text::bigint < {needed} LOOP COMMIT; END LOOP; END $$")


_CAPS: Final = (("metrics_tombstone", "round"), ("metrics_census", "xmin"))
"""Columns that say up to which round or transaction something holds."""


def _has_column(cur: "psycopg.Cursor[Any]", table: str, column: str) -> bool:
    cur.execute("SELECT 1 FROM information_schema.columns WHERE table_name = %s AND column_name = %s", [table, column])
    return cur.fetchone() is not None


@audit.verb("metrics.drop_damaged", right=Right.ADMINISTER)
def drop_damaged(*, findings: Sequence[Finding], by: Principal, now: datetime, folder: Path) -> int:
    """Delete rows that cannot be read, their bytes set aside in `folder` before; return how many, with an entry."""
    gone: list[dict[str, Any]] = []
    with storage.cursor() as cur:
        for one in findings:
            table = one.row.partition(" ")[0]
            if one.kind != CHECKSUM or table not in TABLES:
                continue
            rows = _rows(cur, table, [one.ident])
            for row in rows:
                _set_aside(folder, f"{table}-{one.ident}-{now:%Y%m%dT%H%M%SZ}.json", row)
                cur.execute(f"DELETE FROM {TABLES[table]} WHERE id = %s", [one.ident])
                gone.append({"row": one.row, "samples": one.samples, "from_ms": one.begin, "to_ms": one.end})
    audit.record(
        by=by,
        verb="metrics.drop_damaged",
        target=("metrics.block", "", "store"),
        after={"rows": gone, "samples": sum(one["samples"] for one in gone), "set_aside_in": str(folder)},
    )
    return len(gone)


def _set_aside(folder: Path, name: str, row: dict[str, Any]) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    plain = {key: base64.b64encode(value).decode() if isinstance(value, bytes) else value for key, value in row.items()}
    (folder / name).write_text(json.dumps(plain))
