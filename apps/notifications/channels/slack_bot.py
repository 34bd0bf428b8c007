"""Slack, by an app's bot (https://docs.slack.dev/reference/methods/chat.postMessage): a message that changes, buttons.

One message for a group of alerts, from its first firing to its end: it is rewritten (chat.update) as things go on, with
a note in its thread for whatever is news, so that nobody misses it. Buttons are answered at /from/slack_bot/, which
Slack signs with the app's signing secret (https://docs.slack.dev/authentication/verifying-requests-from-slack).
"""

import contextlib
import hashlib
import hmac
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

import orjson
from django import forms
from django.core.validators import RegexValidator

from apps.core import http
from apps.notifications.block_kit import LONGEST_URL, escape, link, payload
from apps.notifications.channels import Channel, DeliveryFailed, Sender, answered, raise_for
from apps.notifications.fields import HEADER_VALUE, provider_url
from apps.notifications.incoming import Answer, Call, Heard, Unverified
from apps.notifications.links import token_in
from apps.notifications.message import Message
from apps.notifications.plaintext import cut, one_line

WINDOW: Final = 300
"""Seconds for which a signature counts."""
QUICK: Final = 1.0
"""Seconds for a question to Slack while it waits three for our answer."""
PLACE: Final = RegexValidator(r"^([CGDUW][A-Z0-9]{2,}|#[^\s#@]{1,79})\Z", "Enter an id such as C0123ABCD, or #name.")
BUTTONS: Final = {
    "acknowledge": "Acknowledge",
    "escalate": "Escalate",
    "silence": "Silence 1 h",
    "resolve": "Resolve",
}
TRANSIENT: Final = frozenset(
    {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
"""Errors of the Web API after which another try may help; Slack documents the rest as lasting."""
GONE: Final = frozenset({"message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found"})
"""The message that should be rewritten is no more: a new one takes its place."""
HINTS: Final = {
    **dict.fromkeys(("channel_not_found", "not_in_channel"), "Invite the app to the channel, or mend its id."),
    **dict.fromkeys(
        ("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired"),
        "Enter the bot token of the installed app anew.",
    ),
    "is_archived": "The channel is archived: choose another one.",
    "missing_scope": "Give the app the scope chat:write (chat:write.public, users:read.email), and install it anew.",
}


class SlackBot(Channel):
    """Posts to one channel or person as an app's bot, rewrites its message and answers its buttons."""

    kind = "slack_bot"
    label = "Slack (bot)"
    hears = True
    rewrites = True

    class Config(forms.Form):
        """The app's two secrets, and where it speaks."""

        channel = forms.CharField(
            max_length=80,
            validators=[PLACE],
            help_text="A channel's id (C…) or #name, or a person's member id (U…).",
        )
        bot_token = forms.CharField(
            max_length=300,
            validators=[HEADER_VALUE],
            widget=forms.PasswordInput,
            help_text="From Slack: Your apps › OAuth & Permissions › Bot User OAuth Token (xoxb-…).",
        )
        signing_secret = forms.CharField(
            required=False,
            max_length=100,
            widget=forms.PasswordInput,
            help_text="From Slack: Your apps › Basic Information. With it messages have buttons, answered at "
            "/from/slack_bot/ of the portal (Interactivity › Request URL).",
        )
        api_url = provider_url("Empty: https://slack.com/api.")

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Rewrite what was said of the group, or post; the id is "channel:ts" of the message that is rewritten."""
        body = payload(message, self._buttons(message)) | {"unfurl_links": False, "unfurl_media": False}
        place, _, ts = message.earlier.partition(":")
        if ts:
            error, _ = self._call("chat.update", {**body, "channel": place, "ts": ts}, bearable=GONE)
            if not error:
                if message.status != "update":
                    self._call("chat.postMessage", note(message, place, ts), bearable=GONE)
                return message.earlier
        _, response = self._call("chat.postMessage", {**body, "channel": self.settings["channel"]})
        place, ts = answered(response, "channel"), answered(response, "ts")
        return f"{place}:{ts}" if place and ts else ""

    def _buttons(self, message: Message) -> list[dict[str, Any]]:
        """Return the four answers, where something is wrong and Slack may bring them; else the link to the page."""
        if not message.answer_url:
            return []
        if not self.settings.get("signing_secret"):
            return [link("Acknowledge…", message.answer_url)] if len(message.answer_url) <= LONGEST_URL else []
        is_taken_on = bool(message.alerts) and all(item.acknowledged_by for item in message.alerts)
        token = token_in(message.answer_url)
        shown = {action: text for action, text in BUTTONS.items() if not (is_taken_on and action == "acknowledge")}
        return [button(action, text, token) for action, text in shown.items()]

    def _call(
        self, method: str, body: Mapping[str, Any], *, bearable: frozenset[str] = frozenset()
    ) -> tuple[str, http.Response]:
        """Call a method of the Web API; return (a bearable error or "", the answer)."""
        response = http.send("POST", self._url(method), headers=self._headers(), json=body, timeout=self.timeout)
        raise_for(response, "Slack")
        if answered(response, "ok") is True:
            return "", response
        error = str(answered(response, "error"))
        if not re.fullmatch(r"[a-z_]{1,60}", error):
            raise DeliveryFailed("Slack's answer is none of its Web API: check the API's address.", permanent=False)
        if error in bearable:
            return error, response
        if error in TRANSIENT:
            raise DeliveryFailed(f"Slack says {error}; the message is tried again.", permanent=False)
        raise DeliveryFailed(f"Slack says {error}. {HINTS.get(error, '')}".strip(), permanent=True)

    def _url(self, method: str) -> str:
        return f"{(self.settings.get('api_url') or 'https://slack.com/api').rstrip('/')}/{method}"

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.settings['bot_token']}"}

    # --- what Slack tells ---
    def hear(self, call: Call) -> Heard:
        """Take the press of a button; other interactions are passed over."""
        verify(call, str(self.settings.get("signing_secret") or ""))
        press = interaction(call)
        pressed = _part((press.get("actions") or [{}])[0]) if isinstance(press.get("actions"), list) else {}
        action = str(pressed.get("action_id", "")).removeprefix("portal.")
        if press.get("type") != "block_actions" or action not in BUTTONS:
            return Heard()
        user = _part(press.get("user"))
        name = str(user.get("name") or user.get("username") or user.get("id") or "somebody")
        person = str(user.get("id", ""))
        return Heard(answer=Answer(action, token=str(pressed.get("value", "")), person=person, name=name[:80]))

    def speak(self, call: Call, text: str) -> tuple[str, bytes]:
        """Tell whoever pressed why it was refused, and nobody else; the message itself is rewritten by a delivery."""
        url = interaction(call).get("response_url")
        if text and isinstance(url, str):
            body = {"response_type": "ephemeral", "replace_original": False, "text": escape(text)}
            with contextlib.suppress(http.OutboundError):  # the press is written down or refused all the same
                http.send("POST", url, json=body, timeout=QUICK)
        return "text/plain; charset=utf-8", b""

    def email_of(self, call: Call, person: str) -> str:
        """Ask Slack for the address of a full member of the workspace; guests and strangers vouch for themselves."""
        headers = {**self._headers(), "Content-Type": "application/x-www-form-urlencoded"}
        try:
            content = urlencode({"user": person}).encode()
            response = http.send("POST", self._url("users.info"), headers=headers, content=content, timeout=QUICK)
            user = _part(_part(response.json()).get("user"))
        except (http.OutboundError, ValueError):
            return ""
        team = _part(interaction(call).get("team")).get("id")
        is_guest = any(user.get(name) for name in ("deleted", "is_bot", "is_restricted", "is_stranger"))
        if is_guest or not team or user.get("team_id") != team or not user.get("is_email_confirmed"):
            return ""
        return str(_part(user.get("profile")).get("email") or "")

    @classmethod
    def alertmanager(
        cls,
        config: Mapping[str, Any],
        secrets: frozenset[str],  # noqa: ARG003
        sender: Sender,  # noqa: ARG003
    ) -> Mapping[str, Mapping[str, Any]]:
        """Name the method and the channel; the token is the secret."""
        api = (config.get("api_url") or "https://slack.com/api").rstrip("/")
        token = {"authorization": {"credentials": "<secret>"}}
        url = f"{api}/chat.postMessage"
        return {"slack_configs": {"api_url": url, "channel": config.get("channel", ""), "http_config": token}}

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the channel."""
        return str(config.get("channel", ""))


def button(action: str, text: str, token: str) -> dict[str, Any]:
    """Return a button that answers; its value is the right to, as the link's address is."""
    looks = {"style": "primary"} if action == "acknowledge" else {"style": "danger"} if action == "resolve" else {}
    words = {"type": "plain_text", "text": text}
    return {"type": "button", "action_id": f"portal.{action}", "text": words, "value": token, **looks}


def note(message: Message, place: str, ts: str) -> dict[str, Any]:
    """Return a note in the thread: what fires is shown in the channel, too, for a rewritten message rings nowhere."""
    words = f"{one_line(message.title)}\n{message.body}" if message.body else one_line(message.title)
    body: dict[str, Any] = {"channel": place, "thread_ts": ts, "text": escape(cut(words, 600)) or "Message"}
    return body | {"reply_broadcast": True} if message.status == "firing" else body


def verify(call: Call, secret: str) -> None:
    """Raise `Unverified` unless Slack signed the call with the app's secret within the last five minutes."""
    at = call.headers.get("x-slack-request-timestamp", "")
    if not secret or not re.fullmatch(r"[0-9]{1,12}", at) or abs(call.at - int(at)) > WINDOW:
        raise Unverified("The call is not signed, or signed too long ago: is the portal's clock right?")
    digest = hmac.new(secret.encode(), f"v0:{at}:".encode() + call.content, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(f"v0={digest}".encode(), call.headers.get("x-slack-signature", "").encode()):
        raise Unverified("The signature is not made with the contact's signing secret.")


def interaction(call: Call) -> dict[str, Any]:
    """Return the payload of an interaction; {} where it is none."""
    try:
        return _part(orjson.loads(dict(call.pairs).get("payload", "")))
    except ValueError:
        return {}


def _part(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
