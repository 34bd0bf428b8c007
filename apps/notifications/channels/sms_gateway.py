"""SMS by any HTTP gateway: the address, the names of its two fields and its secret are settings."""

import hmac
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import orjson
from django import forms
from django.core.validators import RegexValidator

from apps.accounts.permissions import secret_in
from apps.core import http
from apps.notifications.channels import Channel, answered, raise_for
from apps.notifications.fields import HEADER_VALUE, PHONE, no_login
from apps.notifications.incoming import Answer, Call, Heard, Receipt, Unverified, read
from apps.notifications.message import Message
from apps.notifications.plaintext import SMS, SMS_LIMITS, brief, cut, one_line

IDS: Final = ("id", "message_id", "messageId")
"""Where gateways put a message's id: in the answer to the request, and in what they tell later."""
STATES: Final = {
    **dict.fromkeys(("queued", "accepted", "buffered", "sending", "sent"), "underway"),
    **dict.fromkeys(("delivered", "read"), "delivered"),
    **dict.fromkeys(("undelivered", "undeliverable", "failed", "rejected", "expired", "error"), "failed"),
}
FIELD = RegexValidator(r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z", "A field's name has letters, digits, _, . and -.")


def formats() -> list[tuple[str, str]]:
    """Return the shapes of a request that gateways take."""
    return [("json", "JSON"), ("form", "Form fields")]


class SmsGateway(Channel):
    """Posts number and text to a gateway of yours, or of a provider that has no channel of its own."""

    kind = "sms_gateway"
    label = "SMS (HTTP gateway)"
    longest = SMS
    limits = SMS_LIMITS
    hears = True

    class Config(forms.Form):
        """How the gateway wants to be asked."""

        url = forms.URLField(label="URL", assume_scheme="https", max_length=2000, validators=[no_login])
        to = forms.CharField(max_length=16, validators=[PHONE], help_text="With country code: +4930123456.")
        format = forms.ChoiceField(choices=formats, initial="json", required=False)
        to_field = forms.CharField(
            required=False, validators=[FIELD], initial="to", help_text="Name of the field with the number: to."
        )
        text_field = forms.CharField(
            required=False, validators=[FIELD], initial="text", help_text="Name of the field with the text: text."
        )
        token = forms.CharField(
            required=False,
            max_length=4000,
            validators=[HEADER_VALUE],
            widget=forms.PasswordInput,
            help_text="Sent as “Authorization: Bearer …”.",
        )
        inbound_token = forms.CharField(
            required=False,
            min_length=16,
            max_length=400,
            validators=[HEADER_VALUE],
            widget=forms.PasswordInput,
            help_text="With it the gateway may tell the portal of replies and receipts at /from/sms_gateway/: "
            "sent as “Authorization: Bearer …”, as password of Basic, or as “X-API-Key”.",
        )

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Post; the delivery's key goes along as Idempotency-Key."""
        code = message.code if self.settings.get("inbound_token") else ""
        values = {
            self.settings.get("to_field") or "to": self.settings["to"],
            self.settings.get("text_field") or "text": brief(message, limit=SMS, code=code),
        }
        headers = {"Idempotency-Key": str(key)}
        if token := self.settings.get("token"):
            headers["Authorization"] = f"Bearer {token}"
        url = self.settings["url"]
        if self.settings.get("format") == "form":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            response = http.send("POST", url, headers=headers, content=urlencode(values).encode(), timeout=self.timeout)
        else:
            response = http.send("POST", url, headers=headers, json=values, timeout=self.timeout)
        raise_for(response, urlsplit(url).hostname or "The gateway")
        return str(next((found for name in IDS if (found := answered(response, name))), ""))

    def hear(self, call: Call) -> Heard:
        """Take {"from", "text"}, what somebody wrote, or {"id", "status", "error"}, what became of a message."""
        given = secret_in(call.headers.get("authorization", ""), call.headers.get("x-api-key", "")) or ""
        wanted = str(self.settings.get("inbound_token") or "")
        if not wanted or not hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace")):
            raise Unverified("The token is not the contact's.")
        values = call.values
        if status := values.get("status"):
            state = STATES.get(status.lower(), "")
            words = f"The gateway: {one_line(status)} {one_line(values.get('error', ''))}".strip()
            ident = next((values[name] for name in IDS if values.get(name)), "")
            return Heard((Receipt(state, cut(words, 300), provider_id=ident),) if state else ())
        action, code = read(values.get("text", ""))
        sender = values.get("from", "").replace(" ", "")
        return Heard(answer=Answer(action, sender=f"+{sender.lstrip('+')}", code=code))

    def speak(self, call: Call, text: str) -> tuple[str, bytes]:
        """Hand over the answer, for the gateway to send."""
        return "application/json", orjson.dumps({"text": text})

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the number."""
        return str(config.get("to", ""))
