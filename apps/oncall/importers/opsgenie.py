"""Opsgenie: the JSON of its API or of its configuration backup, by kind of thing.

Source: https://docs.opsgenie.com/docs/api-overview and the folders that opsgenie-configuration-backup writes. A team's
routing rules become a policy for each rule's condition that can be read, in order, and routes to them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from apps.accounts.hours import parse_zone
from apps.oncall.blueprint import Blueprint, Contact, Layer, Override, Person, Policy, Route, Schedule, Step, Team
from apps.oncall.importers import Document, Importer, documents, listed, number, text, unique
from apps.promql.source import Matcher

NAMES: Final = (
    "users", "teams", "contacts", "schedules", "rotations", "overrides", "escalations", "teamroutingrules", "policies",
    "notificationrules",
)  # fmt: skip
DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SEVERITIES: Final = {"P1": "critical", "P2": "error", "P3": "warning", "P4": "info", "P5": "info"}


class Opsgenie(Importer):
    """Reads users, teams, contacts, escalations, schedules with rotations, and routing rules."""

    kind = "opsgenie"
    label = "Opsgenie"
    file = "a JSON object or a ZIP of JSON files, by kind of thing"

    def read(self, content: bytes) -> Blueprint:
        """Return people, teams, contacts, schedules, policies and routes."""
        return _Reading(documents(content, NAMES)).blueprint()


@dataclass
class _Reading:
    """One export on its way into a blueprint."""

    rows: Mapping[str, list[Document]]
    found: Blueprint = field(default_factory=Blueprint)
    emails: dict[str, str] = field(default_factory=dict)
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    """(kind, id or name there) → name here, of teams, schedules and escalations."""

    def blueprint(self) -> Blueprint:
        self.people()
        for kind, rows in (("team", "teams"), ("schedule", "schedules"), ("escalation", "escalations")):
            taken: set[str] = set()
            for row in self.rows[rows]:
                name = unique(text(row, "name"), taken)
                for key in (text(row, "id"), text(row, "name")):
                    self.names.setdefault((kind, key), name)
        for row in self.rows["teams"]:
            members = [self.email(member.get("user")) for member in listed(row, "members") if isinstance(member, dict)]
            self.found.teams.append(
                Team(self.named("team", row), [one for one in members if one], text(row, "description")[:300])
            )
        for row in self.rows["contacts"]:
            self.contact(row)
        for row in self.rows["schedules"]:
            self.schedule(row)
        for row in self.rows["escalations"]:
            self.escalation(row)
        self.routing()
        for row in self.rows["policies"]:
            self.found.lose("policy of alerts", text(row, "name"), ALERT_POLICIES)
        if self.rows["notificationrules"]:
            self.found.lose("notification rules", f"{len(self.rows['notificationrules'])} of them", NOTIFICATION_RULES)
        return self.found

    def people(self) -> None:
        for row in self.rows["users"]:
            email = text(row, "username")
            if "@" not in email:
                self.found.lose("person", email, "There is no e-mail, by which people are found here.")
                continue
            self.emails[text(row, "id")] = email
            self.found.people.append(Person(email, text(row, "fullName")))
            for contact in listed(row, "userContacts"):
                if isinstance(contact, dict):
                    self.contact({"user": email, **contact})

    def email(self, who: Any) -> str:
        """The e-mail of a participant, member or recipient."""
        email = text(who, "username")
        return email if "@" in email else self.emails.get(text(who, "id"), "")

    def named(self, kind: str, who: Any) -> str:
        return self.names.get((kind, text(who, "id"))) or self.names.get((kind, text(who, "name"))) or ""

    def contact(self, row: Document) -> None:
        owner = text(row, "user") or self.email(row.get("user"))
        method = (text(row, "contactMethod") or text(row, "method")).lower()
        to = text(row, "to")
        if method == "email" and "@" in to and "@" in owner:
            name = f"{owner} by e-mail" if to == owner else f"{owner} at {to}"
            if all(one.name != name for one in self.found.contacts):
                self.found.contacts.append(Contact(name[:100], "email", {"to": [to]}, owner=owner))
        else:
            self.found.lose(
                "contact", f"{method} {to} of {owner}", "It needs an account of a provider: make it by hand."
            )

    # Schedules

    def schedule(self, row: Document) -> None:
        name, zone = self.named("schedule", row), _zone(text(row, "timezone"))
        ident = text(row, "id")
        rotations = listed(row, "rotations") + [
            one for one in self.rows["rotations"] if self._parent(one) in (ident, text(row, "name"))
        ]
        overrides = listed(row, "overrides") + [
            one for one in self.rows["overrides"] if self._parent(one) in (ident, text(row, "name"))
        ]
        layers = [made for one in rotations if (made := self.rotation(one, zone, name)) is not None]
        spans = [span for one in overrides if (span := self.override(one, name)) is not None]
        remarks = []
        if len(layers) > 1:
            remarks.append("where rotations overlap Opsgenie has everybody on call; here the last one counts")
        if row.get("enabled") is False:
            remarks.append("was switched off in Opsgenie")
        self.found.schedules.append(Schedule(name, zone, layers, spans, remarks))

    @staticmethod
    def _parent(row: Document) -> str:
        return (
            text(row, "parent", "id") or text(row, "parent", "name") or text(row, "scheduleId") or text(row, "schedule")
        )

    def rotation(self, row: Any, zone: str, schedule: str) -> Layer | None:
        where = f"{text(row, 'name') or 'rotation'} of {schedule}"
        start, end = _moment(text(row, "startDate")), _moment(text(row, "endDate"))
        kind, length = text(row, "type").lower() or "weekly", int(number(row, "length") or 1)
        if kind == "hourly" and length % 24 == 0:
            kind, length = "daily", length // 24
        if start is None or kind not in ("daily", "weekly") or not 1 <= length <= 366:
            why = "Its start cannot be read." if start is None else f"Turns of {length} {kind} have no counterpart."
            self.found.lose("rotation", where, why)
            return None
        people = []
        for one in listed(row, "participants"):
            if email := self.email(one):
                people.append(email)
            else:
                what = text(one, "type") or "somebody"
                self.found.lose("participant", f"{what} {text(one, 'name')} of {where}", "Only people take turns here.")
        if not people:
            self.found.lose("rotation", where, "Nobody in it is known by e-mail.")
            return None
        try:
            hours = restriction(row.get("timeRestriction"))
        except ValueError as error:
            self.found.lose("time restriction", where, str(error))
            hours = ""
        local = start.astimezone(ZoneInfo(zone))
        return Layer(
            name=(text(row, "name") or "Rotation")[:100],
            people=people,
            starts_at=start,
            rotation=kind,
            every=length,
            hand_over=local.time().replace(second=0, microsecond=0, tzinfo=None),
            weekday=local.weekday(),
            hours=hours,
            ends_at=end,
        )

    def override(self, row: Any, schedule: str) -> Override | None:
        person, start, end = self.email(row.get("user")), _moment(text(row, "startDate")), _moment(text(row, "endDate"))
        if not person or start is None or end is None or end <= start:
            self.found.lose("override", f"{text(row, 'alias') or person} of {schedule}", "It cannot be read.")
            return None
        return Override(person, start, end)

    # Escalations

    def escalation(self, row: Document) -> None:
        name = self.named("escalation", row)
        steps: list[Step] = []
        remarks: list[str] = []
        waited = 0.0
        rules = [rule for rule in listed(row, "rules") if isinstance(rule, dict)]
        for rule in sorted(rules, key=lambda one: _minutes(one.get("delay"))):
            told = self.recipient(rule.get("recipient"), text(rule, "notifyType"), name)
            if told is None:
                continue
            delay = _minutes(rule.get("delay"))
            if delay > waited:
                steps.append(Step("wait", {"minutes": delay - waited}))
                waited = delay
            if text(rule, "condition") == "if-not-closed":
                remarks.append(
                    "“if not closed” became “until acknowledged”: an acknowledgement stops an escalation here"
                )
            steps.append(told)
        if not any(step.word != "wait" for step in steps):
            self.found.lose("escalation", name, "It has no rule that could be carried over.")
            self.names = {key: value for key, value in self.names.items() if key[0] != "escalation" or value != name}
            return
        repeat = row.get("repeat")
        count = int(number(repeat, "count") or 0)
        if count > 0:
            pause = number(repeat, "waitInterval") or 0
            steps += [Step("wait", {"minutes": pause})] if pause else []
            steps.append(Step("repeat", {"times": min(count, 100)}))
        if isinstance(repeat, dict) and repeat.get("closeAlertAfterAll") is True:
            remarks.append("nothing is closed at the end: what is still wrong stays open here")
        self.found.policies.append(Policy(name, steps, text(row, "description"), tuple(dict.fromkeys(remarks))))

    def recipient(self, who: Any, how: str, where: str) -> Step | None:
        kind = text(who, "type")
        if how in ("next", "previous"):
            self.found.notes.append(f"{where}: “{how}” of a schedule is told as who is on call")
        if kind == "user" and (email := self.email(who)):
            return Step("people", {"people": [email], "important": False})
        if kind in ("team", "schedule") and (name := self.named(kind, who)):
            return Step(kind, {kind: name, "important": False})
        self.found.lose(
            "rule", f"{kind} {text(who, 'name') or text(who, 'username')} of {where}", "It is not in the export."
        )
        return None

    # Routing rules

    def routing(self) -> None:
        rules = [dict(one) for one in self.rows["teamroutingrules"]]
        for team in self.rows["teams"]:
            rules += [
                {"team": text(team, "name"), **one} for one in listed(team, "routingRules") if isinstance(one, dict)
            ]
        taken: set[str] = set()
        for row in sorted(rules, key=lambda one: (text(one, "team"), number(one, "order") or 0)):
            self.rule(row, taken)

    def rule(self, row: Document, taken: set[str]) -> None:
        team = text(row, "team") or text(row, "teamName") or text(row, "parent", "name")
        own = f"{team}: {text(row, 'name') or 'routing rule'}".removeprefix(": ")
        notify = row.get("notify")
        kind = text(notify, "type")
        remarks: list[str] = []
        if kind == "escalation":
            policy = self.named("escalation", notify)
        elif kind == "schedule" and (schedule := self.named("schedule", notify)):
            policy = f"On call by {schedule}"[:100]
            if all(one.name != policy for one in self.found.policies):
                self.found.policies.append(Policy(policy, [Step("schedule", {"schedule": schedule})]))
        else:
            policy = ""
        if not policy:
            self.found.lose("routing rule", own, "It tells nobody, or somebody who is not in the export.")
            return
        matchers, unread = _conditions(row.get("criteria"))
        if text(team):
            matchers.insert(0, Matcher("team", "=", team))
            remarks.append("takes alerts whose label team names the team, as Opsgenie's responders did")
        if isinstance(row.get("timeRestriction"), dict):
            unread.append("its time restriction")
        if unread:
            remarks.append(f"switched off: {'; '.join(unread)[:200]} cannot be told by matchers; look at it")
        self.found.routes.append(
            Route(unique(own, taken), matchers, policy=policy, enabled=bool(matchers) and not unread, remarks=remarks)
        )


ALERT_POLICIES: Final = (
    "Alert and notification policies change alerts as they come: routes, silences and rules do it here."
)
NOTIFICATION_RULES: Final = "Each person says under their contacts how they want to be told."


def _conditions(criteria: Any) -> tuple[list[Matcher], list[str]]:
    """Return what all alerts of a rule have in common, and conditions that matchers cannot say."""
    kind = text(criteria, "type")
    if kind in ("", "match-all"):
        return [], []
    rows = [one for one in listed(criteria, "conditions") if isinstance(one, dict)]
    if kind == "match-any-condition" and len(rows) > 1:
        return [], ["any of several conditions"]
    found, unread = [], []
    for row in rows:
        made = _condition(row)
        if made is None:
            unread.append(" ".join(text(row, key) for key in ("field", "key", "operation", "expectedValue")).strip())
        else:
            found.append(made)
    return found, unread


def _condition(row: Document) -> Matcher | None:
    name, operation, value = text(row, "field"), text(row, "operation"), text(row, "expectedValue")
    is_not = row.get("not") is True
    if name == "priority" and operation == "equals" and value in SEVERITIES:
        return Matcher("severity", "!=" if is_not else "=", SEVERITIES[value])
    label = (
        text(row, "key") if name == "extra-properties" else {"message": "alertname", "alias": "alertname"}.get(name, "")
    )
    if not re.fullmatch(r"[a-zA-Z_]\w*", label, re.ASCII):
        return None
    quoted = re.escape(value).replace(r"\ ", " ").replace(r"\-", "-")
    patterns = {"contains": f".*{quoted}.*", "starts-with": f"{quoted}.*", "ends-with": f".*{quoted}", "matches": value}
    if operation == "equals":
        return Matcher(label, "!=" if is_not else "=", value)
    if operation in patterns:
        return Matcher(label, "!~" if is_not else "=~", patterns[operation])
    return None


def restriction(row: Any) -> str:
    """Return the hours of a time restriction, as a layer has them; "" where there is none. ValueError says why not."""
    kind = text(row, "type")
    if not kind:
        return ""
    if kind == "time-of-day":
        one = row.get("restriction")
        return f"mon-sun {_clock(one, 'start')}-{_clock(one, 'end')}"
    lines: list[str] = []
    for one in listed(row, "restrictions"):
        first, last = (text(one, key).lower() for key in ("startDay", "endDay"))
        if first not in DAYS or last not in DAYS:
            raise ValueError("A day of its hours cannot be read.")
        lines += _span(DAYS.index(first), _clock(one, "start"), DAYS.index(last), _clock(one, "end"))
    return "\n".join(lines)


def _span(first: int, begin: str, last: int, end: str) -> list[str]:
    """From a day's hour to another day's, line by line of a day."""
    if first == last and begin < end:
        return [f"{_short(first)} {begin}-{end}"]
    days = [(first + step) % 7 for step in range(1, (last - first) % 7 or 7)]
    lines = [f"{_short(first)} {begin}-24:00", *(f"{_short(day)} 00:00-24:00" for day in days)]
    return lines + ([f"{_short(last)} 00:00-{end}"] if end != "00:00" else [])


def _short(day: int) -> str:
    return DAYS[day][:3]


def _clock(row: Any, which: str) -> str:
    hour, minute = number(row, f"{which}Hour"), number(row, f"{which}Min") or 0
    if hour is None or not 0 <= hour <= 24 or not 0 <= minute <= 59:
        raise ValueError("A time of its hours cannot be read.")
    return f"{int(hour):02}:{int(minute):02}"


def _minutes(delay: Any) -> float:
    """A delay, {"timeAmount": 5, "timeUnit": "minutes"}."""
    amount = number(delay, "timeAmount") or 0.0
    return amount * {"hours": 60, "days": 1440, "seconds": 1 / 60}.get(text(delay, "timeUnit").lower(), 1)


def _zone(name: str) -> str:
    try:
        return str(parse_zone(name or "UTC"))
    except ValueError:
        return "UTC"


def _moment(spelled: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(spelled)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
