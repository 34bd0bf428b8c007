"""Grafana OnCall: what its HTTP API answers, by the names of its resources.

Source: https://grafana.com/docs/oncall/latest/oncall-api-reference/. Integrations and their routes become routes here
that are switched off where their condition cannot be read: which labels tell an integration's alerts apart, the export
does not say.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from apps.accounts.hours import DAYS, parse_zone
from apps.oncall.blueprint import Blueprint, Contact, Layer, Override, Person, Policy, Route, Schedule, Step, Team
from apps.oncall.importers import Document, Importer, documents, listed, number, text, unique
from apps.promql.source import Matcher

NAMES: Final = (
    "users", "teams", "schedules", "on_call_shifts", "escalation_chains", "escalation_policies", "integrations",
    "routes", "personal_notification_rules",
)  # fmt: skip
BYDAY: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


class GrafanaOnCall(Importer):
    """Reads answers of OnCall's API: users, teams, schedules, on_call_shifts, escalation_chains and so on."""

    kind = "grafana_oncall"
    label = "Grafana OnCall"
    file = "a JSON object or a ZIP of JSON files, by resource of its API"

    def read(self, content: bytes) -> Blueprint:
        """Return people, teams, schedules, policies and routes."""
        return _Reading(documents(content, NAMES)).blueprint()


