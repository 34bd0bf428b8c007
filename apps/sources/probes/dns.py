"""Does a name server answer, and with the right records."""

import time
from collections.abc import Mapping
from typing import Any, Final

from django import forms

from apps.core.telemetry import Reading
from apps.sources.probes import Failed, Found, HostPort, Pattern, Probe, compiled, host_and_port

TYPES: Final = ("A", "AAAA", "CNAME", "MX", "NS", "SOA", "SRV", "TXT", "PTR", "CAA")


class Dns(Probe):
    """A name has records of a type, asked of a name server or of the one that this machine uses."""

    kind = "dns"
    label = "DNS"

    class Config(forms.Form):
        name = forms.CharField(max_length=253, help_text="Such as www.example.org.")
        type = forms.ChoiceField(choices=[(name, name) for name in TYPES], required=False, initial="A")
        server = HostPort(port=53, required=False, help_text="Such as 192.0.2.53; empty: this machine's own.")
        expect = Pattern(help_text="A regular expression that is found in one of the records.")

    @classmethod
    def address_of(cls, values: Mapping[str, Any]) -> str:
        return str(values["name"])

    def run(self) -> Found:
        # Imported here: it costs 5 MB, and most portals have no such check.
        import dns.exception
        import dns.resolver

        kind = self.values.get("type") or "A"
        resolver = dns.resolver.Resolver(configure=not self.values.get("server"))
        if self.values.get("server"):
            host, resolver.port = host_and_port(self.values["server"], 53)
            resolver.nameservers = [self.reach.address(host, resolver.port)]
        started = time.perf_counter()
        try:
            answer = resolver.resolve(self.values["name"], kind, lifetime=self.reach.seconds, search=False)
        except dns.resolver.NXDOMAIN:
            raise Failed("There is no such name.") from None
        except dns.resolver.NoAnswer:
            raise Failed(f"The name has no record of type {kind}.") from None
        except dns.exception.Timeout:
            raise Failed(f"No name server answered within {self.reach.seconds:g} s.") from None
        except dns.exception.DNSException as error:
            raise Failed(f"The name server refused: {str(error)[:300]}.") from None
        readings = (
            Reading("probe_dns_lookup_time_seconds", time.perf_counter() - started, help="Seconds of the question."),
            Reading("probe_dns_answer_rrs", float(len(answer)), help="Records that were answered."),
            Reading("probe_dns_ttl_seconds", float(answer.rrset.ttl if answer.rrset else 0), help="Their life."),
        )
        records = [record.to_text() for record in answer]
        if self.values.get("expect") and not any(map(compiled(self.values["expect"]).search, records)):
            raise Failed(f"None of the records is as expected: {', '.join(records)[:200]}.", readings)
        return Found(readings=readings)
