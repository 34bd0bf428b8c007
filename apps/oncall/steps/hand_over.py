"""Go on with another policy."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.oncall.steps import Known, Moment, Outcome, PolicyName, Step


class HandOver(Step):
    """Goes on with the steps of another policy, and comes back no more; its steps are copied when this one begins."""

    kind = "hand_over"
    label = "Hand over to another policy"

    class Config(forms.Form):
        """To which policy."""

        policy = PolicyName(help_text="Its steps are taken from here on; those behind this one are not.")

    def run(self, moment: Moment) -> Outcome:
        """Ask for the other policy."""
        name = str(self.settings.get("policy", ""))
        return Outcome(reason=f"hands over to {name}", hand_over=name)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:  # noqa: ARG003
        """Name the policy."""
        return f"Hand over to {settings.get('policy', '')}"
