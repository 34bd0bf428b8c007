"""Expressions of one shape evaluated in one go.

The series of all expressions of a shape become the rows of one vector, each with the number of its expression as a
hidden label: it takes part in every grouping and matching, so nothing of one expression meets anything of another,
and the constants become a column with a value for each row. Whatever errs or warns on the way is evaluated by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np

from apps.promql import binary
from apps.promql.arrays import Floats, Ids, Index
from apps.promql.ast import Binary, Call, Expr, Number
from apps.promql.errors import PromQLError
from apps.promql.evaluator import Evaluator, Value
from apps.promql.labels import STRINGS, Labels
from apps.promql.limits import Limits
from apps.promql.plan import prepare
from apps.promql.reading import Fetched
from apps.promql.series import Grid, Ragged, Scalar, Vec
from apps.promql.shapes import MOST, RULE, Batch, Matchers
from apps.promql.source import Matcher
from apps.promql.special import fixed_labels


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Selectors that are read over the same time, tmin < ts <= tmax (ms), and answered as one; known by identity."""

    matchers: tuple[Matchers, ...]
    tmin: int
    tmax: int


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """The answer: series of one selector after those of the other, the k-th selector's in rows starts[k]:starts[k + 1].

    starts int64[K + 1]; a series that two selectors accept is there twice. `warnings` has a tuple for each selector,
    or is empty where there is nothing to be said.
    """

    ragged: Ragged
    starts: Index
    warnings: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Ragged]) -> "Joined":
        """From each selector's own answer."""
        starts = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([part.size for part in parts], out=starts[1:])
        warnings = tuple(part.warnings for part in parts) if any(part.warnings for part in parts) else ()
        return cls(Ragged.concat(parts), starts, warnings)

    def part(self, low: int, high: int) -> "Joined":
        """The answer to the selectors low..high - 1, as views."""
        first, last = int(self.starts[low]), int(self.starts[high])
        ragged = self.ragged
        begin, end = int(ragged.off[first]), int(ragged.off[last])
        labels = Labels(last - first, {name: ids[first:last] for name, ids in ragged.labels.cols.items()})
        clock = None if ragged.clock is None else ragged.clock[first:last]
        warnings = self.warnings[low:high]
        told = tuple(dict.fromkeys(text for texts in warnings for text in texts))
        part = Ragged(
            labels, ragged.ts[begin:end], ragged.v[begin:end], ragged.off[first : last + 1] - begin, told, clock
        )
        return Joined(part, self.starts[low : high + 1] - first, warnings)

    def samples(self) -> Index:
        """int64[K]: samples of each selector."""
        return np.diff(self.ragged.off[self.starts])


@runtime_checkable
class JoiningSource(Protocol):
    """A store that answers bundles, each with its own error, all from one snapshot."""

    def select(self, matchers: Sequence[Matcher], tmin: int, tmax: int) -> Ragged: ...

    def select_joined(self, bundles: Sequence[Bundle]) -> Sequence[Joined | PromQLError]: ...


class Column(Scalar):
    """A number of each expression: v float64[R, 1]."""

    __slots__ = ()


