"""Links by which whoever got a message answers it: signed, expiring, of one delivery. What they do is a `Reply` row."""

import base64
import binascii
import uuid
from datetime import timedelta
from typing import Final

from django.core import signing

LIFETIME: Final = timedelta(days=7)
_SALT: Final = "notifications.reply"


class LinkError(Exception):
    """A link that says nothing; the sentence is for the person who opened it."""


def token_of(key: uuid.UUID) -> str:
    """Return the token of the delivery with that key, for a URL: about 60 characters."""
    short = base64.urlsafe_b64encode(key.bytes).decode().rstrip("=")
    return signing.TimestampSigner(salt=_SALT).sign(short)


def key_in(token: str) -> uuid.UUID:
    """Return the key of the delivery that the token belongs to; `LinkError` when it is forged, cut or old."""
    try:
        short = signing.TimestampSigner(salt=_SALT).unsign(token, max_age=LIFETIME)
        return uuid.UUID(bytes=base64.urlsafe_b64decode(short + "=="))
    except signing.SignatureExpired:
        raise LinkError(f"This link is older than {LIFETIME.days} days. Log in to see how things stand.") from None
    except (signing.BadSignature, binascii.Error, ValueError):
        raise LinkError("This link is not whole, or not ours. Copy it again from the message, or log in.") from None


def url_of(portal_url: str, key: uuid.UUID) -> str:
    """Return the address of the page that asks what to do."""
    return f"{portal_url}/r/{token_of(key)}/"
