"""Pushed groups as rows: written by pushes, shown again at each tick while they live, ended when they go.

A batch job pushes once and is gone; queries look back five minutes. So the values of a group are written again on each
tick of 15 s, until it is deleted or outlives its time: then its series end at once. A push writes the row and its first
samples in one transaction.
"""

import threading
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection, transaction

from apps.accounts import audit
from apps.accounts.permissions import Principal, Right, Scope, require
from apps.core.telemetry import Reading
from apps.metrics import push_groups, services
from apps.metrics.collection import tick
from apps.metrics.models import PushGroup
from apps.metrics.presence import Presence
from apps.metrics.push_groups import Families, Inconsistent, Labels
from apps.metrics.samples import Samples
from apps.metrics.services import Written
from apps.promql.source import accept, of_scope

EVERY: Final = timedelta(seconds=15)
MOST_GROUPS: Final = 10_000
BY: Final = Principal.system("metrics.show_groups")


class TooManyGroups(Exception):
    """No further group is taken."""


def push(
    *, labels: Labels, families: Families, replace: bool, ttl: timedelta | None, by: Principal, now: datetime
) -> Written:
    """Put what was pushed into its group (`replace`: in place of all that was there) and store it.

    Raises Inconsistent, TooManyGroups, StoreFull.
    """
    require(by, Right.INGEST)
    with transaction.atomic():
        group = _locked(labels, by, now)
        before = _readings(group) if group.pushed_at is not None else []
        found = families if replace else push_groups.merged(group.families, families)
        if (size := push_groups.size(found)) > push_groups.MOST_SAMPLES:
            raise Inconsistent(f"The group would hold {size} samples; {push_groups.MOST_SAMPLES} are the most.")
        group.families, group.samples, group.pushed_at, group.pushed_by = found, size, now, by.name[:200]
        group.error = ""
        group.ttl = ttl if ttl is not None else group.ttl
        group.save()
        return _store(before, _readings(group), by, now)


def note_failure(*, labels: Labels, error: str, by: Principal, now: datetime) -> None:
    """Write down that a push to the group was refused for what it held."""
    require(by, Right.INGEST)
    with transaction.atomic():
        group = _locked(labels, by, now)
        group.failed_at, group.error = now, error[:1000]
        group.save()
        _store([], _readings(group), by, now)


def _locked(labels: Labels, by: Principal, now: datetime) -> PushGroup:
    key = push_groups.key_of(labels)
    found = PushGroup.objects.select_for_update().filter(key=key).first()
    if found is not None:
        return found
    if PushGroup.objects.count() >= MOST_GROUPS:
        raise TooManyGroups(f"There are {MOST_GROUPS} groups already; delete some, or give them a time to live.")
    PushGroup.objects.bulk_create(
        [PushGroup(key=key, labels=labels, families={}, pushed_by=by.name[:200])], ignore_conflicts=True
    )
    return PushGroup.objects.select_for_update().get(key=key)


@audit.verb("metrics.delete_push_group")
def delete(*, by: Principal, group: PushGroup, now: datetime) -> None:
    """Delete a group; its series end now."""
    before = _readings(group)
    label = str(group)
    ident = str(group.pk)
    group.delete()
    _store(before, [], by, now)
    audit.record(
        by=by,
        verb="metrics.delete_push_group",
        target=("metrics.pushgroup", ident, label),
        before={"samples": group.samples, "pushed_at": group.pushed_at},
    )


def find(labels: Labels) -> PushGroup | None:
    """The group of these labels."""
    return PushGroup.objects.filter(key=push_groups.key_of(labels)).first()


def seen_by(scope: Scope) -> list[PushGroup]:
    """The groups whose labels the scope accepts."""
    wanted = of_scope(scope.matchers)
    groups = PushGroup.objects.order_by("id")
    return [group for group in groups if accept(wanted, group.labels)]


def _readings(group: PushGroup) -> list[Reading]:
    pushed = 0.0 if group.pushed_at is None else group.pushed_at.timestamp()
    failed = None if group.failed_at is None else group.failed_at.timestamp()
    return push_groups.readings(group.families, group.labels, pushed, failed)


def _store(before: Iterable[Reading], after: list[Reading], by: Principal, now: datetime) -> Written:
    """Store what a group holds now, and end what it held before and does not any more."""
    presence = Presence()
    presence.update("group", before, 0)
    ended = presence.update("group", after, int(now.timestamp() * 1000))
    return services.ingest(samples=Samples.from_readings([*ended, *after], now), by=by, now=now)


class _Shown:
    """What this process has read of the groups, so that a tick reads only those that have changed."""

    def __init__(self) -> None:
        self.groups: dict[int, tuple[Any, list[Reading]]] = {}
        self.lock = threading.Lock()


_shown: dict[str, _Shown] = {}


def show(*, now: datetime) -> int:
    """Write the values of all living groups at the tick, and delete those that outlived their time; return how many."""
    stamp = tick(now, EVERY)
    for group in PushGroup.objects.expired(now):
        delete(by=BY, group=group, now=now)
    known = _shown.setdefault(str(connection.settings_dict["NAME"]), _Shown())
    with known.lock:
        versions = {row[0]: row for row in PushGroup.objects.values_list("id", "pushed_at", "failed_at")}
        stale = [ident for ident, row in versions.items() if known.groups.get(ident, (None,))[0] != row]
        for group in PushGroup.objects.filter(pk__in=stale):
            known.groups[group.pk] = (group.pk, group.pushed_at, group.failed_at), _readings(group)
        known.groups = {ident: row for ident, row in known.groups.items() if ident in versions}
        # What was pushed after the tick has been written at its own instant, and was not so at the tick.
        due = [
            reading
            for (_, *times), found in known.groups.values()
            if all(at is None or at < stamp for at in times)
            for reading in found
        ]
    if not due:
        return 0
    return services.ingest(samples=Samples.from_readings(due, stamp), by=BY, now=now).accepted
