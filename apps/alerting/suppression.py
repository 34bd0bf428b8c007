"""For which alerts nobody is paged now, and why: silences, maintenance, inhibition, dependencies. Pure.

Suppression holds pages back and nothing else: what is muted is evaluated, shown and resolved as ever, and whoever was
told that it fires is told that it ended. It is asked at the moment of telling; nothing of it is remembered, so a
restart cannot let through what was muted before (alertmanager#4064).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from apps.alerting.matching import accept
from apps.alerting.topology import Graph, behind
from apps.promql.source import Matcher


@dataclass(frozen=True, slots=True)
class Subject:
    """An active alert as suppression sees it; `rank` is that of its severity."""

    id: int
    labels: Mapping[str, str]
    service: str
    rank: int


@dataclass(frozen=True, slots=True)
class Quiet:
    """A silence or a maintenance window that holds now, until `until`; `service`: a window of all of that service."""

    id: str
    words: str
    matchers: tuple[Matcher, ...]
    until: datetime
    is_window: bool = False
    service: str = ""


@dataclass(frozen=True, slots=True)
class Inhibition:
    """While an alert matches `source`, those that match `target` and have the same `equal` labels are muted."""

    id: int
    name: str
    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why nobody is paged for an alert; all empty: somebody is.

    `silenced_by`: ids of silences; `inhibited_by`: ids of the alerts because of which (inhibition, dependencies);
    `muted_by`: names of maintenance windows. `until`: when time alone ends it; None: when another alert does.
    """

    silenced_by: tuple[str, ...] = ()
    inhibited_by: tuple[int, ...] = ()
    muted_by: tuple[str, ...] = ()
    reason: str = ""
    until: datetime | None = None

    @property
    def is_muted(self) -> bool:
        """Whether pages are held back."""
        return bool(self.reason)


LOUD = Verdict()


@dataclass(slots=True)
class _Side:
    """The sources of an inhibition rule by their equal labels: (any, one that is not a target itself)."""

    rule: Inhibition
    sources: dict[tuple[str, ...], tuple[int, int | None]] = field(default_factory=dict)

    def add(self, subject: Subject) -> None:
        if not accept(self.rule.source, subject.labels):
            return
        key = self.key(subject)
        anyone, one_sided = self.sources.get(key, (subject.id, None))
        if one_sided is None and not accept(self.rule.target, subject.labels):
            one_sided = subject.id
        self.sources[key] = anyone, one_sided

    def key(self, subject: Subject) -> tuple[str, ...]:
        return tuple(subject.labels.get(name, "") for name in self.rule.equal)

    def source_of(self, subject: Subject) -> int | None:
        """Return an alert because of which the subject is muted. What is source and target both is muted only by what
        is source alone, so nothing mutes itself and no two mute each other (Alertmanager's rule)."""
        if not self.sources or not accept(self.rule.target, subject.labels):
            return None
        anyone, one_sided = self.sources.get(self.key(subject), (None, None))
        return one_sided if accept(self.rule.source, subject.labels) else anyone


class Suppressor:
    """Everything that mutes at one moment, ready to be asked for thousands of alerts."""

    def __init__(
        self,
        quiets: Sequence[Quiet] = (),
        inhibitions: Sequence[Inhibition] = (),
        sources: Iterable[Subject] = (),
        depends_on: Graph | None = None,
        fails_at: Mapping[str, int] | None = None,
    ) -> None:
        """`sources`: the active alerts; `fails_at`: service → the rank from which an alert means that it has failed."""
        self._graph: Graph = depends_on or {}
        self._sides = [_Side(rule) for rule in inhibitions]
        self._failed: dict[str, int] = {}
        fails_at = fails_at or {}
        for subject in sources:
            for side in self._sides:
                side.add(subject)
            if subject.service in fails_at and subject.rank >= fails_at[subject.service]:
                self._failed.setdefault(subject.service, subject.id)
        self._serviced = {quiet.service: quiet for quiet in quiets if quiet.is_window and quiet.service}
        self._behind: dict[str, dict[str, int]] = {}
        # Most silences name a label's value: they are looked up by it instead of being asked for each alert.
        self._by_label: dict[tuple[str, str], list[Quiet]] = defaultdict(list)
        self._others: list[Quiet] = []
        for quiet in quiets:
            named = next((m for m in quiet.matchers if m.op == "=" and m.value), None)
            (self._others if named is None else self._by_label[named.name, named.value]).append(quiet)

    def verdict(self, subject: Subject) -> Verdict:
        """Return whether and why nobody is paged for this alert now."""
        quiets = [quiet for quiet in self._candidates(subject) if accept(quiet.matchers, subject.labels)]
        inhibited: list[int] = []
        words = [quiet.words for quiet in quiets]
        for side in self._sides:
            source = side.source_of(subject)
            if source is not None:
                inhibited.append(source)
                words.append(f"inhibited by “{side.rule.name}”")
        window, behind_words = self._dependency(subject, inhibited)
        words += behind_words
        if not words:
            return LOUD
        waits_for_another = bool(inhibited)
        ends = [quiet.until for quiet in quiets] + ([window.until] if window else [])
        return Verdict(
            tuple(quiet.id for quiet in quiets if not quiet.is_window),
            tuple(dict.fromkeys(inhibited)),
            tuple(quiet.id for quiet in quiets if quiet.is_window) + ((window.id,) if window else ()),
            "; ".join(words)[:300],
            None if waits_for_another or not ends else max(ends),
        )

    def could_mute_others(self, subject: Subject) -> bool:
        """Whether the end of this alert may let others be heard."""
        if any(accept(side.rule.source, subject.labels) for side in self._sides):
            return True
        return any(subject.service in parents for parents in self._graph.values())

    def _candidates(self, subject: Subject) -> Iterable[Quiet]:
        if self._by_label:
            for pair in subject.labels.items():
                yield from self._by_label.get(pair, ())
        yield from self._others

    def _dependency(self, subject: Subject, inhibited: list[int]) -> tuple[Quiet | None, list[str]]:
        """The nearest thing behind the alert's service that has failed or is being worked on."""
        if not subject.service or subject.service not in self._graph or not (self._failed or self._serviced):
            return None, []
        if subject.service not in self._behind:
            self._behind[subject.service] = behind(self._graph, subject.service)
        for parent in self._behind[subject.service]:
            if parent in self._failed:
                inhibited.append(self._failed[parent])
                return None, [f"{subject.service} depends on {parent}, which has failed"]
            if parent in self._serviced:
                return self._serviced[parent], [f"{subject.service} depends on {parent}, which is being worked on"]
        return None, []
