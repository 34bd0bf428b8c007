"""Maintenance windows and inhibition rules are made, changed and taken away."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.core.exceptions import ValidationError

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.permissions import Principal, Right
from apps.alerting import matching
from apps.alerting.models import Inhibition, MaintenanceWindow
from apps.alerting.services.silences import changed_quiet, check_times, checked_matchers
from apps.core.text import storable

WINDOW_FIELDS: Final = (
    "name", "description", "service", "matchers", "starts_at", "ends_at", "recurrence", "duration", "time_zone",
    "excluded_from_sla",
)  # fmt: skip
INHIBITION_FIELDS: Final = ("name", "source_matchers", "target_matchers", "equal", "enabled")
MOST_EQUAL: Final = 20


@verb("alerting.save_window", right=Right.EDIT)
def save_window(
    *, by: Principal, values: Mapping[str, Any], window: MaintenanceWindow | None = None, now: datetime
) -> MaintenanceWindow:
    """Make or change a maintenance window; `values` by field, what is left out stays. ValidationError by field."""
    _refuse_unknown(values, WINDOW_FIELDS)
    before = None if window is None or window.pk is None else state_of(MaintenanceWindow.objects.get(pk=window.pk))
    row = window or MaintenanceWindow()
    for name, value in values.items():
        setattr(row, name, value)
    check_window(row, now)
    row.created_by = row.created_by or by.name[:200]
    row.created_at, row.updated_at = row.created_at or now, now
    row.full_clean(validate_constraints=False)
    row.save()
    _record("alerting.save_window", by, row, before)
    changed_quiet(f"maintenance {row.name}", now)
    return row


def check_window(row: MaintenanceWindow, now: datetime) -> None:
    """Put the window's fields into their form; ValidationError by field where it could not be used."""
    row.name, row.description = storable(row.name or "").strip(), storable(row.description or "")
    row.recurrence, row.time_zone = (row.recurrence or "").strip(), (row.time_zone or "").strip() or "UTC"
    if row.matchers or row.service is None:
        row.matchers = matching.to_json(checked_matchers(row.matchers or []))
    if row.starts_at is None or row.ends_at is None:
        raise ValidationError({"ends_at": "From when until when?"})
    check_times(row, now)


@verb("alerting.delete_window", right=Right.EDIT)
def delete_window(*, by: Principal, window: MaintenanceWindow, now: datetime) -> None:
    """Delete a maintenance window; what it muted and still goes on is told."""
    _delete("alerting.delete_window", by, window, f"maintenance {window.name}", now)


@verb("alerting.save_inhibition", right=Right.EDIT)
def save_inhibition(
    *, by: Principal, values: Mapping[str, Any], inhibition: Inhibition | None = None, now: datetime
) -> Inhibition:
    """Make or change an inhibition rule; `values` by field, what is left out stays. ValidationError by field."""
    _refuse_unknown(values, INHIBITION_FIELDS)
    before = None if inhibition is None or inhibition.pk is None else state_of(Inhibition.objects.get(pk=inhibition.pk))
    row = inhibition or Inhibition()
    for name, value in values.items():
        setattr(row, name, value)
    check_inhibition(row)
    row.full_clean(validate_constraints=False)
    row.save()
    _record("alerting.save_inhibition", by, row, before)
    changed_quiet(f"inhibition {row.name}", now)
    return row


def check_inhibition(row: Inhibition) -> None:
    """Put the rule's matchers into their form; ValidationError by field where it could not be used."""
    row.name = storable(row.name).strip()
    row.source_matchers = matching.to_json(checked_matchers(row.source_matchers or [], "source_matchers"))
    row.target_matchers = matching.to_json(checked_matchers(row.target_matchers or [], "target_matchers"))
    equal = row.equal
    if not isinstance(equal, list) or not all(isinstance(name, str) and name.strip() for name in equal):
        raise ValidationError({"equal": 'Write a list of label names, for example ["instance"].'})
    row.equal = sorted({name.strip() for name in equal})
    if len(row.equal) > MOST_EQUAL:
        raise ValidationError({"equal": f"At most {MOST_EQUAL} labels."})


@verb("alerting.delete_inhibition", right=Right.EDIT)
def delete_inhibition(*, by: Principal, inhibition: Inhibition, now: datetime) -> None:
    """Delete an inhibition rule; what it muted and still goes on is told."""
    _delete("alerting.delete_inhibition", by, inhibition, f"inhibition {inhibition.name}", now)


def _refuse_unknown(values: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := sorted(set(values) - set(known)):
        raise ValidationError({unknown[0]: f"There is no such field; there are {', '.join(known)}."})


def _record(name: str, by: Principal, row: MaintenanceWindow | Inhibition, before: dict[str, Any] | None) -> None:
    after = state_of(row)
    if before is not None:
        before, after = changes(before, after)
    record(by=by, verb=name, target=row, before=before, after=after)


def _delete(name: str, by: Principal, row: MaintenanceWindow | Inhibition, what: str, now: datetime) -> None:
    target = (row._meta.label_lower, str(row.pk), str(row))
    before = state_of(row)
    row.delete()
    record(by=by, verb=name, target=target, before=before)
    changed_quiet(what, now)