class Together(Evaluator):
    """A batch at one time. Its data are put in by the engine with `feed`."""

    hints = False

    def __init__(self, batch: Batch, at_ms: int, lookback: int, limits: Limits) -> None:
        super().__init__(batch.shape.prepared, Grid(at_ms, 1, 1), lookback, limits)
        self.batch = batch
        self.marks = _marks(batch.size)
        self.joined: dict[int, Joined] = {}
        self.is_fed = False
        """Whether everything could be read."""

    def bundles(self) -> list[Bundle]:
        """What is to be read, in the order of `needs`."""
        return [Bundle(self.batch.matchers[need.node], need.request.tmin, need.request.tmax) for need in self.needs]

    def feed(self, answers: Sequence[Joined | PromQLError]) -> None:
        """Take what was read for `bundles`; nothing when one of them could not be read."""
        self.is_fed = not any(isinstance(answer, PromQLError) for answer in answers)
        for need, joined in zip(self.needs, answers, strict=True):
            if not self.is_fed or isinstance(joined, PromQLError):
                return
            self.joined[need.node] = joined
            ragged = joined.ragged
            labels = ragged.labels.replace(RULE, np.repeat(self.marks, np.diff(joined.starts)))
            self.data[need.node] = Fetched(Ragged(labels, ragged.ts, ragged.v, ragged.off, (), ragged.clock))

    def part(self, low: int, high: int) -> "Together":
        """The expressions low..high - 1 of the batch, with their data."""
        one = Together(self.batch.part(low, high), self.grid.start, self.clock.lookback, self.limits)
        if self.is_fed:
            one.feed([self.joined[need.node].part(low, high) for need in self.needs])
        return one

    def lone(self) -> Evaluator:
        """The only expression of this batch, with its data, as it is evaluated by itself."""
        own = Evaluator(prepare(self.batch.texts[0]), self.grid, self.clock.lookback, self.limits)
        own.hints = False
        if not self.is_fed:
            return own
        known: dict[object, Fetched] = {}
        for need, shared in zip(own.needs, self.needs, strict=True):
            own.data[need.node] = known.setdefault(need.request, Fetched(self.joined[shared.node].part(0, 1).ragged))
        return own

    def admitted(self) -> bool:
        """Whether this can be evaluated as one. Limits hold for each expression: when all of them together stay
        within half of one's, nobody is above it, however its selectors are counted."""
        if not self.is_fed:
            return False
        series = sum(joined.ragged.size for joined in self.joined.values())
        samples = sum(len(joined.ragged.ts) for joined in self.joined.values())
        limits = self.limits
        return 2 * series <= min(limits.series, limits.points) and 2 * samples <= limits.samples

    def eval(self, node: Expr, grid: Grid) -> Value:
        if isinstance(node, Number) and id(node) in self.batch.numbers:
            return Column(self.batch.numbers[id(node)])
        if isinstance(node, Binary) and id(node) in self.batch.shape.mixed:
            return self.mixed(node, grid)
        if isinstance(node, Call):
            if node.func.name == "vector":
                return self.rows(self.eval(node.args[0], grid))
            if node.func.name == "absent":
                return self.absence(node.args[0], self.vector(node.args[0], grid))
        return super().eval(node, grid)

    def mixed(self, node: Binary, grid: Grid) -> Value:
        """An operator with a scalar on one side or both."""
        left, right = self.eval(node.left, grid), self.eval(node.right, grid)
        if isinstance(left, Vec) and isinstance(right, Scalar):
            return binary.with_scalar(node, left, self.for_rows(right, left.labels), scalar_left=False)
        if isinstance(left, Scalar) and isinstance(right, Vec):
            return binary.with_scalar(node, right, self.for_rows(left, right.labels), scalar_left=True)
        if not isinstance(left, Scalar) or not isinstance(right, Scalar):
            raise TypeError(f"{node.op} between {type(left).__name__} and {type(right).__name__}")
        v = binary.scalars(node.op, left.v, right.v)
        return Column(v) if v.ndim == 2 else Scalar(v)

    def rows(self, value: Value) -> Vec:
        """vector(): a row without labels for each expression."""
        if not isinstance(value, Scalar):
            raise TypeError(f"vector() of {type(value).__name__}")
        v = np.broadcast_to(value.v, (self.batch.size, 1))
        labels = Labels.from_columns(self.batch.size, {RULE: self.marks})
        return Vec(labels, v, np.ones(v.shape, dtype=np.bool_), np.zeros(self.batch.size, dtype=np.bool_))

    def absence(self, node: Expr, vec: Vec) -> Vec:
        """absent(): a row for each expression of whose series none is there."""
        present = np.zeros(self.batch.size, dtype=np.bool_)
        present[self.numbers(vec.labels)[vec.ok[:, 0]]] = True
        size = self.batch.size
        matchers = self.batch.matchers.get(id(node), ())
        labels = Labels.from_dicts([fixed_labels(one) for one in matchers]) if matchers else Labels.empty(size)
        ok = ~present[:, None]
        return Vec(labels.replace(RULE, self.marks), np.ones((size, 1)), ok, np.zeros(size, dtype=np.bool_))

    def for_rows(self, value: Scalar, labels: Labels) -> Floats:
        """float64[S, 1] or [1]: a scalar as each row sees it."""
        return value.v[self.numbers(labels)] if isinstance(value, Column) else value.v

    def numbers(self, labels: Labels) -> Index:
        """int64[S]: the number of each row's expression."""
        return np.searchsorted(self.marks, labels.column(RULE)).astype(np.int64, copy=False)

    def split(self, vec: Vec) -> Iterator[Vec]:
        """The rows of each expression, in its own order, without the hidden label."""
        marks = vec.labels.column(RULE)
        numbers = self.numbers(vec.labels)
        if vec.size and not np.array_equal(self.marks[np.minimum(numbers, self.batch.size - 1)], marks):
            raise ValueError("a row of a batch has lost the number of its rule")
        if (numbers[1:] < numbers[:-1]).any():
            order = np.argsort(numbers, kind="stable")
            vec, numbers = vec.take(order), numbers[order]
        edges = np.searchsorted(numbers, np.arange(self.batch.size + 1)).tolist()
        columns = {name: ids for name, ids in vec.labels.cols.items() if name != RULE}
        for low, high in pairwise(edges):
            labels = Labels(high - low, {name: ids[low:high] for name, ids in columns.items()})
            yield Vec(labels, vec.v[low:high], vec.ok[low:high], vec.drop[low:high], vec.ordered)

    def costs(self) -> tuple[list[int], list[int]]:
        """(series, samples) that each expression reads."""
        series = sum((np.diff(joined.starts) for joined in self.joined.values()), np.zeros(self.batch.size, np.int64))
        samples = sum((joined.samples() for joined in self.joined.values()), np.zeros(self.batch.size, np.int64))
        return series.tolist(), samples.tolist()

    def damage(self) -> list[tuple[str, ...]]:
        """What the store has to say of each expression's data."""
        warned = [joined.warnings for joined in self.joined.values() if joined.warnings]
        if not warned:
            return [()] * self.batch.size
        return [tuple(dict.fromkeys(text for texts in told for text in texts)) for told in zip(*warned, strict=True)]


@cache
def _all_marks(count: int) -> Ids:
    """int32[count]: the hidden label's values, increasing."""
    return np.array(sorted(STRINGS.intern(f"{RULE}{number}") for number in range(count)), dtype=np.int32)


def _marks(count: int) -> Ids:
    """int32[count]: a value for each expression of a batch, increasing."""
    return _all_marks(MOST)[:count]
