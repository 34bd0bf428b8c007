"""Shipped defaults are written once: an edited row is never overwritten, a deleted one never comes back."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from apps.core.models import Shipped


def digest(row: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a shipped row, by which a later release sees what it would change."""
    return hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()


def write_once(
    model: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    key: Callable[[Mapping[str, Any]], str],
    write: Callable[[Mapping[str, Any]], object],
    now: datetime,
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
            Shipped.objects.create(model=model, key=name, digest=digest(row), shipped_at=now)
        written.append(name)
    return written
