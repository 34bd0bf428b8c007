"""Which series there are, as a reader knows them: per metric the label sets in interned columns, refreshed by xid.

Nobody here remembers "the last id": a series with a lower id may commit later. What is remembered is the oldest
transaction that was still running; rows inserted by it or later are asked for again, and adding one twice is harmless.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import orjson
import psycopg
from django.db import connection

from apps.metrics.codec import Int64
from apps.metrics.storage import News
from apps.promql.labels import NAME, Labels
from apps.promql.source import Matcher, matching

REMEMBERED: Final = 500_000
"""Series in the answers to bundles of selectors that are kept, about 40 bytes each."""

Selectors = tuple[tuple[Matcher, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class MetricSeries:
    """The series of one metric: ids int64[S] and their labels with `__name__`, in the same order."""

    ids: Int64
    labels: Labels


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The answer to matchers: series ids int64[S] with labels, and the bounds of their metrics' ids.

    `peers`: by metric the ids of all its series, matching or not.
    """

    ids: Int64
    labels: Labels
    metric_min: int
    metric_max: int
    peers: Mapping[int, Int64] = field(default_factory=dict)

    def part(self, low: int, high: int) -> "Found":
        """Only the series [low, high) of them."""
        rows = np.arange(low, min(high, len(self.ids)), dtype=np.int64)
        return replace(self, ids=self.ids[rows], labels=self.labels.take(rows))


@dataclass(frozen=True, slots=True, eq=False)
class FoundMany:
    """The answer to K selectors: their series after one another, the k-th's in rows starts[k]:starts[k + 1].

    `metrics` are the ids of all their metrics, sorted; metric_min and metric_max int64[K] bound those of each selector.
    """

    ids: Int64
    labels: Labels
    starts: Int64
    metrics: Int64
    metric_min: Int64
    metric_max: Int64

    @classmethod
    def of(cls, answers: Sequence[Found], metrics: Iterable[int]) -> "FoundMany":
        """From the answers to each selector and the metrics that they looked at."""
        starts = np.zeros(len(answers) + 1, dtype=np.int64)
        np.cumsum([len(found.ids) for found in answers], out=starts[1:])
        return cls(
            np.concatenate([found.ids for found in answers]),
            Labels.concat([found.labels for found in answers]),
            starts,
            np.array(sorted(metrics), dtype=np.int64),
            np.array([found.metric_min for found in answers], dtype=np.int64),
            np.array([found.metric_max for found in answers], dtype=np.int64),
        )

    def one(self, k: int) -> Found:
        """The answer to one selector."""
        rows = np.arange(self.starts[k], self.starts[k + 1])
        return Found(self.ids[rows], self.labels.take(rows), int(self.metric_min[k]), int(self.metric_max[k]))


@dataclass(frozen=True, slots=True, eq=False)
class _Remembered:
    """An answer, and what it was made from: it is good as long as all of that is the same."""

    asked: object
    names: int
    series: dict[int, MetricSeries]
    answer: Found | FoundMany

    @property
    def key(self) -> Hashable:
        """Bundles are known by their identity (rules keep them), matchers of queries by their value."""
        return self.asked if isinstance(self.answer, Found) else id(self.asked)

    @property
    def cost(self) -> int:
        """Series; an answer without any costs something, too."""
        return len(self.answer.ids) + 100


