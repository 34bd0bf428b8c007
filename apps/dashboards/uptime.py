"""How much of the time checks and heartbeats were up: a strip of cells for each, and the share of a longer time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from apps.accounts.rights import Scope
from apps.metrics import query
from apps.promql.errors import PromQLError
from apps.promql.text import quote

CELLS: Final = 48
DAY: Final = timedelta(days=1)
CELL: Final = DAY / CELLS


@dataclass(frozen=True)
class Cell:
    """Half an hour of a strip: `tone` up, down, mixed or none (nothing is known), and the same in words."""

    tone: str
    words: str
    at: datetime


def tone(share: float | None) -> tuple[str, str]:
    """Return how a cell looks and what it says, by the share of the time that it was up."""
    if share is None or math.isnan(share):
        return "none", "nothing is known"
    if share >= 1:
        return "up", "up"
    return ("down", "down") if share <= 0 else ("mixed", f"up {share:.1%} of the time")


def strips(metric: str, by: str, *, scope: Scope, now: datetime, name: str = "") -> Mapping[str, list[Cell]]:
    """Return, for each value of the label `by` (or for `name` alone), the last day of the series in cells, the oldest
    first.
    """
    half = f"{int(CELL.total_seconds())}s"
    one = f"{{{by}={quote(name)}}}" if name else ""
    expression = f"avg by ({by}) (avg_over_time({metric}{one}[{half}]))"
    last = now.replace(minute=now.minute // 30 * 30, second=0, microsecond=0) + CELL
    try:
        found = query.query_range(expression, start=last - DAY + CELL, end=last, step=CELL, scope=scope)
    except PromQLError:
        return {}
    rows = {}
    for labels, values, known in zip(found.labels.dicts(), found.v.tolist(), found.ok.tolist(), strict=True):
        cells = []
        for number, (value, is_known) in enumerate(zip(values, known, strict=True)):
            look, words = tone(value if is_known else None)
            cells.append(Cell(look, words, last - DAY + number * CELL))
        rows[labels.get(by, "")] = cells
    return rows


def empty(now: datetime) -> list[Cell]:
    """Return the strip of what nothing is known of."""
    return [Cell("none", "nothing is known", now)] * CELLS


def shares(metric: str, by: str, name: str, *, scope: Scope, now: datetime) -> list[tuple[str, float | None]]:
    """Return the share of the time that one of them was up: over a day, a week and thirty days."""
    found = []
    for span in ("1d", "7d", "30d"):
        expression = f"avg(avg_over_time({metric}{{{by}={quote(name)}}}[{span}]))"
        try:
            found.append((span, query.only_value(query.instant(expression, at=now, scope=scope))))
        except PromQLError:
            found.append((span, None))
    return found


def history(metric: str, by: str, name: str, *, scope: Scope, now: datetime) -> dict[str, Any]:
    """Return what a page says of one of them: shares of the time and the last day in cells."""
    cells = strips(metric, by, scope=scope, now=now, name=name).get(name)
    return {"shares": shares(metric, by, name, scope=scope, now=now), "cells": cells or empty(now)}
