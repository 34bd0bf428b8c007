"""alertmanager.yml: its tree of routes as our list, its receivers as contacts, inhibitions and mute times.

Source: https://prometheus.io/docs/alerting/latest/configuration/. There, an alert goes down the tree and a route takes
what none of its children took; here, routes are a list in order of which the first match wins. `flatten` turns one into
the other without changing who is told.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import time, timedelta
from typing import Any, Final

from apps.alerting.matching import MatcherError, checked, parse_matcher, parse_matchers
from apps.alerting.yamltext import Items, Node, Scalar, YamlError, read
from apps.oncall.blueprint import Blueprint, Contact, Inhibition, Route, Timers, Window
from apps.oncall.importers import Importer, ImportFileError, bounded, listed, text, unique
from apps.promql.lexer import parse_duration
from apps.promql.source import Matcher

MASK: Final = "<secret>"
MOST_ROUTES: Final = 500
"""Routes of the list: siblings with `continue` multiply."""
DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip


class Alertmanager(Importer):
    """Reads an alertmanager.yml."""

    kind = "alertmanager"
    label = "Alertmanager"
    file = "alertmanager.yml"

    def read(self, content: bytes) -> Blueprint:
        """Return its routes, receivers, inhibitions and mute times."""
        try:
            root = read(bounded(content).decode())
        except UnicodeDecodeError:
            raise ImportFileError("The file is no text in UTF-8.") from None
        except YamlError as error:
            raise ImportFileError(f"Line {error.line}: {error.message}.") from None
        document = _plain(root) if root is not None else None
        if not isinstance(document, dict) or not isinstance(document.get("route"), dict):
            raise ImportFileError("This is no alertmanager.yml: it has no route.")
        return _Reading(document).blueprint()


def _plain(node: Node) -> Any:
    """Texts, lists and dictionaries; the reader has bounded depth and number, aliases unfolded."""
    match node:
        case Scalar():
            return None if node.null else node.text
        case Items():
            return [_plain(one) for one in node.nodes]
        case _:
            return {name: _plain(one) for name, one in node.pairs.items()}


# --- The tree becomes a list ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Branch:
    """A route of the tree: what it adds to its parent's matchers, and itself."""

    matchers: tuple[Matcher, ...]
    receiver: str
    goes_on: bool = False
    group_by: tuple[str, ...] = ("alertname",)
    timers: Timers = field(default_factory=Timers)
    mutes: tuple[str, ...] = ()
    children: "tuple[Branch, ...]" = ()


@dataclass(frozen=True)
class Flat:
    """A route of the list."""

    matchers: tuple[Matcher, ...]
    node: Branch
    goes_on: bool = False


class TooMany(Exception):
    """The list would be too long."""


def flatten(root: Branch) -> list[Flat]:
    """Return the list; its last entry is the root. Raises TooMany."""
    found: list[Flat] = []
    for one in _entries(root, root.children):
        merged = _merged(one.matchers)
        if merged is None or _is_shadowed(merged, one, found):
            continue
        found.append(replace(one, matchers=merged))
        if len(found) > MOST_ROUTES:
            raise TooMany
    return found


def _entries(node: Branch, children: Sequence[Branch]) -> Iterator[Flat]:
    """What the node's own alerts do: one route after the other, the node itself last."""
    if not any(child.goes_on for child in children):
        for child in children:
            for one in _entries(child, child.children):
                yield replace(one, matchers=(*child.matchers, *one.matchers))
        yield Flat((), node)
        return
    if _ends_in_a_catch_all(children):
        # Nobody reaches the node itself, so that an alert may simply be offered to the next sibling.
        for child in children:
            for one in _entries(child, child.children):
                yield Flat((*child.matchers, *one.matchers), one.node, one.goes_on or child.goes_on)
        return
    for conditions, nodes in _decisions(node):
        for place, leaf in enumerate(nodes, start=1):
            yield Flat(conditions, leaf, goes_on=place < len(nodes))


def _ends_in_a_catch_all(children: Sequence[Branch]) -> bool:
    *_, last = children
    return (
        not last.matchers
        and not last.goes_on
        and all(not child.children for child in children if child.goes_on or child is last)
    )


