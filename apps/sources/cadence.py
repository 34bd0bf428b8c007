"""When a heartbeat is expected and when it counts as missed. Pure: no clock, no tables.

Cron expressions follow Debian's cron, daylight saving included: https://github.com/cuu508/cronsim
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


@dataclass(frozen=True)
class Plan:
    """How often a job calls (by `cron` in `zone` where there is one, else every `period`), and how late it may."""

    period: timedelta
    grace: timedelta
    cron: str = ""
    zone: str = "UTC"

    def next_after(self, moment: datetime) -> datetime:
        """Return when the next call is expected after one at that moment."""
        if not self.cron:
            return moment + self.period
        return next(CronSim(self.cron, moment.astimezone(ZoneInfo(self.zone)))).astimezone(UTC)

    def expected(self, *, last: datetime, running_since: datetime | None) -> tuple[datetime, datetime]:
        """Return (when it is expected, when it counts as missed) after its last call; one that runs has to end."""
        at = running_since if running_since is not None else self.next_after(last)
        return at, at + self.grace


def check_cron(text: str) -> None:
    """Raise ValueError, as a sentence, for an expression that is none or never comes."""
    try:
        next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError:
        raise ValueError("Give five fields, such as 0 3 * * * for every day at three.") from None
    except StopIteration:
        raise ValueError("This time never comes.") from None
