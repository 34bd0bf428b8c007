"""Certificates of servers: read from a handshake, also from one that fails because of them."""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

MOST_NAMES = 20


@dataclass(frozen=True)
class Certificate:
    """A server's certificate: whom it names, who signed it and when it ends."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_after: datetime


class BadCertificate(Exception):
    """The server's certificate is not to be trusted, for the reason that is the text."""

    def __init__(self, reason: str, certificate: Certificate | None) -> None:
        super().__init__(reason)
        self.certificate = certificate


@dataclass(frozen=True)
class Chain:
    """A connection that speaks TLS, and what the server showed."""

    line: ssl.SSLSocket
    certificate: Certificate | None
    version: str

    @classmethod
    def over(cls, line: socket.socket, host: str, *, again: Callable[[], socket.socket]) -> "Chain":
        """Shake hands and check the certificate. Raises BadCertificate; `again` opens a new connection, by which the
        certificate is fetched that was not to be trusted.
        """
        try:
            made = ssl.create_default_context().wrap_socket(line, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise BadCertificate(reason_of(error), peek(again(), host)) from None
        return cls(made, read(made.getpeercert(binary_form=True)), made.version() or "")


def peek(line: socket.socket, host: str) -> Certificate | None:
    """Return the certificate that a server shows, whether it is to be trusted or not; closes the connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with line, context.wrap_socket(line, server_hostname=host) as made:
            return read(made.getpeercert(binary_form=True))
    except OSError:
        return None


def read(der: bytes | None) -> Certificate | None:
    """Return what a certificate (DER) says, or None where there is none that can be read."""
    try:
        found = x509.load_der_x509_certificate(der or b"")
    except ValueError:
        return None
    return Certificate(
        subject=_common_name(found.subject),
        issuer=_common_name(found.issuer),
        names=_names(found)[:MOST_NAMES],
        not_after=found.not_valid_after_utc.astimezone(UTC),
    )


def _common_name(name: x509.Name) -> str:
    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        if found := name.get_attributes_for_oid(kind):
            return str(found[0].value)[:200]
    return name.rfc4514_string()[:200]


def _names(found: x509.Certificate) -> tuple[str, ...]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(str(name.value)[:253] for name in names if isinstance(name, (x509.DNSName, x509.IPAddress)))


def reason_of(error: ssl.SSLCertVerificationError) -> str:
    """Return the sentence for a certificate that failed."""
    return f"The certificate is not to be trusted: {error.verify_message or error.reason}."
