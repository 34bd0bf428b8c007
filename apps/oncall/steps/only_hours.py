"""Take the next steps within certain hours only."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms

from apps.accounts.hours import Hours, check_country, parse_week, parse_zone
from apps.oncall.steps import CalendarName, Known, Moment, Outcome, Step


class OnlyHours(Step):
    """Leaves out the steps behind it, so many of them, outside of certain hours of the week or on holidays."""

    kind = "only_hours"
    label = "Only in hours"

    class Config(forms.Form):
        """Which hours, where, and for how many steps they count."""

        calendar = CalendarName(
            required=False, help_text="Its hours, time zone and holidays count then, and none of the following."
        )
        hours = forms.CharField(
            required=False,
            max_length=2000,
            initial="mon-fri 08:00-18:00",
            help_text="Such as mon-fri 08:00-18:00; more than one are parted by ;. Empty: the whole week.",
        )
        zone = forms.CharField(
            required=False, max_length=60, initial="UTC", help_text="Time zone, such as Europe/Berlin. Empty: UTC."
        )
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
            return _judged(parse_zone, self.cleaned_data["zone"] or "UTC")

        def clean_country(self) -> str:
            """Refuse a country whose holidays nobody knows."""
            country = self.cleaned_data["country"].upper()
            return _judged(check_country, country) if country else ""

        def clean(self) -> dict[str, Any]:
            """Keep nothing that does not count."""
            cleaned = super().clean() or self.cleaned_data
            if cleaned.get("calendar"):
                cleaned.update(hours="", zone="UTC", country="")
            return cleaned

    def run(self, moment: Moment) -> Outcome:
        """Leave steps out, or let them be taken. A calendar that is gone closes nothing: better told than not."""
        settings = self.settings
        hours: Hours | None
        if name := str(settings.get("calendar") or ""):
            hours = moment.calendars.get(name)
        else:
            zone = parse_zone(str(settings["zone"]))
            hours = Hours(zone, parse_week(str(settings.get("hours", ""))), country=str(settings.get("country", "")))
        if hours is None:
            return Outcome(reason=f"holds: the calendar {name} is gone or cannot be read")
        is_within = hours.covers(moment.at)
        whose = f"the hours of {name}" if name else "its hours"
        words = f"{_there(moment.at, hours)} is {'within' if is_within else 'outside of'} {whose}"
        if is_within != bool(settings.get("outside")):
            return Outcome(reason=f"holds: {words}")
        count = int(settings["steps"])
        return Outcome(reason=f"leaves out the next {count}: {words}", skip=count)

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:  # noqa: ARG003
        """Say when the next steps are taken."""
        when = "outside of" if settings.get("outside") else "in"
        if settings.get("calendar"):
            return f"Next {settings.get('steps', 1)} only {when} the hours of {settings['calendar']}"
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
