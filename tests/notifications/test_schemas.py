"""What leaves for a provider fits the rules that it documents, whatever a message says. Lengths are in UTF-16 units."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest
from jsonschema import Draft202012Validator, ValidationError, validators

from apps.notifications.channels import Sender, channels
from apps.notifications.message import Item, Message
from apps.notifications.plaintext import cut, length
from tests.notifications.receivers import Answer, HttpReceiver
from tests.notifications.test_conformance import SETTINGS, TAKEN

KEY = uuid.UUID("6f1f7c1e-0000-4000-8000-000000000001")


def text(longest: int, shortest: int = 1, **more: Any) -> dict[str, Any]:
    return {"type": "string", "minLength": shortest, "maxLength": longest, **more}


def exactly(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """Return the schema of an object with these fields and no others."""
    fields = required | optional
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def several(items: Any, most: int, least: int = 1) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


URL: Final = text(2048, pattern="^https?://")

# --- Slack: https://docs.slack.dev/reference/block-kit/blocks, …/methods/chat.postMessage, …/messaging ----------------
MRKDWN = exactly({"type": {"const": "mrkdwn"}, "text": text(3000)})
PLAIN = exactly({"type": {"const": "plain_text"}, "text": text(75)}, emoji={"type": "boolean"})
BUTTON = exactly(
    {"type": {"const": "button"}, "text": PLAIN},
    url=text(3000, pattern="^https?://"),
    action_id=text(255),
    value=text(2000),
    style={"enum": ["primary", "danger"]},
)
FIELD = exactly({"type": {"const": "mrkdwn"}, "text": text(2000)})
TITLE = exactly({"type": {"const": "plain_text"}, "text": text(150)}, emoji={"type": "boolean"})
BLOCK = {
    "oneOf": [
        exactly({"type": {"const": "header"}, "text": TITLE}),
        exactly({"type": {"const": "section"}, "text": MRKDWN}),
        exactly({"type": {"const": "section"}, "fields": several(FIELD, 10)}),
        exactly({"type": {"const": "actions"}, "elements": several(BUTTON, 25)}),
        exactly({"type": {"const": "context"}, "elements": several(MRKDWN, 10)}),
    ]
}
COLOUR = text(7, pattern="^#[0-9a-f]{6}$")
ATTACHMENT = exactly({"color": COLOUR, "fallback": text(300), "blocks": several(BLOCK, 50)})
SLACK = {"text": text(4000), "attachments": several(ATTACHMENT, 20)}
QUIET = {"unfurl_links": {"const": False}, "unfurl_media": {"const": False}}
PLACE = text(80, pattern="^([CGDUW][A-Z0-9]+|#.+)$")
TS = text(20, pattern=r"^[0-9]+\.[0-9]+$")
POST = exactly({"channel": PLACE, **SLACK}, **QUIET)
NOTE = exactly({"channel": PLACE, "text": text(4000), "thread_ts": TS}, reply_broadcast={"type": "boolean"})

# --- Teams: https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-reference ----------
TEXT_BLOCK = exactly(
    {"type": {"const": "TextBlock"}, "text": text(10_000)},
    wrap={"type": "boolean"},
    size={"enum": ["Small", "Default", "Medium", "Large", "ExtraLarge"]},
    weight={"enum": ["Lighter", "Default", "Bolder"]},
    color={"enum": ["default", "dark", "light", "accent", "good", "warning", "attention"]},
    isSubtle={"type": "boolean"},
    separator={"type": "boolean"},
)
FACT = exactly({"title": text(1000, 0), "value": text(5000, 0)})
OPEN_URL = exactly({"type": {"const": "Action.OpenUrl"}, "title": text(100), "url": URL})
FACT_SET = exactly({"type": {"const": "FactSet"}, "facts": several(FACT, 100)})
CARD = exactly(
    {
        "type": {"const": "AdaptiveCard"},
        "version": {"enum": ["1.0", "1.1", "1.2", "1.3", "1.4", "1.5"]},
        "body": several({"oneOf": [TEXT_BLOCK, FACT_SET]}, 200),
    },
    **{
        "$schema": {"const": "http://adaptivecards.io/schemas/adaptive-card.json"},
        "msteams": exactly({"width": {"const": "Full"}}),
        "actions": several(OPEN_URL, 6, 0),
    },
)
ADAPTIVE = {"const": "application/vnd.microsoft.card.adaptive"}
TEAMS = exactly(
    {
        "type": {"const": "message"},
        "attachments": several(exactly({"contentType": ADAPTIVE, "content": CARD}, contentUrl={"type": "null"}), 1),
    }
)

# --- Twilio: https://www.twilio.com/docs/messaging/api/message-resource, …/voice/api/call-resource --------------------
E164 = text(16, pattern=r"^\+[1-9][0-9]{6,14}$")
SMS = exactly({"To": E164, "From": E164, "Body": text(1600)}, StatusCallback=URL)
CALL = exactly({"To": E164, "From": E164, "Twiml": text(4000, pattern="^<Response>.*</Response>$")}, StatusCallback=URL)

# --- PagerDuty: https://developer.pagerduty.com/docs/events-api-v2/trigger-events/ -----------------------------------
RFC3339 = text(40, pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
EVENT = exactly(
    {"summary": text(1024), "source": text(1024), "severity": {"enum": ["critical", "error", "warning", "info"]}},
    timestamp=RFC3339,
    group=text(1024),
    **{"class": text(1024), "custom_details": {"type": "object"}},
)
TRIGGER = exactly(
    {"routing_key": text(64), "event_action": {"const": "trigger"}, "dedup_key": text(255), "payload": EVENT},
    client=text(1024),
    client_url=URL,
    links=several(exactly({"href": URL, "text": text(1024)}), 50),
)
END = exactly({"routing_key": text(64), "event_action": {"enum": ["resolve", "acknowledge"]}, "dedup_key": text(255)})

# --- Opsgenie: https://docs.opsgenie.com/docs/alert-api#create-alert -------------------------------------------------
CREATE = exactly(
    {"message": text(130)},
    alias=text(512),
    description=text(15_000, 0),
    tags=several(text(50), 20, 0),
    details={"type": "object", "additionalProperties": text(8000, 0)},
    entity=text(512, 0),
    source=text(100),
    priority={"enum": ["P1", "P2", "P3", "P4", "P5"]},
)
CLOSE = exactly({}, source=text(100), note=text(25_000, 0), user=text(100))

# --- Discord: https://discord.com/developers/docs/resources/message#embed-object -------------------------------------
EMBED = exactly(
    {"title": text(256), "description": text(4096, 0), "color": {"type": "integer", "minimum": 0, "maximum": 0xFFFFFF}},
    url=URL,
)
DISCORD = exactly({"embeds": several(EMBED, 10), "allowed_mentions": exactly({"parse": several({}, 0, 0)})})

# --- Telegram: https://core.telegram.org/bots/api#sendmessage ---------------------------------------------------------
KEYBOARD = exactly({"inline_keyboard": several(several(exactly({"text": text(64), "url": URL}), 8), 100)})
TELEGRAM = exactly(
    {"chat_id": text(100), "text": text(4096)},
    link_preview_options=exactly({"is_disabled": {"const": True}}),
    disable_notification={"type": "boolean"},
    message_thread_id={"type": "integer", "minimum": 1},
    reply_markup=KEYBOARD,
)

SCHEMAS: dict[tuple[str, str], dict[str, Any]] = {
    ("slack", ""): exactly(SLACK, channel=text(80)),
    ("slack_bot", "chat.postMessage"): {"oneOf": [POST, NOTE]},
    ("slack_bot", "chat.update"): exactly({"channel": PLACE, "ts": TS, **SLACK}, **QUIET),
    ("teams", ""): TEAMS,
    ("sms", "Messages.json"): SMS,
    ("voice", "Calls.json"): CALL,
    ("pagerduty", "enqueue"): {"oneOf": [TRIGGER, END]},
    ("opsgenie", "alerts"): CREATE,
    ("opsgenie", "close"): CLOSE,
    ("discord", ""): DISCORD,
    ("telegram", "sendMessage"): TELEGRAM,
}
LARGEST = {"teams": 28_000, "pagerduty": 512_000, "slack": 100_000, "slack_bot": 100_000}
"""Bytes of a whole body, where that is documented or known."""


def _in_units(validator: Any, most: int, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and length(instance) > most:
        yield ValidationError(f"{length(instance)} units are more than {most}: {instance[:60]!r}…")


Strict = validators.extend(Draft202012Validator, {"maxLength": _in_units})

HOSTILE: dict[str, str] = {
    "nothing": "",
    "long": "x" * 10_000,
    "HTML": "<script>alert('x')</script>&<!channel>" * 200,
    "right to left": "\u202eمرحبا\u202c " * 1000,
    "emoji": "🔥" * 10_000,
    "quotes": "\"'\\`*_~[](){}\n\t" * 600,
}


def hostile(words: str) -> Message:
    item = Item(
        title=words,
        status="firing",
        severity="critical",
        text=words,
        url="https://portal.example.com/monitoring/alerts/alert_1/",
        labels={f"label_{n}": words for n in range(50)} | {"alertname": words, "instance": words, "service": words},
        started_at="2026-11-23T11:55:00.000Z",
        facts=tuple((words[:300], words[:4000]) for _ in range(12)),
    )
    return Message(
        title=words,
        body=words,
        severity="critical",
        url=item.url,
        facts=item.facts,
        alerts=(item,) * 20,
        group_key=words,
        group_labels=dict(item.labels),
        reason=words,
        truncated=40,
        answer_url="https://portal.example.com/r/AAAAAAAAAAAAAAAAAAAAAA:1vBd7S:abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN/",
        receipt_url="https://portal.example.com/from/sms/AAAAAAAAAAAAAAAAAAAAAA:1vBd7S:abcdefghijklmnopqrstuvwxyzABCDEFG/",
        code="K7Q",
    )


def shape_of(kind: str, path: str) -> dict[str, Any]:
    end = path.partition("?")[0].rpartition("/")[2]
    return SCHEMAS.get((kind, end)) or SCHEMAS[kind, ""]


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in SCHEMAS}))
def test_every_body_fits_what_its_provider_documents(http_receiver: HttpReceiver, kind: str):
    http_receiver.answer = lambda request: Answer(body=TAKEN.get(kind, b"{}"))
    settings = SETTINGS[kind](http_receiver.url) | {"replies": True}
    channel = channels.get(kind)(settings, Sender("night shift", "https://portal.example.com", ()))
    earlier = "C0123ABCD:171234.000001" if channel.rewrites else ""
    for name, words in HOSTILE.items():
        http_receiver.requests.clear()
        message = hostile(words)
        over, plain = replace(message, status="resolved", answer_url=""), replace(message, alerts=(), facts=())
        told = (message, replace(over, earlier=earlier), plain, replace(plain, status="test"))
        for each in (*told, replace(message, earlier=earlier)):
            channel.send(each, KEY)
        assert len(http_receiver.requests) >= 5
        for request in http_receiver.requests:
            is_form = "urlencoded" in request.headers["content-type"]
            body = dict(parse_qsl(request.content.decode())) if is_form else request.json()
            errors = sorted(Strict(shape_of(kind, request.path)).iter_errors(body), key=lambda error: str(error.path))
            assert not errors, "\n".join([name, *(_words(error) for error in errors[:5])])
            assert len(request.content) <= LARGEST.get(kind, 1_000_000), name


def _words(error: ValidationError) -> str:
    """Name the deepest thing that is wrong: of alternatives the one that came closest."""
    while error.context:
        error = max(error.context, key=lambda each: len(each.absolute_path))
    return f"{list(error.absolute_path)}: {error.message[:300]}"


def _texts(part: Any) -> Iterator[str]:
    match part:
        case {"text": str(words)}:
            yield words
        case dict():
            yield from (words for each in part.values() for words in _texts(each))
        case list():
            yield from (words for each in part for words in _texts(each))


def test_sums_that_no_schema_can_say_are_kept(http_receiver: HttpReceiver):
    for words in HOSTILE.values():
        for kind in ("discord", "opsgenie", "slack"):
            channels.get(kind)(SETTINGS[kind](http_receiver.url), Sender()).send(hostile(words), KEY)
        discord, opsgenie, slack = (request.json() for request in http_receiver.requests[-3:])
        assert sum(length(str(value)) for embed in discord["embeds"] for value in embed.values()) <= 6000
        assert sum(length(name + value) for name, value in opsgenie["details"].items()) <= 8000
        assert sum(map(length, _texts(slack["attachments"][0]["blocks"]))) <= 13_000


@pytest.mark.parametrize("limit", [0, 1, 2, 5, 6, 7, 20])
@pytest.mark.parametrize("words", ["plain", "🔥🔥🔥", "a🔥b🔥", "é\u0301"])
def test_a_text_is_cut_between_letters_never_amid_one(words: str, limit: int):
    short = cut(words, limit)
    assert length(short) <= max(limit, 1)
    assert words.startswith(short.removesuffix("…"))
