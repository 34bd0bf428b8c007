"""Steps: what an escalation policy is made of, one file each. A step is pure: it says what should happen, and why.

Each step is asked with the moment it is reached and answers with an `Outcome`; `oncall.escalation` strings them
together, `oncall.services` does what they say. From the `Config` form come the admin's fields and the API's validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from apps.core.documents import document
from apps.core.registry import Plugin, Registry


@dataclass(frozen=True)
class Moment:
    """Where an escalation stands when a step is reached: how often it has gone round, how bad it is, and when."""

    rounds: int
    severity: str
    at: datetime


@dataclass(frozen=True)
class Outcome:
    """What a step wants: contacts told, a pause before the next step, a new round from the first one, or that so many
    of the steps behind it are left out (`skip`).

    `contacts` are ids; `route_contacts`, `fallback` and `schedule` (by name) stand for whoever that is when the step is
    reached.
    """

    reason: str
    contacts: tuple[int, ...] = ()
    route_contacts: bool = False
    fallback: bool = False
    schedule: str = ""
    pause: timedelta | None = None
    restart: bool = False
    skip: int = 0


class Step(Plugin):
    """One kind of step. `settings` is what its `Config` form cleaned, as JSON."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def run(self, moment: Moment) -> Outcome:
        """Return what should happen now; no clock, no tables."""
        raise NotImplementedError

    @classmethod
    def describe(cls, settings: Mapping[str, Any], names: Mapping[int, str]) -> str:  # noqa: ARG003
        """Return the step in a few words; `names` are those of the contacts by id."""
        return cls.label


steps: Registry[Step] = Registry("apps.oncall.steps", Step)


def kinds() -> list[tuple[str, str]]:
    """Return (kind, label) of every step: the choices of `Step.kind`; a new step writes no migration."""
    return steps.kinds()


class ContactIds(forms.TypedMultipleChoiceField):
    """Contacts to choose from. The value is a list of ids; the choices are put in by whoever shows the form."""

    def __init__(self, **options: Any) -> None:
        super().__init__(coerce=int, empty_value=[], **options)


class ScheduleName(forms.ChoiceField):
    """A schedule to choose from, by its name; the choices are put in by whoever shows the form."""


def clean(
    kind: str, data: Mapping[str, Any], contacts: Sequence[tuple[int, str]], schedules: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the step's settings as JSON. Contacts may be given by id or name; `ValidationError` names the fields."""
    by_name = {name: ident for ident, name in contacts}
    values = {
        name: [by_name.get(entry, entry) if isinstance(entry, str) else entry for entry in value]
        if isinstance(value, list)
        else value
        for name, value in data.items()
    }
    form = steps.get(kind).Config(values)
    offer(form, contacts, schedules)
    unknown = sorted(set(data) - set(form.fields))
    if unknown:
        has = ", ".join(form.fields) or "none"
        raise ValidationError({unknown[0]: f"A step of kind {kind} has no such setting; it has {has}."})
    try:
        is_valid = form.is_valid()
    except OverflowError:  # a whole number of JSON that no float can hold
        raise ValidationError("A number is too large.") from None
    if not is_valid:
        raise ValidationError(form.errors.as_data())
    return dict(form.cleaned_data)


def offer(form: forms.Form, contacts: Sequence[tuple[int, str]], schedules: Sequence[str] = ()) -> None:
    """Put the contacts and the schedules that exist into the form's choices."""
    for field in form.fields.values():
        if isinstance(field, ContactIds):
            field.choices = list(contacts)
        if isinstance(field, ScheduleName):
            field.choices = [(name, name) for name in schedules]


@document("steps.md", "Steps of an escalation policy")
def describe() -> str:
    """Return the table of steps and their settings for the docs."""
    parts = []
    for kind, plugin in steps.all().items():
        about = (plugin.__doc__ or "").strip().splitlines()[0]
        rows = [f"## {plugin.label} (`{kind}`)", "", about, "", "| setting | |", "|---|---|"]
        rows += [f"| `{name}` | {field.help_text} |" for name, field in plugin.Config().fields.items()]
        parts.append("\n".join(rows))
    return "\n\n".join(parts)
