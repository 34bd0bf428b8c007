"""E-mail, by SMTP or any provider that Anymail knows: plain text and HTML, one thread per group of alerts."""

import base64
import hashlib
import logging
import smtplib
import uuid
from collections.abc import Mapping
from email.mime.image import MIMEImage
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from anymail.exceptions import AnymailAPIError, AnymailConfigurationError, AnymailError
from django import forms
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.mail import EmailMultiAlternatives
from django.core.validators import validate_email
from django.template.loader import render_to_string
from django.utils.safestring import mark_safe

from apps.core.foreign_http import guarded
from apps.core.http import OutboundError
from apps.notifications import chart
from apps.notifications.channels import Channel, DeliveryFailed, Sender
from apps.notifications.links import token_in
from apps.notifications.message import Curve, Message

log = logging.getLogger(__name__)

PICTURES: Final = {"light": chart.LIGHT, "dark": chart.DARK}
"""The looks of a chart, each a picture of its own: few mail programs can choose, all show the first."""


class Addresses(forms.CharField):
    """E-mail addresses separated by commas or lines; the value is a list."""

    widget = forms.Textarea

    def to_python(self, value: Any) -> Any:
        """Split what was typed, keep what is a list already."""
        parts = value if isinstance(value, (list, tuple)) else str(value or "").replace("\n", ",").split(",")
        return list(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))

    def validate(self, value: Any) -> None:
        """Name the address that is wrong."""
        super().validate(value or "")
        for address in value:
            try:
                validate_email(address)
            except ValidationError:
                raise ValidationError(f"{address!r} is no e-mail address.") from None

    def run_validators(self, value: Any) -> None:
        """Each address has been looked at; the text's own validators do not apply to a list."""

    def prepare_value(self, value: Any) -> Any:
        """Show a list as text."""
        return ", ".join(value) if isinstance(value, (list, tuple)) else value


class Email(Channel):
    """Sends through Django's mail backend, which `SMTP_*` or an Anymail provider configures."""

    kind = "email"
    label = "E-mail"
    draws = True
    document = "html"

    class Config(forms.Form):
        """From whom and to whom."""

        to = Addresses(
            required=False, help_text="Separated by commas. Empty: every active administrator who has an address."
        )
        from_address = forms.EmailField(
            required=False, label="From", help_text="Empty: ALERT_EMAIL_FROM, or the portal's default."
        )

    def send(self, message: Message, key: uuid.UUID) -> str:
        """Send one e-mail to all addresses; the Message-ID is the delivery's key, the same on every try."""
        to = list(self.settings.get("to") or self.sender.administrators)
        if not to:
            raise DeliveryFailed(self.obstacle(self.settings, self.sender), permanent=True)
        host = urlsplit(self.sender.portal_url).hostname or "monitoring-portal"
        mail = compose(
            message,
            sender=self.settings.get("from_address") or settings.DEFAULT_FROM_EMAIL,
            to=to,
            message_id=f"<{key}@{host}>",
            thread=f"<{thread_of(message, key)}@{host}>",
        )
        if message.receipt_url:
            mail.metadata = {"delivery": token_in(message.receipt_url)}  # type: ignore[attr-defined] # Anymail's
        try:
            with guarded():  # a provider's API is spoken to by Anymail itself
                mail.send()
        except OutboundError:
            raise
        except Exception as error:
            raise failure(error) from error
        ident = getattr(getattr(mail, "anymail_status", None), "message_id", None)
        # A provider that names each recipient's message apart gives a set: its receipts bring the metadata back.
        return ident if isinstance(ident, str) else f"{key}@{host}"

    @classmethod
    def recipients(cls, config: Mapping[str, Any], sender: Sender) -> tuple[str, ...]:
        """Return the addresses."""
        return tuple(config.get("to") or sender.administrators)

    @classmethod
    def shown(cls, message: Message) -> dict[str, Any]:
        """Show both parts, the pictures inside."""
        pictures = drawn(message.curve) if message.curve else {}
        inside = {look: "data:image/png;base64," + base64.b64encode(png).decode() for look, png in pictures.items()}
        return {"title": message.title, "text": text(message), "html": html(message, inside)}

    @classmethod
    def obstacle(cls, config: Mapping[str, Any], sender: Sender) -> str:
        """Miss the addresses."""
        if config.get("to") or sender.administrators:
            return ""
        return (
            "It goes to the administrators, and none of them has an e-mail address: "
            "enter one under People, or in the contact."
        )

    @classmethod
    def alertmanager(
        cls,
        config: Mapping[str, Any],
        secrets: frozenset[str],  # noqa: ARG003
        sender: Sender,
    ) -> Mapping[str, Mapping[str, Any]]:
        """Name the addresses and the server."""
        to = ", ".join(config.get("to") or sender.administrators)
        if not to:
            return {}
        server = {"smarthost": f"{settings.EMAIL_HOST}:{settings.EMAIL_PORT}", "require_tls": settings.EMAIL_USE_TLS}
        return {
            "email_configs": {"to": to, "from": config.get("from_address") or settings.DEFAULT_FROM_EMAIL, **server}
        }

    @classmethod
    def address(cls, config: Mapping[str, Any]) -> str:
        """Return the recipients."""
        return ", ".join(config.get("to") or ()) or "the administrators"


def thread_of(message: Message, key: uuid.UUID) -> str:
    """Return the name of the thread: all messages of one group hang from the same (virtual) first message."""
    if not message.group_key:
        return f"thread-{key}"
    return "thread-" + hashlib.sha256(message.group_key.encode()).hexdigest()[:32]


