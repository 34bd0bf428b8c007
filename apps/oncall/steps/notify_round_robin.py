"""Tell one of several people, each in turn."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.oncall.steps import Known, Moment, Outcome, PersonIds, Step, TeamId


class NotifyRoundRobin(Step):
    """Tells one of some people or of a team's members, the next in turn each time an escalation comes here.

    Who cannot be told or is in their quiet hours is passed over. The turn is kept: it goes on with the next incident.
    """

    kind = "notify_round_robin"
    label = "Notify in turn (round robin)"

    class Config(forms.Form):
        """Who takes turns, and how urgently."""

        people = PersonIds(required=False, help_text="They take turns in this order.")
        team = TeamId(required=False, help_text="Or the members of a team, by username.")
        important = forms.BooleanField(required=False, help_text="By their lists for important messages.")

        def clean(self) -> dict[str, Any]:
            """Refuse a step without anybody, and one that says two things."""
            cleaned = super().clean() or self.cleaned_data
            if bool(cleaned.get("people")) == bool(cleaned.get("team")):
                raise forms.ValidationError("Choose either people or a team: the ones who take turns.")
            return cleaned

    def run(self, moment: Moment) -> Outcome:
        """Ask for the next of them to be told."""
        return Outcome(
            reason="tells the next in turn",
            people=tuple(self.settings.get("people", ())),
            team=self.settings.get("team"),
            in_turn=True,
            important=bool(self.settings.get("important")),
        )

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:
        """Name those who take turns."""
        told = [known.people.get(ident, f"person {ident}, who is gone") for ident in settings.get("people", ())]
        if (team := settings.get("team")) is not None:
            told.append(f"members of {known.teams.get(team, f'deleted team {team}')}")
        return "Notify in turn " + ", ".join(told) + (" (important)" if settings.get("important") else "")
