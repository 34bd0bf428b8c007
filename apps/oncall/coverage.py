"""Looks a week ahead at every schedule that a policy uses, and tells its owner or the fall-back contact what is wrong.

One message for each schedule: when something is new or has grown, and when all of it is over. What stays is not said
anew each day; the on-call page, health and the list of what is left to do show it for as long as it lasts.
"""

from collections.abc import Iterable
from datetime import datetime

from django.conf import settings
from django.db import transaction

from apps.accounts.hours import parse_zone
from apps.accounts.models import User
from apps.core import live
from apps.notifications import outbox
from apps.notifications.message import Message
from apps.notifications.models import Contact
from apps.oncall import schedules
from apps.oncall.loops import enter_in_audit
from apps.oncall.models import CoverageFinding, ImportedCalendar, Schedule
from apps.oncall.shortfalls import SEEN, Outlook, Shortfall, is_news, listed, shortfalls


def look(*, now: datetime) -> None:
    """Write down what is wrong in the days to come, tell what is news, and forget what is over."""
    used = [schedule for schedule in Schedule.objects.select_related("owner", "holidays") if schedule.policies]
    found = find(used, now=now)
    rows = {(row.schedule_id, row.kind, row.subject): row for row in CoverageFinding.objects.all()}
    by_schedule: dict[int, list[Shortfall]] = {schedule.pk: [] for schedule in used}
    for shortfall in found.values():
        by_schedule[shortfall.schedule].append(shortfall)
    for schedule in used:
        own = {key: row for key, row in rows.items() if key[0] == schedule.pk}
        with transaction.atomic():
            _settle(schedule, by_schedule[schedule.pk], own, now)
    gone = CoverageFinding.objects.exclude(schedule__in=used)  # no policy uses them any more
    if gone.delete()[0]:
        live.publish("schedules")


def find(used: Iterable[Schedule], *, now: datetime) -> dict[tuple[int, str, str], Shortfall]:
    """Return what is wrong with these schedules."""
    rows = list(used)
    plans = schedules.plans(rows, now, now + SEEN)
    people = {person for plan in plans.values() for shift in plan.shifts for person in [shift.person]}
    people |= {person for plan in plans.values() for clash in plan.clashes for person in clash.people}
    outlooks = {
        row.pk: Outlook(
            row.name, parse_zone(row.zone), (plan := plans[row.pk]).shifts, plan.empty, plan.clashes, plan.away
        )
        for row in rows
    }
    return shortfalls(outlooks, dict(User.objects.filter(pk__in=people).values_list("pk", "username")), now=now)


def _settle(
    schedule: Schedule, found: list[Shortfall], rows: dict[tuple[int, str, str], CoverageFinding], now: datetime
) -> None:
    """Bring the schedule's rows in line with what was found, and tell what is news of it."""
    was_told = any(row.told_at for row in rows.values())
    stays, news, is_changed = [], [], False
    for shortfall in found:
        row = rows.pop((schedule.pk, shortfall.kind, shortfall.subject), None)
        is_new = is_news(shortfall, *((row.told_hours, row.starts_at) if row else (None, None)), now=now)
        if row is None:
            if not is_new:
                continue  # too far ahead
            row = CoverageFinding(
                schedule=schedule, kind=shortfall.kind, subject=shortfall.subject, found_at=now
            )  # fmt: skip
        is_changed |= row.text != shortfall.text
        row.text, row.starts_at, row.hours = shortfall.text, shortfall.starts_at, shortfall.hours
        if is_new:
            row.told_hours, row.told_at = shortfall.hours, now
            news.append(row)
        row.save()
        stays.append(row)
    if rows:
        CoverageFinding.objects.filter(pk__in=[row.pk for row in rows.values()]).delete()
    if rows or is_changed:
        live.publish("schedules", schedule.pk)
    if news:
        _tell(schedule, stays, now)
    elif was_told and not stays:
        _tell(schedule, [], now)


def _tell(schedule: Schedule, rows: list[CoverageFinding], now: datetime) -> None:
    rows = sorted(rows, key=lambda row: row.starts_at)
    count = (
        "all is covered" if not rows else "something to see to" if len(rows) == 1 else f"{len(rows)} things to see to"
    )
    message = Message(
        title=f"On call by {schedule.name}: {count}",
        body=listed(row.text for row in rows) or "Whatever was wrong in the days to come is not any more.",
        severity="warning",
        status="firing" if rows else "resolved",
        url=f"{settings.PORTAL_URL}/monitoring/on-call/?schedule={schedule.pk}",
        group_key=f"coverage:{schedule.pk}",
        reason="a schedule leaves something open" if rows else "nothing is open any more",
    )
    contacts = list(Contact.objects.working().filter(owner=schedule.owner)) if schedule.owner else []
    for contact in contacts or Contact.objects.enabled().filter(is_fallback=True):
        delivery = outbox.enqueue(contact=contact, message=message, purpose=message.status, now=now)
        told = {"contact": contact.name, "purpose": delivery.purpose, "reason": message.reason}
        enter_in_audit("oncall.notify", delivery, told)


def problems() -> list[str]:
    """Return, in sentences, what somebody should see to: findings, and calendars that cannot be read."""
    found = [f"{row.schedule}: {row.text}" for row in CoverageFinding.objects.select_related("schedule")]
    broken = ImportedCalendar.objects.exclude(problem="").filter(layers__isnull=False).distinct()
    lines = broken.values_list("name", "problem", "fetched_at")
    return found + [
        f"The calendar {name} cannot be read: {problem}"
        + (f" What was read at {at:%Y-%m-%d %H:%M} UTC holds." if at else "")
        for name, problem, at in lines
    ]
