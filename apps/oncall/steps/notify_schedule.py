"""Tell whoever is on call by a schedule."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.oncall.steps import Known, Moment, Outcome, ScheduleName, Step


class NotifySchedule(Step):
    """Tells whoever is on call by a schedule at that moment, by that person's own contacts.

    Where that is nobody, or somebody without a contact, the fall-back contact is told and the escalation says why.
    """

    kind = "notify_schedule"
    label = "Notify who is on call"

    class Config(forms.Form):
        """By which schedule."""

        schedule = ScheduleName(help_text="Whoever it has on call when the escalation comes here.")
        important = forms.BooleanField(required=False, help_text="By the person's list for important messages.")

    def run(self, moment: Moment) -> Outcome:
        """Ask for the person on call to be told."""
        name = str(self.settings.get("schedule", ""))
        important = bool(self.settings.get("important"))
        return Outcome(reason=f"tells who is on call by {name}", schedule=name, important=important)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:  # noqa: ARG003
        """Name the schedule."""
        important = " (important)" if settings.get("important") else ""
        return f"Notify who is on call by {settings.get('schedule', '')}{important}"
