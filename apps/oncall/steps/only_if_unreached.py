"""Take the next steps only when the step before reached nobody."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.oncall.steps import Known, Moment, Outcome, Step


class OnlyIfUnreached(Step):
    """Leaves out the steps behind it, so many of them, if the last step that tells somebody has reached anybody.

    Nobody is reached where nobody is on call, where all contacts are gone or switched off, and where no message leaves.
    A step right before it leaves that case to it: the fall-back contact is told only if these steps tell nobody either.
    """

    kind = "only_if_unreached"
    label = "Only if nobody was reached"
    looks_back = True

    class Config(forms.Form):
        """For how many steps that counts."""

        steps = forms.IntegerField(
            min_value=1, max_value=50, initial=1, help_text="How many of the next steps are left out otherwise."
        )

    def run(self, moment: Moment) -> Outcome:
        """Leave steps out, or let them be taken."""
        if not moment.was_reached:
            return Outcome(reason="holds: nobody was reached so far")
        count = int(self.settings["steps"])
        return Outcome(reason=f"leaves out the next {count}: somebody was reached", skip=count)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:  # noqa: ARG003
        """Say for what the next steps are."""
        return f"Next {settings.get('steps', 1)} only if nobody was reached"