class Catalog:
    """The series of one database as this process has read them; metrics are loaded when first asked for."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._xmin: int | None = None
        self._names: dict[str, int] = {}
        self._by_id: dict[int, str] = {}
        self._loaded: dict[int, MetricSeries] = {}
        self._pending: dict[int, dict[int, dict[str, str]]] = {}
        self._seen: dict[int, set[int]] = {}
        self._counts: dict[int, int] = {}
        self._last: set[int] = set()
        self._answers: OrderedDict[Hashable, _Remembered] = OrderedDict()
        self._kept = 0

    def find_many(self, cur: "psycopg.Cursor[Any]", wanted: Sequence[Sequence[Matcher]]) -> list[Found]:
        """For each of several matcher lists the series that it accepts, those committed before this call included."""
        with self._lock:
            self._refresh(cur)
            metrics = [self._candidates(matchers) for matchers in wanted]
            self._load(cur, {ident for idents in metrics for ident in idents})
            series = {ident: self._merged(ident) for idents in metrics for ident in idents}
            names = len(self._names)
        answers = []
        for matchers, idents in zip(wanted, metrics, strict=True):
            used = {ident: series[ident] for ident in idents}
            found = _matching(matchers, list(used.items()))
            answers.append(found)
            with self._lock:
                self._remember(_Remembered(tuple(matchers), names, used, found))
        return answers

    def peek(self, wanted: Sequence[Sequence[Matcher]]) -> list[Found] | None:
        """The answers that are known already, without asking the database; None unless all are."""
        with self._lock:
            answers = [self._found_before(tuple(matchers)) for matchers in wanted]
        known = [answer for answer in answers if answer is not None]
        return known if len(known) == len(answers) else None

    def _found_before(self, matchers: tuple[Matcher, ...]) -> Found | None:
        kept = self._answers.get(matchers)
        if kept is None or not isinstance(kept.answer, Found) or not self._is_good(kept):
            return None
        self._answers.move_to_end(matchers)
        return kept.answer

    @property
    def since(self) -> int | None:
        """The oldest transaction that was running at the last look; None before the first."""
        return self._xmin

    def find_joined(self, cur: "psycopg.Cursor[Any]", wanted: Sequence[Selectors]) -> list[FoundMany]:
        """For each bundle of selectors the series that they accept, those committed before this call included.

        Rules ask the same at every tick, so answers are kept by the identity of what was asked (the only selector of
        a bundle, else the bundle) until a series of their metrics or a metric is new.
        """
        with self._lock:
            self._refresh(cur)
            answers = [self._remembered(bundle) for bundle in wanted]
            missing = [index for index, answer in enumerate(answers) if answer is None]
            metrics = {index: [self._candidates(matchers) for matchers in wanted[index]] for index in missing}
            self._load(cur, {ident for lists in metrics.values() for idents in lists for ident in idents})
            series = {ident: self._merged(ident) for lists in metrics.values() for idents in lists for ident in idents}
            names = len(self._names)
        for index in missing:
            parts = zip(wanted[index], metrics[index], strict=True)
            found = [_matching(matchers, [(ident, series[ident]) for ident in idents]) for matchers, idents in parts]
            used = {ident: series[ident] for idents in metrics[index] for ident in idents}
            answer = answers[index] = FoundMany.of(found, used)
            with self._lock:
                self._remember(_Remembered(_asked(wanted[index]), names, used, answer))
        return [answer for answer in answers if answer is not None]

    def _remembered(self, bundle: Selectors) -> FoundMany | None:
        kept = self._answers.get(id(_asked(bundle)))
        if kept is None or kept.asked is not _asked(bundle) or not self._is_good(kept):
            return None
        self._answers.move_to_end(kept.key)
        return kept.answer if isinstance(kept.answer, FoundMany) else None

    def _is_good(self, kept: _Remembered) -> bool:
        """Whether neither a metric nor a series of its metrics is new since."""
        return kept.names == len(self._names) and all(
            self._merged(ident) is series for ident, series in kept.series.items()
        )

    def _remember(self, new: _Remembered) -> None:
        old = self._answers.pop(new.key, None)
        self._kept += new.cost - (old.cost if old else 0)
        self._answers[new.key] = new
        while self._kept > REMEMBERED:
            self._kept -= self._answers.popitem(last=False)[1].cost

    def counts(self) -> dict[int, int]:
        """By metric about how many series it has; those whose samples are gone may still count."""
        with self._lock:
            return dict(self._counts)

    def names(self, cur: "psycopg.Cursor[Any]") -> list[str]:
        """Every metric name that has had a series, sorted."""
        with self._lock:
            self._refresh(cur)
            return sorted(self._names)

    def _candidates(self, matchers: Sequence[Matcher]) -> list[int]:
        """Metrics whose name the matchers on `__name__` accept; exact names cost a look-up."""
        on_name = [matcher for matcher in matchers if matcher.name == NAME]
        exact = next((matcher.value for matcher in on_name if matcher.op == "="), None)
        if exact is not None:
            ident = self._names.get(exact)
            names = [] if ident is None else [exact]
        else:
            names = list(self._names)
        return [self._names[name] for name in names if all(matcher.matches(name) for matcher in on_name)]

    def _refresh(self, cur: "psycopg.Cursor[Any]") -> None:
        """Add what was committed since the last time."""
        if self._xmin is None:
            cur.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
            self._xmin = int((cur.fetchone() or (0,))[0])
            cur.execute("SELECT metric_id, count(*) FROM metrics_series GROUP BY metric_id")
            self._counts = dict(cur.fetchall())
            self._name(cur, self._counts)
            return
        cur.execute(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, n.id, n.metric_id, n.labels::text"
            " FROM (VALUES (1)) AS one LEFT JOIN metrics_series n ON n.xid >= %s::text::xid8",
            [str(self._xmin)],
        )
        rows = cur.fetchall()
        new = [(ident, metric, orjson.loads(labels)) for _, ident, metric, labels in rows if ident is not None]
        self.learn(cur, News(int(rows[0][0]), new))

    def learn(self, cur: "psycopg.Cursor[Any]", news: News) -> None:
        """Add what a look at the store brought that began from `since`."""
        with self._lock:
            self._name(cur, (metric for _, metric, _ in news.series))
            for ident, metric, labels in news.series:
                if ident not in self._last:
                    self._counts[metric] = self._counts.get(metric, 0) + 1
                if metric in self._loaded and ident not in self._seen[metric]:
                    self._pending.setdefault(metric, {})[ident] = labels
            # They are asked for again as long as an older transaction runs.
            self._last = {ident for ident, _, _ in news.series}
            self._xmin = news.xmin

    def _name(self, cur: "psycopg.Cursor[Any]", metrics: Iterable[int]) -> None:
        unknown = [ident for ident in set(metrics) if ident not in self._by_id]
        if unknown:
            cur.execute("SELECT id, name FROM metrics_metric WHERE id = ANY(%s)", [unknown])
            for ident, name in cur.fetchall():
                self._by_id[ident] = name
                self._names[name] = ident

    def _load(self, cur: "psycopg.Cursor[Any]", metrics: Iterable[int]) -> None:
        """Read whole metrics that were not asked for before."""
        missing = [ident for ident in metrics if ident not in self._loaded]
        if not missing:
            return
        cur.execute("SELECT metric_id, id, labels::text FROM metrics_series WHERE metric_id = ANY(%s)", [missing])
        rows: dict[int, dict[int, dict[str, str]]] = {ident: {} for ident in missing}
        for metric, ident, labels in cur.fetchall():
            rows[metric][ident] = orjson.loads(labels)
        for metric in missing:
            self._loaded[metric] = MetricSeries(np.zeros(0, dtype=np.int64), Labels.empty())
            self._seen[metric] = set()
            if rows[metric]:
                self._pending[metric] = rows[metric]

    def _merged(self, metric: int) -> MetricSeries:
        """The metric's series with what has arrived since they were last asked for."""
        known = self._loaded[metric]
        new = self._pending.pop(metric, None)
        if not new:
            return known
        labels = Labels.from_dicts(list(new.values())).set(NAME, self._by_id[metric])
        ids = np.array(list(new), dtype=np.int64)
        self._seen[metric].update(new)
        merged = MetricSeries(np.concatenate([known.ids, ids]), Labels.concat([known.labels, labels]))
        self._loaded[metric] = merged
        return merged


