"""Alerts as others tell them: Alertmanager's API and webhook, PagerDuty's events. Pure: bodies in, reports out.

Sources: Alertmanager's `api/v2/openapi.yaml` and a real 0.25 asked side by side (its sentences are kept where clients
show them); https://prometheus.io/docs/alerting/latest/configuration/#webhook_config;
https://developer.pagerduty.com/docs/send-alert-event.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from apps.alerting.identity import fingerprint
from apps.alerting.lifecycle import Severity
from apps.alerting.plainrules import ALIASES
from apps.core.text import storable
from apps.promql.text import quote

LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
MOST_TEXT: Final = 64_000
"""Bytes of one alert's labels and annotations: each list, message and audit entry carries them."""
MOST_LABELS: Final = 16_000
"""Bytes of its labels alone: routes, groups and series are made of them."""
MOST_KEY: Final = 255


class Unreadable(ValueError):
    """A body that is not what it says it is. `code` as in go-openapi: 400 for the whole, 6xx for a field (HTTP 422)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        """The HTTP status that it is answered with."""
        return self.code if self.code < 600 else 422


class Refused(ValueError):
    """One alert of a body that cannot be taken, in the words that its sender is told."""


@dataclass(frozen=True, slots=True)
class Report:
    """One alert as it is told. `ends_at` None: it lasts until nobody repeats it; in the past: it is over."""

    fingerprint: bytes
    type: str
    severity: Severity
    message: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    service: str = ""
    category: str = "custom"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        """Whether it says that the alert has ended."""
        return self.ends_at is not None and self.ends_at <= now

    @property
    def matched(self) -> dict[str, str]:
        """The labels that routes, silences and scopes match: as of a stored alert."""
        extra = {"type": self.type, "category": self.category, "severity": self.severity, "service": self.service}
        return {"alertname": self.type, **{name: value for name, value in extra.items() if value}, **self.labels}


def severity_of(word: str) -> Severity:
    """Return the severity that a sender's word for it means: as in rule files; another word, or none, is a warning."""
    return ALIASES.get(word.strip().lower(), Severity.WARNING)


def moment(text: Any) -> datetime | None:
    """Read an RFC 3339 time; None for none, and for Go's zero. Raises ValueError."""
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no time")
    try:
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:
        return None
    return None if found.year <= 1 else found


# --- Alertmanager ---------------------------------------------------------------------------------------------------
def of_labels(
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    *,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    url: str = "",
) -> Report:
    """Return the report of an alert whose identity is its label set. Raises Refused."""
    kept = {name: storable(value) for name, value in labels.items() if value}
    if not kept:
        raise Refused("at least one label pair required")
    for name in kept:
        if LABEL.fullmatch(name) is None:
            raise Refused(f"invalid label set: invalid name {quote(name)}")
    if starts_at is not None and ends_at is not None and ends_at < starts_at:
        raise Refused("start time must be before end time")
    notes = {}
    for name, value in annotations.items():
        if LABEL.fullmatch(name) is None:
            raise Refused(f"invalid annotations: invalid name {quote(name)}")
        notes[name] = storable(value)
    _bound(kept, notes)
    name = kept.get("alertname", "alert")
    message = notes.get("summary") or notes.get("description") or notes.get("message") or name
    return Report(
        fingerprint=fingerprint(kept),
        type=name[:100],
        severity=severity_of(kept.get("severity", "")),
        message=message[:10_000],
        labels=kept,
        annotations=notes,
        service=kept.get("service", "")[:100],
        category=kept.get("category", "custom"),
        metadata={"generatorURL": storable(url)[:2000]} if url else {},
        starts_at=starts_at,
        ends_at=ends_at,
    )


def _bound(labels: Mapping[str, str], notes: Mapping[str, str]) -> None:
    size = sum(len(name) + len(value.encode()) for name, value in labels.items())
    if size > MOST_LABELS:
        raise Refused(f"label set too large: {size} bytes, at most {MOST_LABELS} are kept with an alert")
    size += sum(len(name) + len(value.encode()) for name, value in notes.items())
    if size > MOST_TEXT:
        raise Refused(f"alert too large: {size} bytes of labels and annotations, at most {MOST_TEXT} are kept")


@dataclass(frozen=True)
class Batch:
    """What a body held: the reports that can be taken, and why the others cannot, by their place."""

    reports: Sequence[Report]
    problems: Mapping[int, str]


