"""Twilio's REST API (https://www.twilio.com/docs/usage/api), as channels use it: an account creates resources."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from django import forms
from django.core.validators import RegexValidator

from apps.core import http
from apps.notifications.channels import answered, basic, raise_for
from apps.notifications.fields import PHONE

ACCOUNT: Final = RegexValidator(r"^AC[0-9a-fA-F]{32}\Z", "An account SID is AC and 32 hexadecimal digits.")


class TwilioConfig(forms.Form):
    """What every use of Twilio needs: the account and the number to reach."""

    to = forms.CharField(label="To", max_length=16, validators=[PHONE], help_text="With country code: +4930123456.")
    account_sid = forms.CharField(label="Account SID", max_length=34, validators=[ACCOUNT])
    auth_token = forms.CharField(max_length=200, widget=forms.PasswordInput, help_text="From Twilio's console.")
    sender = forms.CharField(
        label="From", required=False, max_length=40, help_text="A number of the account, or a sender's name."
    )
    api_url = forms.URLField(
        label="API",
        required=False,
        assume_scheme="https",
        max_length=500,
        help_text="Empty: https://api.twilio.com. Other regions: https://api.dublin.ie1.twilio.com.",
    )


def create(settings: Mapping[str, Any], resource: str, values: Mapping[str, str], timeout: float) -> str:
    """Create a resource of the account and return its SID."""
    api = (settings.get("api_url") or "https://api.twilio.com").rstrip("/")
    headers = {
        "Authorization": basic(settings["account_sid"], settings["auth_token"]),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    url = f"{api}/2010-04-01/Accounts/{settings['account_sid']}/{resource}.json"
    response = http.send("POST", url, headers=headers, content=urlencode(values).encode(), timeout=timeout)
    raise_for(response, "Twilio")
    return str(answered(response, "sid"))
