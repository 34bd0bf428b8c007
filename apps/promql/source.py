"""Where samples come from: matchers, the protocol of a store, and a source that lives in memory."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, Self, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
import re2

from apps.promql.arrays import Mask
from apps.promql.errors import QueryError
from apps.promql.labels import STRINGS, Labels
from apps.promql.limits import Watch
from apps.promql.series import Ragged, offsets
from apps.promql.text import printable, quote, quote_name

MatchOp: TypeAlias = Literal["=", "!=", "=~", "!~"]

REGEX_LIMIT = 4096
"""Characters of a pattern; RE2 is linear in the text, but its program grows with the pattern."""

_PROGRAMS = 256
_OPTIONS = re2.Options()
_OPTIONS.max_mem = 2 * 2**20  # a pattern's program and its caches; patterns are users' input and programs are kept
_OPTIONS.log_errors = False
_OPTIONS.dot_nl = True


@lru_cache(maxsize=_PROGRAMS)
def compiled(pattern: str) -> "re2._Regexp":
    """An RE2 program, to be used with fullmatch; QueryError for what is not RE2."""
    if len(pattern) > REGEX_LIMIT:
        raise QueryError(f"regular expression of {len(pattern)} characters is longer than the limit of {REGEX_LIMIT}")
    if printable(pattern) != pattern:
        raise QueryError(f"regular expression {quote(pattern)} is not UTF-8")
    try:
        return re2.compile(pattern, _OPTIONS)
    except re2.error as error:
        reason = error.args[0] if error.args else "not RE2 syntax"
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise QueryError(f"invalid regular expression {pattern!r}: {text}") from None


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label; an absent label counts as the empty string. Regexes match the whole value."""

    name: str
    op: MatchOp
    value: str

    def matches(self, text: str) -> bool:
        if self.op == "=":
            return text == self.value
        if self.op == "!=":
            return text != self.value
        hit = compiled(self.value).fullmatch(text) is not None
        return hit if self.op == "=~" else not hit

    def __str__(self) -> str:
        return f"{quote_name(self.name)}{self.op}{quote(self.value)}"


def of_scope(matchers: Iterable[tuple[str, str, str]]) -> tuple[Matcher, ...]:
    """Return what narrows somebody's view (rights.Scope) as matchers."""
    return tuple(Matcher(name, op, value) for name, op, value in matchers)  # type: ignore[arg-type]


def accept(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether all of them accept these labels; an absent label counts as the empty string."""
    return all(matcher.matches(labels.get(matcher.name, "")) for matcher in matchers)


@dataclass(frozen=True, slots=True)
class Request:
    """What one selector needs: samples with tmin < ts <= tmax of the series that all matchers accept.

    `rows`: only the series [low, high) of them, in the source's own order, which stays the same for one source object.
    `most`: the source may refuse with TooMany what brings more samples than that. Only a source with estimates is
    asked with either.
    `fields`: which numbers of roll-ups can be used where samples are gone (apps.promql.rolled), none: samples only;
    `width`: how long, in ms, the windows are that are laid over it; `hours`: whole hours answer them as well as
    finer buckets.
    """

    matchers: tuple[Matcher, ...]
    tmin: int
    tmax: int
    rows: tuple[int, int] | None = None
    most: int | None = None
    fields: frozenset[str] = frozenset()
    width: int = 0
    hours: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request would bring: how many series match, and about how many samples they have there."""

    series: int
    samples: int


class Source(Protocol):
    """A store, as the engine sees it."""

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged:
        """Samples with tmin < ts <= tmax (ms), staleness markers included bit for bit; no series twice."""


@runtime_checkable
class BatchSource(Protocol):
    """A store that answers several requests in one go (one snapshot, one round trip), in their order."""

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged: ...

    def select_many(self, requests: Sequence[Request]) -> Sequence[Ragged]: ...


@runtime_checkable
class SizedSource(BatchSource, Protocol):
    """A store that knows what requests would bring before it decodes anything, and brings it piece by piece."""

    def watched(self, watch: Watch) -> Self:
        """The same store for one query, which gives up when the watch says so."""

    def estimate(self, requests: Sequence[Request], enough: int = 0) -> Sequence[Estimate]:
        """What each request would bring. Where all together bring `enough` samples at most, how many need not be found
        out: any number that leaves the sum below is an answer."""

    def turn(self) -> AbstractContextManager[None]:
        """Held while a query that reads more than it may hold is evaluated."""


@lru_cache(maxsize=64)
def _is_sized(kind: type) -> bool:
    return issubclass(kind, SizedSource)


def sized(source: Source) -> TypeGuard[SizedSource]:
    """isinstance(source, SizedSource), which takes longer than a look at the store, remembered by class."""
    return _is_sized(type(source))


def matching(labels: Labels, matchers: Sequence[Matcher]) -> Mask:
    """bool[size]: the sets that all matchers accept; each matcher is asked once per distinct value."""
    mask = np.ones(labels.size, dtype=np.bool_)
    for matcher in matchers:
        column = labels.cols.get(matcher.name)
        if column is None:
            if not matcher.matches(""):
                return np.zeros(labels.size, dtype=np.bool_)
            continue
        if matcher.op in ("=", "!="):
            wanted = STRINGS.find(matcher.value)
            equal = column == (-1 if wanted is None else wanted)
            mask &= equal if matcher.op == "=" else ~equal
            continue
        values, inverse = np.unique(column, return_inverse=True)
        mask &= np.array([matcher.matches(text) for text in STRINGS.texts(values)], dtype=np.bool_)[inverse]
    return mask


class MemorySource:
    """Series held in memory, for tests and for results that are evaluated again."""

    def __init__(self, series: Sequence[tuple[Mapping[str, str], Sequence[int], Sequence[float]]] = ()) -> None:
        """`series`: (labels, timestamps in ms ascending, values); the same label set twice is merged by time."""
        merged: dict[frozenset[tuple[str, str]], dict[int, float]] = {}
        for labels, times, values in series:
            key = frozenset((name, value) for name, value in labels.items() if value)
            merged.setdefault(key, {}).update(zip(times, values, strict=True))
        counts = np.array([len(samples) for samples in merged.values()], dtype=np.int64)
        total = int(counts.sum()) if len(counts) else 0
        ordered = [sorted(samples.items()) for samples in merged.values()]
        self.ragged = Ragged(
            Labels.from_dicts([dict(key) for key in merged]),
            np.fromiter((t for samples in ordered for t, _ in samples), dtype=np.int64, count=total),
            np.fromiter((v for samples in ordered for _, v in samples), dtype=np.float64, count=total),
            offsets(counts),
        )

    @classmethod
    def of(cls, ragged: Ragged) -> "MemorySource":
        source = cls()
        source.ragged = ragged
        return source

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged:
        mask = matching(self.ragged.labels, matchers)
        if not mask.all():
            return self.ragged.take(np.flatnonzero(mask)).between(tmin, tmax)
        return self.ragged.between(tmin, tmax)
