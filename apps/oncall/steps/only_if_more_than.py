"""Take the next steps only when many alerts came in a short time."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django import forms

from apps.oncall.steps import Known, Moment, Outcome, Step


class OnlyIfMoreThan(Step):
    """Leaves out the steps behind it, so many of them, unless more than x alerts began in the last y minutes.

    Alerts of the incident count, and those that are told together with them.
    """

    kind = "only_if_more_than"
    label = "Only if many alerts"

    class Config(forms.Form):
        """How many in which time, and for how many steps that counts."""

        alerts = forms.IntegerField(
            min_value=1, max_value=100_000, initial=5, help_text="More than so many have to have begun."
        )
        minutes = forms.FloatField(min_value=0.1, max_value=7 * 24 * 60, initial=10, help_text="In the last minutes.")
        steps = forms.IntegerField(
            min_value=1, max_value=50, initial=1, help_text="How many of the next steps are left out otherwise."
        )

    @property
    def looks_at(self) -> timedelta:
        """The time in which they count."""
        return timedelta(minutes=float(self.settings["minutes"]))

    def run(self, moment: Moment) -> Outcome:
        """Leave steps out, or let them be taken."""
        least, since = int(self.settings["alerts"]), moment.at - self.looks_at
        found = sum(since < at <= moment.at for at in moment.began)
        words = f"{found} alerts in {float(self.settings['minutes']):g} min"
        if found > least:
            return Outcome(reason=f"holds: {words} are more than {least}")
        count = int(self.settings["steps"])
        return Outcome(reason=f"leaves out the next {count}: {words} are not more than {least}", skip=count)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:  # noqa: ARG003
        """Say for how many alerts the next steps are."""
        alerts, minutes = settings.get("alerts", ""), settings.get("minutes", "")
        return f"Next {settings.get('steps', 1)} only if more than {alerts} alerts began in {minutes} min"
