"""Tell whoever is on call by a schedule."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.oncall.steps import Moment, Outcome, ScheduleName, Step


class NotifySchedule(Step):
    """Tells whoever is on call by a schedule at that moment, by that person's own contacts.

    Where that is nobody, or somebody without a contact, the fall-back contact is told and the escalation says why.
    """

    kind = "notify_schedule"
    label = "Notify who is on call"

    class Config(forms.Form):
        """By which schedule."""

        schedule = ScheduleName(help_text="Whoever it has on call when the escalation comes here.")

    def run(self, moment: Moment) -> Outcome:
        """Ask for the person on call to be told."""
        name = str(self.settings.get("schedule", ""))
        return Outcome(reason=f"tells who is on call by {name}", schedule=name)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], names: Mapping[int, str]) -> str:  # noqa: ARG003
        """Name the schedule."""
        return f"Notify who is on call by {settings.get('schedule', '')}"
