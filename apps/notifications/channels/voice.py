"""A telephone call by Twilio (https://www.twilio.com/docs/voice/api/call-resource) that reads the message aloud."""

import uuid
from collections.abc import Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

from django import forms

from apps.notifications.channels import Channel
from apps.notifications.fields import PHONE
from apps.notifications.message import Message
from apps.notifications.plaintext import cut, one_line
from apps.notifications.twilio import TwilioConfig, create

SPOKEN: Final = 400
"""Characters read aloud, twice: half a minute each."""


class Voice(Channel):
    """Calls one number."""

    kind = "voice"
    label = "Telephone (Twilio)"
    longest = SPOKEN
    limits = "3/15m, 7/1h"

    class Config(TwilioConfig):
        """Calls come from a number of the account."""

        sender = forms.CharField(
            label="From", max_length=16, validators=[PHONE], help_text="A number of the account, with country code."
        )

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Start the call; the id is Twilio's SID. That somebody listened is not known here."""
        values = {"To": self.settings["to"], "From": self.settings["sender"], "Twiml": twiml(message)}
        return create(self.settings, "Calls", values, self.timeout)

    @classmethod
    def shown(cls, message: Message) -> dict[str, Any]:
        """Show what is said: the title alone."""
        said = cut(one_line(message.title), SPOKEN)
        return {"title": message.title, "text": said, "characters": len(said)}

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the number."""
        return str(config.get("to", ""))


def twiml(message: Message) -> str:
    """Return what is said, twice, as TwiML; no text of a user becomes markup."""
    words = escape("".join(letter for letter in cut(one_line(message.title), SPOKEN) if letter.isprintable()))
    said = f"<Say>Message from the monitoring portal. {words}</Say>"
    return f"<Response>{said}<Pause length='1'/>{said}</Response>"
