"""Have a machine do something."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.oncall.steps import Known, Moment, Outcome, Step, WebhookId


class Webhook(Step):
    """Calls a webhook contact with what is wrong, such as to restart something. It counts as nobody told.

    The call is a delivery like any other: tried again, logged, its outcome on the incident's timeline. Whatever it
    meets, the escalation goes on.
    """

    kind = "webhook"
    label = "Call a webhook"

    class Config(forms.Form):
        """Which one."""

        contact = WebhookId(help_text="A contact of the channel webhook.")

    def run(self, moment: Moment) -> Outcome:
        """Ask for the call."""
        return Outcome(reason="calls a webhook", call=int(self.settings["contact"]))

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:
        """Name the contact."""
        ident = settings.get("contact", 0)
        return f"Call {known.webhooks.get(ident, f'deleted contact {ident}')}"