@dataclass
class _Reading:
    """One export on its way into a blueprint."""

    rows: Mapping[str, list[Document]]
    found: Blueprint = field(default_factory=Blueprint)
    emails: dict[str, str] = field(default_factory=dict)
    """E-mail, or what stands for it, by OnCall's id."""
    schedules: dict[str, str] = field(default_factory=dict)
    teams: dict[str, str] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=dict)

    def blueprint(self) -> Blueprint:
        self.people()
        self.personal_rules()
        shifts = {text(row, "id"): row for row in self.rows["on_call_shifts"]}
        taken: set[str] = set()
        for row in self.rows["schedules"]:
            self.schedule(row, shifts, unique(text(row, "name"), taken))
        self.chains()
        self.routes()
        return self.found

    # People

    def people(self) -> None:
        members: dict[str, list[str]] = {}
        for row in self.rows["users"]:
            email, name = text(row, "email"), text(row, "name") or text(row, "username")
            if not email:
                self.found.lose("person", name, "There is no e-mail, by which people are found here.")
                continue
            self.emails[text(row, "id")] = email
            self.found.people.append(Person(email, name))
            for team in listed(row, "teams"):
                members.setdefault(str(team), []).append(email)
        taken: set[str] = set()
        for row in self.rows["teams"]:
            name = unique(text(row, "name"), taken)
            self.teams[text(row, "id")] = name
            self.found.teams.append(Team(name, members.get(text(row, "id"), [])))

    def personal_rules(self) -> None:
        """An e-mail rule becomes a contact; for the others somebody has to enter an account or number."""
        by_person: dict[str, list[Document]] = {}
        for row in self.rows["personal_notification_rules"]:
            by_person.setdefault(text(row, "user_id"), []).append(row)
        for ident, rules in by_person.items():
            email = self.emails.get(ident)
            if email is None:
                continue
            kinds = {text(rule, "type") for rule in rules}
            if "notify_by_email" in kinds:
                values = {"to": [email]}
                self.found.contacts.append(Contact(f"{email} by e-mail"[:100], "email", values, owner=email))
            others = sorted(kinds - {"notify_by_email", "wait", ""})
            if others:
                self.found.lose("personal rules", email, f"{', '.join(others)}: {PERSONAL}")
            elif len(rules) > 1:
                self.found.notes.append(f"{email}: order and pauses of personal rules were not carried over")

    # Schedules

    def schedule(self, row: Document, shifts: Mapping[str, Document], name: str) -> None:
        zone = _zone(text(row, "time_zone"))
        remarks, layers, overrides = [], [], []
        self.schedules[text(row, "id")] = name
        for key in ("ical_url_primary", "ical_url_overrides"):
            if text(row, key):
                self.found.lose("calendar", f"{key} of {name}", "Enter its address in the schedule by hand.")
        own = [shifts[str(ident)] for ident in listed(row, "shifts") if str(ident) in shifts]
        own += [one for one in shifts.values() if text(one, "schedule") == text(row, "id") and one not in own]
        for shift in sorted(own, key=lambda one: number(one, "level") or 0):
            made = self.shift(shift, zone, name)
            if isinstance(made, Layer):
                layers.append(made)
            elif made is not None:
                overrides.append(made)
        if len(layers) > 1:
            remarks.append("where two shifts of one level overlap OnCall pages both; here the later one counts")
        self.found.schedules.append(Schedule(name, zone, layers, overrides, remarks))

    def shift(self, row: Document, zone: str, schedule: str) -> Layer | Override | None:
        name = text(row, "name") or text(row, "id")
        zone = _zone(text(row, "time_zone") or zone)
        where = f"{name} of {schedule}"
        start = _moment(text(row, "rotation_start") or text(row, "start"), zone)
        first = _moment(text(row, "start"), zone)
        lasts = number(row, "duration")
        if start is None or first is None or not lasts or lasts <= 0:
            self.found.lose("shift", where, "Its start or duration cannot be read.")
            return None
        turns = [_first(turn) for turn in listed(row, "rolling_users")] or [str(one) for one in listed(row, "users")]
        if any(isinstance(turn, list) and len(turn) > 1 for turn in listed(row, "rolling_users")):
            self.found.notes.append(f"{where}: of people who are on call together the first was taken")
        begin = int(number(row, "start_rotation_from_user_index") or 0)
        turns = turns[begin:] + turns[:begin]
        people = [self.emails[turn] for turn in turns if turn in self.emails]
        if not people:
            self.found.lose("shift", where, "Nobody in it is known by e-mail.")
            return None
        if text(row, "type") in ("override", "single_event"):
            return Override(people[0], first, first + timedelta(seconds=lasts))
        frequency, every = text(row, "frequency"), int(number(row, "interval") or 1)
        if frequency not in ("daily", "weekly") or not 1 <= every <= 366:
            self.found.lose("shift", where, f"Turns counted {frequency or 'by nothing'} have no counterpart: {LAYER}")
            return None
        if listed(row, "by_month") or listed(row, "by_monthday"):
            self.found.lose("shift", where, f"by_month and by_monthday have no counterpart: {LAYER}")
            return None
        local = first.astimezone(ZoneInfo(zone))
        days = [BYDAY.index(str(day)) for day in listed(row, "by_day") if str(day) in BYDAY]
        week_start = text(row, "week_start")
        return Layer(
            name=name[:100],
            people=people,
            starts_at=start,
            rotation=frequency,
            every=every,
            hand_over=local.time().replace(microsecond=0, tzinfo=None),
            weekday=BYDAY.index(week_start) if days and week_start in BYDAY else local.weekday(),
            zone=zone,
            hours=_hours(local, lasts, days, frequency),
            ends_at=_moment(text(row, "until"), zone),
        )

    # Escalation chains

    def chains(self) -> None:
        taken: set[str] = set()
        steps: dict[str, list[Document]] = {}
        for row in self.rows["escalation_policies"]:
            steps.setdefault(text(row, "escalation_chain_id"), []).append(row)
        for row in self.rows["escalation_chains"]:
            name = unique(text(row, "name"), taken)
            self.policies[text(row, "id")] = name
            made: list[Step] = []
            for step in sorted(steps.get(text(row, "id"), []), key=lambda one: number(one, "position") or 0):
                made += self.step(step, name)
            if made:
                self.found.policies.append(Policy(name, made))
            else:
                self.policies.pop(text(row, "id"))
                self.found.lose("policy", name, "It has no step that could be carried over.")

    def step(self, row: Document, policy: str) -> list[Step]:
        kind = text(row, "type")
        make = STEPS.get(kind)
        if make is None:
            self.found.lose("step", f"{kind} of {policy}", LOST_STEPS.get(kind, "There is no such step here."))
            return []
        found = make(self, row)
        if not found:
            self.found.lose("step", f"{kind} of {policy}", "What it names is not in the export.")
        return found

    def persons(self, row: Document, *keys: str) -> list[str]:
        idents = [str(one) for key in keys for one in listed(row, key)]
        return [self.emails[ident] for ident in idents if ident in self.emails]

    # Routes

    def routes(self) -> None:
        integrations = {text(row, "id"): row for row in self.rows["integrations"]}
        taken: set[str] = set()
        for row in sorted(
            self.rows["routes"], key=lambda one: (text(one, "integration_id"), number(one, "position") or 0)
        ):
            whose = text(integrations.get(text(row, "integration_id"), {}), "name") or "integration"
            self.one_route(row, whose, taken)
        for row in integrations.values():
            default = row.get("default_route")
            if isinstance(default, dict):
                self.one_route({**default, "is_the_last_route": True}, text(row, "name"), taken)

    def one_route(self, row: Document, whose: str, taken: set[str]) -> None:
        policy = self.policies.get(text(row, "escalation_chain_id"), "")
        is_last = row.get("is_the_last_route") is True
        spelled = "" if is_last else text(row, "routing_regex")
        if not policy:
            self.found.lose("route", f"{whose}: {spelled or 'default'}", "It leads to no escalation chain.")
            return
        matchers = [] if is_last else conditions(spelled)
        why = ALL_OF.format(whose=whose) if is_last else f"its condition was {spelled[:200]}" if not matchers else ""
        self.found.routes.append(
            Route(
                name=unique(f"{whose}: {'default' if is_last else spelled}", taken),
                matchers=matchers or [],
                policy=policy,
                enabled=bool(matchers),
                remarks=[f"switched off: {why}; enter matchers, then switch it on"] if why else [],
            )
        )


