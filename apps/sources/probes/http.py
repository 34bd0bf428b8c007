"""Does a page answer as it should: status, body, time, certificate."""

import re
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from django import forms

from apps.core import http
from apps.core.telemetry import Reading
from apps.sources.certificates import BadCertificate, Certificate, peek, read
from apps.sources.probes import MOST_BODY, Failed, Found, Pattern, Probe, Reach, compiled

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "OPTIONS")
MOST_REDIRECTS: Final = 10
STATUSES: Final = re.compile(r"\s*[1-5](\d\d|xx)(-[1-5]\d\d)?(\s*,\s*[1-5](\d\d|xx)(-[1-5]\d\d)?)*\s*", re.IGNORECASE)
PHASES: Final = {
    "connection.connect_tcp": "connect",
    "connection.start_tls": "tls",
    "http11.receive_response_headers": "processing",
    "http11.receive_response_body": "transfer",
}
"""Steps of httpcore and what blackbox_exporter calls them."""


class Http(Probe):
    """An address answers in time with the right status, a valid certificate and what its page should show."""

    kind = "http"
    label = "HTTP(S)"
    secrets = ("authorization",)

    class Config(forms.Form):
        url = forms.CharField(max_length=2_000, label="URL", help_text="Such as https://www.example.org/health.")
        method = forms.ChoiceField(choices=[(name, name) for name in METHODS], required=False, initial="GET")
        statuses = forms.CharField(
            required=False, max_length=200, initial="2xx", help_text="Status codes that are fine: 200, 2xx, 200-299."
        )
        body = forms.CharField(required=False, max_length=10_000, strip=False, help_text="Sent with POST and PUT.")
        content_type = forms.CharField(required=False, max_length=100, help_text="Of the body.")
        expect = Pattern(help_text="A regular expression that is found in the page.")
        reject = Pattern(help_text="A regular expression that must not be found in it.")
        redirects = forms.IntegerField(
            required=False, min_value=0, max_value=MOST_REDIRECTS, initial=5, help_text="How many are followed."
        )
        days_left = forms.IntegerField(
            required=False,
            min_value=0,
            max_value=3650,
            help_text="Fails when the certificate ends within these days.",
        )
        slowest = forms.FloatField(
            required=False, min_value=0, max_value=120, help_text="Fails when the answer takes more seconds."
        )
        authorization = forms.CharField(
            required=False, max_length=4_000, help_text="Header Authorization, such as Bearer …; kept encrypted."
        )

        def clean_url(self) -> str:
            url = str(self.cleaned_data["url"]).strip()
            try:
                parts = urlsplit(url)
                is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
            except ValueError:
                is_good = False
            if not is_good:
                raise forms.ValidationError("Give an address that begins with http:// or https:// and names a host.")
            if "@" in parts.netloc:
                raise forms.ValidationError("No user name or password here, where readers see them.")
            return url

        def clean_statuses(self) -> str:
            text = self.cleaned_data["statuses"].strip() or "2xx"
            if not STATUSES.fullmatch(text):
                raise forms.ValidationError("Give codes such as 200, 2xx or 200-299, with commas between them.")
            return str(text)

        def clean_authorization(self) -> str:
            text = str(self.cleaned_data["authorization"])
            if not (text.isascii() and text.isprintable()):
                raise forms.ValidationError("A header can hold visible ASCII characters only.")
            return text

    @classmethod
    def address_of(cls, values: Mapping[str, Any]) -> str:
        return str(values["url"])

    def run(self) -> Found:
        visit = Visit(self.values, self.reach)
        answer = visit.ask()
        text = answer.content.decode(errors="replace")
        readings = visit.readings(answer)
        if problem := self.problem(answer, text, visit.certificate):
            raise Failed(problem, readings, visit.certificate)
        return Found("", readings, visit.certificate)

    def problem(self, answer: http.Response, text: str, certificate: Certificate | None) -> str:
        """Return what is wrong with the answer, or nothing."""
        values = self.values
        if not fits(answer.status, values.get("statuses") or "2xx"):
            return f"The answer has status {answer.status}; {values.get('statuses') or '2xx'} would be fine."
        if values.get("expect") and not compiled(values["expect"]).search(text):
            return "The page lacks what is expected."
        if values.get("reject") and compiled(values["reject"]).search(text):
            return "The page has what it must not have."
        if values.get("slowest") and answer.seconds > values["slowest"]:
            return f"The answer took {answer.seconds:.2f} s, more than {values['slowest']:g} s."
        if certificate is not None and values.get("days_left") is not None:
            left = (certificate.not_after.timestamp() - time.time()) / 86_400
            if left < values["days_left"]:
                return f"The certificate ends in {left:.1f} days."
        return ""


