"""Take the next steps for what is bad enough only."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.alerting.lifecycle import Severity
from apps.oncall.steps import Known, Moment, Outcome, Step


class OnlySeverity(Step):
    """Leaves out the steps behind it, so many of them, unless the incident is at least so severe."""

    kind = "only_severity"
    label = "Only if severe"

    class Config(forms.Form):
        """How severe, and for how many steps that counts."""

        severity = forms.ChoiceField(
            choices=[(each.value, each.value) for each in Severity],
            initial="critical",
            help_text="At least: " + ", ".join(each.value for each in Severity) + ".",
        )
        steps = forms.IntegerField(
            min_value=1, max_value=50, initial=1, help_text="How many of the next steps are left out otherwise."
        )

    def run(self, moment: Moment) -> Outcome:
        """Leave steps out, or let them be taken."""
        least, is_now = Severity(self.settings["severity"]), Severity(moment.severity)
        if is_now.rank >= least.rank:
            return Outcome(reason=f"holds: {is_now.value} is at least {least.value}")
        count = int(self.settings["steps"])
        return Outcome(reason=f"leaves out the next {count}: {is_now.value} is below {least.value}", skip=count)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:  # noqa: ARG003
        """Say for what the next steps are."""
        return f"Next {settings.get('steps', 1)} only from {settings.get('severity', '')} on"
