"""Encryption of secrets at rest: Fernet with rotation, one derivation, one model field.

The first key encrypts, every key decrypts; re-saving a row moves it to the newest key.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models

MASK = "••••••••"


class Undecryptable(Exception):
    """A stored secret that none of the configured keys opens."""


@functools.lru_cache(maxsize=4)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    def derive(key: str) -> Fernet:
        digest = hashlib.scrypt(key.encode(), salt=b"monitoring-portal secrets v1", n=2**12, r=8, p=1, dklen=32)
        return Fernet(base64.urlsafe_b64encode(digest))

    return MultiFernet([derive(key) for key in keys])


def encrypt(text: str) -> str:
    """Return the text encrypted with the newest key."""
    return _fernet(tuple(settings.SECRET_FIELD_KEYS)).encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """Return the plain text; `Undecryptable` says what to do."""
    try:
        return _fernet(tuple(settings.SECRET_FIELD_KEYS)).decrypt(token.encode()).decode()
    except InvalidToken:
        raise Undecryptable(
            "A stored secret cannot be decrypted with the keys in SECRET_KEY and SECRET_KEY_FALLBACKS: "
            "put the former SECRET_KEY into SECRET_KEY_FALLBACKS, or enter the secret again."
        ) from None


def mask(values: dict[str, Any]) -> dict[str, Any]:
    """Return the same keys with every non-empty value hidden, for audit entries and answers."""
    return {key: MASK if value else "" for key, value in values.items()}


def readable(row: Any) -> dict[str, Any]:
    """Return the stored `secrets` of a row; none where no key opens them: those must be entered again."""
    try:
        return dict(row.secrets or {})
    except Undecryptable:
        return {}


def merged(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the secrets that stand after a form: one that is left out, blank or masked stays, None removes it."""
    kept = {name: value for name, value in stored.items() if given.get(name, MASK) is not None}
    return kept | {name: value for name, value in given.items() if value not in (None, "", MASK)}


class EncryptedJSONField(models.TextField[Any, Any]):
    """A JSON value that is stored encrypted. Write-only by convention: forms and answers show `mask()`."""

    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else encrypt(json.dumps(value, sort_keys=True))

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        return None if value is None else json.loads(decrypt(value)) if value else {}

    def to_python(self, value: Any) -> Any:
        return value
