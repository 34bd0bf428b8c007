"""Whether a message is held back, until when and why: quiet hours of a person, business hours of a contact. Pure.

Held back is not dropped: whatever is held has a time at which it is looked at again, and a reason to be shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from apps.accounts.hours import Hours
from apps.notifications.message import SEVERITIES

ORDER: Final = "order"
QUIET: Final = "quiet"
HOURS: Final = "hours"
MOST_STEPS: Final = 20
"""Rules that follow one another (quiet hours end before the office opens) are looked through so often."""


@dataclass(frozen=True)
class Rule:
    """Below the severity `below` nothing is told while `hours` cover the moment (QUIET) or do not (HOURS)."""

    why: str
    hours: Hours
    below: str = "critical"

    def holds(self, severity: str, at: datetime) -> bool:
        """Whether it keeps something so severe from being told at that moment."""
        is_mild = SEVERITIES.index(severity) < SEVERITIES.index(self.below)
        return is_mild and self.hours.covers(at) == (self.why == QUIET)


@dataclass(frozen=True)
class Hold:
    """Held back until then, and why: in one word (ORDER, QUIET, HOURS) and in a few."""

    why: str
    until: datetime
    reason: str


WORDS: Final = {QUIET: "quiet hours", HOURS: "outside of business hours"}


def hold(rules: Sequence[Rule], severity: str, now: datetime) -> Hold | None:
    """Return how long something so severe is held back by the rules, all of them; None: it is told now.

    Business hours count as the reason where both hold: what they hold is told in a digest. A rule that never ends holds
    nothing back, for nobody would ever be told.
    """
    at, first = now, [rule for rule in rules if rule.holds(severity, now)]
    if not first:
        return None
    zone = first[0].hours.zone
    for _ in range(MOST_STEPS):
        holding = next((rule for rule in rules if rule.holds(severity, at)), None)
        if holding is None:
            break
        zone, end = holding.hours.zone, holding.hours.changes_at(at)
        if end is None:
            return None
        at = end
    why = HOURS if any(rule.why == HOURS for rule in first) else QUIET
    there = at.astimezone(zone)
    return Hold(why, at, f"Held back: {WORDS[why]} until {there:%a} {there:%H:%M} ({zone.key})")


def in_order(after: timedelta, now: datetime) -> Hold | None:
    """Return the hold of a message to a contact that comes so much later in its person's order."""
    if after <= timedelta(0):
        return None
    minutes = after.total_seconds() / 60
    return Hold(ORDER, now + after, f"Told after {minutes:g} min, unless somebody acknowledges before")
