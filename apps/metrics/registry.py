"""Which series there are, as an ingesting process knows them: from a sender's key to a series id without asking.

A *slot* is this process's number of a label set. Slots are never given back (a registry that holds too many is left for
a new one), ids are: a series whose row was removed for want of samples gets a new row when it speaks again. The
protocol that makes removal safe:

1. Retention sets `gone_at` on a series without samples, and deletes the row a day later if it is still set.
2. Every process forgets the ids of series with `gone_at` at least hourly (`revalidate`), or all of its ids when it
   slept for half a day.
3. A slot without id is looked up before its next sample is written; finding a row with `gone_at` clears it.
"""

import threading
from collections.abc import Callable, Collection, Container, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from hashlib import blake2b
from sys import intern
from time import monotonic
from typing import Any, Final

import numpy as np
import orjson
import psycopg
from django.db import connection, transaction

from apps.core.telemetry import Counter
from apps.metrics.codec import Int64
from apps.metrics.headroom import NOBODY, Headroom, Maker
from apps.metrics.models import RetentionPolicy
from apps.metrics.samples import NAME, LabelSet, ListedKeys, Meta, label_set

CREATED: Final = Counter("portal_series_created_total", "Series that this process was the first to write.")

REVALIDATE: Final = 3600.0
FORGET_ALL: Final = 12 * 3600.0
MAX_ALIASES: Final = 2_000_000
"""Keys of senders that one process remembers; beyond it starts anew, which costs look-ups and nothing else."""
MOST_SLOTS: Final = 2_000_000
MOST_BARRED: Final = 100_000
"""Label sets that one process remembers, and those among them that were refused, before it starts anew."""
BARRED: Final = 10.0
"""Seconds for which a series that a limit refused is refused again without asking."""
LOCK_TIMEOUT: Final = "5s"
NEVER: Final = np.iinfo(np.int64).min // 2
"""The newest instant of a series of which none is known."""


def fingerprint(labels: LabelSet) -> bytes:
    """128 bits of blake2b over the sorted labels; 0xff separates, since it occurs in no UTF-8 text."""
    name, rest = labels
    text = [name.encode(), *(part.encode() for pair in rest for part in pair)]
    return blake2b(b"\xff".join(text), digest_size=16).digest()


LISTS: Final = 4
"""Lists of keys whose slots are remembered by place: each protocol has one, and begins another now and then."""
NOWHERE: Final[tuple[Sequence[Hashable], Int64]] = (), np.zeros(0, dtype=np.int64)


class _Aliases(dict[Hashable, int]):
    """Slot by sender's key; -1 for a key never seen (a look-up that fills an array must not stop at it)."""

    def __missing__(self, key: Hashable) -> int:
        return -1


