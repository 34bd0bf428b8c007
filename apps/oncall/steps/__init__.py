"""Steps: what an escalation policy is made of, one file each. A step is pure: it says what should happen, and why.

Each step is asked with the moment it is reached and answers with an `Outcome`; `oncall.escalation` strings them
together, `oncall.services` does what they say. From the `Config` form come the admin's fields and the API's validation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError

from apps.accounts.hours import Hours
from apps.core.documents import document
from apps.core.registry import Plugin, Registry


@dataclass(frozen=True)
class Moment:
    """Where an escalation stands when a step is reached: how often it has gone round, how bad it is, and when.

    `began` says when alerts of its incident, and those that are told with them, began to fire (as far back as the plan
    asks); `calendars` are those that the plan names and that exist. `was_reached`: whether the step before that told
    somebody reached anybody: somebody was on call, and of whoever was told one has a contact that works.
    """

    rounds: int
    severity: str
    at: datetime
    began: tuple[datetime, ...] = ()
    calendars: Mapping[str, Hours] = field(default_factory=dict)
    was_reached: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a step wants: somebody told, a pause before the next step, a new round from the first one, or that so many
    of the steps behind it are left out (`skip`), or that another policy's steps are taken instead (`hand_over`).

    `contacts` and `people` are ids, `team` is one; it, `route_contacts`, `fallback` and `schedule` (by name) stand for
    whoever that is when the step is reached. `in_turn`: one of the people and the team's members, the next in turn.
    `important`: people are told as they want to be of important messages. `call` is the id of a contact that is called
    and told nothing: what it does is its own business.
    """

    reason: str
    contacts: tuple[int, ...] = ()
    people: tuple[int, ...] = ()
    team: int | None = None
    schedule: str = ""
    route_contacts: bool = False
    fallback: bool = False
    in_turn: bool = False
    important: bool = False
    pause: timedelta | None = None
    restart: bool = False
    skip: int = 0
    call: int | None = None
    hand_over: str = ""

    @property
    def names_people(self) -> bool:
        """Whether it asks for people, who are told by their own contacts."""
        return bool(self.people or self.team is not None or self.schedule)

    @property
    def tells(self) -> bool:
        """Whether it asks for anybody to be told."""
        return bool(self.contacts or self.names_people or self.route_contacts or self.fallback)


@dataclass(frozen=True)
class Known:
    """What there is for a step to name: contacts (also those that can be called), people and teams as names by id;
    schedules, calendars and policies by name.
    """

    contacts: Mapping[int, str] = field(default_factory=dict)
    people: Mapping[int, str] = field(default_factory=dict)
    teams: Mapping[int, str] = field(default_factory=dict)
    schedules: Mapping[str, str] = field(default_factory=dict)
    webhooks: Mapping[int, str] = field(default_factory=dict)
    calendars: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)

    def of(self, what: str) -> Mapping[Any, str]:
        """Return the names of what a field `offers`, by the value that is stored."""
        found: Mapping[Any, str] = getattr(self, what)
        return found


class Step(Plugin):
    """One kind of step. `settings` is what its `Config` form cleaned, as JSON."""

    looks_back: ClassVar[bool] = False
    """Whether it asks what came of the step before it (`Moment.was_reached`)."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def run(self, moment: Moment) -> Outcome:
        """Return what should happen now; no clock, no tables."""
        raise NotImplementedError

    @property
    def looks_at(self) -> timedelta:
        """How far back it wants to know when alerts began (`Moment.began`)."""
        return timedelta(0)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:  # noqa: ARG003
        """Return the step in a few words; `known` has the names of what it names."""
        return cls.label


steps: Registry[Step] = Registry("apps.oncall.steps", Step)


def kinds() -> list[tuple[str, str]]:
    """Return (kind, label) of every step: the choices of `Step.kind`; a new step writes no migration."""
    return steps.kinds()


class ContactIds(forms.TypedMultipleChoiceField):
    """Contacts to choose from. The value is a list of ids; the choices are put in by whoever shows the form."""

    offers: ClassVar[str] = "contacts"

    def __init__(self, **options: Any) -> None:
        super().__init__(coerce=int, empty_value=[], **options)


class PersonIds(ContactIds):
    """People to choose from, in order; likewise."""

    offers = "people"


class TeamId(forms.TypedChoiceField):
    """A team to choose from; likewise. The value is its id, or None."""

    offers: ClassVar[str] = "teams"

    def __init__(self, **options: Any) -> None:
        super().__init__(coerce=int, empty_value=None, **options)


class ScheduleName(forms.ChoiceField):
    """A schedule to choose from, by its name; the choices are put in by whoever shows the form."""

    offers: ClassVar[str] = "schedules"


class WebhookId(TeamId):
    """A webhook contact to choose from; likewise."""

    offers = "webhooks"


class CalendarName(ScheduleName):
    """A calendar to choose from, by its name; likewise."""

    offers = "calendars"


class PolicyName(ScheduleName):
    """A policy to choose from, by its name; likewise."""

    offers = "policies"


def clean(kind: str, data: Mapping[str, Any], known: Known) -> dict[str, Any]:
    """Return the step's settings as JSON. What has an id may be given by it or by name.

    `ValidationError` names the fields.
    """
    form = steps.get(kind).Config()
    if unknown := sorted(set(data) - set(form.fields)):
        has = ", ".join(form.fields) or "none"
        raise ValidationError({unknown[0]: f"A step of kind {kind} has no such setting; it has {has}."})
    values = {name: _by_id(value, form.fields[name], known) for name, value in data.items()}
    form = steps.get(kind).Config(values)
    offer(form, known)
    try:
        is_valid = form.is_valid()
    except OverflowError:  # a whole number of JSON that no float can hold
        raise ValidationError("A number is too large.") from None
    if not is_valid:
        raise ValidationError(form.errors.as_data())
    return dict(form.cleaned_data)


def _by_id(value: Any, field: forms.Field, known: Known) -> Any:
    if not (offers := getattr(field, "offers", "")):
        return value
    by_name = {name: ident for ident, name in known.of(offers).items()}
    if isinstance(value, list):
        return [by_name.get(entry, entry) if isinstance(entry, str) else entry for entry in value]
    return by_name.get(value, value) if isinstance(value, str) else value


def offer(form: forms.Form, known: Known) -> None:
    """Put what there is into the form's choices."""
    for one in form.fields.values():
        if isinstance(one, (ContactIds, TeamId, ScheduleName)):
            one.choices = list(known.of(one.offers).items())


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