class _Illustrated(EmailMultiAlternatives):
    """Its attachments are pictures that the HTML shows, no files."""

    mixed_subtype = "related"


def compose(message: Message, *, sender: str, to: list[str], message_id: str, thread: str) -> EmailMultiAlternatives:
    """Return the e-mail: text, HTML, pictures, and the headers by which mail programs keep one group in one thread."""
    pictures = drawn(message.curve) if message.curve else {}
    idents = {look: f"{look}.{message_id.strip('<>')}" for look in pictures}
    mail = (_Illustrated if pictures else EmailMultiAlternatives)(
        subject=" ".join(message.title.split())[:200],
        body=text(message),
        from_email=sender,
        to=to,
        headers={
            "Message-ID": message_id,
            "In-Reply-To": thread,
            "References": thread,
            "Auto-Submitted": "auto-generated",
            "X-Portal-Severity": message.severity,
            "X-Portal-Status": message.status,
        },
    )
    if message.severity == "critical" and message.status == "firing":
        mail.extra_headers["X-Priority"] = "1"
    mail.attach_alternative(html(message, {look: f"cid:{ident}" for look, ident in idents.items()}), "text/html")
    for look, content in pictures.items():
        picture = MIMEImage(content, "png")
        picture.add_header("Content-ID", f"<{idents[look]}>")
        picture.add_header("Content-Disposition", "inline", filename=f"chart-{look}.png")
        mail.attach(picture)
    return mail


def text(message: Message) -> str:
    """Return the plain text."""
    return render_to_string("notifications/email.txt", {"message": message})


def html(message: Message, pictures: Mapping[str, str] | None = None) -> str:
    """Return the HTML; `pictures` are the addresses of the chart's looks. Every text of a message is escaped.

    A template's own HTML was escaped value by value when it was rendered.
    """
    context = {
        "message": message,
        "pictures": pictures or {},
        "words": chart.words(message.curve) if message.curve and pictures else "",
        "size": {"width": chart.WIDTH, "height": chart.HEIGHT},
        "document": mark_safe(message.document),  # noqa: S308 - see above
        "items": [(item, [(name, value, is_address(value)) for name, value in item.facts]) for item in message.alerts],
        "is_single": len(message.alerts) == 1,
    }
    return render_to_string("notifications/email.html", context)


def is_address(value: str) -> bool:
    """Whether a fact is nothing but a web address."""
    return value.startswith(("https://", "http://")) and len(value.split()) == 1


@lru_cache(maxsize=16)
def drawn(curve: Curve) -> Mapping[str, bytes]:
    """Return the chart's pictures by look; none where it cannot be drawn: the message leaves without.

    Several contacts of a group get the same one.
    """
    try:
        return {look: chart.draw(curve, palette) for look, palette in PICTURES.items()}
    except Exception:
        log.exception("The chart of %s could not be drawn; its message leaves without.", curve.title)
        return {}


def failure(error: Exception) -> DeliveryFailed:
    """Tell what went wrong and whether it lasts: SMTP 4xx and networks pass, 5xx, wrong settings and addresses stay.

    SMTP codes are those of RFC 5321 §4.2; the server's own words are quoted, never the login.
    """
    match error:
        case smtplib.SMTPAuthenticationError():
            return DeliveryFailed(
                f"The mail server refuses the login ({error.smtp_code}): check SMTP_USER and SMTP_PASSWORD.",
                permanent=True,
            )
        case smtplib.SMTPRecipientsRefused():
            refused = dict(error.recipients)
            words = "; ".join(f"{address}: {code} {_words(text)}" for address, (code, text) in refused.items())
            permanent = all(500 <= code < 600 for code, _ in refused.values())
            return DeliveryFailed(f"The mail server refuses every address ({words}).", permanent=permanent)
        case smtplib.SMTPResponseException():
            return DeliveryFailed(
                f"The mail server answered {error.smtp_code} {_words(error.smtp_error)}.",
                permanent=500 <= error.smtp_code < 600,
            )
        case smtplib.SMTPNotSupportedError():
            return DeliveryFailed(
                f"The mail server does not offer what SMTP_TLS or SMTP_USER ask for ({error}).", permanent=True
            )
        case smtplib.SMTPException():
            return DeliveryFailed(f"The mail server broke off ({type(error).__name__}).", permanent=False)
        case AnymailConfigurationError() | ImproperlyConfigured():
            return DeliveryFailed("The mail provider is not configured: check EMAIL_BACKEND.", permanent=True)
        case AnymailAPIError():
            code = getattr(error, "status_code", None)
            passing = code is None or code in {408, 425, 429} or code >= 500
            return DeliveryFailed(f"The mail provider answered {code or 'nothing'}.", permanent=not passing)
        case AnymailError():
            return DeliveryFailed(f"The mail provider refuses the message ({type(error).__name__}).", permanent=True)
        case OSError():
            where = f"{settings.EMAIL_HOST}:{settings.EMAIL_PORT}"
            return DeliveryFailed(
                f"The mail server {where} cannot be reached ({error.strerror or type(error).__name__}): "
                "check SMTP_HOST and SMTP_PORT.",
                permanent=False,
            )
        case ValueError():
            return DeliveryFailed(f"The e-mail cannot be written: {error}", permanent=True)
        case _:
            return DeliveryFailed(f"The e-mail could not be sent ({type(error).__name__}).", permanent=False)


def _words(text: bytes | str) -> str:
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return " ".join(plain.split())[:200]