Decision = tuple[tuple[Matcher, ...], tuple[Branch, ...]]


def _decisions(node: Branch) -> list[Decision]:
    """(conditions, who is told), the first that holds decides; the last one always does.

    Worked out from the last child to the first: what comes behind a child if nothing was told before it, and if
    something was.
    """
    untold: list[Decision] = [((), (node,))]
    told: list[Decision] = [((), ())]
    for child in reversed(node.children):
        behind = told if child.goes_on else [((), ())]
        mine: list[Decision] = []
        for conditions, nodes in _decisions(child):
            for more, others in behind:
                joined = _merged((*child.matchers, *conditions, *more))
                if joined is not None:
                    mine.append((joined, (*nodes, *others)))
                    if len(mine) + len(told) > MOST_ROUTES:
                        raise TooMany
        untold, told = mine + untold, mine + told
    return untold


def _merged(matchers: Sequence[Matcher]) -> tuple[Matcher, ...] | None:
    """Each matcher once; None where two of them cannot hold together."""
    found = tuple(dict.fromkeys(matchers))
    fixed: dict[str, str] = {}
    for one in found:
        if one.op == "=" and fixed.setdefault(one.name, one.value) != one.value:
            return None
    if any(one.name in fixed and not one.matches(fixed[one.name]) for one in found):
        return None
    return found


def _is_shadowed(matchers: tuple[Matcher, ...], one: Flat, before: Sequence[Flat]) -> bool:
    """Whether nothing reaches it, or reaches it a second time: an earlier one asks for no more and stops, or is it."""
    return any(
        set(other.matchers) <= set(matchers) and (not other.goes_on or other.node is one.node) for other in before
    )