def posted_alerts(body: bytes) -> Batch:
    """Read the body of `POST /api/v2/alerts`. Raises Unreadable where it is no list of alerts."""
    found = document("alerts", body)
    if not isinstance(found, list):
        raise wrong_type("alerts", found, "models.PostableAlerts")
    reports, problems = [], {}
    for place, item in enumerate(found):
        if not isinstance(item, dict):
            raise wrong_type("alerts", item, "models.PostableAlert")
        if "labels" not in item:
            raise Unreadable(602, f"{place}.labels in body is required")
        starts_at, ends_at = (time_in("alerts", item.get(name)) for name in ("startsAt", "endsAt"))
        labels = texts("alerts", item["labels"], "Alert.labels")
        annotations = texts("alerts", item.get("annotations"), "PostableAlert.annotations")
        try:
            reports.append(
                of_labels(
                    labels,
                    annotations,
                    starts_at=starts_at,
                    ends_at=ends_at,
                    url=str(item.get("generatorURL") or ""),
                )
            )
        except Refused as why:
            problems[place] = str(why)
    return Batch(reports, problems)


def webhook_alerts(body: bytes) -> Batch:
    """Read what Alertmanager's (or Grafana's) webhook sends. Raises Unreadable."""
    found = document("webhook", body)
    alerts = found.get("alerts") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(alerts, list):
        raise Unreadable(400, "This is no webhook of Alertmanager: an object with a list under “alerts” is expected.")
    if str(found.get("version", "4")) not in ("4", "1"):
        raise Unreadable(400, f"Version {found['version']!r} of the webhook is not known; 4 is (and 1, Grafana's).")
    reports, problems = [], {}
    for place, item in enumerate(alerts):
        if not isinstance(item, dict):
            raise Unreadable(400, f"Alert {place} is no object.")
        status = item.get("status", found.get("status"))
        try:
            starts_at, ends_at = moment(item.get("startsAt")), moment(item.get("endsAt"))
            if status == "resolved" and ends_at is None:
                ends_at = starts_at or datetime.fromtimestamp(0, UTC)
            report = of_labels(
                texts("webhook", item.get("labels"), "labels"),
                texts("webhook", item.get("annotations"), "annotations"),
                starts_at=starts_at,
                # One that fires says of its end only when somebody would have to repeat it, which a webhook does not.
                ends_at=ends_at if status == "resolved" else None,
                url=str(item.get("generatorURL") or ""),
            )
        except (Refused, ValueError) as why:
            problems[place] = str(why)
        else:
            reports.append(report)
    return Batch(reports, problems)


_KINDS: Final = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}


def document(what: str, body: bytes) -> Any:
    """Read JSON as Alertmanager's server does. Raises Unreadable."""
    if not body.strip():
        raise Unreadable(602, f"{what} in body is required")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unreadable(400, f'parsing {what} body from "" failed, because {error}') from None


def wrong_type(what: str, found: Any, wanted: str) -> Unreadable:
    """Return the error for a value of another kind than the document's schema has."""
    kind = _KINDS.get(type(found), "null")
    return Unreadable(
        400, f'parsing {what} body from "" failed, because json: cannot unmarshal {kind} into Go value of type {wanted}'
    )


def texts(what: str, found: Any, where: str) -> dict[str, str]:
    """Read an object of texts. Raises Unreadable."""
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise wrong_type(what, found, "models.LabelSet")
    for value in found.values():
        if not isinstance(value, str):
            kind = _KINDS.get(type(value), "null")
            said = f"json: cannot unmarshal {kind} into Go struct field {where} of type string"
            raise Unreadable(400, f'parsing {what} body from "" failed, because {said}')
    return found


def time_in(what: str, text: Any) -> datetime | None:
    """Read a time of a document. Raises Unreadable."""
    try:
        return moment(text)
    except ValueError as error:
        said = f"parsing time {quote(str(text))}: {error}"
        raise Unreadable(400, f'parsing {what} body from "" failed, because {said}') from None


# --- PagerDuty ------------------------------------------------------------------------------------------------------
ACTIONS: Final = ("trigger", "acknowledge", "resolve")
_PAYLOAD_LABELS: Final = ("class", "component", "group")


@dataclass(frozen=True)
class Event:
    """One event of PagerDuty's Events API v2; `report` for a trigger, `fingerprint` for all."""

    action: str
    dedup_key: str
    fingerprint: bytes
    report: Report | None


class InvalidEvent(ValueError):
    """An event that is refused; `errors` are the sentences of PagerDuty's answer."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = list(errors)


def routing_key(body: bytes) -> str:
    """Return the routing key of an event, or an empty string: it says who sends, so it is read before all else."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    key = found.get("routing_key") if isinstance(found, dict) else None
    return key if isinstance(key, str) else ""


