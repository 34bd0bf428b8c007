"""Does a Redis protocol server answer PING."""

import socket
from collections.abc import Mapping
from typing import Any

from django import forms

from apps.core.telemetry import Reading
from apps.sources.certificates import Certificate
from apps.sources.probes import Failed, Found, HostPort, Probe, host_and_port


class Redis(Probe):
    """A Redis or Valkey server answers PING and says what role it has."""

    kind = "redis"
    label = "Redis"
    secrets = ("password",)

    class Config(forms.Form):
        address = HostPort(port=6379, help_text="Host and port, such as cache.example.org:6379.")
        tls = forms.BooleanField(required=False, label="TLS")
        user = forms.CharField(required=False, max_length=200, help_text="Empty: the default user.")
        password = forms.CharField(required=False, max_length=1_000, help_text="Kept encrypted.")
        role = forms.ChoiceField(
            choices=[("", "any"), ("master", "master"), ("slave", "replica")],
            required=False,
            help_text="Fails when the server has another role.",
        )

    @classmethod
    def address_of(cls, values: Mapping[str, Any]) -> str:
        return str(values["address"])

    def run(self) -> Found:
        host, port = host_and_port(self.values["address"], 6379)
        certificate: Certificate | None = None
        with self.reach.connect(host, port) as plain:
            line: socket.socket = plain
            if self.values.get("tls"):
                chain = self.reach.tls(plain, host)
                line, certificate = chain.line, chain.certificate
            with line, line.makefile("rwb") as file:
                if self.values.get("password"):
                    user = [self.values["user"]] if self.values.get("user") else []
                    ask(file, "AUTH", *user, self.values["password"])
                ask(file, "PING")
                role = self.role(file)
        if self.values.get("role") and role and role != self.values["role"]:
            raise Failed(f"The server is a {role}, not a {self.values['role']}.", certificate=certificate)
        labels = {"role": role or "unknown"}
        return Found("", (Reading("probe_redis_role_info", 1.0, labels, help="The server's role."),), certificate)

    def role(self, file: Any) -> str:
        """Return the server's role, or nothing where it may not be asked."""
        try:
            return ask(file, "ROLE")
        except Failed:
            return ""


def ask(file: Any, *words: str) -> str:
    """Send a command; return the first word of its answer. Raises Failed for an error."""
    parts = [word.encode() for word in words]
    file.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
    file.flush()
    line = file.readline(1_000)
    while line[:1] == b"*":
        line = file.readline(1_000)
    if line[:1] == b"$":
        line = b"+" + file.readline(1_000)
    text = str(line[1:].decode(errors="replace").strip())
    if line[:1] == b"-":
        raise Failed(f"The server refused {words[0]}: {text[:200]}.")
    if line[:1] != b"+":
        raise Failed("The server does not speak the Redis protocol.")
    return text
