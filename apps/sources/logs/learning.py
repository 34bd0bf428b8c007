"""The templates of messages by id: what a process has learned, and the rows that all processes share.

1. A message whose template this process knows costs a look-up.
2. Others are learned under a lock of their group, on the rows as they are then, so that processes never make two
   templates of what is one, and ids outlive restarts.
"""

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from django.db import connection, transaction

from apps.metrics.codec import Int64
from apps.metrics.events import digest_of
from apps.metrics.storage import database
from apps.sources.logs.records import Record, datetime_of
from apps.sources.logs.templates import Group
from apps.sources.models import LogTemplate

MOST_SERVICES: Final = 1_000
"""Services that logs may come from; records of further ones are refused."""
FEW: Final = 3
"""Services of one request that are looked up each for itself."""
REMEMBERED: Final = 5_000
"""Groups that a process holds."""
TRUSTED: Final = 3_600.0
"""Seconds after which a group is read anew: rows of templates that nobody logged for long go."""

_lock: Final = threading.RLock()
_groups: "OrderedDict[tuple[str, str, str], _Known]" = OrderedDict()


@dataclass(slots=True)
class _Known:
    group: Group
    read_at: float


def forget() -> None:
    """Forget everything."""
    with _lock:
        _groups.clear()


def templates_of(records: Sequence[Record]) -> Int64:
    """Return the id of each record's template, int64[N]; 0 where its service is one too many."""
    ids = np.zeros(len(records), dtype=np.int64)
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        groups[record.service, record.level].append(place)
    unknown = {key: some for key, places in groups.items() if (some := _look_up(*key, places, records, ids))}
    refused = _too_many({service for service, _ in unknown})
    for (service, level), places in unknown.items():
        if service not in refused:
            _learn(service, level, places, records, ids)
    return ids


def _too_many(services: set[str]) -> set[str]:
    """Those that are new while there are as many services as there may be: asked once, however many a request names."""
    if len(services) <= FEW:
        return set()
    known = set(LogTemplate.objects.order_by().values_list("service", flat=True).distinct())
    new = sorted(services - known)
    return set(new[max(0, MOST_SERVICES - len(known)) :])


def _look_up(service: str, level: str, places: list[int], records: Sequence[Record], ids: Int64) -> list[int]:
    """Write the ids that are known; return the places of the others."""
    key = database(), service, level
    with _lock:
        known = _groups.get(key)
        if known is None or time.monotonic() - known.read_at > TRUSTED:
            return places
        _groups.move_to_end(key)
        unknown = []
        for place in places:
            found = known.group.known(records[place].message)
            if found is None or found.id is None:
                unknown.append(place)
            else:
                ids[place] = found.id
        return unknown


def _learn(service: str, level: str, places: list[int], records: Sequence[Record], ids: Int64) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtext('sources.logs'), hashtext(%s))", [f"{service} {level}"]
            )
        rows = list(LogTemplate.objects.filter(service=service, level=level).values_list("pk", "pattern"))
        if not rows and _is_full(service):
            return
        group = Group.of(rows)
        learned = {place: group.learn(records[place].message) for place in places}
        times: dict[int, list[int]] = defaultdict(list)
        for place, template in learned.items():
            times[id(template)].append(records[place].at)
        for template in group.templates:
            if template.id is None:
                seen = times[id(template)]
                row = LogTemplate.objects.create(
                    service=service, level=level, pattern=template.pattern,
                    digest=digest_of(f"{service}\0{level}", template.pattern),
                    first_at=datetime_of(min(seen)), last_at=datetime_of(max(seen)),
                )  # fmt: skip
                template.id = row.pk
            elif template.is_wider:
                LogTemplate.objects.filter(pk=template.id).update(pattern=template.pattern)
            template.is_wider = False
        for place, template in learned.items():
            ids[place] = template.id or 0
    with _lock:
        _groups[database(), service, level] = _Known(group, time.monotonic())
        while len(_groups) > REMEMBERED:
            _groups.popitem(last=False)


def _is_full(service: str) -> bool:
    """Whether this service would be one more than there may be."""
    if LogTemplate.objects.filter(service=service).exists():
        return False
    return LogTemplate.objects.order_by().values("service").distinct().count() >= MOST_SERVICES