PERSONAL: Final = "make a contact with this person as owner, which needs an account or a number."
LAYER: Final = "make a layer by hand."
ALL_OF: Final = "it takes all other alerts of the integration {whose}, which no label names"
LOST_STEPS: Final[Mapping[str, str]] = {
    "notify_user_group": "A Slack user group has no counterpart: make a team of it.",
    "notify_whole_channel": "The contacts of the route are told by the step “Notify”.",
    "resolve": "An escalation does not resolve what is still wrong.",
    "declare_incident": "Every alert belongs to an incident here.",
    "trigger_webhook": "Make a contact of the kind webhook and a step that tells it.",
    "trigger_action": "Make a contact of the kind webhook and a step that tells it.",
}


# --- Steps by type --------------------------------------------------------------------------------------------------
StepMaker = Callable[[_Reading, Document], list[Step]]


def _is_important(row: Document) -> bool:
    return row.get("important") is True


def _wait(_: _Reading, row: Document) -> list[Step]:
    seconds = number(row, "duration") or 0
    return [Step("wait", {"minutes": round(seconds / 60, 2)})] if seconds >= 1 else []


def _persons(reading: _Reading, row: Document) -> list[Step]:
    people = reading.persons(row, "persons_to_notify")
    return [Step("people", {"people": people, "important": _is_important(row)})] if people else []


def _next_person(reading: _Reading, row: Document) -> list[Step]:
    people = reading.persons(row, "persons_to_notify_next_each_time")
    return [Step("round_robin", {"people": people, "important": _is_important(row)})] if people else []


def _schedule(reading: _Reading, row: Document) -> list[Step]:
    name = reading.schedules.get(text(row, "notify_on_call_from_schedule"), "")
    return [Step("schedule", {"schedule": name, "important": _is_important(row)})] if name else []


def _team(reading: _Reading, row: Document) -> list[Step]:
    name = reading.teams.get(text(row, "notify_to_team_members"), "")
    return [Step("team", {"team": name, "important": _is_important(row)})] if name else []


