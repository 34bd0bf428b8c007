"""Schedules: the verbs that write them, and who is on call by them; `rotation` decides, this reads and writes rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.hours import Hours, parse_zone
from apps.accounts.models import Calendar, User
from apps.accounts.rights import Principal, Right
from apps.core import live
from apps.notifications.models import Contact
from apps.oncall import rotation
from apps.oncall.models import Layer, Override, Schedule

LAYER_FIELDS: Final = (
    "name", "people", "rotation", "every", "hand_over", "weekday", "zone", "hours", "calendar", "starts_at", "ends_at",
)  # fmt: skip


# --- Verbs -----------------------------------------------------------------------------------------------------------
@verb("oncall.save_schedule", right=Right.EDIT)
def save_schedule(
    *,
    by: Principal,
    name: str,
    layers: Sequence[Mapping[str, Any]] | None = None,
    zone: str = "UTC",
    description: str = "",
    owner: User | None = None,
    holidays: Calendar | None = None,
    schedule: Schedule | None = None,
) -> Schedule:
    """Make or change a schedule; `layers` (by LAYER_FIELDS, the last one wins) are replaced as a whole, None: kept."""
    before = _state(schedule) if schedule is not None else None
    schedule = schedule or Schedule()
    schedule.name, schedule.zone, schedule.description = name.strip(), zone, description
    schedule.owner, schedule.holidays = owner, holidays
    schedule.full_clean(validate_constraints=False)
    schedule.save()
    if layers is not None:
        rows = []
        for number, values in enumerate(layers, start=1):
            row = Layer(schedule=schedule, position=number, **values)
            try:
                row.full_clean(validate_constraints=False)
            except ValidationError as error:
                words = " ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())
                raise ValidationError({"layers": f"Layer {number}: {words}"}) from None
            rows.append(row)
        schedule.layers.all().delete()
        Layer.objects.bulk_create(rows)
    after = _state(schedule)
    if before is not None:
        before, after = changes(before, after)
    if before is None or before or after:
        record(by=by, verb="oncall.save_schedule", target=schedule, before=before, after=after)
    live.publish("schedules", schedule.pk)
    return schedule


@verb("oncall.delete_schedule", right=Right.EDIT)
def delete_schedule(*, by: Principal, schedule: Schedule) -> None:
    """Delete a schedule that no policy names."""
    if sentence := refusal(schedule):
        raise ValidationError(sentence)
    before, label = _state(schedule), (schedule._meta.label_lower, str(schedule.pk), str(schedule))
    schedule.delete()
    record(by=by, verb="oncall.delete_schedule", target=label, before=before)
    live.publish("schedules")


def refusal(schedule: Schedule) -> str:
    """Return why a schedule cannot be deleted, or nothing: policies name it."""
    users = schedule.policies
    return f"{schedule.name} is used by {', '.join(users)}: change those policies first." if users else ""


@verb("oncall.override", right=Right.OPERATE)
def override(
    *, by: Principal, schedule: Schedule, person: User, starts_at: datetime, ends_at: datetime, reason: str = ""
) -> Override:
    """Put somebody on call for a while, whatever the layers say."""
    made = Override(
        schedule=schedule, person=person, starts_at=starts_at, ends_at=ends_at, by=by.name, reason=reason
    )  # fmt: skip
    made.full_clean(validate_constraints=False)
    made.save()
    record(by=by, verb="oncall.override", target=made, after=state_of(made))
    live.publish("schedules", schedule.pk)
    return made


@dataclass(frozen=True, slots=True)
class Turn:
    """Somebody's time on call by a schedule, as a swap names it."""

    schedule: Schedule
    person: User
    starts_at: datetime
    ends_at: datetime


