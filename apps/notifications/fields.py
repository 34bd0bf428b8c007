"""What the forms of several channels ask for: fields, and checks of headers, telephone numbers and addresses."""

from typing import Final
from urllib.parse import urlsplit

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator

HEADER_VALUE: Final = RegexValidator(
    r"^[\x21-\x7e]+\Z", "A token is sent in a header: it may hold visible ASCII characters only, and no spaces."
)
PHONE: Final = RegexValidator(r"^\+[1-9][0-9]{6,14}\Z", "A number has its country code: +4930123456 (E.164).")


def no_login(url: str) -> None:
    """Refuse a login in an address that everybody who may read contacts would see."""
    if "@" in urlsplit(url).netloc:
        raise ValidationError("No user name or password here, where readers see them: use the token.")


def incoming_url(where: str, label: str = "Webhook URL") -> forms.URLField:
    """Return the field of an incoming webhook's address, a secret: whoever knows it may post. `where` it is found."""
    return forms.URLField(
        label=label, assume_scheme="https", max_length=2000, widget=forms.PasswordInput, help_text=where
    )


def provider_url(help_text: str) -> forms.URLField:
    """Return the field of a provider's API, empty for the usual one: regions, servers of one's own, tests."""
    return forms.URLField(label="API", required=False, assume_scheme="https", max_length=500, help_text=help_text)


class IncomingWebhook(forms.Form):
    """A chat's incoming webhook, as Slack invented it and others took over."""

    field_order = ("webhook_url", "channel")
    channel = forms.CharField(
        required=False,
        max_length=80,
        help_text="Name of the channel; empty: the webhook's own. Slack honours it for older webhooks only.",
    )
