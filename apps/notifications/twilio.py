"""Twilio's REST API (https://www.twilio.com/docs/usage/api), as channels use it: an account creates resources.

What Twilio tells in return is signed with the account's token (https://www.twilio.com/docs/usage/security).
"""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from xml.sax.saxutils import escape

from django import forms
from django.core.validators import RegexValidator

from apps.core import http
from apps.notifications.channels import answered, basic, raise_for
from apps.notifications.fields import PHONE, provider_url
from apps.notifications.incoming import Call, Receipt, Unverified
from apps.notifications.message import Message

ACCOUNT: Final = RegexValidator(r"^AC[0-9a-fA-F]{32}\Z", "An account SID is AC and 32 hexadecimal digits.")


class TwilioConfig(forms.Form):
    """What every use of Twilio needs: the account and the number to reach."""

    to = forms.CharField(label="To", max_length=16, validators=[PHONE], help_text="With country code: +4930123456.")
    account_sid = forms.CharField(label="Account SID", max_length=34, validators=[ACCOUNT])
    auth_token = forms.CharField(max_length=200, widget=forms.PasswordInput, help_text="From Twilio's console.")
    sender = forms.CharField(
        label="From", required=False, max_length=40, help_text="A number of the account, or a sender's name."
    )
    api_url = provider_url("Empty: https://api.twilio.com. Other regions: https://api.dublin.ie1.twilio.com.")


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


def callback(message: Message) -> dict[str, str]:
    """Return the parameter by which Twilio tells what became of the message, where it can reach the portal.

    Twilio refuses the whole request (21609) where the address is no public one.
    """
    host = urlsplit(message.receipt_url).hostname or ""
    return {"StatusCallback": message.receipt_url} if is_public(host) else {}


def is_public(host: str) -> bool:
    """Whether a host may be reachable from outside: a full name, or a public address."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".local", ".internal", ".localhost"))


def verify(call: Call, auth_token: str) -> dict[str, str]:
    """Return the parameters of a request that Twilio signed with the account's token; else `Unverified`."""
    told = "".join(name + value for name, value in sorted(call.pairs))
    digest = hmac.new(auth_token.encode(), (call.url + told).encode(), hashlib.sha1).digest()
    given = call.headers.get("x-twilio-signature", "")
    if not hmac.compare_digest(base64.b64encode(digest), given.encode()):
        raise Unverified("The signature is not Twilio's for this account and address: see PORTAL_URL.")
    return dict(call.pairs)


STATES: Final = {
    **dict.fromkeys(("accepted", "scheduled", "queued", "sending", "sent", "initiated", "ringing"), "underway"),
    **dict.fromkeys(("in-progress", "delivered", "read", "completed"), "delivered"),
    **dict.fromkeys(("undelivered", "failed"), "failed"),
    **dict.fromkeys(("busy", "no-answer", "canceled"), "unanswered"),
}
"""MessageStatus and CallStatus (https://www.twilio.com/docs/messaging/api/message-resource#message-status-values)."""


def receipts(values: Mapping[str, str]) -> tuple[Receipt, ...]:
    """Return what Twilio tells of a message or call; nothing where the status is none of the documented ones."""
    status = values.get("MessageStatus") or values.get("CallStatus") or ""
    if status not in STATES:
        return ()
    code = values.get("ErrorCode", "")
    words = f"Twilio: {status}" + (f" (error {code})" if code.isdigit() and code != "0" else "")
    return (Receipt(STATES[status], words, provider_id=values.get("MessageSid") or values.get("CallSid") or ""),)


def speak(text: str) -> tuple[str, bytes]:
    """Return the answer to a text message as TwiML: one text message, or none."""
    said = f"<Message>{escape(text)}</Message>" if text else ""
    return "text/xml", f'<?xml version="1.0" encoding="UTF-8"?><Response>{said}</Response>'.encode()