@verb("oncall.swap", right=Right.OPERATE)
def swap(*, by: Principal, mine: Turn, theirs: Turn, reason: str = "") -> tuple[Override, Override]:
    """Have two people take each other's turn: two overrides, both or none.

    A turn that is not (any more) that person's as a whole is a ValidationError: the plan has changed meanwhile.
    """
    if mine.person == theirs.person:
        raise ValidationError({"theirs": "Both turns are the same person's: there is nothing to swap."})
    for field, turn in (("mine", mine), ("theirs", theirs)):
        found = plan(turn.schedule, turn.starts_at, turn.ends_at)
        is_theirs = {shift.person for shift in found.shifts} == {turn.person.pk}
        if not is_theirs or sum((s.end - s.start for s in found.shifts), timedelta()) != turn.ends_at - turn.starts_at:
            words = f"{turn.person} is not on call by {turn.schedule} for that whole time (any more): look again."
            raise ValidationError({field: words})
    made = []
    for turn, person in ((mine, theirs.person), (theirs, mine.person)):
        row = Override(
            schedule=turn.schedule, person=person, starts_at=turn.starts_at, ends_at=turn.ends_at, by=by.name,
            reason=reason or f"swap of {mine.person} and {theirs.person}",
        )  # fmt: skip
        row.full_clean(validate_constraints=False)
        row.save()
        record(by=by, verb="oncall.swap", target=row, after=state_of(row))
        live.publish("schedules", turn.schedule.pk)
        made.append(row)
    return made[0], made[1]


@verb("oncall.delete_override", right=Right.OPERATE)
def delete_override(*, by: Principal, override: Override) -> None:
    """Take an override back; the layers hold again."""
    before, label = state_of(override), (override._meta.label_lower, str(override.pk), str(override))
    override.delete()
    record(by=by, verb="oncall.delete_override", target=label, before=before)
    live.publish("schedules")


def _state(schedule: Schedule) -> dict[str, Any]:
    layers = [{name: state_of(layer)[name] for name in LAYER_FIELDS} for layer in schedule.layers.order_by("position")]
    return {**state_of(schedule), "layers": layers}


# --- Who is on call --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Plan:
    """A schedule in a span: its shifts, when nobody is told, where overrides disagree, and each person's load.

    `gaps` are times in which nobody is on call (`empty`), and those in which somebody is who cannot be told (`away`
    says why, by id).
    """

    shifts: list[rotation.Shift]
    gaps: list[rotation.Gap]
    clashes: list[rotation.Clash]
    empty: list[rotation.Gap]
    away: dict[int, str]
    layers: list[rotation.Source]
    zone: ZoneInfo
    holidays: Hours | None

    @cached_property
    def loads(self) -> dict[int, rotation.Load]:
        """What each person carries by the schedule's own clock: half the cost of a plan, so for who asks."""
        return rotation.fairness(self.shifts, self.zone, *([self.holidays.is_holiday] if self.holidays else []))


def plan(schedule: Schedule, start: datetime, end: datetime) -> Plan:
    """Return what the schedule says of [start, end); fairness is counted by the schedule's own zone."""
    return plans([schedule], start, end)[schedule.pk]


def plans(schedules: Iterable[Schedule], start: datetime, end: datetime) -> dict[int, Plan]:
    """Return what each of the schedules (by key) says of [start, end), in a fixed number of queries."""
    rows = list(schedules)
    parts = _parts(rows, start, end)
    found = {row.pk: rotation.shifts(*parts[row.pk], start, end) for row in rows}
    away = unreachable({shift.person for each in found.values() for shift in each})
    answer = {}
    for row in rows:
        layers, overrides = parts[row.pk]
        empty = rotation.between(layers, found[row.pk], start, end)
        gaps = empty + rotation.unreached(found[row.pk], away)
        answer[row.pk] = Plan(
            found[row.pk],
            sorted(gaps, key=lambda gap: gap.start),
            rotation.clashes(overrides, start, end),
            empty,
            away,
            layers,
            parse_zone(row.zone),
            row.holidays.times if row.holidays is not None else None,
        )
    return answer


@dataclass(frozen=True, slots=True)
class Standing:
    """Who is on call by a schedule now, until when, and who comes then; `problem`: why nobody is told, if so.

    `until` and `following` (None: nobody) are looked for within HORIZON; a shift that lasts beyond has neither.
    """

    schedule: Schedule
    shift: rotation.Shift | None
    until: datetime | None
    following: rotation.Shift | None
    problem: str


