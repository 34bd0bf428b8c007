"""Servers that are measured from inside: how one is reached, and what may go wrong on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from apps.core import http as door
from apps.sources.probes import host_and_port


class Away(Exception):
    """The server does not answer, or refuses us: the text is the reason, for people."""


@dataclass(frozen=True)
class Access:
    """How to get at a server. `seconds` bound each statement, and the connection by itself."""

    address: str
    database: str = ""
    user: str = ""
    password: str = ""
    tls: str = "prefer"
    seconds: float = 10.0

    def place(self, usual_port: int) -> tuple[str, str, int]:
        """Return (host, literal address, port) of what may be reached. Data sources are an administrator's, so their
        private networks and this machine are open; metadata services never are. Raises Away.
        """
        try:
            host, port = host_and_port(self.address, usual_port)
            return host, door.addresses(host, port, allow_private=True, allow_loopback=True)[0], port
        except (door.OutboundError, ValueError) as error:
            raise Away(str(error)) from None


@contextmanager
def reasons(*errors: type[Exception]) -> Iterator[None]:
    """Make an Away of these errors, with what the server said in one line."""
    try:
        yield
    except errors as error:
        raise Away(f"{in_line(error)}.") from None


def in_line(error: Exception) -> str:
    """Return what the server said, in one line; the clients never repeat a password."""
    text = " ".join(str(error).split())
    return text[:500].rstrip(".") or type(error).__name__
