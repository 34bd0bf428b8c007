"""Tell a team."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.oncall.steps import Known, Moment, Outcome, Step, TeamId


class NotifyTeam(Step):
    """Tells everybody who is a member of a team at that moment, each by their own contacts in their own order.

    Where the team is empty or gone, or none of them can be told, the fall-back contact is, and the escalation says why.
    """

    kind = "notify_team"
    label = "Notify a team"

    class Config(forms.Form):
        """Which, and how urgently."""

        team = TeamId(help_text="Its members when the escalation comes here.")
        important = forms.BooleanField(required=False, help_text="By their lists for important messages.")

    def run(self, moment: Moment) -> Outcome:
        """Ask for its members to be told."""
        important = bool(self.settings.get("important"))
        return Outcome(reason="tells its team", team=self.settings.get("team"), important=important)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:
        """Name it."""
        name = known.teams.get(settings.get("team", 0), f"deleted team {settings.get('team')}")
        return f"Notify the team {name}" + (" (important)" if settings.get("important") else "")
