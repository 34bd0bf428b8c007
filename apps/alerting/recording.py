"""Recording rules: results of expressions become series, and a series that is no longer written is ended by a marker.

Results are a function of what the store holds and of the tick, so writing them twice changes nothing: they are
committed before the alert rules of the tick are asked, which may read them.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from apps.accounts.permissions import EVERYTHING
from apps.alerting.models import RecordingRule
from apps.alerting.plans import GroupPlan, Question, RecordPlan, in_stages
from apps.core.telemetry import Reading
from apps.metrics import query
from apps.promql.errors import PromQLError, QueryError
from apps.promql.labels import NAME, Labels
from apps.promql.result import Result
from apps.promql.series import STALE, stale_mask
from apps.promql.source import Matcher

Answer: TypeAlias = "Result | PromQLError"
Ask: TypeAlias = Callable[[Sequence[Question]], list[Answer]]
Write: TypeAlias = Callable[[Sequence[Reading]], None]


@dataclass(slots=True)
class Recorded:
    """What one tick wrote: label sets by group and name, names of which a rule failed, and a line per rule."""

    written: dict[int, dict[str, Labels]] = field(default_factory=dict)
    failed: dict[int, set[str]] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)

    def hashes(self) -> set[int]:
        """Every series that was written, by the hash of its labels."""
        return {
            number
            for names in self.written.values()
            for labels in names.values()
            for number in labels.hashes().tolist()
        }


def record(groups: Sequence[GroupPlan], tick_ms: int, *, ask: Ask, write: Write) -> Recorded:
    """Evaluate the recording rules of these groups stage by stage and write each stage before the next is asked."""
    done = Recorded({group.id: {} for group in groups}, {group.id: set() for group in groups})
    home = {rule.id: group.id for group in groups for rule in group.records}
    for stage in in_stages(rule for group in groups for rule in group.records):
        readings: list[Reading] = []
        for rule, answer in zip(stage, ask([rule.question for rule in stage]), strict=True):
            group = home[rule.id]
            try:
                labels, values = results(rule, answer)
            except PromQLError as error:
                done.failed[group].add(rule.name)
                done.lines[rule.id] = {"error": str(error)}
                continue
            done.lines[rule.id] = {"series": len(values)}
            before = done.written[group].get(rule.name)
            done.written[group][rule.name] = labels if before is None else Labels.concat([before, labels])
            readings += [
                Reading(rule.name, value, _without_name(row), timestamp_ms=tick_ms)
                for row, value in zip(labels.dicts(), values, strict=True)
            ]
        if readings:
            write(readings)
    return done


def results(rule: RecordPlan, answer: Answer) -> tuple[Labels, list[float]]:
    """The series that a result becomes: renamed, with the rule's labels; PromQLError where it is none."""
    if isinstance(answer, PromQLError):
        raise answer
    if answer.kind not in ("vector", "scalar"):
        raise QueryError(f"the expression gives a {answer.kind}; a recording rule needs a vector or a number")
    rows = np.flatnonzero(answer.ok[:, 0])
    labels = answer.labels.take(rows)
    for name, value in rule.labels.items():
        labels = labels.set(name, value)
    labels = labels.set(NAME, rule.name)
    if len(set(labels.hashes().tolist())) < len(rows):
        raise QueryError("vector contains metrics with the same labelset after applying rule labels")
    return labels, answer.v[rows, 0].tolist()


def _without_name(labels: dict[str, str]) -> dict[str, str]:
    labels.pop(NAME, None)
    return labels


# --- Series that end --------------------------------------------------------------------------------------------

_lock = threading.Lock()
_last: dict[int, tuple[int, dict[str, Labels]]] = {}


def remember(group: int, tick_ms: int, written: Mapping[str, Labels]) -> None:
    """Keep what a tick wrote, once it is committed; only a saving, the store knows it too."""
    for labels in written.values():
        labels.remember()
    with _lock:
        _last[group] = (tick_ms, dict(written))


def written_before(group: int, names: Iterable[str], previous_ms: int | None, tick_ms: int) -> dict[str, Labels]:
    """The series that the group wrote at its last tick, by name: from this process's memory, else from the store."""
    wanted = sorted(set(names))
    if not wanted or previous_ms is None:
        return {}
    with _lock:
        kept = _last.get(group)
    if kept is not None and kept[0] == previous_ms:
        return {name: labels for name, labels in kept[1].items() if name in wanted}
    # Only names that no other group records: the store does not tell who wrote a series.
    shared = set(RecordingRule.objects.exclude(group=group).filter(name__in=wanted).values_list("name", flat=True))
    wanted = [name for name in wanted if name not in shared]
    if not wanted:
        return {}
    found = query.select([Matcher(NAME, "=~", "|".join(wanted))], previous_ms - 1, tick_ms - 1, scope=EVERYTHING)
    some = np.flatnonzero(found.counts)
    alive = some[~stale_mask(found.v[found.off[1:][some] - 1])]
    labels = found.labels.take(alive)
    texts = labels.texts(NAME)
    return {name: labels.take(np.array([text == name for text in texts], dtype=np.bool_)) for name in set(texts)}


@dataclass(frozen=True, slots=True)
class Endings:
    """Markers to write, and what the next tick compares with."""

    markers: list[Reading]
    written: dict[str, Labels]


def endings(group: int, recorded: Recorded, before: Mapping[str, Labels], tick_ms: int) -> Endings:
    """End what the group wrote before and does not write any more; a rule that failed ends nothing."""
    elsewhere = recorded.hashes()
    now, failed = recorded.written[group], recorded.failed[group]
    markers: list[Reading] = []
    kept = dict(now)
    for name, labels in before.items():
        gone = np.array([number not in elsewhere for number in labels.hashes().tolist()], dtype=np.bool_)
        ended = labels.take(gone)
        if not ended.size:
            continue
        if name in failed:
            kept[name] = Labels.concat([kept[name], ended]) if name in kept else ended
            continue
        markers += [Reading(name, STALE, _without_name(row), timestamp_ms=tick_ms) for row in ended.dicts()]
    return Endings(markers, kept)


def milliseconds(at: datetime) -> int:
    """A tick in the store's unit."""
    return round(at.timestamp() * 1000)
