"""Schedules: the verbs that write them, and who is on call by them; `rotation` decides, this reads and writes rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.core.exceptions import ValidationError

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.hours import parse_zone
from apps.accounts.models import User
from apps.accounts.rights import Principal, Right
from apps.oncall import rotation
from apps.oncall.models import Layer, Override, Schedule

LAYER_FIELDS: Final = (
    "name", "people", "rotation", "every", "hand_over", "weekday", "zone", "hours", "starts_at", "ends_at",
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
    schedule: Schedule | None = None,
) -> Schedule:
    """Make or change a schedule; `layers` (by LAYER_FIELDS, the last one wins) are replaced as a whole, None: kept."""
    before = _state(schedule) if schedule is not None else None
    schedule = schedule or Schedule()
    schedule.name, schedule.zone, schedule.description = name.strip(), zone, description
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
    return schedule


@verb("oncall.delete_schedule", right=Right.EDIT)
def delete_schedule(*, by: Principal, schedule: Schedule) -> None:
    """Delete a schedule that no policy names."""
    if users := schedule.policies:
        raise ValidationError(f"{schedule.name} is used by {', '.join(users)}: change those policies first.")
    before, label = _state(schedule), (schedule._meta.label_lower, str(schedule.pk), str(schedule))
    schedule.delete()
    record(by=by, verb="oncall.delete_schedule", target=label, before=before)


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
    return made


@verb("oncall.delete_override", right=Right.OPERATE)
def delete_override(*, by: Principal, override: Override) -> None:
    """Take an override back; the layers hold again."""
    before, label = state_of(override), (override._meta.label_lower, str(override.pk), str(override))
    override.delete()
    record(by=by, verb="oncall.delete_override", target=label, before=before)


def _state(schedule: Schedule) -> dict[str, Any]:
    layers = [{name: state_of(layer)[name] for name in LAYER_FIELDS} for layer in schedule.layers.order_by("position")]
    return {**state_of(schedule), "layers": layers}


# --- Who is on call --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Plan:
    """A schedule in a span: its shifts, where nobody is on call, where overrides disagree, and each person's load."""

    shifts: list[rotation.Shift]
    gaps: list[rotation.Gap]
    clashes: list[rotation.Clash]
    loads: dict[int, rotation.Load]


def plan(schedule: Schedule, start: datetime, end: datetime) -> Plan:
    """Return what the schedule says of [start, end); fairness is counted by the schedule's own zone."""
    layers, overrides = _parts(schedule, start, end)
    found = rotation.shifts(layers, overrides, start, end)
    return Plan(
        found,
        rotation.gaps(layers, overrides, start, end),
        rotation.clashes(overrides, start, end),
        rotation.fairness(found, parse_zone(schedule.zone)),
    )


def on_call(schedule: Schedule, at: datetime) -> rotation.Shift | None:
    """Return who is on call at that moment, and why; None: nobody."""
    layers, overrides = _parts(schedule, at, at)
    return rotation.on_call(layers, overrides, at)


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


def _parts(schedule: Schedule, start: datetime, end: datetime) -> tuple[list[rotation.Layer], list[rotation.Override]]:
    layers = [layer.turns for layer in schedule.layers.select_related("schedule").order_by("position", "id")]
    near = schedule.overrides.filter(starts_at__lte=end, ends_at__gt=start).order_by("id")
    return layers, [row.span for row in near]