# --- The file -------------------------------------------------------------------------------------------------------
@dataclass
class _Reading:
    """One file on its way into a blueprint."""

    document: Mapping[str, Any]
    found: Blueprint = field(default_factory=Blueprint)
    names: set[str] = field(default_factory=set)
    contacts: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    """By receiver: what is said of each route that leads to it."""

    def blueprint(self) -> Blueprint:
        for row in listed(self.document, "receivers"):
            self.receiver(row)
        if listed(self.document, "templates"):
            self.found.lose("template", ", ".join(map(str, listed(self.document, "templates"))), TEMPLATES)
        self.routes()
        for number, row in enumerate(listed(self.document, "inhibit_rules"), start=1):
            self.inhibition(row, number)
        return self.found

    # Routes

    def routes(self) -> None:
        root = self.node(self.document["route"], None, "route")
        try:
            flat = flatten(root)
        except TooMany:
            raise ImportFileError(
                f"The tree of routes would become more than {MOST_ROUTES} here: siblings with continue multiply. "
                "Split the file, or take some of the continue away."
            ) from None
        *rest, last = flat
        if last.node is not root:  # a last child takes everything: the root is never reached
            rest, last = ([*rest, last] if last.node.receiver != root.receiver else rest), Flat((), last.node)
        uses: dict[str, int] = {}
        for one in flat:
            uses[one.node.receiver] = uses.get(one.node.receiver, 0) + 1
        taken: set[str] = set()
        for one in rest:
            split = sum(other.node is one.node for other in rest) > 1
            spelled = ", ".join(f'{m.name}{m.op}"{m.value}"' for m in one.matchers)
            name = one.node.receiver if uses[one.node.receiver] == 1 else f"{one.node.receiver}: {spelled or 'all'}"
            remarks = [SPLIT] if split else []
            own = unique(name, taken)
            self.found.routes.append(self.route(one, own, remarks))
            self.mutes(one, own, rest)
        self.found.routes.append(replace(self.route(last, unique(root.receiver, taken), []), is_root=True))
        self.mutes(last, root.receiver, rest)

    def route(self, one: Flat, name: str, remarks: list[str]) -> Route:
        node = one.node
        timers = node.timers
        shortest = Timers(timers.wait, timedelta(seconds=1), timedelta(minutes=1))
        if timers.interval < shortest.interval or timers.repeat < shortest.repeat:
            remarks.append("group_interval is at least a second here and repeat_interval a minute")
            timers = Timers(timers.wait, max(timers.interval, shortest.interval), max(timers.repeat, shortest.repeat))
        if not self.contacts.get(node.receiver) and not self.told.get(node.receiver):
            remarks.append(f"the receiver {node.receiver} tells nobody: here the fall-back contact is told instead")
        return Route(
            name=name,
            matchers=one.matchers,
            goes_on=one.goes_on,
            group_by=node.group_by or ("alertname",),
            timers=timers,
            contacts=tuple(self.contacts.get(node.receiver, ())),
            remarks=(*remarks, *self.told.get(node.receiver, ())),
        )

    def node(self, row: Any, parent: Branch | None, where: str) -> Branch:
        if not isinstance(row, dict):
            raise ImportFileError(f"{where} must be a mapping.")
        own = parent or Branch((), "")
        receiver = text(row, "receiver") or own.receiver
        if not receiver:
            raise ImportFileError(f"{where} has no receiver.")
        if parent is None and (row.get("match") or row.get("match_re") or row.get("matchers")):
            raise ImportFileError("The root route must not have matchers.")
        if receiver not in self.contacts:
            raise ImportFileError(f"{where}: there is no receiver {receiver[:100]!r}.")
        if listed(row, "active_time_intervals"):
            self.found.lose("time interval", where, ACTIVE)
        grouped = listed(row, "group_by") if "group_by" in row else None
        made = Branch(
            matchers=_matchers(row, where, ("matchers",), ("match",), ("match_re",)),
            receiver=receiver,
            goes_on=_yes(row.get("continue"), default=False),
            group_by=own.group_by if grouped is None else tuple(str(name) for name in grouped) or EVERYTHING,
            timers=Timers(
                _span(row, "group_wait", own.timers.wait, where),
                _span(row, "group_interval", own.timers.interval, where),
                _span(row, "repeat_interval", own.timers.repeat, where),
            ),
            mutes=tuple(str(name) for name in listed(row, "mute_time_intervals")),
        )
        children = [
            self.node(child, made, f"{where}.routes[{number}]") for number, child in enumerate(listed(row, "routes"))
        ]
        if children and _ends_early(children):
            self.found.notes.append(f"{where}: a route that matches everything hides those behind it")
        return replace(made, children=tuple(children))

    # Mute times

    def mutes(self, one: Flat, name: str, rest: Sequence[Flat]) -> None:
        """A window mutes an alert for everybody: it stands for a mute time only where nobody else is told of it."""
        for interval in one.node.mutes:
            row = next((row for row in self.intervals() if text(row, "name") == interval), None)
            where = f"{interval} of {name}"
            if row is None:
                self.found.lose("time interval", where, "The file does not define it.")
                continue
            if not one.matchers:
                self.found.lose("time interval", where, "A mute time needs matchers here, and this route has none.")
                continue
            if _is_shared(one, rest):
                self.found.lose("time interval", where, SHARED)
                continue
            for number, part in enumerate(listed(row, "time_intervals"), start=1):
                for made in self.windows(part, f"{where} {number}", one):
                    self.found.windows.append(made)

    def intervals(self) -> list[Any]:
        return [*listed(self.document, "time_intervals"), *listed(self.document, "mute_time_intervals")]

    def windows(self, part: Any, name: str, one: Flat) -> Iterator[Window]:
        try:
            if listed(part, "years"):
                raise ValueError("A year has no place in a recurrence.")
            rule = ["FREQ=DAILY"]
            if days := listed(part, "weekdays"):
                numbers = [number for text in days for number in _range(str(text), DAYS)]
                rule = ["FREQ=WEEKLY", "BYDAY=" + ",".join(DAYS[number][:2].upper() for number in sorted(set(numbers)))]
            if days := listed(part, "days_of_month"):
                if len(rule) > 1:
                    raise ValueError("Weekdays and days of the month together cannot be told here.")
                rule = ["FREQ=MONTHLY", "BYMONTHDAY=" + ",".join(map(str, _days_of_month(days)))]
            if months := listed(part, "months"):
                numbers = [number + 1 for text in months for number in _range(str(text), MONTHS)]
                rule.append("BYMONTH=" + ",".join(map(str, sorted(set(numbers)))))
            for times in listed(part, "times") or [{"start_time": "00:00", "end_time": "24:00"}]:
                begin, end = (_minutes(text(times, key)) for key in ("start_time", "end_time"))
                if end <= begin:
                    raise ValueError("It ends before it begins.")
                yield Window(
                    name=name[:200],
                    matchers=one.matchers,
                    recurrence=";".join(rule),
                    begins=time(begin // 60, begin % 60),
                    lasts=timedelta(minutes=end - begin),
                    zone=text(part, "location") or "UTC",
                    remarks=(MUTED,),
                )
        except ValueError as error:
            self.found.lose("time interval", name, str(error))

    # Inhibitions

    def inhibition(self, row: Any, number: int) -> None:
        where = f"inhibit_rules[{number - 1}]"
        source = _matchers(row, where, ("source_matchers",), ("source_match",), ("source_match_re",))
        target = _matchers(row, where, ("target_matchers",), ("target_match",), ("target_match_re",))
        if not source or not target:
            self.found.lose("inhibition", where, "A side without matchers would inhibit everything.")
            return
        spelled = ", ".join(f"{m.name}{m.op}{m.value}" for m in source)
        others = ", ".join(f"{m.name}{m.op}{m.value}" for m in target)
        name = unique(text(row, "name") or f"{spelled} → {others}", self.names)
        self.found.inhibitions.append(Inhibition(name, source, target, tuple(map(str, listed(row, "equal")))))

    # Receivers

    def receiver(self, row: Any) -> None:
        name = text(row, "name")
        if not name:
            raise ImportFileError("A receiver has no name.")
        self.contacts.setdefault(name, [])
        configs = [
            (section, config)
            for section, configs in row.items()
            if section.endswith("_configs") and isinstance(configs, list)
            for config in configs
            if isinstance(config, dict)
        ]
        for section, config in configs:
            kind = section.removesuffix("_configs")
            own = name if len(configs) == 1 else f"{name} {kind}"
            made = RECEIVERS.get(kind)
            if made is None:
                self.found.lose("receiver", own, f"There is no channel for {section} here: {OTHERS}")
                self.told.setdefault(name, []).append(f"its {section} were not carried over")
                continue
            contact = made(config, self.document.get("global") or {})
            if contact is None:
                self.found.lose("receiver", own, f"Its {section} do not say where to: {FILES}")
                self.told.setdefault(name, []).append(f"its {section} were not carried over")
                continue
            unsaid = sorted(set(config) - SAID[kind] - {"send_resolved"})
            remarks = list(contact.remarks)
            if unsaid:
                remarks.append(f"not carried over: {', '.join(unsaid)}")
            if not _yes(config.get("send_resolved"), default=RESOLVES[kind]):
                remarks.append("told of ends, too: here everybody who heard of an alert hears of its end")
            named = replace(contact, name=unique(own, self.names), remarks=tuple(remarks))
            self.found.contacts.append(named)
            self.contacts[name].append(named.name)


EVERYTHING: Final = ()
SPLIT: Final = (
    "its route stands more than once here, because alerts that continue are told in the same order as before: "
    "they are grouped apart"
)
ACTIVE: Final = "active_time_intervals have no counterpart: use the policy step “Only in hours”."
TEMPLATES: Final = "Go templates of messages: write them anew under Templates."
MUTED: Final = "a maintenance window that comes again for a year: nothing is quiet for ever here"
SHARED: Final = (
    "Other routes tell of the same alerts, and a maintenance window would mute those, too: "
    "make one with narrower matchers, or use the policy step “Only in hours”."
)
OTHERS: Final = "a contact of the kind apprise reaches most other services."
FILES: Final = "what stands in a file beside alertmanager.yml is not in it, so make the contact by hand."


def _is_shared(one: Flat, rest: Sequence[Flat]) -> bool:
    """Whether alerts of that route may be told by another one as well, or by one before it."""
    place = next((number for number, other in enumerate(rest) if other is one), len(rest))
    return one.goes_on or any(_merged((*one.matchers, *other.matchers)) is not None for other in rest[:place])


def _ends_early(children: Sequence[Branch]) -> bool:
    return any(not child.matchers and not child.goes_on for child in children[:-1])


def _matchers(
    row: Any, where: str, texts: Sequence[str], equal: Sequence[str], like: Sequence[str]
) -> tuple[Matcher, ...]:
    """Read matchers in the new spelling and the two old ones."""
    found: list[Matcher] = []
    try:
        for key in texts:
            given = row.get(key) if isinstance(row, dict) else None
            for one in given if isinstance(given, list) else [given] if isinstance(given, str) else []:
                line = str(one).strip()
                found += parse_matchers(line) if line.startswith("{") or "," in line else [parse_matcher(_bare(line))]
        for keys, sign in ((equal, "="), (like, "=~")):
            for key in keys:
                given = row.get(key) if isinstance(row, dict) else None
                for name, value in (given or {}).items() if isinstance(given, dict) else ():
                    found.append(checked(Matcher(str(name), sign, str(value or ""))))  # type: ignore[arg-type]
    except MatcherError as error:
        raise ImportFileError(f"{where}: {error}") from None
    return tuple(sorted(set(found), key=lambda one: (one.name, one.op, one.value)))


def _bare(line: str) -> str:
    return re.sub(r"^'(.*)'$", r"\1", line)


def _yes(value: Any, *, default: bool) -> bool:
    return default if value is None else str(value).lower() in ("true", "yes", "on")


def _span(row: Mapping[str, Any], key: str, default: timedelta, where: str) -> timedelta:
    given = row.get(key)
    if given is None:
        return default
    try:
        return timedelta(milliseconds=parse_duration(str(given)))
    except (ValueError, OverflowError):
        raise ImportFileError(f"{where}: {key} {str(given)[:40]!r} is no duration.") from None


def _range(text: str, words: Sequence[str]) -> list[int]:
    """Numbers from 0 of `monday:friday` or `1:3` (months are counted from 1)."""
    low, _, high = text.lower().strip().partition(":")
    numbers = [_word(part.strip(), words) for part in (low, high or low)]
    if numbers[1] < numbers[0]:
        raise ValueError(f"{text[:40]} ends before it begins.")
    return list(range(numbers[0], numbers[1] + 1))


def _word(word: str, words: Sequence[str]) -> int:
    if word in words:
        return words.index(word)
    if word.isascii() and word.isdigit() and 1 <= int(word) <= len(words) == len(MONTHS):
        return int(word) - 1
    raise ValueError(f"{word[:40]!r} is none of {words[0]} to {words[-1]}.")


def _days_of_month(parts: Sequence[Any]) -> list[int]:
    found: set[int] = set()
    for part in parts:
        low, _, high = str(part).partition(":")
        try:
            first, last = int(low), int(high or low)
        except ValueError:
            raise ValueError(f"{str(part)[:40]!r} are no days of a month.") from None
        if not (-31 <= first <= last <= 31) or first == 0 or last == 0 or first * last < 0:
            raise ValueError(f"{str(part)[:40]!r} are no days of a month that can be told here.")
        found |= set(range(first, last + 1))
    return sorted(found)


def _minutes(text: str) -> int:
    match = re.fullmatch(r"(\d{1,2}):(\d\d)", text)
    if match is None or (found := int(match[1]) * 60 + int(match[2])) > 24 * 60:
        raise ValueError(f"{text[:20]!r} is no time of day.")
    return found


# --- Receivers by kind ----------------------------------------------------------------------------------------------
Maker = Callable[[Mapping[str, Any], Mapping[str, Any]], Contact | None]


def _contact(kind: str, values: Mapping[str, Any], secret: str = "", remarks: Sequence[str] = ()) -> Contact:
    """Leave out what is empty or masked."""
    kept = {name: value for name, value in values.items() if value and value != MASK}
    missing = (secret,) if secret and secret not in kept else ()
    return Contact("", kind, kept, missing=missing, remarks=tuple(remarks))


def _authorization(config: Mapping[str, Any]) -> tuple[str, list[str]]:
    http = config.get("http_config")
    if not isinstance(http, dict):
        return "", []
    token = text(http, "authorization", "credentials") or text(http, "bearer_token")
    others = sorted(set(http) - {"authorization", "bearer_token", "follow_redirects"})
    return token, [f"not carried over: http_config {', '.join(others)}"] if others else []


def _webhook(config: Mapping[str, Any], _: Mapping[str, Any]) -> Contact | None:
    url = text(config, "url")
    token, remarks = _authorization(config)
    if token == MASK:
        remarks.append("the file masks its token: enter it again")
    if not url:
        return None
    return _contact("webhook", {"url": url, "token": token}, "url", remarks)


def _email(config: Mapping[str, Any], shared: Mapping[str, Any]) -> Contact | None:
    to = [part.strip() for part in text(config, "to").split(",") if part.strip()]
    addresses = [found[1] if (found := re.search(r"<([^>]+)>", part)) else part for part in to]
    if not addresses:
        return None
    sender = text(config, "from") or text(shared, "smtp_from")
    found = re.search(r"<([^>]+)>", sender)
    remarks = ["sent by the portal's own mail server (SMTP_HOST), not by that of the file"]
    return _contact("email", {"to": addresses, "from_address": found[1] if found else sender}, "to", remarks)


def _slack(config: Mapping[str, Any], shared: Mapping[str, Any]) -> Contact | None:
    url = text(config, "api_url") or text(shared, "slack_api_url")
    if not url:
        return None
    return _contact("slack", {"webhook_url": url, "channel": text(config, "channel")}, "webhook_url")


def _pagerduty(config: Mapping[str, Any], shared: Mapping[str, Any]) -> Contact | None:
    key = text(config, "routing_key") or text(config, "service_key")
    if not key:
        return None
    url = text(config, "url") or text(shared, "pagerduty_url")
    return _contact("pagerduty", {"routing_key": key, "api_url": _origin(url, "events.pagerduty.com")}, "routing_key")


def _opsgenie(config: Mapping[str, Any], shared: Mapping[str, Any]) -> Contact | None:
    key = text(config, "api_key") or text(shared, "opsgenie_api_key")
    if not key:
        return None
    url = text(config, "api_url") or text(shared, "opsgenie_api_url")
    return _contact("opsgenie", {"api_key": key, "api_url": _origin(url, "api.opsgenie.com")}, "api_key")


def _telegram(config: Mapping[str, Any], _: Mapping[str, Any]) -> Contact | None:
    token, chat = text(config, "bot_token"), text(config, "chat_id")
    if not token or not chat:
        return None
    return _contact("telegram", {"token": token, "chat": chat}, "token")


def _hooked(kind: str, key: str = "webhook_url") -> Maker:
    def make(config: Mapping[str, Any], _: Mapping[str, Any]) -> Contact | None:
        url = text(config, key)
        return _contact(kind, {"webhook_url": url}, "webhook_url") if url else None

    return make


def _origin(url: str, usual: str) -> str:
    found = re.match(r"(https?://[^/]+)", url)
    return "" if not found or found[1].endswith(f"//{usual}") else found[1]


RECEIVERS: Final[Mapping[str, Maker]] = {
    "webhook": _webhook,
    "email": _email,
    "slack": _slack,
    "pagerduty": _pagerduty,
    "opsgenie": _opsgenie,
    "telegram": _telegram,
    "discord": _hooked("discord"),
    "msteams": _hooked("teams"),
    "msteamsv2": _hooked("teams"),
}
SAID: Final[Mapping[str, frozenset[str]]] = {
    "webhook": frozenset(("url", "http_config")),
    "email": frozenset(("to", "from", "smarthost", "auth_username", "auth_password", "require_tls", "hello")),
    "slack": frozenset(("api_url", "channel")),
    "pagerduty": frozenset(("routing_key", "service_key", "url")),
    "opsgenie": frozenset(("api_key", "api_url")),
    "telegram": frozenset(("bot_token", "chat_id")),
    "discord": frozenset(("webhook_url",)),
    "msteams": frozenset(("webhook_url",)),
    "msteamsv2": frozenset(("webhook_url",)),
}
RESOLVES: Final[Mapping[str, bool]] = {kind: kind not in ("email", "slack") for kind in SAID}
"""Whether Alertmanager tells of ends where the file does not say."""