def event(body: bytes, *, sender: str, fresh_key: str) -> Event:
    """Read the body of `POST /v2/enqueue`; keys of one `sender` are not those of another. Raises InvalidEvent.

    A trigger without a key gets `fresh_key`.
    """
    found = _event_object(body)
    action, key, errors = found.get("event_action"), found.get("dedup_key"), []
    if action not in ACTIONS:
        errors.append("'event_action' is missing or invalid (must be one of: trigger, acknowledge, resolve)")
    if key is not None and (not isinstance(key, str) or len(key) > MOST_KEY):
        errors.append(f"'dedup_key' is too long or no text (at most {MOST_KEY} characters)")
        key = None
    if action in ("acknowledge", "resolve") and not key:
        errors.append("'dedup_key' is missing or blank")
    payload = found.get("payload")
    if action == "trigger":
        errors += _payload_errors(payload)
    if errors:
        raise InvalidEvent(errors)
    key = storable(key or "") or fresh_key
    identity = fingerprint({"sender": sender, "dedup_key": key})
    report = _triggered(found, payload, key, identity) if action == "trigger" and isinstance(payload, dict) else None
    return Event(str(action), key, identity, report)


def _event_object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent([f"the body is no JSON: {error}"]) from None
    if not isinstance(found, dict):
        raise InvalidEvent(["the event is no JSON object"])
    return found


def _payload_errors(payload: Any) -> list[str]:
    if not isinstance(payload, dict):
        return ["'payload' is missing or blank"]
    errors = [
        f"'payload.{name}' is missing or blank"
        for name in ("summary", "source", "severity")
        if not isinstance(payload.get(name), str) or not payload[name].strip()
    ]
    if payload.get("severity") and payload["severity"] not in list(Severity):
        errors.append("'payload.severity' is invalid (must be one of: critical, error, warning, info)")
    try:
        moment(payload.get("timestamp"))
    except ValueError:
        errors.append("'payload.timestamp' is no ISO 8601 time")
    return errors


def _triggered(found: Mapping[str, Any], payload: Mapping[str, Any], key: str, identity: bytes) -> Report:
    given = {name: storable(str(payload[name])) for name in _PAYLOAD_LABELS if payload.get(name)}
    summary = storable(payload["summary"].strip())[:1024]
    labels = {
        "alertname": (given.get("class") or summary)[:200],
        "severity": payload["severity"],
        "instance": storable(payload["source"]),
        **given,
    }
    links = [f"{link.get('text') or ''} {link.get('href') or ''}".strip() for link in _objects(found.get("links"))]
    notes = {"summary": summary, "links": storable("\n".join(links)[:4000])}
    about = {
        "dedup_key": key,
        "client": found.get("client"),
        "client_url": found.get("client_url"),
        "custom_details": payload.get("custom_details"),
    }
    about = {name: value for name, value in about.items() if value}
    if (size := len(orjson.dumps(about)) + sum(len(text.encode()) for text in labels.values())) > MOST_TEXT:
        raise InvalidEvent([f"the event is too large ({size} bytes, at most {MOST_TEXT})"])
    return Report(
        fingerprint=identity,
        type=labels["alertname"][:100],
        severity=Severity(payload["severity"]),
        message=summary,
        labels={name: value for name, value in labels.items() if value},
        annotations={name: value for name, value in notes.items() if value},
        service=given.get("component", "")[:100],
        metadata=about,
        starts_at=moment(payload.get("timestamp")),
    )


def _objects(found: Any) -> list[Mapping[str, Any]]:
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


@dataclass(frozen=True)
class ChangeEvent:
    """A change as PagerDuty's `/v2/change/enqueue` tells it."""

    summary: str
    source: str
    at: datetime | None
    links: tuple[str, ...]
    details: Mapping[str, Any]


def change_event(body: bytes) -> ChangeEvent:
    """Read a change event. Raises InvalidEvent."""
    found = _event_object(body)
    payload = found.get("payload")
    if not isinstance(payload, dict):
        raise InvalidEvent(["'payload' is missing or blank"])
    summary = payload.get("summary")
    if not isinstance(summary, str) or not summary.strip():
        raise InvalidEvent(["'payload.summary' is missing or blank"])
    try:
        at = moment(payload.get("timestamp"))
    except ValueError:
        raise InvalidEvent(["'payload.timestamp' is no ISO 8601 time"]) from None
    details = payload.get("custom_details")
    links = tuple(str(link["href"])[:2000] for link in _objects(found.get("links")) if link.get("href"))
    return ChangeEvent(
        storable(summary.strip())[:1024],
        storable(str(payload.get("source") or "")),
        at,
        links,
        details if isinstance(details, dict) else {},
    )