class Registry:
    """The slots of one process for one database.

    ids int64[…] (0: look it up first), newest int64[…] (ms, as this process knows it) and starts int64[…] (ms since
    when a counter counts, where its sender said so) are indexed by slot.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._aliases = _Aliases()
        self._by_print: dict[bytes, int] = {}
        self._prints: list[bytes] = []
        self._places: dict[int, tuple[Sequence[Hashable], Int64]] = {}
        """(a list of senders' keys that only grows, the slot of each; -1: look it up)"""
        self._labels: list[tuple[str, str]] = []
        """Name and the other labels as JSON: tuples of texts would take five times as much. (As text: orjson's bytes
        keep the four kilobytes that they were written into.)"""
        self._barred: dict[int, tuple[int | None, str, float]] = {}
        """(the token that was refused, why, until when) by slot."""
        self._headroom = Headroom()
        self._described: set[str] = set()
        self._validated = monotonic()
        self.ids: Int64 = np.zeros(1024, dtype=np.int64)
        self.newest: Int64 = np.full(1024, NEVER, dtype=np.int64)
        self.starts: Int64 = np.zeros(1024, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def keys(self) -> Container[Hashable]:
        """The senders' keys that are known here."""
        return self._aliases

    def slots(
        self, keys: Sequence[Hashable], labels_of: Callable[[int], Mapping[str, str] | str]
    ) -> tuple[Int64, list[tuple[int, str]]]:
        """(slot int64[N] of each key, -1 where refused; (index, reason) of the refused)."""
        found = self._told(keys) if isinstance(keys, ListedKeys) else self._looked_up(keys)
        refused: list[tuple[int, str]] = []
        if len(found) and int(found.min()) < 0:
            for index in np.flatnonzero(found < 0).tolist():
                slot = self._aliases[keys[index]]
                if slot < 0:
                    told = labels_of(index)
                    labels = told if isinstance(told, str) else label_set(told)
                    if isinstance(labels, str):
                        refused.append((index, labels))
                        continue
                    slot = self._learn(keys[index], labels)
                found[index] = slot
            if isinstance(keys, ListedKeys):
                self._note_places(keys, found)
        return found, refused

    def slot(self, labels: Mapping[str, str]) -> int | str:
        """The slot of a label set, or why it is refused, for a caller that remembers it itself."""
        found = label_set(labels)
        return found if isinstance(found, str) else self._learn(None, found)

    def labels(self, slot: int) -> dict[str, str]:
        """The labels of a slot, `__name__` among them."""
        name, rest = self._labels[slot]
        return {NAME: name, **orjson.loads(rest)}

    def _looked_up(self, keys: Collection[Hashable]) -> Int64:
        return np.fromiter(map(self._aliases.__getitem__, keys), dtype=np.int64, count=len(keys))

    def _told(self, keys: ListedKeys) -> Int64:
        """The slots of keys, by their places where these are known: a sender's keys are spread all over the memory."""
        listed, slots = self._places.get(id(keys.listed), NOWHERE)
        if listed is not keys.listed or not len(slots):
            found = self._looked_up(keys)
            self._note_places(keys, found)
            return found
        place = keys.place
        found = slots.take(place, mode="clip")
        if keys.own:
            found[place < 0] = self._looked_up(keys.own.values())
        found[place >= len(slots)] = -1
        return found

    def _note_places(self, keys: ListedKeys, found: Int64) -> None:
        """Remember the slots of keys by their places."""
        with self._lock:
            listed, slots = self._places.get(id(keys.listed), NOWHERE)
            if listed is not keys.listed:
                slots = np.full(1024, -1, dtype=np.int64)
                while len(self._places) >= LISTS:
                    del self._places[next(iter(self._places))]
            if len(slots) < len(keys.listed):
                slots = np.concatenate([slots, np.full(len(keys.listed), -1, dtype=np.int64)])
            told = keys.place >= 0
            slots[keys.place[told]] = found[told]
            self._places[id(keys.listed)] = keys.listed, slots

    def _learn(self, key: Hashable | None, labels: LabelSet) -> int:
        identity = fingerprint(labels)
        with self._lock:
            slot = self._by_print.get(identity)
            if slot is None:
                slot = len(self._labels)
                if slot >= len(self.ids):
                    self.ids = np.concatenate([self.ids, np.zeros_like(self.ids)])
                    self.newest = np.concatenate([self.newest, np.full_like(self.newest, NEVER)])
                    self.starts = np.concatenate([self.starts, np.zeros_like(self.starts)])
                self._labels.append((intern(labels[0]), orjson.dumps(dict(labels[1])).decode()))
                self._prints.append(identity)
                self._by_print[identity] = slot
            if key is not None:
                if len(self._aliases) >= MAX_ALIASES:
                    self._aliases = _Aliases()
                self._aliases[key] = slot
            return slot

    @property
    def is_worn(self) -> bool:
        """Whether it holds so much that a new one is better: what still speaks is looked up again."""
        return len(self._labels) > MOST_SLOTS or (
            len(self._barred) > MOST_BARRED and 2 * len(self._barred) > len(self._labels)
        )

    def resolve(self, slots: Int64, maker: Maker = NOBODY) -> Mapping[int, str]:
        """Give every slot an id, making series and metrics that do not exist; 0 stays where a limit forbids it.

        Returns why (a key of `samples.REASONS`) by slot.

        Runs in a transaction of its own, before the one that writes the samples: whoever sees the batch sees the
        series. Inside a caller's transaction that takes a second connection, so that a long transaction never makes
        other writers of the same series wait for it, and a rollback never takes away a series that others use.
        """
        self.revalidate()
        lacking = self.ids[slots] == 0
        if not lacking.any():
            return {}
        missing = np.unique(slots[lacking]).tolist()
        clock = monotonic()
        barred = {slot: why for slot in missing if (why := self._why_barred(slot, maker, clock)) is not None}
        missing = [slot for slot in missing if slot not in barred]
        if not missing:
            return barred
        found: list[tuple[int, int, int | None]] = []
        new: dict[int, str] = {}
        with _own_transaction() as raw:
            cursor = psycopg.Cursor(raw)
            left = self._look_up(cursor, missing, found)
            if left:
                left.sort(key=self._prints.__getitem__)
                new = self._insert(cursor, left, maker)
                self._look_up(cursor, [slot for slot in left if slot not in new], found)
        with self._lock:
            for slot, ident, last in found:  # only now: an id that was not committed must not be written with
                self.ids[slot] = ident
                self._barred.pop(slot, None)
                if last is not None:
                    self.newest[slot] = max(int(self.newest[slot]), last)
            for slot, why in new.items():
                self._barred[slot] = maker.token, why, clock + BARRED
        return barred | new

    def _why_barred(self, slot: int, maker: Maker, clock: float) -> str | None:
        token, why, until = self._barred.get(slot, (None, "", 0.0))
        return why if clock < until and token == maker.token else None

    def describe(self, meta: Mapping[str, Meta]) -> None:
        """Write down type, help and unit of metrics where nothing is known yet; asks once per metric and process.

        Of a metric without any series yet nothing is written, and it is asked about again.
        """
        unseen = {name: about for name, about in meta.items() if name not in self._described}
        new = {name: about for name, about in unseen.items() if not isinstance(label_set({NAME: name}), str)}
        if not new:
            return
        with _own_transaction() as raw:
            self._described.update(_describe(psycopg.Cursor(raw), new))

    def revalidate(self) -> None:
        """Forget ids of series that retention is about to remove (see the module's protocol)."""
        now = monotonic()
        since = now - self._validated
        if since < REVALIDATE:
            return
        if since > FORGET_ALL:
            self.ids = np.zeros_like(self.ids)
        else:
            with connection.cursor() as cursor:
                cursor.execute("SELECT id FROM metrics_series WHERE gone_at IS NOT NULL")
                gone = np.array([row[0] for row in cursor.fetchall()], dtype=np.int64)
            self.ids[np.isin(self.ids, gone)] = 0
        self._validated = now

    def note(self, slots: Int64, ts: Int64) -> None:
        """Remember the newest instants, once they are committed."""
        with self._lock:
            np.maximum.at(self.newest, slots, ts)

    def _look_up(
        self, cursor: "psycopg.Cursor[Any]", slots: list[int], into: list[tuple[int, int, int | None]]
    ) -> list[int]:
        """Add (slot, id, newest instant) of the series that exist; return the slots of those that do not."""
        by_print = {self._prints[slot]: slot for slot in slots}
        cursor.execute(
            "SELECT id, fingerprint, (extract(epoch FROM last_at) * 1000)::bigint, gone_at IS NOT NULL"
            " FROM metrics_series WHERE fingerprint = ANY(%s)",
            [list(by_print)],
        )
        found = cursor.fetchall()
        gone = sorted(row[0] for row in found if row[3])
        if gone:
            # Locked in order of id: two processes that revive the same series must not wait for each other.
            cursor.execute("SELECT id FROM metrics_series WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [gone])
            alive = {row[0] for row in cursor.fetchall()}
            cursor.execute("UPDATE metrics_series SET gone_at = NULL WHERE id = ANY(%s)", [gone])
            found = [row for row in found if not row[3] or row[0] in alive]
        for ident, identity, last, _ in found:
            into.append((by_print.pop(bytes(identity)), ident, last))
        return list(by_print.values())

    def _insert(self, cursor: "psycopg.Cursor[Any]", slots: list[int], maker: Maker) -> dict[int, str]:
        """Insert series sorted by fingerprint (unsorted, parallel writers deadlock: measured); why not, by slot."""
        names = {self._labels[slot][0] for slot in slots}
        metrics = _metrics(cursor, sorted(names))
        of_slots = [metrics[self._labels[slot][0]][0] for slot in slots]
        reasons = self._headroom.admit(cursor, of_slots, dict(metrics.values()), maker)
        rows = [
            (ident, self._prints[slot], self._labels[slot][1])
            for slot, ident, reason in zip(slots, of_slots, reasons, strict=True)
            if reason is None
        ]
        if rows:
            metric, identity, labels = zip(*rows, strict=True)
            cursor.execute(
                "INSERT INTO metrics_series (metric_id, fingerprint, labels, token)"
                " SELECT m, f, l::jsonb, %s FROM unnest(%s::int[], %s::bytea[], %s::text[]) AS new(m, f, l) ORDER BY f"
                " ON CONFLICT (fingerprint) DO NOTHING",
                [maker.token, list(metric), list(identity), list(labels)],
            )
            CREATED.inc(max(cursor.rowcount, 0))
        return {slot: reason for slot, reason in zip(slots, reasons, strict=True) if reason is not None}


_DEFAULT_POLICY: Final = """
INSERT INTO metrics_retentionpolicy (category, description, raw, prefixes)
VALUES (%s, 'Everything that no other policy takes.', interval '30 days', '[]') ON CONFLICT (category) DO NOTHING
"""
_NEW_METRICS: Final = """
INSERT INTO metrics_metric (name, type, unit, help, retention_id)
SELECT new.name, 'unknown', '', '', coalesce(
    (SELECT p.id FROM metrics_retentionpolicy p, jsonb_array_elements_text(p.prefixes) prefix
      WHERE starts_with(new.name, prefix) ORDER BY length(prefix) DESC, p.id LIMIT 1),
    (SELECT id FROM metrics_retentionpolicy WHERE category = %s))
FROM unnest(%s::text[]) AS new(name) ORDER BY new.name
ON CONFLICT (name) DO NOTHING
"""
_DESCRIBE: Final = """
UPDATE metrics_metric m
   SET type = CASE WHEN m.type = 'unknown' THEN new.type ELSE m.type END,
       help = CASE WHEN m.help = '' THEN new.help ELSE m.help END,
       unit = CASE WHEN m.unit = '' THEN new.unit ELSE m.unit END
  FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS new(name, type, help, unit)
 WHERE m.id IN (SELECT id FROM metrics_metric WHERE name = ANY(%s) ORDER BY id FOR NO KEY UPDATE) AND m.name = new.name
   AND (m.type = 'unknown' AND new.type <> 'unknown' OR m.help = '' AND new.help <> ''
        OR m.unit = '' AND new.unit <> '')
"""


def _metrics(cursor: "psycopg.Cursor[Any]", names: list[str]) -> dict[str, tuple[int, int | None]]:
    """name → (id, series limit or None) of these metrics, made where they do not exist."""
    query = "SELECT name, id, series_limit FROM metrics_metric WHERE name = ANY(%s)"
    known = {row[0]: (row[1], row[2]) for row in cursor.execute(query, [names]).fetchall()}
    new = [name for name in names if name not in known]
    if new:
        cursor.execute(_DEFAULT_POLICY, [RetentionPolicy.DEFAULT])
        cursor.execute(_NEW_METRICS, [RetentionPolicy.DEFAULT, new])
        known |= {row[0]: (row[1], row[2]) for row in cursor.execute(query, [new]).fetchall()}
    return known


def _describe(cursor: "psycopg.Cursor[Any]", meta: Mapping[str, Meta]) -> set[str]:
    """Describe those metrics of which something is told; return the names about which there is nothing more to do."""
    told = [(name, *about) for name, about in sorted(meta.items()) if about != Meta()]
    if told:
        names, types, helps, units = (list(column) for column in zip(*told, strict=True))
        clean = [[text.replace("\0", "") for text in column] for column in (helps, units)]
        cursor.execute(_DESCRIBE, [names, types, clean[0], clean[1], names])
    known = cursor.execute("SELECT name FROM metrics_metric WHERE name = ANY(%s)", [list(meta)]).fetchall()
    return {row[0] for row in known}


@contextmanager
def _second_connection() -> Iterator["psycopg.Connection[Any]"]:
    with connection.wrap_database_errors, psycopg.connect(**connection.get_connection_params()) as raw:
        raw.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        yield raw


@contextmanager
def _this_connection() -> Iterator["psycopg.Connection[Any]"]:
    with transaction.atomic(), connection.wrap_database_errors:
        yield connection.connection


def _own_transaction() -> "AbstractContextManager[psycopg.Connection[Any]]":
    """A transaction that commits at the end of the block whatever the caller's does."""
    connection.ensure_connection()
    return _second_connection() if connection.in_atomic_block else _this_connection()


_registries: dict[str, Registry] = {}


def current() -> Registry:
    """The registry of this process for the database in use."""
    name = str(connection.settings_dict["NAME"])
    found = _registries.get(name)
    if found is not None and found.is_worn:
        found = _registries[name] = Registry()
    return found if found is not None else _registries.setdefault(name, Registry())


def forget() -> None:
    """Start without knowledge: after the tables were emptied under this process (tests, a restored backup)."""
    _registries.clear()
