"""Secrets at rest: unreadable in the table, readable with any of the keys, masked elsewhere."""

import pytest

from apps.core import secrets


def test_what_was_encrypted_with_a_former_key_can_still_be_read(settings):
    settings.SECRET_FIELD_KEYS = ["old"]
    token = secrets.encrypt("hunter2")
    settings.SECRET_FIELD_KEYS = ["new", "old"]
    assert "hunter2" not in token
    assert secrets.decrypt(token) == "hunter2"


def test_a_lost_key_is_explained(settings):
    settings.SECRET_FIELD_KEYS = ["old"]
    token = secrets.encrypt("hunter2")
    settings.SECRET_FIELD_KEYS = ["new"]
    with pytest.raises(secrets.Undecryptable, match="SECRET_KEY_FALLBACKS"):
        secrets.decrypt(token)


def test_the_mask_hides_values_and_shows_which_are_empty():
    assert secrets.mask({"token": "abc", "user": ""}) == {"token": secrets.MASK, "user": ""}


def test_the_field_stores_ciphertext_and_gives_the_value_back():
    field = secrets.EncryptedJSONField()
    stored = field.get_prep_value({"token": "abc"})
    assert stored is not None
    assert "abc" not in stored
    assert field.from_db_value(stored, None, None) == {"token": "abc"}
