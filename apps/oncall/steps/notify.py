"""Tell contacts."""

from collections.abc import Mapping
from typing import Any

from django import forms

from apps.oncall.steps import ContactIds, Known, Moment, Outcome, Step


class Notify(Step):
    """Tells the chosen contacts, those of the route, the fall-back contact, or all of them."""

    kind = "notify"
    label = "Notify"

    class Config(forms.Form):
        """Whom to tell."""

        contacts = ContactIds(required=False, help_text="Told each time the escalation comes here.")
        route_contacts = forms.BooleanField(
            required=False, label="The route's contacts", help_text="Whoever the route or the rule names at that time."
        )
        fallback = forms.BooleanField(required=False, label="The fall-back contact")

        def clean(self) -> dict[str, Any]:
            """Refuse a step that tells nobody."""
            cleaned = super().clean() or self.cleaned_data
            if not (cleaned.get("contacts") or cleaned.get("route_contacts") or cleaned.get("fallback")):
                raise forms.ValidationError(
                    "Choose at least one contact, the route's contacts or the fall-back contact: "
                    "a step that tells nobody is never meant."
                )
            return cleaned

    def run(self, moment: Moment) -> Outcome:
        """Ask for the contacts to be told."""
        return Outcome(
            reason=f"tells its contacts, round {moment.rounds + 1}" if moment.rounds else "tells its contacts",
            contacts=tuple(self.settings.get("contacts", ())),
            route_contacts=bool(self.settings.get("route_contacts")),
            fallback=bool(self.settings.get("fallback")),
        )

    @classmethod
    def describe(cls, settings: Mapping[str, Any], known: Known) -> str:
        """Name those who are told."""
        told = [known.contacts.get(ident, f"deleted contact {ident}") for ident in settings.get("contacts", ())]
        told += ["the route's contacts"] if settings.get("route_contacts") else []
        told += ["the fall-back contact"] if settings.get("fallback") else []
        return "Notify " + ", ".join(told)
