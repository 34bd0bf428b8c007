"""Does a port accept connections, and say what it should."""

from collections.abc import Mapping
from typing import Any, Final

from django import forms

from apps.core.telemetry import Reading
from apps.sources.probes import Failed, Found, HostPort, Pattern, Phases, Probe, compiled, host_and_port

MOST_BANNER: Final = 4_096


class Tcp(Probe):
    """A port of a server accepts connections; with TLS, its certificate is looked at."""

    kind = "tcp"
    label = "TCP port"

    class Config(forms.Form):
        address = HostPort(help_text="Host and port, such as mail.example.org:25.")
        tls = forms.BooleanField(required=False, label="TLS", help_text="Speak TLS and check the certificate.")
        expect = Pattern(help_text="A regular expression that is found in the first words of the server.")

    @classmethod
    def address_of(cls, values: Mapping[str, Any]) -> str:
        return str(values["address"])

    def run(self) -> Found:
        host, port = host_and_port(self.values["address"])
        phases, certificate = Phases(), None
        with phases.phase("connect"):
            line = self.reach.connect(host, port)
        with line:
            if self.values.get("tls"):
                with phases.phase("tls"):
                    chain = self.reach.tls(line, host)
                line, certificate = chain.line, chain.certificate
            if self.values.get("expect"):
                with line, phases.phase("processing"):
                    said = line.recv(MOST_BANNER).decode(errors="replace")
                if not compiled(self.values["expect"]).search(said):
                    text = f"The server said “{said.strip()[:100]}”, which is not what is expected."
                    raise Failed(text, (_BAD,), certificate)
        readings = [
            Reading("probe_tcp_duration_seconds", seconds, {"phase": phase}, help="Seconds of each phase.")
            for phase, seconds in phases.seconds.items()
        ]
        return Found(readings=tuple(readings), certificate=certificate)


_BAD: Final = Reading("probe_failed_due_to_regex", 1.0, help="Whether the answer lacks what is expected.")
