"""Configurations of other products are taken over: compared with what is here, told, and written in one transaction.

A dry run does everything and takes it back, so that its report is what would happen. Things are found again by name,
people by e-mail; nobody gets a log-in by an import. What cannot be written, or names somebody who is not here, is told
and left out; a step that would tell nobody tells the fall-back contact. The same file twice changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.db import transaction

from apps.accounts.audit import record, verb
from apps.accounts.models import Team, User
from apps.accounts.rights import Principal, Right
from apps.accounts.services import save_object, save_relations
from apps.alerting import matching
from apps.alerting import services as alerting
from apps.alerting.models import Inhibition, MaintenanceWindow
from apps.core.registry import UnknownKind
from apps.core.secrets import readable
from apps.core.text import storable
from apps.notifications import configuration
from apps.notifications import services as notifications
from apps.notifications.channels import channels
from apps.notifications.models import Contact
from apps.oncall import blueprint, schedules, services
from apps.oncall import steps as plugins
from apps.oncall.blueprint import Blueprint, Step
from apps.oncall.importers import ImportFileError, importers
from apps.oncall.models import Override, Policy, Route, Schedule

SHOWN: Final = 300
"""Characters of a detail: names in it are a stranger's."""
LASTS: Final = timedelta(days=365)
"""How long a window that comes again is imported for: nothing is quiet for ever."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an import does to one thing: new, changed, unchanged, or left out; `details` say what and what differs."""

    action: str
    kind: str
    name: str
    details: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What an import did, or would do."""

    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dry_run: bool = False

    def counts(self) -> dict[str, int]:
        """How many things of each action."""
        return {
            action: sum(change.action == action for change in self.changes)
            for action in ("new", "changed", "unchanged", "left out")
        }

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-safe values."""
        changes = [asdict(change) for change in self.changes]
        return {"dry_run": self.dry_run, "counts": self.counts(), "changes": changes, "notes": self.notes}


@verb("oncall.import_configuration", right=Right.ADMINISTER)
def import_configuration(*, by: Principal, kind: str, content: bytes, now: datetime, dry_run: bool = False) -> Report:
    """Take over the configuration of another product (`kind` is that of an importer); return what it did, or would do.

    A file that cannot be read is a ValidationError, and nothing is written.
    """
    try:
        wanted = importers.get(kind)().read(content)
    except UnknownKind:
        known = ", ".join(name for name in importers.all())
        raise ValidationError({"kind": [f"There is no importer {kind[:50]!r}; there are {known}."]}) from None
    except ImportFileError as error:
        raise ValidationError({"file": [storable(str(error))[:SHOWN]]}) from None
    with transaction.atomic():
        report = _Import(by, now, wanted).run()
        report.dry_run = dry_run
        counts = {action: count for action, count in report.counts().items() if count}
        if not dry_run and (counts.keys() & {"new", "changed"}):
            record(by=by, verb="oncall.import_configuration", target=("oncall.route", "", kind), after=counts)
        if dry_run:
            transaction.set_rollback(True)
    return report


NOW: Final = "told by the contacts that they have now"
AT_ONCE: Final = "all are told at once, not one in turn"


# --- Steps ----------------------------------------------------------------------------------------------------------
Needs = Mapping[str, Any]


@dataclass(frozen=True)
class _As:
    """A word of a blueprint as a step of this portal: the plug-in's kind, its settings, what is different about it."""

    kind: str
    settings: Callable[["_Import", Needs], Mapping[str, Any]]
    remark: str = ""


