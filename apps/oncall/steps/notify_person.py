"""Tell people."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.oncall.steps import Known, Moment, Outcome, PersonIds, Step


class NotifyPerson(Step):
    """Tells one or more people, each by their own contacts in their own order.

    Where none of them can be told, the fall-back contact is, and the escalation says why.
    """

    kind = "notify_person"
    label = "Notify people"

    class Config(forms.Form):
        """Whom, and how urgently."""

        people = PersonIds(help_text="Told each time the escalation comes here.")
        important = forms.BooleanField(required=False, help_text="By their lists for important messages.")

    def run(self, moment: Moment) -> Outcome:
        """Ask for them to be told."""
        people = tuple(self.settings.get("people", ()))
        return Outcome(reason="tells its people", people=people, important=bool(self.settings.get("important")))

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:
        """Name them."""
        told = [known.people.get(ident, f"person {ident}, who is gone") for ident in settings.get("people", ())]
        return "Notify " + ", ".join(told) + (" (important)" if settings.get("important") else "")
