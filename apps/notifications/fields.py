"""What the forms of several channels ask for: checks of headers, telephone numbers and addresses."""

from typing import Final
from urllib.parse import urlsplit

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
