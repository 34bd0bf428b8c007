"""People's own words for a message: which template counts, what it may say, and what is wrong with it. Pure.

A template has a title, a body and, for channels that take one, a document (an e-mail's HTML, a webhook's JSON); what
is empty stays as the portal writes it. A template that fails leaves the portal's own words.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

import orjson

from apps.core.documents import document
from apps.core.quantities import quantity
from apps.notifications.channels import Channel, channels
from apps.notifications.message import Item, Message
from apps.notifications.plaintext import SMS, brief, cut, one_line, render, segments

MOST_SOURCE: Final = 20_000
"""Characters of a template's text."""
LONGEST_TITLE: Final = 300
LONGEST_VALUE: Final = 4_000
"""Characters of one label, annotation or text that a template sees."""
TOLD: Final = ("firing", "resolved")
"""What templates are for; tests, reminders and bundles keep the portal's words."""


@dataclass(frozen=True)
class Wording:
    """One template. An empty `kind` or `severity` is any."""

    title: str = ""
    body: str = ""
    document: str = ""
    kind: str = ""
    severity: str = ""
    pk: int = 0

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """The texts that are not empty, by the names of their fields."""
        named = (("title", self.title), ("body", self.body), ("document", self.document))
        return tuple((name, text) for name, text in named if text.strip())


def choose(wordings: Iterable[Wording], *, kind: str, severity: str) -> Wording | None:
    """Return the most specific one: channel and severity, then channel, then severity, then neither."""
    fitting = [one for one in wordings if one.kind in ("", kind) and one.severity in ("", severity)]
    return max(fitting, key=lambda one: (one.kind != "", one.severity != ""), default=None)


def worded(message: Message, wordings: Sequence[Wording], channel: type[Channel]) -> tuple[Message, str, int]:
    """Return the message in people's words; where those fail as it was, with the reason and the template's key."""
    if not wordings or message.status not in TOLD or not message.alerts:
        return message, "", 0
    chosen = choose(wordings, kind=channel.kind, severity=message.severity)
    if chosen is None:
        return message, "", 0
    try:
        return applied(message, chosen, channel), "", chosen.pk
    except Exception as error:  # whatever people wrote, the message leaves
        reason = str(error) if type(error).__name__ == "TemplateRefused" else f"It failed ({type(error).__name__})."
        return message, reason, chosen.pk


def applied(message: Message, wording: Wording, channel: type[Channel]) -> Message:
    """Return the message in a template's words; sandbox.TemplateRefused says why they cannot be written.

    A body stands for the list of alerts, except where the receiver reads the alerts as data.
    """
    from apps.notifications import sandbox

    values = variables(message)
    found: dict[str, Any] = {}
    if wording.title.strip():
        title = one_line(sandbox.render(wording.title, values))
        found["title"] = cut(title, LONGEST_TITLE, "...") or message.title
    if wording.body.strip():
        found["body"] = sandbox.render(wording.body, values).strip()
        if found["body"]:
            found |= {"facts": (), "links": ()} if channel.keeps_alerts else {"facts": (), "links": (), "alerts": ()}
        else:
            del found["body"]
    if wording.document.strip() and channel.document:
        kind = sandbox.JSON if channel.document == "json" else sandbox.HTML
        written = sandbox.render(wording.document, values, kind)
        if channel.document == "json":
            _check_json(written)
        found["document"] = written
    return replace(message, **found)


def _check_json(text: str) -> None:
    from apps.notifications.sandbox import TemplateRefused

    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        line = text[: error.pos].count("\n") + 1
        raise TemplateRefused(f"What comes out is no JSON: {error.msg} in its line {line}.") from None


