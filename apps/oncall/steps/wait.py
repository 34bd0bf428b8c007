"""Give someone time to acknowledge."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django import forms

from apps.oncall.steps import Known, Moment, Outcome, Step


class Wait(Step):
    """Waits before the next step; an acknowledgement in the meantime stops the escalation."""

    kind = "wait"
    label = "Wait"

    class Config(forms.Form):
        """How long."""

        minutes = forms.FloatField(
            min_value=0.01,
            max_value=7 * 24 * 60,
            initial=15,
            help_text="Until the next step; 0.5 is half a minute.",
        )

    def run(self, moment: Moment) -> Outcome:
        """Ask for the pause."""
        pause = timedelta(minutes=float(self.settings["minutes"]))
        return Outcome(reason=f"waits {self.settings['minutes']:g} min for an acknowledgement", pause=pause)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:  # noqa: ARG003
        """Say how long."""
        return f"Wait {settings.get('minutes', 0):g} min"