class Visit:
    """One request, with a stopwatch on its phases and an eye on the certificate."""

    def __init__(self, values: Mapping[str, Any], reach: Reach) -> None:
        self.values = values
        self.reach = reach
        self.started: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.hops = 0
        self.certificate: Certificate | None = None
        self.version = ""

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of an event of httpcore."""
        step, _, what = event.rpartition(".")
        if what == "started":
            self.started[step] = time.perf_counter()
            self.hops += step == "http11.send_request_headers"
        elif what == "complete" and step in self.started:
            phase = PHASES.get(step, "")
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - self.started[step]
            if step == "connection.start_tls":
                spoken = info["return_value"].get_extra_info("ssl_object")
                self.certificate = read(spoken.getpeercert(binary_form=True)) or self.certificate
                self.version = spoken.version() or ""

    def ask(self) -> http.Response:
        """Send the request. Raises OutboundError, BadCertificate."""
        values = self.values
        headers = {"accept": "*/*", "accept-encoding": "gzip"}
        if values.get("authorization"):
            headers["authorization"] = values["authorization"]
        content = values.get("body", "").encode() if values.get("method") in ("POST", "PUT") else None
        if content is not None:
            headers["content-type"] = values.get("content_type") or "application/octet-stream"
        line = http.Line(allow_private=self.reach.trusted, allow_loopback=self.reach.trusted)
        redirects = values.get("redirects")
        try:
            return line.ask(
                values["url"],
                headers=headers,
                timeout=self.reach.seconds,
                max_bytes=MOST_BODY,
                follow=5 if redirects is None else redirects,
                method=values.get("method") or "GET",
                content=content,
                trace=self.trace,
            )
        except http.TooLarge:
            raise Failed(f"The answer is larger than {MOST_BODY // 1_000_000} MB.") from None
        except http.Unreachable as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise BadCertificate(str(error), self.peek()) from None
            raise
        finally:
            line.close()

    def peek(self) -> Certificate | None:
        """Return the certificate that was refused."""
        parts = urlsplit(self.values["url"])
        try:
            return peek(self.reach.connect(parts.hostname or "", parts.port or 443), parts.hostname or "")
        except http.OutboundError:
            return None

    def readings(self, answer: http.Response) -> tuple[Reading, ...]:
        """Return what blackbox_exporter would show."""
        found = [
            Reading("probe_http_status_code", float(answer.status), help="Status code of the answer."),
            Reading("probe_http_redirects", float(max(self.hops - 1, 0)), help="Redirects that were followed."),
            Reading("probe_http_ssl", float(self.certificate is not None), help="Whether the last hop spoke TLS."),
            Reading("probe_http_content_length", float(len(answer.content)), help="Bytes of the page, unpacked."),
        ]
        for phase in PHASES.values():
            seconds = self.seconds.get(phase, 0.0)
            found.append(
                Reading("probe_http_duration_seconds", seconds, {"phase": phase}, help="Seconds of each phase.")
            )
        if self.version:
            labels = {"version": self.version.replace("TLSv", "TLS ")}
            found.append(Reading("probe_tls_version_info", 1.0, labels, help="Version of TLS that was spoken."))
        return tuple(found)


def fits(status: int, wanted: str) -> bool:
    """Whether the status is one of those: "200", "2xx", "200-299", with commas between them."""
    for part in wanted.lower().replace(" ", "").split(","):
        low, _, high = part.partition("-")
        first, last = int(low.replace("xx", "00")), int((high or low).replace("xx", "99"))
        if first <= status <= last:
            return True
    return False