def _hours_only(_: _Reading, row: Document) -> list[Step]:
    begin, end = (text(row, key)[:5] for key in ("notify_if_time_from", "notify_if_time_to"))
    if not re.fullmatch(r"\d\d:\d\d", begin) or not re.fullmatch(r"\d\d:\d\d", end):
        return []
    # OnCall stops here until these hours; a step here leaves out what follows, which is the rest of the chain.
    return [Step("hours", {"hours": f"mon-sun {begin}-{end}", "zone": "UTC", "steps": 50})]


def _many(_: _Reading, row: Document) -> list[Step]:
    count, minutes = number(row, "num_alerts_in_window"), number(row, "num_minutes_in_window")
    return [Step("many", {"alerts": int(count), "minutes": minutes, "steps": 50})] if count and minutes else []


STEPS: Final[Mapping[str, StepMaker]] = {
    "wait": _wait,
    "notify_persons": _persons,
    "notify_person_next_each_time": _next_person,
    "notify_on_call_from_schedule": _schedule,
    "notify_team_members": _team,
    "notify_if_time_from_to": _hours_only,
    "notify_if_num_alerts_in_window": _many,
    "repeat_escalation": lambda _, __: [Step("repeat", {"times": 5})],
}


# --- Conditions and times -------------------------------------------------------------------------------------------
_EQUAL: Final = re.compile(
    r"\s*payload(?:\.(?:labels|commonLabels|groupLabels))?(?:\.(\w+)|\[['\"](\w+)['\"]\])\s*(==|!=)\s*['\"]([^'\"]*)['\"]\s*"
)
_IN_JSON: Final = re.compile(r"\s*\\?\"(\w+)\\?\"\s*:\s*\\?s?\*?\s*\\?\"([\w. -]+)\\?\"\s*")


def conditions(spelled: str) -> list[Matcher]:
    """Return the matchers that a route's condition stands for, as far as it is one that names labels; else none.

    >>> conditions('{{ payload.labels.severity == "critical" and payload.labels.team != "web" }}')[0]
    Matcher(name='severity', op='=', value='critical')
    """
    inner = spelled.strip()
    if inner.startswith("{{") and inner.endswith("}}"):
        found = [_EQUAL.fullmatch(part) for part in re.split(r"\sand\s", inner[2:-2])]
        if not all(found):
            return []
        return [Matcher(one[1] or one[2], "=" if one[3] == "==" else "!=", one[4]) for one in found if one]
    in_json = _IN_JSON.fullmatch(inner)
    return [Matcher(in_json[1], "=", in_json[2])] if in_json else []


def _zone(name: str) -> str:
    try:
        return str(parse_zone(name or "UTC"))
    except ValueError:
        return "UTC"


def _moment(spelled: str, zone: str) -> datetime | None:
    """A time of the API, such as 2024-05-06T09:00:00 in the shift's zone; with an offset it is that moment."""
    try:
        found = datetime.fromisoformat(spelled)
        found = found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone))
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _first(turn: Any) -> str:
    return str(turn[0]) if isinstance(turn, list) and turn else ""


def _hours(local: datetime, lasts: float, days: Sequence[int], frequency: str) -> str:
    """Which hours of the week a shift covers; "" where it is all of them."""
    whole = 7 * 86_400 if frequency == "weekly" and not days else 86_400
    if lasts >= whole and (not days or len(set(days)) == 7):
        return ""
    begin = local.hour * 60 + local.minute
    if lasts > 86_400:
        return _long(local.weekday() * 1440 + begin, int(lasts // 60))
    end = (begin + int(lasts // 60)) % 1440
    chosen: Iterable[int] = days or (range(7) if frequency == "daily" else [local.weekday()])
    names = ",".join(DAYS[day] for day in sorted(set(chosen)))
    return f"{names} {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"


def _long(begin: int, lasts: int) -> str:
    """Hours of more than a day, line by line of a day."""
    lines = []
    while lasts > 0:
        day, minute = divmod(begin, 1440)
        part = min(1440 - minute, lasts)
        end = minute + part
        lines.append(f"{DAYS[day % 7]} {minute // 60:02}:{minute % 60:02}-{end // 60:02}:{end % 60:02}")
        begin, lasts = begin + part, lasts - part
    return "\n".join(lines)
