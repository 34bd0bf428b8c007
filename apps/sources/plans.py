"""What of a job is needed to scrape one of its targets, worked out once for each change of the job. No clock."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from apps.core import http
from apps.core.secrets import Undecryptable
from apps.sources.lineup import Settings
from apps.sources.models import ScrapeJob, ScrapeTarget
from apps.sources.relabel import Rule, parse

ACCEPT: Final = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
REDIRECTS: Final = 5


@dataclass(frozen=True)
class Plan:
    """How the targets of a job are asked. `problem` says why they cannot be."""

    job: ScrapeJob
    headers: Mapping[str, str]
    tls: http.Tls
    rules: tuple[Rule, ...]
    problem: str = ""

    def line(self) -> http.Line:
        """Open a line to one target. Raises ValueError for certificates that cannot be used."""
        return http.Line(allow_private=self.job.trusted, allow_loopback=self.job.trusted, tls=self.tls)

    def settings(self, labels: Mapping[str, str]) -> Settings:
        """How the series of a target with these labels are labelled and limited."""
        job = self.job
        return Settings(
            labels=dict(labels),
            rules=self.rules,
            honor_labels=job.honor_labels,
            honor_timestamps=job.honor_timestamps,
            sample_limit=job.sample_limit,
            label_limit=job.label_limit,
            label_name_limit=job.label_name_limit,
            label_value_limit=job.label_value_limit,
        )

    def ask(self, line: http.Line, url: str, timeout: timedelta) -> http.Response:
        """Fetch what a target shows. Raises OutboundError."""
        seconds = timeout.total_seconds()
        return line.ask(
            url,
            headers={**self.headers, "x-prometheus-scrape-timeout-seconds": f"{seconds:g}"},
            timeout=seconds,
            max_bytes=self.job.body_limit,
            follow=REDIRECTS if self.job.follow_redirects else 0,
        )


def plan_of(job: ScrapeJob) -> Plan:
    """Work out how the targets of a job are asked."""
    problem, secrets = "", {}
    if job.auth != "none" or job.certificate:  # a job without secrets must outlive a lost key
        try:
            secrets = dict(job.secrets or {})
        except Undecryptable as error:
            problem = str(error)
    headers = {"accept": ACCEPT, "accept-encoding": "gzip", **credentials_of(job, secrets)}
    tls = http.Tls(job.ca, job.certificate, secrets.get("client_key", ""), job.server_name, job.insecure)
    return Plan(job, headers, tls, parse(job.metric_relabel), problem)


def credentials_of(job: ScrapeJob, secrets: Mapping[str, str]) -> dict[str, str]:
    """The headers that say who is asking."""
    secret = secrets.get("credential", "")
    match job.auth:
        case "basic":
            pair = base64.b64encode(f"{job.auth_name}:{secret}".encode()).decode()
            return {"authorization": f"Basic {pair}"}
        case "bearer":
            return {"authorization": f"Bearer {secret}"}
        case "header":
            return {job.auth_name.lower(): secret}
    return {}


def refusal(answer: http.Response) -> str:
    """Why an answer brings no metrics, or nothing."""
    if answer.status == 200:
        return ""
    return f"The target answered with HTTP status {answer.status} instead of 200."


def labels_of(target: ScrapeTarget) -> dict[str, str]:
    """The labels that a target gives to its series."""
    return {str(name): str(value) for name, value in target.labels.items()}