HORIZON: Final = timedelta(days=62)
NEAR: Final = timedelta(days=8)
"""Most shifts end within it, and an eighth of the plan costs an eighth: pages ask this every few seconds."""


def standings(schedules: Iterable[Schedule], now: datetime) -> list[Standing]:
    """Return how each schedule stands at that moment, in a fixed number of queries."""
    rows = list(schedules)
    found = {one.schedule.pk: one for one in _standings(rows, now, now + NEAR)}
    if lasting := [row for row in rows if found[row.pk].until is None]:
        found |= {one.schedule.pk: one for one in _standings(lasting, now, now + HORIZON)}
    return [found[row.pk] for row in rows]


def _standings(rows: list[Schedule], now: datetime, ends: datetime) -> list[Standing]:
    found = []
    known = plans(rows, now, ends)
    for schedule in rows:
        plan = known[schedule.pk]
        shifts = plan.shifts
        current = shifts[0] if shifts and shifts[0].start == now else None
        until, place = now, 0
        if current is not None:
            while place < len(shifts) and shifts[place].start == until and shifts[place].person == current.person:
                until, place = shifts[place].end, place + 1
        elif shifts:
            until = shifts[0].start
        following = shifts[place] if place < len(shifts) and shifts[place].start == until else None
        why = plan.away.get(current.person, "") if current else plan.empty[0].reason
        is_known = now < until < ends
        found.append(Standing(schedule, current, until if is_known else None, following if is_known else None, why))
    return found


def unreachable(people: Iterable[int]) -> dict[int, str]:
    """Return, of these people (ids), those who cannot be told anything, and why."""
    wanted = set(people)
    known = User.objects.in_bulk(wanted)
    problems: dict[int, list[str]] = {}
    for owner, problem in Contact.objects.enabled().filter(owner__in=wanted).values_list("owner", "problem"):
        problems.setdefault(owner or 0, []).append(problem)
    found = {}
    for ident in wanted:
        person = known.get(ident)
        if person is None:
            found[ident] = "who is on call is gone"
        elif not person.is_active:
            found[ident] = f"{person} is on call and switched off"
        elif ident not in problems:
            found[ident] = f"{person} is on call and has no contact that is on"
        elif all(problems[ident]):
            found[ident] = f"{person} is on call and no contact of theirs works: {problems[ident][0]}"
    return found


def on_call(schedule: Schedule, at: datetime) -> rotation.Shift | None:
    """Return who is on call at that moment, and why; None: nobody."""
    return rotation.on_call(*_parts([schedule], at, at)[schedule.pk], at)


def person_on_call(name: str, at: datetime) -> tuple[int | None, str]:
    """Return the id of whoever is on call by the schedule of that name, and in words who that is or why nobody."""
    schedule = Schedule.objects.filter(name=name).first()
    if schedule is None:
        return None, f"the schedule {name} is gone"
    shift = on_call(schedule, at)
    if shift is None:
        return None, f"nobody is on call by {name}"
    person = User.objects.filter(pk=shift.person, is_active=True).first()
    if person is None:
        return None, f"who is on call by {name} is gone or switched off ({shift.reason})"
    return person.pk, f"{person} is on call by {name} ({shift.reason})"


Parts = tuple[list[rotation.Source], list[rotation.Override]]


def _parts(schedules: Sequence[Schedule], start: datetime, end: datetime) -> dict[int, Parts]:
    """Return each schedule's layers in order and the overrides that touch the span; nothing else of a calendar."""
    found: dict[int, Parts] = {row.pk: ([], []) for row in schedules}
    layers = Layer.objects.filter(schedule__in=found).select_related("schedule", "calendar")
    for layer in layers.defer("calendar__content", "calendar__secrets").order_by("position", "id"):
        found[layer.schedule_id][0].append(layer.turns)
    for row in Override.objects.filter(schedule__in=found, starts_at__lte=end, ends_at__gt=start).order_by("id"):
        found[row.schedule_id][1].append(row.span)
    return found
