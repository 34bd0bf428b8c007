"""SMS by Twilio (https://www.twilio.com/docs/messaging/api/message-resource)."""

import uuid
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from apps.notifications.channels import Channel
from apps.notifications.message import Message
from apps.notifications.plaintext import SMS, SMS_LIMITS, brief
from apps.notifications.twilio import TwilioConfig, create


class Sms(Channel):
    """One text message to one number."""

    kind = "sms"
    label = "SMS (Twilio)"
    longest = SMS
    limits = SMS_LIMITS

    class Config(TwilioConfig):
        """A number or a messaging service sends."""

        messaging_service = forms.CharField(
            label="Messaging service SID", required=False, max_length=34, help_text="Instead of a number."
        )

        def clean(self) -> dict[str, Any] | None:
            """Need one of the two senders."""
            cleaned = super().clean()
            if not (self.cleaned_data.get("sender") or self.cleaned_data.get("messaging_service")):
                raise ValidationError("Enter a number (From) or a messaging service.")
            return cleaned

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Send; the id is Twilio's SID. Twilio takes no idempotency key here."""
        values = {"To": self.settings["to"], "Body": brief(message, limit=SMS)}
        service = self.settings.get("messaging_service")
        values |= {"MessagingServiceSid": service} if service else {"From": self.settings["sender"]}
        return create(self.settings, "Messages", values, self.timeout)

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the number."""
        return str(config.get("to", ""))