# --- What a template may ask for -------------------------------------------------------------------------------------
VARIABLES: Final[dict[str, str]] = {
    "title": "the portal's own title, such as [CRITICAL] Memory is high",
    "text": "the portal's own text, with every alert, its facts and links",
    "status": "firing or resolved",
    "severity": "info, warning, error or critical: the worst of those that fire",
    "name": "the first alert's name (its rule's)",
    "summary": "the first alert's summary",
    "description": "the first alert's description",
    "service": "the first alert's service",
    "value": "the first alert's value, a number; `value_text` with its unit",
    "value_text": "93 %",
    "threshold": "the threshold of its severity, a number; `threshold_text` with comparison and unit",
    "threshold_text": "> 90 %",
    "unit": "percent, bytes, seconds, …, for `| quantity(unit)`",
    "starts_at": "when the first alert began, in RFC 3339; see the filter `time`",
    "ends_at": "when it ended; empty while it lasts",
    "labels": "labels that all alerts have in common",
    "annotations": "annotations that all alerts have in common",
    "alerts": "every alert: name, title, status, severity, service, text, value, value_text, threshold, "
    "threshold_text, unit, starts_at, ends_at, labels, annotations, runbook, runbook_url, url, links",
    "count": "how many alerts, those not listed included",
    "firing": "how many of those listed fire",
    "resolved": "how many of those listed have ended",
    "group_labels": "the labels by which the alerts were put together",
    "incident": "number and url of the incident, where all belong to one",
    "runbook": "what to do: the first alert's steps",
    "runbook_url": "the first alert's runbook_url",
    "changes": "what was changed in the hour before, a line each",
    "links": "url (the page), answer (acknowledge, silence, resolve without a log-in), incident, chart, silence",
    "facts": "what is known of the first alert: {name: text}",
    "reason": "why this message is sent now",
}
"""Variables by name, and what the docs say."""


def variables(message: Message) -> dict[str, Any]:
    """Return what a template sees of the message: texts, numbers, lists and mappings only."""
    alerts = [_alert(item) for item in message.alerts]
    first: dict[str, Any] = alerts[0] if alerts else _alert(Item("", message.status, message.severity))
    links = {_key(name): url for name, url in message.links}
    incident = {"number": message.incident, "url": links.get("incident", "")} if message.incident is not None else {}
    return {
        **{name: first[name] for name in _OF_FIRST},
        "title": message.title,
        "text": render(message, limit=LONGEST_VALUE, with_title=False, with_url=False),
        "status": message.status,
        "severity": message.severity,
        "summary": first["title"],
        "description": first["text"],
        "labels": _shared([alert["labels"] for alert in alerts]),
        "annotations": _shared([alert["annotations"] for alert in alerts]),
        "alerts": alerts,
        "count": len(alerts) + message.truncated,
        "firing": sum(alert["status"] == "firing" for alert in alerts),
        "resolved": sum(alert["status"] == "resolved" for alert in alerts),
        "group_labels": _cut(message.group_labels),
        "incident": incident,
        "changes": list(message.changes),
        "links": {"url": message.url, "answer": message.answer_url, **links},
        "facts": {name: cut(value, LONGEST_VALUE) for name, value in (message.alerts[0].facts if alerts else ())},
        "reason": message.reason,
    }


_OF_FIRST: Final = (
    "name", "service", "value", "value_text", "threshold", "threshold_text", "unit", "starts_at", "ends_at",
    "runbook", "runbook_url",
)  # fmt: skip


def _alert(item: Item) -> dict[str, Any]:
    threshold = "" if item.threshold is None else f"{item.comparison} {quantity(item.threshold, item.unit)}".strip()
    return {
        "name": item.name or item.labels.get("alertname", ""),
        "title": cut(item.title, LONGEST_VALUE),
        "status": item.status,
        "severity": item.severity,
        "service": dict(item.facts).get("Service", "") or item.labels.get("service", ""),
        "text": cut(item.text, LONGEST_VALUE),
        "value": item.value,
        "value_text": "" if item.value is None else quantity(item.value, item.unit),
        "threshold": item.threshold,
        "threshold_text": threshold,
        "unit": item.unit,
        "starts_at": item.started_at,
        "ends_at": item.ended_at,
        "labels": _cut(item.labels),
        "annotations": _cut(item.annotations),
        "runbook": cut(item.runbook, LONGEST_VALUE),
        "runbook_url": cut(item.runbook_url, LONGEST_VALUE),
        "url": item.url,
        "links": {_key(name): url for name, url in item.links},
    }


