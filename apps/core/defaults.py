"""Shipped defaults are written once: an edited row is never overwritten, a deleted one never comes back.

What a newer release would ship otherwise is offered as a diff against what was shipped, and nothing more.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from apps.core.models import Shipped

Row = Mapping[str, Any]


def _plain(row: Row) -> dict[str, Any]:
    """Return the row as JSON keeps it."""
    return dict(json.loads(json.dumps(row, default=str)))


def write_once(
    model: str, rows: Iterable[Row], *, key: Callable[[Row], str], write: Callable[[Row], object], now: datetime
) -> list[str]:
    """Call `write(row)` for each row whose natural key was never shipped before; return the keys written.

    `model` names the kind of row ("alerting.AlertRule"), `key` its natural key. Row and memory are one transaction.
    """
    known = set(Shipped.objects.filter(model=model).values_list("key", flat=True))
    written = []
    for row in rows:
        name = key(row)
        if name in known:
            continue
        with transaction.atomic():
            write(row)
            Shipped.objects.create(model=model, key=name, row=_plain(row), shipped_at=now)
        written.append(name)
    return written


def changes(model: str, rows: Iterable[Row], *, key: Callable[[Row], str]) -> dict[str, str]:
    """Return, by natural key, the unified diff of each row that would be shipped otherwise than it was."""
    shipped = dict(Shipped.objects.filter(model=model).values_list("key", "row"))
    found = {}
    for row in rows:
        name = key(row)
        before = shipped.get(name)
        if before and before != _plain(row):
            old, new = (
                json.dumps(each, indent=2, sort_keys=True, ensure_ascii=False).splitlines()
                for each in (before, _plain(row))
            )
            found[name] = "\n".join(difflib.unified_diff(old, new, f"{name} as shipped", f"{name} now", lineterm=""))
    return found


def accept(model: str, rows: Iterable[Row], *, key: Callable[[Row], str]) -> int:
    """Take note of the rows as they are shipped now, so that their difference is not offered again; return how many."""
    known = {key(row): _plain(row) for row in rows}
    return sum(
        Shipped.objects.filter(model=model, key=name).exclude(row=row).update(row=row) for name, row in known.items()
    )