def _matching(matchers: Sequence[Matcher], metrics: Sequence[tuple[int, MetricSeries]]) -> Found:
    """The series of these metrics that the matchers accept (their names already are)."""
    rest = [matcher for matcher in matchers if matcher.name != NAME]
    hits = []
    for ident, series in metrics:
        ids, labels = series.ids, series.labels
        if rest:
            mask = matching(labels, rest)
            if not mask.all():
                rows = np.flatnonzero(mask)
                ids, labels = ids[rows], labels.take(rows)
        if len(ids):
            hits.append((ident, ids, labels))
    if not hits:
        return Found(np.zeros(0, dtype=np.int64), Labels.empty(), 0, 0)
    idents = [ident for ident, _, _ in hits]
    ids = np.concatenate([ids for _, ids, _ in hits])
    labels = Labels.concat([labels for _, _, labels in hits])
    return Found(ids, labels, min(idents), max(idents), {ident: series.ids for ident, series in metrics})


def _asked(bundle: Selectors) -> object:
    return bundle[0] if len(bundle) == 1 else bundle


_catalogs: dict[str, Catalog] = {}


def current() -> Catalog:
    """The catalog of this process for the database in use."""
    name = str(connection.settings_dict["NAME"])
    return _catalogs.get(name) or _catalogs.setdefault(name, Catalog())


def forget() -> None:
    """Start without knowledge (see `registry.forget`)."""
    _catalogs.clear()