def _key(name: str) -> str:
    """ "Incident #12" is links.incident."""
    return name.split(maxsplit=1)[0].lower()


def _cut(pairs: Mapping[str, str]) -> dict[str, str]:
    return {name: cut(str(value), LONGEST_VALUE) for name, value in pairs.items()}


def _shared(mappings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    if not mappings:
        return {}
    first, *rest = mappings
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in rest)}


# --- What is wrong with a template -----------------------------------------------------------------------------------
EXAMPLE: Final = Message(
    title="[CRITICAL] Memory is high on web-1",
    body="Alerts: 1 firing.",
    severity="critical",
    url="https://portal.example/monitoring/alerts/alert_1/",
    alerts=(
        Item(
            title="Memory is high on web-1",
            status="firing",
            severity="critical",
            text="93 % of memory is used.",
            url="https://portal.example/monitoring/alerts/alert_1/",
            labels={"alertname": "Memory", "instance": "web-1", "service": "shop", "severity": "critical"},
            annotations={"summary": "Memory is high on web-1", "runbook_url": "https://wiki.example/memory"},
            started_at="2026-11-23T11:55:00.000Z",
            fingerprint="00ff",
            facts=(
                ("Severity", "critical"),
                ("Service", "shop"),
                ("Value", "93 % (threshold > 90 %)"),
                ("Since", "2026-11-23 11:55:00 UTC, for 5 min"),
                ("Runbook", "https://wiki.example/memory"),
            ),
            name="Memory",
            value=93.0,
            threshold=90.0,
            comparison=">",
            unit="percent",
            runbook="1. Look at the newest deployment.\n2. Restart the worker.",
            runbook_url="https://wiki.example/memory",
            links=(("Chart", "https://portal.example/monitoring/alerts/alert_1/#panel-alert"),),
        ),
    ),
    group_key="root:{alertname=Memory}",
    group_labels={"alertname": "Memory"},
    reason="first notification",
    answer_url="https://portal.example/r/token/",
    changes=("11:42 UTC shop: deployed 4.2 (ann)",),
    links=(("Incident #12", "https://portal.example/monitoring/incidents/12/"),),
    incident=12,
)
"""A message to try templates with before there is one."""


def ended(message: Message) -> Message:
    """Return the message of the end of what a message says."""
    over = tuple(replace(item, status="resolved", ended_at=item.started_at) for item in message.alerts)
    title = message.title.replace(f"[{message.severity.upper()}]", "[RESOLVED]")
    return replace(message, title=title, status="resolved", body="Alerts: 1 resolved.", alerts=over, answer_url="")


def faults(wording: Wording) -> dict[str, str]:
    """Return by field why the template cannot be saved: wrong language, unknown variables, no JSON, no document."""
    from apps.notifications import sandbox

    found: dict[str, str] = {}
    if not wording.parts:
        return {"body": "Write a title, a body or a document: an empty template says nothing."}
    kinds = channels.all()
    channel = kinds.get(wording.kind)
    if wording.document.strip() and (channel is None or not channel.document):
        takers = ", ".join(kind for kind, plugin in kinds.items() if plugin.document)
        found["document"] = f"Only these channels take a document of your own: {takers}."
        return found
    for name, text in wording.parts:
        try:
            if unknown := sorted(sandbox.names_in(text) - VARIABLES.keys()):
                found[name] = _unknown(unknown[0])
        except sandbox.TemplateRefused as error:
            found[name] = str(error)
    if not found:
        for name, _ in wording.parts:
            others = {other: "" for other, _ in wording.parts if other != name}
            try:
                applied(EXAMPLE, replace(wording, **others), channel or Channel)  # type: ignore[arg-type]
            except sandbox.TemplateRefused as error:
                found[name] = str(error)
    return found


