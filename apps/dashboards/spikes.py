"""A long chart has fewer steps than there are samples: of each step it shows the sample farthest from their average.

So a peak or a dip of a single sample is still to be seen over a year. That is done for what asks for samples as they
are, a metric and its matchers; whatever else an expression does says itself how it sums up.
"""

from datetime import timedelta
from typing import Final

import numpy as np

from apps.accounts.permissions import Scope
from apps.dashboards import shared
from apps.dashboards.timespan import SCRAPE, Span
from apps.promql.ast import Paren, Selector
from apps.promql.errors import PromQLError
from apps.promql.labels import NAME
from apps.promql.limits import Limits
from apps.promql.parser import parse
from apps.promql.printer import render
from apps.promql.result import Result

MOST: Final = 200
"""Series beyond which a chart shows the newest sample of each step: it draws a few of them only."""
LONG: Final = timedelta(seconds=4 * SCRAPE.total_seconds())
"""From which step on several samples fall into one."""


def selector_of(text: str, span: Span) -> Selector | None:
    """Return what an expression selects, where it does nothing else and several samples may fall into a step."""
    if span.step < LONG:
        return None
    try:
        node = parse(text)
    except PromQLError:
        return None
    while isinstance(node, Paren):
        node = node.expr
    if not isinstance(node, Selector) or not node.name or node.at or node.offset or node.offset_later or node.edges:
        return None
    return node


def query_range(text: str, span: Span, *, scope: Scope, limits: Limits) -> Result:
    """See `shared.query_range`; with the extremes of each step where that is long."""
    found = shared.query_range(text, span, scope=scope, limits=limits)
    selector = selector_of(text, span)
    if selector is None or not 0 < len(found.labels) <= MOST:
        return found
    window = f"{render(selector)}[{int(span.step.total_seconds())}s]"
    rows = {_key(labels): at for at, labels in enumerate(found.labels.dicts())}
    sides = []
    for function in ("min", "avg", "max"):
        result = shared.query_range(f"{function}_over_time({window})", span, scope=scope, limits=limits)
        side = np.full(found.v.shape, np.nan)
        for labels, values, present in zip(result.labels.dicts(), result.v, result.ok, strict=True):
            if (at := rows.get(_key(labels))) is not None:
                side[at] = np.where(present, values, np.nan)
        sides.append(side)
    low, mean, high = sides
    extreme = np.where(high - mean >= mean - low, high, low)
    is_there = ~np.isnan(extreme)
    return Result(
        found.kind, found.labels, found.ts, np.where(is_there, extreme, found.v), found.ok | is_there,
        warnings=found.warnings, infos=found.infos,
    )  # fmt: skip


def _key(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in labels.items() if name != NAME))
