"""Links by which whoever got a message answers it: signed, expiring, of one delivery. What they do is a `Reply` row.

Beside them stands what else names a delivery to somebody outside: the address of its receipts, and its short code.
"""

import base64
import binascii
import uuid
from datetime import timedelta
from typing import Final

from django.core import signing

LIFETIME: Final = timedelta(days=7)
_SALT: Final = "notifications.reply"
RECEIPT: Final = "notifications.receipt"
"""The salt of addresses that providers get: what stands in their logs does not answer a message."""
_LETTERS: Final = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"


class LinkError(Exception):
    """A link that says nothing; the sentence is for the person who opened it."""


def token_of(key: uuid.UUID, salt: str = _SALT) -> str:
    """Return the token of the delivery with that key, for a URL: about 60 characters."""
    short = base64.urlsafe_b64encode(key.bytes).decode().rstrip("=")
    return signing.TimestampSigner(salt=salt).sign(short)


def key_in(token: str, salt: str = _SALT) -> uuid.UUID:
    """Return the key of the delivery that the token belongs to; `LinkError` when it is forged, cut or old."""
    try:
        short = signing.TimestampSigner(salt=salt).unsign(token, max_age=LIFETIME)
        return uuid.UUID(bytes=base64.urlsafe_b64decode(short + "=="))
    except signing.SignatureExpired:
        raise LinkError(f"This link is older than {LIFETIME.days} days. Log in to see how things stand.") from None
    except (signing.BadSignature, binascii.Error, ValueError):
        raise LinkError("This link is not whole, or not ours. Copy it again from the message, or log in.") from None


def url_of(portal_url: str, key: uuid.UUID) -> str:
    """Return the address of the page that asks what to do."""
    return f"{portal_url}/r/{token_of(key)}/"


def token_in(answer_url: str) -> str:
    """Return the token of such an address, for a button that answers in its place; "" where there is none."""
    return answer_url.rstrip("/").rpartition("/")[2]


def receipt_url_of(portal_url: str, kind: str, key: uuid.UUID) -> str:
    """Return the address where a provider tells what became of the delivery."""
    return f"{portal_url}/from/{kind}/{token_of(key, RECEIPT)}/"


def code_of(key: uuid.UUID) -> str:
    """Return three letters by which a person names a message among those that are open (one of 29,791)."""
    number, base = int.from_bytes(key.bytes[:4]), len(_LETTERS)
    return "".join(_LETTERS[number // base**place % base] for place in range(3))
