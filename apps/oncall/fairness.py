"""Who carries how much: hours on call, nights, weekends and holidays, and pages received, for each person."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from apps.accounts.models import User
from apps.oncall import schedules
from apps.oncall.models import Notice, Schedule
from apps.oncall.rotation import Load


@dataclass(frozen=True, slots=True)
class Share:
    """What one person carries; hours are of all the schedules together, each by its own clock and holidays."""

    person: int
    name: str
    load: Load
    pages: int

    def as_dict(self) -> dict[str, str | float | int]:
        """Return it for JSON and CSV."""
        load = self.load
        hours = {"hours": load.hours, "nights": load.nights, "weekends": load.weekends, "holidays": load.holidays}
        return {"person": self.name, **{name: round(value, 2) for name, value in hours.items()}, "pages": self.pages}


def report(chosen: Iterable[Schedule], *, start: datetime, end: datetime) -> list[Share]:
    """Return each person's share of [start, end), the heaviest first; pages are messages to their own contacts."""
    loads: dict[int, Load] = {}
    for plan in schedules.plans(chosen, start, end).values():
        for person, load in plan.loads.items():
            loads[person] = loads.get(person, Load()).plus(load)
    pages = _pages(start, end)
    people = [*loads, *(person for person in pages if person not in loads)]
    names = dict(User.objects.filter(pk__in=people).values_list("pk", "username"))
    shares = [
        Share(person, names.get(person, f"somebody who is gone (#{person})"), loads.get(person, Load()), pages[person])
        for person in people
    ]
    return sorted(shares, key=lambda share: (-share.load.hours, -share.pages, share.name))


def _pages(start: datetime, end: datetime) -> Counter[int]:
    """Return how many messages that something fires went to each person; one that told of many alerts is one."""
    told = Notice.objects.filter(kind="firing", at__gte=start, at__lt=end, contact__owner__isnull=False)
    rows: Sequence[tuple[int, int]] = list(told.order_by().values_list("contact__owner", "delivery").distinct())
    return Counter(person for person, _ in rows)
