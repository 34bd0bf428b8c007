"""A telephone call by Twilio (https://www.twilio.com/docs/voice/api/call-resource) that reads the message aloud."""

import uuid
from collections.abc import Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

from django import forms

from apps.notifications import twilio
from apps.notifications.channels import Channel
from apps.notifications.fields import PHONE
from apps.notifications.incoming import Call, Heard
from apps.notifications.message import Message
from apps.notifications.plaintext import cut, one_line

SPOKEN: Final = 400
"""Characters read aloud, twice: half a minute each."""


class Voice(Channel):
    """Calls one number."""

    kind = "voice"
    label = "Telephone (Twilio)"
    longest = SPOKEN
    limits = "3/15m, 7/1h"
    hears = True

    class Config(twilio.TwilioConfig):
        """Calls come from a number of the account."""

        sender = forms.CharField(
            label="From", max_length=16, validators=[PHONE], help_text="A number of the account, with country code."
        )

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Start the call; the id is Twilio's SID. Whether somebody took it is told by a receipt."""
        values = {"To": self.settings["to"], "From": self.settings["sender"], "Twiml": twiml(message)}
        return twilio.create(self.settings, "Calls", values | twilio.callback(message), self.timeout)

    def hear(self, call: Call) -> Heard:
        """Take what became of a call."""
        return Heard(twilio.receipts(twilio.verify(call, self.settings["auth_token"])))

    @classmethod
    def caller(cls, call: Call) -> Mapping[str, str]:
        """Go by the account."""
        return {"account_sid": call.values.get("AccountSid", "")}

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