STEPS: Final[Mapping[str, Sequence[_As]]] = {
    "wait": (_As("wait", lambda _, needs: {"minutes": min(max(float(needs["minutes"]), 0.01), 10_080)}),),
    "repeat": (_As("repeat", lambda _, needs: {"times": needs["times"]}),),
    "hours": (_As("only_hours", lambda _, needs: dict(needs)),),
    "fallback": (_As("notify", lambda _, __: {"fallback": True}),),
    "schedule": (
        _As("notify_schedule", lambda _, needs: {"schedule": needs["schedule"], "important": needs["important"]}),
        _As("notify_schedule", lambda _, needs: {"schedule": needs["schedule"]}),
    ),
    "people": (
        _As("notify_person", lambda run, needs: {"people": run.ids(needs), "important": needs["important"]}),
        _As("notify", lambda run, needs: {"contacts": run.contacts_of(needs["people"])}, NOW),
    ),
    "round_robin": (
        _As("notify_round_robin", lambda run, needs: {"people": run.ids(needs), "important": needs["important"]}),
        _As("notify", lambda run, needs: {"contacts": run.contacts_of(needs["people"])}, AT_ONCE),
    ),
    "team": (
        _As("notify_team", lambda run, needs: {"team": run.team(needs), "important": needs["important"]}),
        _As("notify", lambda run, needs: {"contacts": run.contacts_of_team(needs)}, NOW),
    ),
    "many": (_As("only_if_more_than", lambda _, needs: dict(needs)),),
}  # fmt: skip
"""By word: what it becomes, the first that this portal has and that takes the settings."""


class _LeftOut(Exception):
    """Something of a file that cannot be written; says why."""


