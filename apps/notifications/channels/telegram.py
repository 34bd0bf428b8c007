"""Telegram, by a bot (https://core.telegram.org/bots/api#sendmessage): plain text, so that no label becomes markup."""

import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from django import forms
from django.core.validators import RegexValidator

from apps.core import http
from apps.notifications.channels import Channel, answered, raise_for
from apps.notifications.fields import provider_url
from apps.notifications.message import Message
from apps.notifications.plaintext import render

LONGEST: Final = 4096
"""Characters in one message."""
TOKEN: Final = RegexValidator(r"^[0-9]+:[A-Za-z0-9_-]+\Z", "A bot's token is a number, a colon and letters.")
CHAT: Final = RegexValidator(r"^(-?[0-9]+|@[A-Za-z0-9_]+)\Z", "A chat is a number, or @name of a public channel.")


class Telegram(Channel):
    """Sends as a bot to one chat, group or channel."""

    kind = "telegram"
    label = "Telegram"

    class Config(forms.Form):
        """The bot and the chat."""

        token = forms.CharField(
            max_length=200, validators=[TOKEN], widget=forms.PasswordInput, help_text="From @BotFather."
        )
        chat = forms.CharField(
            max_length=100, validators=[CHAT], help_text="Number of the chat (negative for groups), or @channel."
        )
        thread = forms.IntegerField(required=False, min_value=1, help_text="Topic of a forum group.")
        api_url = provider_url("Empty: https://api.telegram.org. A Bot API server of your own otherwise.")

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Send the text; the id is Telegram's message_id. The Bot API takes no idempotency key."""
        api = (self.settings.get("api_url") or "https://api.telegram.org").rstrip("/")
        body: dict[str, Any] = {
            "chat_id": self.settings["chat"],
            "text": render(message, limit=LONGEST).strip() or "Message",
            "link_preview_options": {"is_disabled": True},
            "disable_notification": message.status == "resolved" or message.severity == "info",
        }
        links = (("Acknowledge…", message.answer_url), ("Open", message.url))
        # Telegram refuses buttons that lead to a host without a dot; those who run it so have the link in the text.
        if buttons := [{"text": text, "url": url} for text, url in links if "." in (urlsplit(url).hostname or "")]:
            body["reply_markup"] = {"inline_keyboard": [buttons]}
        if self.settings.get("thread"):
            body["message_thread_id"] = self.settings["thread"]
        response = http.send("POST", f"{api}/bot{self.settings['token']}/sendMessage", json=body, timeout=self.timeout)
        raise_for(response, "Telegram")
        return str(answered(response, "result", "message_id"))

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the chat."""
        return str(config.get("chat", ""))
