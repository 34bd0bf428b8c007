"""What makes alerts noise, and what would make them less: counts of firings and proposals for a rule. Pure.

A firing is one alert from its begin to its end. Somebody *acted on* it who acknowledged it, or resolved it by hand. It
*resolved itself* when it ended within SHORT and nobody acted: there was nothing to do. It was *ignored* when it lasted
longer and nobody acted. It *flapped* when the same series had fired less than AGAIN before.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Final

from apps.alerting.thresholds import Level

SHORT: Final = timedelta(minutes=15)
AGAIN: Final = timedelta(hours=1)
LONGEST_WAIT: Final = timedelta(hours=1)
FEW: Final = 3
"""Firings below which nothing is proposed: there is nothing to learn from them."""
WAITS: Final = tuple(timedelta(seconds=each) for each in (30, 60, 120, 300, 600, 900, 1800, 3600))
BACK: Final = 0.1
"""How far behind the threshold a proposed recovery lies, as a share of it."""


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert that fired: `series` is its identity, `value` what it had, `acted` whether a person did something."""

    series: bytes
    begin: datetime
    end: datetime | None
    acted: bool
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Noise:
    """What the firings of a rule came to."""

    fired: int = 0
    acted_on: int = 0
    self_resolved: int = 0
    ignored: int = 0
    flapped: int = 0
    firing: timedelta = timedelta(0)

    @property
    def noise(self) -> float:
        """Share of the firings that nobody needed: 0 to 1."""
        return (self.self_resolved + self.ignored) / self.fired if self.fired else 0.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change of a rule: kind "wait" (seconds), "threshold" or "recovery" (of a severity), with what speaks for it."""

    kind: str
    value: float
    severity: str
    reason: str
    spared: int


def count(firings: Sequence[Firing], now: datetime) -> Noise:
    """Count the firings of one rule."""
    self_resolved = ignored = flapped = 0
    firing = timedelta(0)
    last: dict[bytes, datetime] = {}
    for each in sorted(firings, key=lambda found: found.begin):
        lasted = (each.end or now) - each.begin
        firing += lasted
        if not each.acted:
            if lasted > SHORT:
                ignored += 1
            elif each.end is not None:
                self_resolved += 1
        before = last.get(each.series)
        flapped += before is not None and each.begin - before < AGAIN
        last[each.series] = each.end or now
    acted = sum(each.acted for each in firings)
    return Noise(len(firings), acted, self_resolved, ignored, flapped, firing)


def proposals(firings: Sequence[Firing], waits: timedelta, levels: Iterable[Level], now: datetime) -> list[Proposal]:
    """What would have spared firings that nobody acted on, and few that somebody did."""
    found = count(firings, now)
    if found.fired < FEW:
        return []
    out = []
    ended = [each for each in firings if each.end is not None]
    short = sorted(
        (each.end - each.begin) for each in ended if each.end and not each.acted and each.end - each.begin <= SHORT
    )
    if len(short) >= FEW and len(short) * 2 >= found.fired:
        wanted = waits + short[math.ceil(0.9 * len(short)) - 1]
        longer = next((each for each in WAITS if each > wanted), LONGEST_WAIT)
        spared = [each for each in ended if each.end and each.end - each.begin < longer - waits]
        if longer > waits and sum(not each.acted for each in spared) > sum(each.acted for each in spared):
            text = (
                f"{len(spared)} of {found.fired} firings were over before a wait of {_written(longer)} would have been."
            )
            out.append(Proposal("wait", longer.total_seconds(), "", text, len(spared)))
    for level in levels:
        if level.threshold is None or not level.comparison.startswith((">", "<")):
            continue
        if found.noise >= 0.8 and (moved := _threshold(firings, level)) is not None:
            out.append(moved)
        if found.flapped >= FEW and level.recovery is None and level.threshold != 0:
            side = -1 if level.comparison.startswith(">") else 1
            recovery = _rounded(level.threshold + side * BACK * abs(level.threshold))
            text = f"{found.flapped} of {found.fired} firings came back within an hour."
            out.append(Proposal("recovery", recovery, level.severity.value, text, found.flapped))
    return out


def _threshold(firings: Sequence[Firing], level: Level) -> Proposal | None:
    """A threshold beyond three quarters of the values that nobody acted on, and before all that somebody did."""
    above = level.comparison.startswith(">")
    sign = 1.0 if above else -1.0
    idle = sorted(
        sign * each.value for each in firings if each.value is not None and not each.acted and _is(each.value)
    )
    busy = [sign * each.value for each in firings if each.value is not None and each.acted and _is(each.value)]
    if len(idle) < FEW or level.threshold is None:
        return None
    wanted = idle[min(len(idle) - 1, math.ceil(0.75 * len(idle)))]
    if busy and wanted >= min(busy):
        return None
    value = _rounded(sign * wanted)
    if sign * value <= sign * level.threshold:
        return None
    spared = sum(each <= sign * value for each in idle)
    text = f"{spared} of {len(firings)} firings had no more than this, and nobody acted on them."
    return Proposal("threshold", value, level.severity.value, text, spared)


def suggest(wanted: str, known: Iterable[str]) -> list[str]:
    """Names that were probably meant: at most three, nearest first."""
    return get_close_matches(wanted, list(known), n=3, cutoff=0.7)


def why_nothing(
    reads: Mapping[str, Sequence[tuple[str, str]]], names: Sequence[str], values: Mapping[str, Sequence[str]]
) -> list[str]:
    """Why an expression gives nothing, as far as it can be seen: a metric, or a label's value, that does not exist.

    `reads`: equality matchers by metric; `names`: all metrics; `values`: what labels have.
    """
    lines = []
    for metric, matchers in reads.items():
        if metric not in names:
            lines.append(_meant(f"There is no metric {metric}", suggest(metric, names)))
            continue
        for label, value in matchers:
            if label in values and value and value not in values[label]:
                lines.append(_meant(f'No series of {metric} has {label}="{value}"', suggest(value, values[label])))
    return lines


def _meant(problem: str, near: Sequence[str]) -> str:
    return f"{problem}. Did you mean {' or '.join(near)}?" if near else f"{problem}."


def _is(value: float) -> bool:
    return math.isfinite(value)


def _rounded(value: float) -> float:
    """Three digits, as a person would write it."""
    return float(f"{value:.3g}")


def _written(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min"