def _unknown(name: str) -> str:
    near = get_close_matches(name, VARIABLES, n=1, cutoff=0.6)
    meant = f" Did you mean {near[0]}?" if near else " The docs list what there is."
    return f"There is no variable {name!r}.{meant}"


def lint(wording: Wording, message: Message = EXAMPLE) -> list[str]:
    """Return what whoever gets such a message will miss, a sentence each; faults are not repeated."""
    from apps.notifications import sandbox

    if faults(wording):
        return []
    asked: set[str] = set()
    for _, text in wording.parts:
        asked |= sandbox.names_in(text)
    source = " ".join(text for _, text in wording.parts)
    says: list[str] = []
    own_title, own_body = bool(wording.title.strip()), bool(wording.body.strip() or wording.document.strip())
    channel = channels.all().get(wording.kind)
    is_json = channel is not None and channel.document == "json" and bool(wording.document.strip())
    if own_title and own_body and not asked & {"title", "summary", "text", "alerts", "name"}:
        says.append("It does not say what is wrong: use {{ title }} or {{ summary }}.")
    if own_body and "runbook" not in source and not asked & {"text", "facts"}:
        says.append("It does not say what to do: use {{ runbook }} or {{ runbook_url }}.")
    if is_json and not asked & {"links", "text"} and ".url" not in source:
        says.append("It has no link, and the portal adds none to JSON: use {{ links.answer }} or {{ links.url }}.")
    if own_body and not asked & {"value", "value_text", "text", "facts", "alerts"}:
        says.append("It does not say by how much: use {{ value_text }} and {{ threshold_text }}.")
    if (own_title or is_json) and not asked & {"status", "title"}:
        says.append("It looks the same when all is over: use {{ status }} or {{ title }}.")
    return says + [line for kind in _small(wording) for line in _lengths(wording, message, kind)]


def _small(wording: Wording) -> list[type[Channel]]:
    """The channels with little room that the template would be used for."""
    return [one for kind, one in channels.all().items() if one.longest and wording.kind in ("", kind)][:1]


def _lengths(wording: Wording, message: Message, channel: type[Channel]) -> list[str]:
    try:
        told = applied(message, wording, channel)
    except Exception:  # said elsewhere
        return []
    whole = brief(told, limit=10**6)
    if len(whole) > channel.longest:
        return [f"{channel.label} cuts it off at {channel.longest} of {len(whole):,} characters."]
    parts = segments(whole)
    return [f"{channel.label} sends it in {parts} parts, each of which is paid for."] if parts > 2 else []


@document("templates.md", "What message templates may use")
def describe() -> str:
    """Return the tables of variables, filters and functions for the docs."""
    from apps.notifications import sandbox

    rows = [
        "## Variables",
        "",
        "| name | |",
        "|---|---|",
        *(f"| `{name}` | {_cell(what)} |" for name, what in VARIABLES.items()),
    ]
    rows += ["", "## Filters", "", "| name | |", "|---|---|"]
    rows += [f"| `{name}` | {_cell(what)} |" for name, (_, what) in sandbox.FILTERS.items()]
    rows += ["", "## Functions", ""]
    for kind, of in ((str, "texts"), (dict, "mappings")):
        rows.append(f"- of {of}: {', '.join(f'`{name}()`' for name in sandbox.METHODS[kind])}")
    rows += [
        f"- `range(n)` up to {sandbox.MOST_RANGE:,}",
        "",
        "## Limits",
        "",
        f"{MOST_SOURCE:,} characters of a template, {sandbox.MOST_OUT:,} of what comes out, and",
        f"{sandbox.BUDGET:,} parts worked through, loops counted out. A text message is cut at {SMS} characters.",
    ]
    return "\n".join(rows)


def _cell(text: str) -> str:
    """A bar within a table's cell, in code, too."""
    return text.replace("|", "\\|")
