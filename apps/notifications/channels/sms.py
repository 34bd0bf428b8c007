"""SMS by Twilio (https://www.twilio.com/docs/messaging/api/message-resource)."""

import uuid
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from apps.notifications import twilio
from apps.notifications.channels import Channel
from apps.notifications.incoming import Answer, Call, Heard, read
from apps.notifications.message import Message
from apps.notifications.plaintext import SMS, SMS_LIMITS, brief


class Sms(Channel):
    """One text message to one number."""

    kind = "sms"
    label = "SMS (Twilio)"
    longest = SMS
    limits = SMS_LIMITS
    hears = True

    class Config(twilio.TwilioConfig):
        """A number or a messaging service sends."""

        messaging_service = forms.CharField(
            label="Messaging service SID", required=False, max_length=34, help_text="Instead of a number."
        )
        replies = forms.BooleanField(
            required=False,
            help_text="Text messages to the number may be answered by text: its webhook is set to /from/sms/ of the "
            "portal. Each message then says how.",
        )

        def clean(self) -> dict[str, Any] | None:
            """Need one of the two senders."""
            cleaned = super().clean()
            if not (self.cleaned_data.get("sender") or self.cleaned_data.get("messaging_service")):
                raise ValidationError("Enter a number (From) or a messaging service.")
            return cleaned

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Send; the id is Twilio's SID. Twilio takes no idempotency key here."""
        code = message.code if self.settings.get("replies") else ""
        values = {"To": self.settings["to"], "Body": brief(message, limit=SMS, code=code), **twilio.callback(message)}
        service = self.settings.get("messaging_service")
        values |= {"MessagingServiceSid": service} if service else {"From": self.settings["sender"]}
        return twilio.create(self.settings, "Messages", values, self.timeout)

    def hear(self, call: Call) -> Heard:
        """Take what became of a message, or what somebody wrote to the number."""
        values = twilio.verify(call, self.settings["auth_token"])
        if "MessageStatus" in values or "Body" not in values:
            return Heard(twilio.receipts(values))
        action, code = read(values["Body"])
        return Heard(answer=Answer(action, sender=values.get("From", ""), code=code))

    def speak(self, call: Call, text: str) -> tuple[str, bytes]:
        """Answer by a text message."""
        return twilio.speak(text)

    @classmethod
    def caller(cls, call: Call) -> Mapping[str, str]:
        """Go by the account."""
        return {"account_sid": call.values.get("AccountSid", "")}

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the number."""
        return str(config.get("to", ""))
