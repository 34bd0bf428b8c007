"""Take the next steps within certain hours only."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms

from apps.accounts.hours import Hours, check_country, parse_week, parse_zone
from apps.oncall.steps import Known, Moment, Outcome, Step


class OnlyHours(Step):
    """Leaves out the steps behind it, so many of them, outside of certain hours of the week or on holidays."""

    kind = "only_hours"
    label = "Only in hours"

    class Config(forms.Form):
        """Which hours, where, and for how many steps they count."""

        hours = forms.CharField(
            required=False,
            max_length=2000,
            initial="mon-fri 08:00-18:00",
            help_text="Such as mon-fri 08:00-18:00; more than one are parted by ;. Empty: the whole week.",
        )
        zone = forms.CharField(max_length=60, initial="UTC", help_text="Time zone, such as Europe/Berlin.")
        country = forms.CharField(
            required=False, max_length=10, help_text="Whose public holidays are outside, such as DE or DE-BY."
        )
        outside = forms.BooleanField(
            required=False, help_text="The other way round: the next steps are for outside of these hours."
        )
        steps = forms.IntegerField(
            min_value=1, max_value=50, initial=1, help_text="How many of the next steps are left out otherwise."
        )

        def clean_hours(self) -> str:
            """Refuse what is no hours."""
            return _judged(parse_week, self.cleaned_data["hours"])

        def clean_zone(self) -> str:
            """Refuse what is no zone."""
            return _judged(parse_zone, self.cleaned_data["zone"])

        def clean_country(self) -> str:
            """Refuse a country whose holidays nobody knows."""
            country = self.cleaned_data["country"].upper()
            return _judged(check_country, country) if country else ""

    def run(self, moment: Moment) -> Outcome:
        """Leave steps out, or let them be taken."""
        settings = self.settings
        zone = parse_zone(str(settings["zone"]))
        hours = Hours(zone, parse_week(str(settings.get("hours", ""))), country=str(settings.get("country", "")))
        is_within = hours.covers(moment.at)
        words = f"{_there(moment.at, hours)} is {'within' if is_within else 'outside of'} its hours"
        if is_within != bool(settings.get("outside")):
            return Outcome(reason=f"holds: {words}")
        count = int(settings["steps"])
        return Outcome(reason=f"leaves out the next {count}: {words}", skip=count)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:  # noqa: ARG003
        """Say when the next steps are taken."""
        when = "outside of" if settings.get("outside") else "in"
        hours = " ".join(str(settings.get("hours", "")).split()) or "the whole week"
        holidays = f", no holidays of {settings['country']}" if settings.get("country") else ""
        return f"Next {settings.get('steps', 1)} only {when} {hours} {settings.get('zone', '')}{holidays}"


def _judged(check: Any, text: str) -> str:
    try:
        check(text)
    except ValueError as error:
        raise forms.ValidationError(str(error)) from None
    return text


def _there(at: datetime, hours: Hours) -> str:
    return f"{at.astimezone(hours.zone):%a %H:%M} {hours.zone.key}"
