"""Label sets as columns of interned strings: hashing, grouping and joining without a Python loop over series."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from time import monotonic
from typing import Final, Self

import numpy as np

from apps.promql.arrays import Hashes, Ids, Index, Mask
from apps.promql.errors import LimitError

NAME: Final = "__name__"
METADATA: Final = (NAME, "__type__", "__unit__")
"""What an operation removes that makes another metric of a metric."""

MADE_SECONDS: Final = 3_600
"""How long strings made by a query can be relied on: far longer than a query and its answer live."""
MADE_LEAST: Final = 50_000
"""Up to so many made strings nothing is given up."""
MADE_MOST: Final = 1_000_000
MADE_CHARACTERS: Final = 64 * 2**20

SMALL: Final = 128
"""Below this many rows a dict beats numpy's sort."""


class StringTable:
    """Strings numbered in order of first sight, 0 standing for "absent" (the empty string).

    Each string also has a random 64-bit number that differs from process to process: labels are user input, and
    nobody outside may be able to construct colliding label sets. What a store has interned stays until the process
    ends. What queries make (count_values, label_replace) is given up an hour after it was last made, oldest first,
    once there is more than a little of it; LimitError when one hour brings more than the memory is worth.
    Readers take no lock: a string is published in the dict only after its text and number are in place.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._ids: dict[str, int] = {"": 0}
        self._texts: list[str] = [""]
        self._factors: dict[str, np.uint64] = {}
        self._random: Hashes = self._draw(1024)
        self._random[0] = 0
        self._key = os.urandom(16)
        self._made: OrderedDict[int, float] = OrderedDict()
        self._made_size = 0
        self._free: list[int] = []

    @staticmethod
    def _draw(count: int) -> Hashes:
        return np.frombuffer(os.urandom(8 * count), dtype=np.uint64).copy()

    def __len__(self) -> int:
        return len(self._ids)

    def intern(self, text: str) -> int:
        """The number of a string that stays."""
        found = self._ids.get(text)
        # Asked twice: what is no longer a made string may have been given up in between.
        if found is not None and found not in self._made and self._ids.get(text) == found:
            return found
        with self._lock:
            return self._kept(text)

    def intern_many(self, texts: Iterable[str]) -> Ids:
        """int32[n] of n strings that stay."""
        listed = texts if isinstance(texts, list) else list(texts)
        known = self._ids
        # In this order: a string that a query makes meanwhile is either missing here or already among the made ones.
        if any(text not in known for text in listed) or self._made:
            with self._lock:
                for text in listed:
                    if text not in known or known[text] in self._made:
                        self._kept(text)
        return np.fromiter((known[text] for text in listed), dtype=np.int32, count=len(listed))

    def make(self, texts: list[str]) -> Ids:
        """int32[n] of n strings that a query makes. Good for MADE_SECONDS; LimitError where there are too many."""
        with self._lock:
            known, now = self._ids, self._clock()
            for text in dict.fromkeys(texts):
                found = known.get(text)
                if found is None:
                    self._make_room(now)
                    self._add(text, now)
                elif found in self._made:
                    self._made[found] = now
                    self._made.move_to_end(found)
            return np.fromiter((known[text] for text in texts), dtype=np.int32, count=len(texts))

    def _kept(self, text: str) -> int:
        found = self._ids.get(text)
        if found is None:
            return self._add(text, None)
        if self._made.pop(found, None) is not None:
            self._made_size -= len(text)
        return found

    def _add(self, text: str, made: float | None) -> int:
        """A new string; `made` is when a query made it, None for one that stays."""
        new = self._free.pop() if self._free else len(self._texts)
        if new >= len(self._random):
            self._random = np.concatenate([self._random, self._draw(len(self._random))])
        if new == len(self._texts):
            self._texts.append(text)
        else:
            self._texts[new] = text
            self._random[new] = self._draw(1)[0]
        if made is not None:
            self._random[new] = self._keyed(text)
            self._made[new] = made
            self._made_size += len(text)
        self._ids[text] = new
        return new

    def _keyed(self, text: str) -> np.uint64:
        """The number of a made string: the same when it is given up and made again."""
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).digest()
        return np.uint64(int.from_bytes(digest, "little"))

    def _make_room(self, now: float) -> None:
        while len(self._made) >= MADE_LEAST or self._made_size >= MADE_CHARACTERS:
            oldest, at = next(iter(self._made.items()))
            if now - at < MADE_SECONDS:
                break
            text = self._texts[oldest]
            del self._ids[text], self._made[oldest]
            self._texts[oldest] = ""
            self._made_size -= len(text)
            self._free.append(oldest)
        if len(self._made) >= MADE_MOST or self._made_size >= MADE_CHARACTERS:
            raise LimitError(
                f"queries have made {len(self._made)} label values of {self._made_size} characters within an hour, "
                f"the limits are {MADE_MOST} and {MADE_CHARACTERS}: look for count_values() or label_replace() over "
                "values that never repeat"
            )

    def find(self, text: str) -> int | None:
        """The id of a string that has been seen, without learning it."""
        return self._ids.get(text)

    def text(self, number: int) -> str:
        return self._texts[number]

    def texts(self, ids: Ids) -> list[str]:
        texts = self._texts
        return [texts[i] for i in ids.tolist()]

    def pair_hashes(self, name: str, ids: Ids) -> Hashes:
        """uint64[n]: random(value) * factor(name); 0 where absent, so that an absent label adds nothing to a sum."""
        factor = self._factors.get(name)
        if factor is None:
            factor = self._draw(1)[0] | np.uint64(1)
            factor = self._factors.setdefault(name, factor)
        product: Hashes = self._random[ids] * factor
        return product


STRINGS: Final = StringTable()
"""The table of this process; ids mean nothing outside it."""


class Labels:
    """`size` label sets in columns: `cols[name]` is int32[size] of ids in STRINGS, 0 where a set lacks the label.

    Immutable by agreement: columns are shared between Labels, nobody writes into one.
    """

    __slots__ = ("_hash", "cols", "size")

    def __init__(self, size: int, cols: dict[str, Ids]) -> None:
        self.size = size
        self.cols = cols
        self._hash: Hashes | None = None

    @classmethod
    def from_columns(cls, size: int, cols: Mapping[str, Ids]) -> Self:
        return cls(size, dict(cols))

    @classmethod
    def from_dicts(cls, sets: Sequence[Mapping[str, str]]) -> Self:
        cols: dict[str, Ids] = {}
        intern = STRINGS.intern
        size = len(sets)
        for row, labels in enumerate(sets):
            for name, value in labels.items():
                column = cols.get(name)
                if column is None:
                    column = cols[name] = np.zeros(size, dtype=np.int32)
                column[row] = intern(value)
        return cls(size, cols)

    @classmethod
    def empty(cls, size: int = 0) -> Self:
        """`size` label sets without labels."""
        return cls(size, {})

    @classmethod
    def concat(cls, parts: Sequence["Labels"]) -> "Labels":
        if len(parts) == 1:
            return parts[0]
        size = sum(part.size for part in parts)
        cols: dict[str, Ids] = {}
        low = 0
        for part in parts:  # many metrics with few labels in common: filling in beats joining mostly zeros
            for name, ids in part.cols.items():
                column = cols.get(name)
                if column is None:
                    column = cols[name] = np.zeros(size, dtype=np.int32)
                column[low : low + part.size] = ids
            low += part.size
        return cls(size, cols)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"Labels({self.dicts()!r})"

    def __eq__(self, other: object) -> bool:
        """Same label sets in the same order."""
        return isinstance(other, Labels) and self.dicts() == other.dicts()

    __hash__ = None  # type: ignore[assignment]  # unhashable, and said so

    @property
    def names(self) -> list[str]:
        """Names that at least one set has, sorted."""
        return sorted(name for name, ids in self.cols.items() if ids.any())

    def column(self, name: str) -> Ids:
        """int32[size]; zeros for a label that no set has."""
        found = self.cols.get(name)
        return np.zeros(self.size, dtype=np.int32) if found is None else found

    def texts(self, name: str) -> list[str]:
        """The values of one label, "" where absent."""
        return STRINGS.texts(self.column(name))

    def remember(self) -> None:
        """Let the strings of these sets stay; of those that a query made, ids are good for MADE_SECONDS only."""
        for ids in self.cols.values():
            STRINGS.intern_many(STRINGS.texts(np.unique(ids)))

    def row(self, row: int) -> dict[str, str]:
        return {name: STRINGS.text(int(ids[row])) for name, ids in self.cols.items() if ids[row]}

    def dicts(self) -> list[dict[str, str]]:
        out: list[dict[str, str]] = [{} for _ in range(self.size)]
        text = STRINGS.text
        for name, ids in self.cols.items():
            for labels, number in zip(out, ids.tolist(), strict=True):
                if number:
                    labels[name] = text(number)
        return out

    def take(self, index: Index | Mask) -> "Labels":
        """The sets at these rows (row numbers or a mask)."""
        cols = {name: ids[index] for name, ids in self.cols.items()}
        size = int(np.count_nonzero(index)) if index.dtype == np.bool_ else len(index)
        return Labels(size, cols)

    def keep(self, names: Iterable[str]) -> "Labels":
        return Labels(self.size, {name: self.cols[name] for name in names if name in self.cols})

    def drop(self, names: Iterable[str]) -> "Labels":
        gone = set(names)
        if not gone.intersection(self.cols):
            return self
        return Labels(self.size, {name: ids for name, ids in self.cols.items() if name not in gone})

    def drop_where(self, names: Iterable[str], rows: Mask) -> "Labels":
        """Without these labels in the marked rows."""
        cols = dict(self.cols)
        for name in names:
            if name in cols:
                cols[name] = np.where(rows, np.int32(0), cols[name])
        return Labels(self.size, cols)

    def replace(self, name: str, ids: Ids) -> "Labels":
        """With one column set (zeros remove the label)."""
        return Labels(self.size, {**self.cols, name: ids})

    def set(self, name: str, value: str) -> "Labels":
        """With one label of the same value in every set ("" removes it)."""
        return self.replace(name, np.full(self.size, STRINGS.intern(value), dtype=np.int32))

    def hashes(self) -> Hashes:
        """uint64[size]: equal sets have equal numbers, in this process only."""
        if self._hash is None:
            total: Hashes | None = None
            for name, ids in self.cols.items():
                pair = STRINGS.pair_hashes(name, ids)
                total = pair if total is None else total + pair
            self._hash = np.zeros(self.size, dtype=np.uint64) if total is None else total
        return self._hash

    def group(self) -> tuple[Index, Index]:
        """Equal sets together: (first int64[groups], group int64[size]), groups in order of first appearance."""
        return group_numbers(self.hashes())

    def order(self) -> Index:
        """int64[size]: the rows sorted as Prometheus sorts label sets (by name, then value, pair by pair)."""
        if self.size < 2:
            return np.arange(self.size, dtype=np.int64)
        keys = [sorted(labels.items()) for labels in self.dicts()]
        return np.array(sorted(range(self.size), key=keys.__getitem__), dtype=np.int64)


def group_numbers(keys: Hashes) -> tuple[Index, Index]:
    """Number equal keys: (first int64[groups], group int64[n]), groups in order of first appearance."""
    size = len(keys)
    if size < SMALL:
        seen: dict[int, int] = {}
        first: list[int] = []
        group = []
        for row, key in enumerate(keys.tolist()):
            number = seen.setdefault(key, len(first))
            if number == len(first):
                first.append(row)
            group.append(number)
        return np.array(first, dtype=np.int64), np.array(group, dtype=np.int64)
    _, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
    by_appearance = np.argsort(firsts, kind="stable")
    rank = np.empty_like(by_appearance)
    rank[by_appearance] = np.arange(len(by_appearance))
    return firsts[by_appearance].astype(np.int64), rank[inverse].astype(np.int64)


def join(left: Hashes, right: Hashes) -> Index:
    """int64[len(left)]: the row of `right` (whose keys are distinct) with the same key, -1 where there is none."""
    if len(left) + len(right) < SMALL:
        rows = {key: row for row, key in enumerate(right.tolist())}
        return np.array([rows.get(key, -1) for key in left.tolist()], dtype=np.int64)
    order = np.argsort(right, kind="stable")
    if not len(order):
        return np.full(len(left), -1, dtype=np.int64)
    at = np.searchsorted(right[order], left)
    candidate = order[np.minimum(at, len(order) - 1)]
    return np.where(right[candidate] == left, candidate, -1).astype(np.int64)
