"""Start over."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.oncall.steps import Known, Moment, Outcome, Step


class Repeat(Step):
    """Goes back to the first step, so many times; then the escalation goes on behind it."""

    kind = "repeat"
    label = "Repeat from the first step"

    class Config(forms.Form):
        """How often."""

        times = forms.IntegerField(min_value=1, max_value=100, initial=3, help_text="How many more rounds.")

    def run(self, moment: Moment) -> Outcome:
        """Ask for another round while there are some left."""
        times = int(self.settings["times"])
        if moment.rounds < times:
            return Outcome(reason=f"starts round {moment.rounds + 2} of {times + 1}", restart=True)
        return Outcome(reason=f"has gone round {times + 1} times")

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:  # noqa: ARG003
        """Say how often."""
        return f"Repeat {settings.get('times', 0)} times"
