"""SMS by any HTTP gateway: the address, the names of its two fields and its secret are settings."""

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from django import forms
from django.core.validators import RegexValidator

from apps.core import http
from apps.notifications.channels import Channel, raise_for
from apps.notifications.fields import HEADER_VALUE, PHONE, no_login
from apps.notifications.message import Message
from apps.notifications.plaintext import SMS, SMS_LIMITS, brief

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

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Post; the delivery's key goes along as Idempotency-Key."""
        values = {
            self.settings.get("to_field") or "to": self.settings["to"],
            self.settings.get("text_field") or "text": brief(message, limit=SMS),
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
        return ""

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the number."""
        return str(config.get("to", ""))
