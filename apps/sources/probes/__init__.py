"""Probes: the kinds of checks, one file each. A probe asks one thing from outside, as a user of it would.

It is made with its settings (cleaned by its `Config` form, secrets among them) and how far it may reach; `run` answers
with what was found. Series have blackbox_exporter's names, so that public rules and dashboards work unchanged.
"""

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final

import re2
from django import forms

from apps.core import http as door
from apps.core.documents import document
from apps.core.registry import Plugin, Registry
from apps.core.telemetry import Reading
from apps.sources.certificates import BadCertificate, Certificate, Chain

MOST_BODY: Final = 10_000_000
"""Bytes of an answer that are read; one with more has failed."""


@dataclass(frozen=True)
class Reach:
    """How far a probe may go: `timeout` for the whole of it, and whether private networks are open to it."""

    timeout: timedelta
    trusted: bool = False

    @property
    def seconds(self) -> float:
        """The time-out in seconds."""
        return self.timeout.total_seconds()

    def connect(self, host: str, port: int) -> socket.socket:
        """Open a TCP connection through the guarded door. Raises OutboundError."""
        return door.connect(host, port, timeout=self.seconds, allow_private=self.trusted, allow_loopback=self.trusted)

    def tls(self, line: socket.socket, host: str) -> Chain:
        """Speak TLS on the connection and check the certificate. Raises BadCertificate, which carries it."""
        port = line.getpeername()[1]
        return Chain.over(line, host, again=lambda: self.connect(host, port))

    def address(self, host: str, port: int) -> str:
        """Return the address of the name that may be reached. Raises OutboundError."""
        return door.addresses(host, port, allow_private=self.trusted, allow_loopback=self.trusted)[0]


@dataclass(frozen=True)
class Found:
    """What a probe found. `reason` says why it failed and is empty where all was well; readings have no labels yet."""

    reason: str = ""
    readings: tuple[Reading, ...] = ()
    certificate: Certificate | None = None


class Failed(Exception):
    """The probe failed, for the reason that is its text; `readings` are those that it has all the same."""

    def __init__(self, reason: str, readings: tuple[Reading, ...] = (), certificate: Certificate | None = None) -> None:
        super().__init__(reason)
        self.readings = readings
        self.certificate = certificate


class Probe(Plugin):
    """One kind of check."""

    secrets: ClassVar[tuple[str, ...]] = ()
    """Fields of `Config` that are kept encrypted and never shown again."""

    def __init__(self, values: Mapping[str, Any], reach: Reach) -> None:
        self.values = values
        self.reach = reach

    @classmethod
    def address_of(cls, values: Mapping[str, Any]) -> str:
        """Return what is asked, as the label instance; no secret in it."""
        raise NotImplementedError

    def run(self) -> Found:
        """Ask now. Raises Failed, OutboundError and OSError; whoever runs it makes a reason of them."""
        raise NotImplementedError


probes: Registry[Probe] = Registry("apps.sources.probes", Probe)


def kinds() -> list[tuple[str, str]]:
    """Return (kind, label) of every probe: the choices of `Check.kind`; a new probe writes no migration."""
    return probes.kinds()


class Phases:
    """How long each phase of a probe took: a stopwatch with laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to the phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def host_and_port(text: str, port: int | None = None) -> tuple[str, int]:
    """Read "host:port", "[::1]:port" or, where there is a usual port, "host". ValueError with a sentence."""
    host, _, tail = text.strip().rpartition(":")
    if not host or (host.startswith("[") != host.endswith("]")):
        host, tail = text.strip(), ""
    host = host.removeprefix("[").removesuffix("]")
    if not tail and port is not None:
        tail = str(port)
    if not host or any(sign.isspace() or sign in "/@?#" for sign in host):
        raise ValueError("Give a host, such as db.example.org or 192.0.2.7.")
    if not tail.isascii() or not tail.isdigit() or not 1 <= int(tail[:6]) <= 65_535:
        raise ValueError("Give the port behind a colon, such as db.example.org:5432.")
    return host, int(tail)


class HostPort(forms.CharField):
    """A host with its port."""

    def __init__(self, *, port: int | None = None, **options: Any) -> None:
        self.port = port
        super().__init__(max_length=300, **options)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return ""
        try:
            host, port = host_and_port(text, self.port)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Pattern(forms.CharField):
    """A regular expression, in the syntax of the whole portal (RE2)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=1_000, required=False, strip=False, **options)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        try:
            compiled(text)
        except re2.error as error:
            raise forms.ValidationError(f"This is no regular expression: {error}.") from None
        return text


def compiled(pattern: str) -> Any:
    """Return the compiled regular expression; `.` matches line ends, too. Raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    return re2.compile(pattern, options)


def run(kind: str, values: Mapping[str, Any], reach: Reach) -> tuple[Found, float]:
    """Run a probe; return what it found and how many seconds it took. It never raises."""
    started = time.perf_counter()
    try:
        found = probes.get(kind)(values, reach).run()
    except BadCertificate as error:
        found = Found(str(error), certificate=error.certificate)
    except Failed as error:
        found = Found(str(error), error.readings, error.certificate)
    except (door.OutboundError, LookupError) as error:
        found = Found(str(error))
    except TimeoutError:
        found = Found(f"There was no answer within {reach.seconds:g} s.")
    except OSError as error:
        found = Found(f"The connection failed: {error.strerror or error}.")
    except Exception as error:  # whatever a server makes of a probe is its own failure; the text may hold a secret
        found = Found(f"The probe failed ({type(error).__name__}).")
    seconds = time.perf_counter() - started
    return found, seconds


@document("probes.md", "Kinds of checks")
def describe() -> str:
    """Return the table of probes and their settings for the docs."""
    parts = []
    for kind, plugin in probes.all().items():
        about = (plugin.__doc__ or "").strip().splitlines()[0]
        rows = [f"## {plugin.label} (`{kind}`)", "", about, "", "| setting | |", "|---|---|"]
        rows += [f"| `{name}` | {field.help_text or field.label} |" for name, field in plugin.Config().fields.items()]
        parts.append("\n".join(rows))
    return "\n\n".join(parts)
