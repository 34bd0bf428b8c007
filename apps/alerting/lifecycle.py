"""The life of an alert as a pure function: values in, the next life and its reason out. No tables, no clock.

Every level of a rule (warning, critical, …) lives exactly as a Prometheus rule of its own would: inactive, pending for
`for`, firing, kept firing for `keep_firing_for`. The alert is their fold: it is as bad as its worst firing level. So a
rule with two levels behaves like the two plain rules it can be exported to, but is one alert with one identity.

Two rules go beyond Prometheus, both about not knowing:
- time in which nobody looked (the portal was down) counts neither as breach nor as recovery;
- after such a gap a series that is not back yet is waited for, instead of being taken for a recovery.
"""

from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """How bad a level is; order by `rank`."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info up to 3 for critical."""
        return _RANKS[self]


_RANKS: Final = {severity: rank for rank, severity in enumerate(Severity)}


class State(StrEnum):
    """Where an alert stands: `inactive` ends a pending one that never fired, `resolved` ends one that fired."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RECOVERING = "recovering"
    RESOLVED = "resolved"


ACTIVE: Final = frozenset({State.FIRING, State.RECOVERING})
OPEN: Final = ACTIVE | {State.PENDING}


class Reason(StrEnum):
    """Why an alert changed."""

    VALUE = "value"
    """The value crossed a threshold, or came back."""
    NO_DATA = "no_data"
    """The rule's expression has no result at all any more."""
    MISSING_SERIES = "missing_series"
    """Other series of the expression are there, this one is not."""
    MANUAL = "manual"
    """A person did it."""
    EXPIRED = "expired"
    """From outside: its end has come, or nobody repeated it in time."""
    RESTART = "restart"
    """The portal was away; unobserved time was taken out of the wait."""
    RULE = "rule"
    """Its rule was disabled, changed or removed."""


LOOKS: Final = frozenset({Reason.VALUE, Reason.NO_DATA, Reason.MISSING_SERIES})
"""Reasons that an evaluation can find."""