class _Import:
    """One blueprint on its way into the tables; every part in a savepoint of its own."""

    def __init__(self, by: Principal, now: datetime, wanted: Blueprint) -> None:
        self.by, self.now, self.wanted = by, now, wanted
        self.report = Report(notes=[storable(note)[:SHOWN] for note in wanted.notes])
        self.written: dict[str, Contact] = {}
        self.is_incomplete: set[str] = set()
        """Names of contacts whose secret the file does not hold."""

    def run(self) -> Report:
        for person in self.wanted.people:
            self.person(person)
        self.each("team", self.wanted.teams, self.write_team)
        self.each("contact", self.wanted.contacts, self.write_contact)
        self.each("schedule", self.wanted.schedules, self.write_schedule)
        self.each("policy", self.wanted.policies, self.write_policy)
        self.each("route", self.in_order(), self.write_route)
        self.each("inhibition", self.wanted.inhibitions, self.write_inhibition)
        self.each("maintenance window", self.wanted.windows, self.write_window)
        for one in self.wanted.lost:
            self.tell("left out", one.kind, one.name, [one.why])
        return self.report

    def tell(self, action: str, kind: str, name: str, details: Sequence[str]) -> None:
        shown = tuple(dict.fromkeys(storable(detail)[:SHOWN] for detail in details))
        self.report.changes.append(Change(action, kind, storable(name)[:200], shown))

    def each(self, kind: str, rows: Sequence[Any], write: Callable[[Any, list[str]], str]) -> None:
        """Write one after the other; `write` adds to the details and returns the action."""
        for row in rows:
            details = list(getattr(row, "remarks", ()))
            try:
                with transaction.atomic():
                    action = write(row, details)
            except ValidationError as error:
                action, details = "left out", [_words(error)]
            except _LeftOut as error:
                action, details = "left out", [str(error)]
            self.tell(action, kind, row.name, details)

    # People

    @cached_property
    def users(self) -> dict[str, User]:
        """Active people by e-mail, in lower case."""
        return {user.email.lower(): user for user in User.objects.filter(is_active=True).exclude(email="")}

    def person(self, person: blueprint.Person) -> None:
        user = self.users.get(person.email.lower())
        if user is not None:
            self.tell("unchanged", "person", person.email, [f"is {user}", *person.remarks])
        else:
            self.tell("left out", "person", person.email, [NO_LOGIN])

    def found(self, emails: Sequence[str], details: list[str]) -> list[User]:
        """Those who are here, in order; the others are named in the details."""
        here = []
        for email in dict.fromkeys(emails):
            user = self.users.get(email.lower())
            if user is None:
                details.append(f"without {email}, who has no log-in here")
            else:
                here.append(user)
        return here

    def ids(self, needs: Needs) -> list[int]:
        return [self.users[email.lower()].pk for email in needs["people"]]

    def contacts_of(self, emails: Sequence[str]) -> list[int]:
        owners = [self.users[email.lower()].pk for email in emails if email.lower() in self.users]
        return list(Contact.objects.enabled().filter(owner__in=owners).order_by("pk").values_list("pk", flat=True))

    def team(self, needs: Needs) -> int:
        return int(Team.objects.values_list("pk", flat=True).get(name=needs["team"]))

    def contacts_of_team(self, needs: Needs) -> list[int]:
        return self.contacts_of(list(User.objects.filter(teams__name=needs["team"]).values_list("email", flat=True)))

    def write_team(self, row: blueprint.Team, details: list[str]) -> str:
        members = self.found(row.members, details)
        team = Team.objects.filter(name=row.name).first()
        is_new = team is None
        team = team or Team(name=row.name)
        team.description = row.description or team.description
        team.full_clean()
        is_changed = save_object(by=self.by, obj=team)
        missing = [user for user in members if is_new or not team.members.filter(pk=user.pk).exists()]
        if missing:
            save_relations(by=self.by, obj=team, save=lambda: team.members.add(*missing))
            details.append("joined by " + ", ".join(str(user) for user in missing))
        return "new" if is_new else "changed" if is_changed or missing else "unchanged"

    # Contacts

    def write_contact(self, row: blueprint.Contact, details: list[str]) -> str:
        contact = Contact.objects.filter(name=row.name).first()
        if contact is not None and contact.kind != row.kind:
            raise _LeftOut(f"There is a contact of that name already, of the kind {contact.kind}.")
        owner = None
        if row.owner:
            owner = next(iter(self.found([row.owner], details)), None)
            if owner is None:
                raise _LeftOut(f"{row.owner} has no log-in here.")
        if row.missing and contact is None:
            self.is_incomplete.add(row.name)
            raise _LeftOut(f"The file masks {', '.join(row.missing)}: make the contact by hand.")
        plugin = channels.get(row.kind)
        stored = {} if contact is None else readable(contact)
        values = {**({} if contact is None else contact.config), **row.values}
        cleaned = configuration.clean(plugin, values, stored)
        if contact is None:
            made = notifications.save_contact(
                by=self.by, now=self.now, name=row.name, kind=row.kind, values=values, owner=owner
            )
            self.written[row.name] = made
            return "new"
        self.written[row.name] = contact
        has_new_secrets = cleaned.secrets != stored
        has_changed = cleaned.config != contact.config or has_new_secrets or (owner and owner.pk != contact.owner_id)
        if not has_changed:
            return "unchanged"
        details += _differences(contact.config, cleaned.config)
        details += ["another secret"] if has_new_secrets else []
        notifications.save_contact(
            by=self.by,
            now=self.now,
            contact=contact,
            name=contact.name,
            kind=contact.kind,
            values=values,
            enabled=contact.enabled,
            is_fallback=contact.is_fallback,
            owner=owner or contact.owner,
            rate_limit=contact.rate_limit,
        )
        return "changed"

    # Schedules

    def write_schedule(self, row: blueprint.Schedule, details: list[str]) -> str:
        schedule = Schedule.objects.filter(name=row.name).first()
        layers = []
        for layer in row.layers:
            people = [user.pk for user in self.found(layer.people, details)]
            if not people:
                details.append(f"without the layer {layer.name}: nobody in it has a log-in here")
                continue
            layers.append(
                {
                    "name": layer.name or "Layer",
                    "people": people,
                    "rotation": layer.rotation,
                    "every": layer.every,
                    "hand_over": layer.hand_over,
                    "weekday": layer.weekday,
                    "zone": "" if layer.zone == row.zone else layer.zone,
                    "hours": layer.hours,
                    "calendar": None,
                    "starts_at": layer.starts_at,
                    "ends_at": layer.ends_at,
                }
            )
        if not layers:
            details.append("nobody is on call by it: enter people, else the fall-back contact is told")
        before = None if schedule is None else _layers(schedule)
        is_same = schedule is not None and before == [_layer(layer) for layer in layers] and schedule.zone == row.zone
        if not is_same:
            schedule = schedules.save_schedule(
                by=self.by,
                name=row.name,
                zone=row.zone,
                layers=layers,
                schedule=schedule,
                description=schedule.description if schedule is not None else "",
                owner=schedule.owner if schedule is not None else None,
                holidays=schedule.holidays if schedule is not None else None,
            )
            if before is not None:
                details.append(f"layers: {len(before)} become {len(layers)}")
        added = self.overrides(schedule, row.overrides, details) if schedule is not None else 0
        return "new" if before is None else "unchanged" if is_same and not added else "changed"

    def overrides(self, schedule: Schedule, rows: Sequence[blueprint.Override], details: list[str]) -> int:
        added = 0
        for row in rows:
            if row.ends_at <= self.now:
                continue  # what is over interests nobody
            for person in self.found([row.person], details):
                same = Override.objects.filter(
                    schedule=schedule, person=person, starts_at=row.starts_at, ends_at=row.ends_at
                )
                if not same.exists():
                    schedules.override(
                        by=self.by, schedule=schedule, person=person, starts_at=row.starts_at, ends_at=row.ends_at,
                        reason="imported",
                    )  # fmt: skip
                    added += 1
        if added:
            details.append(f"{added} overrides")
        return added

    # Policies

    def write_policy(self, row: blueprint.Policy, details: list[str]) -> str:
        steps = [made for step in row.steps if (made := self.step(step, details)) is not None]
        if not any(step["kind"].startswith("notify") for step in steps):
            steps.append({"kind": "notify", "config": {"fallback": True}})
            details.append("tells the fall-back contact: nobody else in it is here")
        policy = Policy.objects.filter(name=row.name).first()
        if policy is not None:
            before = list(policy.steps.order_by("position").values("kind", "config"))
            if before == steps:
                return "unchanged"
            details.append(f"steps: {_spelled(before)} become {_spelled(steps)}")
        services.save_policy(
            by=self.by,
            name=row.name,
            steps=steps,
            description=row.description if policy is None else policy.description,
            acknowledged_for=None if policy is None else policy.acknowledged_for,
            policy=policy,
        )
        return "new" if policy is None else "changed"

    def step(self, step: Step, details: list[str]) -> dict[str, Any] | None:
        """The step as one of this portal's, its settings cleaned; None, and a detail, where there is none."""
        needs = {"important": False, **step.needs}
        if "people" in needs:
            needs["people"] = [user.email for user in self.found(needs["people"], details)]
            if not needs["people"]:
                return None
        problem = "this portal has no such step"
        for choice in STEPS[step.word]:
            try:
                [made] = services.check_steps([{"kind": choice.kind, "config": choice.settings(self, needs)}])
            except ValidationError as error:
                problem = _words(error)
                continue
            except Team.DoesNotExist:
                problem = "the team is not here"
                continue
            details += [choice.remark] if choice.remark else []
            return made
        details.append(f"without the step {step.word}: {problem}")
        return None

    # Routes

    def in_order(self) -> list[blueprint.Route]:
        """The root last: it takes what no other took."""
        return sorted(self.wanted.routes, key=lambda row: row.is_root)

    @cached_property
    def first_position(self) -> int:
        """Imported routes stand behind all that were here before."""
        mine = [row.name for row in self.wanted.routes if not row.is_root]
        others = Route.objects.filter(is_root=False).exclude(name__in=mine)
        return max(others.values_list("position", flat=True), default=-1) + 1

    def write_route(self, row: blueprint.Route, details: list[str]) -> str:
        route = Route.objects.filter(
            **({"is_root": True} if row.is_root else {"name": row.name, "is_root": False})
        ).first()
        if route is None and Route.objects.filter(name=row.name).exists():
            raise _LeftOut("The root route here has that name already.")
        if row.is_root and route is not None:
            details.insert(0, f"is the root route here, {route.name}")
        policy = Policy.objects.filter(name=row.policy).first() if row.policy else None
        if row.policy and policy is None:
            raise _LeftOut(f"Its policy {row.policy} was left out.")
        contacts = [self.written[name] for name in row.contacts if name in self.written]
        lost = [name for name in row.contacts if name not in self.written]
        values: dict[str, Any] = {
            "matchers": [] if row.is_root else [_text(one) for one in row.matchers],
            "continue_matching": row.goes_on,
            "group_by": list(row.group_by),
            "group_wait": row.timers.wait,
            "group_interval": row.timers.interval,
            "repeat_interval": row.timers.repeat,
        }
        if not row.is_root:
            siblings = [one.name for one in self.wanted.routes if not one.is_root]
            values["position"] = self.first_position + siblings.index(row.name)
        if row.policy:
            values["policy"] = policy
        if route is None:
            values |= {"name": row.name, "enabled": row.enabled}
        elif lost:
            contacts = list({one.pk: one for one in [*route.contacts.all(), *contacts]}.values())
            details.append(f"keeps its contacts: {', '.join(lost)} could not be written")
        if route is None and lost:
            details.append(f"without {', '.join(lost)}: see there")
        if not contacts and (route.policy if route is not None else policy) is None:
            details.append("tells the fall-back contact until it has contacts or a policy")
        if route is not None:
            is_given = bool(row.contacts) or not row.policy
            now_told = set(route.contacts.values_list("pk", flat=True))
            was = {name: getattr(route, name) for name in values}
            same_contacts = not is_given or {one.pk for one in contacts} == now_told
            if was == values and same_contacts:
                return "unchanged"
            details += _differences(was, values)
            if not same_contacts:
                details.append(f"contacts: {', '.join(one.name for one in contacts) or 'none'}")
            services.save_route(by=self.by, route=route, values=values, contacts=contacts if is_given else None)
            return "changed"
        services.save_route(by=self.by, route=Route(is_root=row.is_root), values=values, contacts=contacts)
        return "new"

    # Quiet

    def write_inhibition(self, row: blueprint.Inhibition, details: list[str]) -> str:
        inhibition = Inhibition.objects.filter(name=row.name).first()
        values = {
            "name": row.name,
            "source_matchers": matching.to_json(row.source),
            "target_matchers": matching.to_json(row.target),
            "equal": sorted(set(row.equal)),
        }
        if inhibition is not None:
            was = {name: getattr(inhibition, name) for name in values}
            if was == values:
                return "unchanged"
            details += _differences(was, values)
        alerting.save_inhibition(by=self.by, values=values, inhibition=inhibition, now=self.now)
        return "new" if inhibition is None else "changed"

    def write_window(self, row: blueprint.Window, details: list[str]) -> str:
        """One of that name that recurs in the same way is left as it is: its end may have been moved."""
        window = MaintenanceWindow.objects.filter(name=row.name).first()
        values = {
            "matchers": matching.to_json(row.matchers),
            "recurrence": row.recurrence,
            "duration": row.lasts,
            "time_zone": row.zone,
        }
        if window is not None:
            was = {name: getattr(window, name) for name in values}
            if was == values:
                return "unchanged"
            details += _differences(was, values)
        try:
            today = self.now.astimezone(ZoneInfo(row.zone)).date()
        except (KeyError, ValueError, OSError):
            raise _LeftOut(f"{row.zone[:50]!r} is no time zone.") from None
        starts_at = datetime.combine(today, row.begins, ZoneInfo(row.zone))
        values |= {"name": row.name, "starts_at": starts_at, "ends_at": starts_at + LASTS}
        alerting.save_window(by=self.by, values=values, window=window, now=self.now)
        return "new" if window is None else "changed"


NO_LOGIN: Final = "has no log-in here, and an import makes none: make one with this e-mail, then import again"


def _layer(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "people": list(values["people"])}


def _layers(schedule: Schedule) -> list[dict[str, Any]]:
    rows = schedule.layers.order_by("position")
    return [{name: getattr(row, name) for name in schedules.LAYER_FIELDS} for row in rows]


def _text(matcher: Any) -> str:
    return matching.spelled([matcher])


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs, old and new; both hold nothing secret."""
    return [
        f"{name.replace('_', ' ')}: {_shown(before.get(name))} becomes {_shown(value)}"
        for name, value in after.items()
        if before.get(name) != value
    ]


def _shown(value: Any) -> str:
    return "nothing" if value in (None, "", []) else str(value)


def _spelled(steps: Sequence[Mapping[str, Any]]) -> str:
    known, found = services.known(), []
    for step in steps:
        try:
            found.append(plugins.steps.get(step["kind"]).describe(step["config"], known))
        except UnknownKind:
            found.append(str(step["kind"]))
    return "; ".join(found)


def _words(error: ValidationError) -> str:
    if hasattr(error, "error_dict"):
        return " ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items())
    return " ".join(error.messages)
