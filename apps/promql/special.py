"""The functions that are neither over windows nor element by element: each evaluates its own arguments."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from apps.promql import aggregate, binary, elementwise, histogram, info, relabel, windows
from apps.promql.arrays import Floats, Index, Mask
from apps.promql.ast import Call, Expr, Range, Selector, unwrap
from apps.promql.errors import QueryError
from apps.promql.labels import NAME, STRINGS, Labels
from apps.promql.result import number
from apps.promql.series import Grid, Scalar, Vec
from apps.promql.source import Matcher
from apps.promql.text import printable, quote, valid_name

if TYPE_CHECKING:
    from apps.promql.evaluator import Evaluator

_FORCED: Final = (
    "input to histogram_quantile needed to be fixed for monotonicity "
    "(see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
)


def timestamp(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    arg = unwrap(node.args[0])
    if isinstance(arg, Selector):
        vec = query.selector(arg, grid, windows.newest_time)
    else:
        vec = query.vector(arg, grid)
        times = np.broadcast_to(grid.times() / 1000, vec.v.shape)
        vec = Vec(vec.labels, times, vec.ok, vec.drop)
    return Vec(vec.labels, vec.v, vec.ok, np.ones(vec.size, dtype=np.bool_))


def now(query: "Evaluator", node: Call, grid: Grid) -> Scalar:
    return Scalar(grid.times() / 1000)


def pi(query: "Evaluator", node: Call, grid: Grid) -> Scalar:
    return Scalar(np.full(grid.n, np.pi))


def extreme(query: "Evaluator", node: Call, grid: Grid) -> Scalar:
    left, right = (query.scalar(arg, grid) for arg in node.args)
    return Scalar((elementwise.smaller if node.func.name == "min_of" else elementwise.larger)(left, right))


def query_time(query: "Evaluator", node: Call, grid: Grid) -> Scalar:
    """start(), end(), range() and step() of the whole query, in seconds."""
    whole = query.grid
    span = {"start": whole.start, "end": whole.end, "range": whole.end - whole.start}
    step = whole.step if query.is_range else 0
    return Scalar(np.full(grid.n, span.get(node.func.name, step) / 1000))


def scalar(query: "Evaluator", node: Call, grid: Grid) -> Scalar:
    vec = query.vector(node.args[0], grid)
    present = vec.ok.sum(axis=0)
    with np.errstate(all="ignore"):
        return Scalar(np.where(present == 1, np.where(vec.ok, vec.v, 0.0).sum(axis=0), np.nan))


def vector(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    return Vec.lone(query.scalar(node.args[0], grid))


def absent(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    arg = unwrap(node.args[0])
    vec = query.vector(arg, grid)
    return _absence(arg, vec.ok)


def absent_over_time(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    arg = unwrap(node.args[0])
    found = query.windowed(query.range_vectors(arg, grid), grid, windows.presence, node, keeps_name=True)
    return _absence(arg.selector if isinstance(arg, Range) else arg, found.ok)


def enriched(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    """The second argument is there even where the text has none: see apps.promql.rewrite."""
    base = query.vector(node.args[0], grid)
    described = node.args[1]
    if not isinstance(described, Selector):
        raise QueryError("info() takes label matchers as its second argument")
    found = query.selector(described, grid, windows.newest_time)
    return binary.merged(info.enriched(base, found, described, query.check_cells))


def sort(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    vec = query.vector(node.args[0], grid)
    if query.is_range:
        query.warn("sort is ineffective for range queries since results are always ordered by labels", node)
        return vec
    rows: Index
    if node.func.name.startswith("sort_by_label"):
        names = [query.string(arg, grid) for arg in node.args[1:]]
        rows = relabel.sort_rows(vec.labels, names, descending=node.func.name.endswith("_desc"))
    else:
        largest = node.func.name == "sort_desc"
        rows = aggregate.rank_order(vec.v[None], vec.ok[None], largest=largest)[0, :, 0]
    part = vec.take(rows)
    return Vec(part.labels, part.v, part.ok, part.drop, ordered=True)


def label_replace(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    vec = query.vector(node.args[0], grid)
    target, template, source, pattern = (query.string(arg, grid) for arg in node.args[1:])
    return relabel.replace(vec, target, template, source, pattern)


def label_join(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    vec = query.vector(node.args[0], grid)
    target, separator, *sources = (query.string(arg, grid) for arg in node.args[1:])
    return relabel.join(vec, target, separator, sources)


def histogram_quantile(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    q = query.scalar(node.args[0], grid)
    query.check_quantile(q, node.args[0])
    found = _buckets(query, node.args[1], grid)
    return _quantile(query, found, q, node.args[1])


def histogram_quantiles(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    label = query.string(node.args[1], grid)
    if not valid_name(label):
        raise QueryError(f"invalid label name {quote(label)}")
    qs = [query.scalar(arg, grid) for arg in node.args[2:]]
    for q, arg in zip(qs, node.args[2:], strict=True):
        query.check_quantile(q, arg)
    found = _buckets(query, node.args[0], grid)
    if label in found.labels.names:
        raise QueryError(f"label {quote(label)} of histogram_quantiles() is already there")
    parts = [Vec.empty(grid.n)]
    for q in qs:
        vec = _quantile(query, found, q, node.args[0])
        texts = np.array([_decimal(value) for value in q.tolist()])
        for text in np.unique(texts).tolist():
            query.check_cells(len(parts) * vec.size, grid.n)
            named = vec.labels.replace(label, STRINGS.make([text]).repeat(vec.size))
            parts.append(Vec(named, vec.v, vec.ok & (texts == text), vec.drop))
    return binary.merged(Vec.concat(parts))


def _quantile(query: "Evaluator", found: histogram.Buckets, q: Floats, node: Expr) -> Vec:
    vec, repaired = histogram.quantiles(found, q)
    for name in repaired:
        query.inform(f"{_FORCED} for metric name {quote(name)}" if name else _FORCED, node)
    return vec


def histogram_fraction(query: "Evaluator", node: Call, grid: Grid) -> Vec:
    lower, upper = query.scalar(node.args[0], grid), query.scalar(node.args[1], grid)
    return histogram.fractions(_buckets(query, node.args[2], grid), lower, upper)


def _buckets(query: "Evaluator", node: Expr, grid: Grid) -> histogram.Buckets:
    found = histogram.buckets(query.vector(node, grid))
    for name, text in found.malformed:
        query.warn(
            f'bucket label "le" is missing or has a malformed value of {quote(text)} for metric name {quote(name)}',
            node,
        )
    return found


def _absence(node: Expr, ok: Mask) -> Vec:
    """1 where none of the rows of ok bool[S, n] is there, with the labels that a selector fixes by an equality."""
    missing: Mask = ~np.any(ok, axis=0)
    labels: dict[str, str] = {}
    if isinstance(node, Selector):
        labels = fixed_labels(node.matchers)
    one = Labels.from_columns(1, {name: STRINGS.make([value]) for name, value in labels.items()})
    return Vec(one, np.ones((1, len(missing))), missing[None, :], np.zeros(1, dtype=np.bool_))


def fixed_labels(matchers: tuple[Matcher, ...]) -> dict[str, str]:
    """Labels that every series of a selector must have, apart from the name."""
    labels: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in matchers:
        if matcher.name == NAME:
            continue
        if matcher.op == "=" and matcher.name not in seen:
            labels[printable(matcher.name)] = printable(matcher.value)
        else:
            labels.pop(printable(matcher.name), None)
        seen.add(matcher.name)
    return labels


def _decimal(value: float) -> str:
    """A number that always shows a decimal point, as quantile labels are written."""
    text = number(value)
    return f"{text}.0" if text.lstrip("-").isdigit() else text


CALLS: Final[dict[str, Callable[["Evaluator", Call, Grid], Vec | Scalar]]] = {
    "timestamp": timestamp,
    "time": now,
    "pi": pi,
    **dict.fromkeys(("min_of", "max_of"), extreme),
    **dict.fromkeys(("start", "end", "range", "step"), query_time),
    "scalar": scalar,
    "vector": vector,
    "absent": absent,
    "absent_over_time": absent_over_time,
    "info": enriched,
    "sort": sort,
    "sort_desc": sort,
    "sort_by_label": sort,
    "sort_by_label_desc": sort,
    "label_replace": label_replace,
    "label_join": label_join,
    "histogram_quantile": histogram_quantile,
    "histogram_quantiles": histogram_quantiles,
    "histogram_fraction": histogram_fraction,
}
