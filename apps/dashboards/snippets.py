"""What somebody pastes into a client so that it sends here: one snippet for each kind of client."""

from dataclasses import dataclass
from typing import Final

from django.conf import settings

from apps.sources.models import Heartbeat, Site

PLACEHOLDER: Final = "YOUR_TOKEN"


@dataclass(frozen=True)
class Snippet:
    """A client, where the text goes, and the text."""

    key: str
    title: str
    where: str
    text: str


def snippets(url: str, token: str, statsd: str) -> list[Snippet]:
    """For a portal at `url`, with a token or its placeholder; `statsd` is host:port, empty where it is off."""
    url, secret = url.rstrip("/"), token or PLACEHOLDER
    host, _, port = (statsd or "127.0.0.1:8125").rpartition(":")
    return [
        Snippet(
            "prometheus",
            "Prometheus, vmagent, Alloy",
            "prometheus.yml",
            f"remote_write:\n  - url: {url}/api/v1/write\n    authorization:\n      credentials: {secret}\n"
            "    # Prometheus 3: the newer protocol, with type, help and unit\n"
            "    protobuf_message: io.prometheus.write.v2.Request\n",
        ),
        Snippet(
            "django",
            "Django project",
            "settings.py; the wheel: ./portal manage client FOLDER",
            'INSTALLED_APPS += ["portal_metrics.instrumentation.PortalMetrics"]\n'
            'MIDDLEWARE = ["portal_metrics.middleware.RequestMetrics", *MIDDLEWARE]\n'
            f'PORTAL_METRICS_URL = "{url}"\n'
            f'PORTAL_METRICS_TOKEN = "{secret}"\n'
            'PORTAL_METRICS_SERVICE = "my-service"\n',
        ),
        Snippet(
            "opentelemetry-sdk",
            "OpenTelemetry SDK",
            "environment of the application",
            f"OTEL_METRICS_EXPORTER=otlp\nOTEL_EXPORTER_OTLP_METRICS_PROTOCOL=http/protobuf\n"
            f"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT={url}/v1/metrics\n"
            f"OTEL_EXPORTER_OTLP_METRICS_HEADERS=authorization=Bearer%20{secret}\n"
            "OTEL_SERVICE_NAME=my-service\n",
        ),
        Snippet(
            "opentelemetry-collector",
            "OpenTelemetry Collector",
            "collector configuration",
            f"exporters:\n  otlphttp/portal:\n    metrics_endpoint: {url}/v1/metrics\n    headers:\n"
            f"      authorization: Bearer {secret}\nservice:\n  pipelines:\n    metrics:\n"
            "      receivers: [otlp]\n      exporters: [otlphttp/portal]\n",
        ),
        Snippet(
            "pushgateway",
            "Batch job, curl",
            "at the end of the job",
            'echo "backup_last_success_timestamp_seconds $(date +%s)" |\n'
            f"  curl --fail -X PUT -H 'Authorization: Bearer {secret}' --data-binary @- \\\n"
            f"  {url}/metrics/job/backup/instance/$(hostname)\n",
        ),
        Snippet(
            "client-python",
            "Batch job, Python",
            "prometheus_client",
            "from prometheus_client import CollectorRegistry, Gauge, push_to_gateway\n"
            "from prometheus_client.exposition import basic_auth_handler\n\n"
            "registry = CollectorRegistry()\n"
            'Gauge("backup_files", "Files that were saved.", registry=registry).set(42)\n'
            "push_to_gateway(\n"
            f'    "{url}", job="backup", registry=registry,\n'
            f'    handler=lambda **request: basic_auth_handler(**request, username="token", password="{secret}"),\n)\n',
        ),
        Snippet(
            "json",
            "Anything, JSON",
            "curl",
            f"curl --fail -X POST {url}/api/monitoring/metrics \\\n  -H 'Authorization: Bearer {secret}' "
            "-H 'Content-Type: application/json' \\\n"
            """  -d '{"type": "business", "metrics": [{"name": "bookings_open", "value": 17}]}'\n""",
        ),
        Snippet(
            "log-lines",
            "Log lines, curl",
            "behind whatever writes lines",
            f"tail -n 100 /var/log/app.log |\n  curl --fail -H 'Authorization: Bearer {secret}' "
            f"-H 'Content-Type: text/plain' --data-binary @- \\\n  '{url}/api/v1/portal/logs?service=app'\n",
        ),
        Snippet(
            "vector",
            "Logs by Vector",
            "vector.yaml",
            f"sinks:\n  portal:\n    type: http\n    inputs: [my_logs]\n    uri: {url}/api/v1/portal/logs\n"
            f"    encoding: {{codec: json}}\n    framing: {{method: newline_delimited}}\n    compression: gzip\n"
            f"    auth: {{strategy: bearer, token: {secret}}}\n",
        ),
        Snippet(
            "promtail",
            "Logs by Promtail, Alloy, Fluent Bit",
            "promtail.yaml",
            f"clients:\n  - url: {url}/loki/api/v1/push\n    bearer_token: {secret}\n"
            "# labels: service (or app, job), host (or instance), level; the others become attributes\n",
        ),
        Snippet(
            "opentelemetry-logs",
            "Logs by OpenTelemetry",
            "collector configuration",
            f"exporters:\n  otlphttp/portal:\n    logs_endpoint: {url}/v1/logs\n    headers:\n"
            f"      authorization: Bearer {secret}\nservice:\n  pipelines:\n    logs:\n"
            "      receivers: [otlp]\n      exporters: [otlphttp/portal]\n",
        ),
        Snippet(
            "dogstatsd",
            "StatsD, DogStatsD",
            "UDP, without a token" if statsd else "off: start the portal with STATSD_BIND=127.0.0.1:8125",
            f"from datadog import initialize, statsd\n\n"
            f'initialize(statsd_host="{host}", statsd_port={port})\n'
            'statsd.increment("orders", tags=["kind:new"])\n',
        ),
    ]


def heartbeat(beat: Heartbeat) -> list[Snippet]:
    """How the job of a heartbeat calls; who knows the address may call."""
    url = f"{settings.PORTAL_URL.rstrip('/')}/ping/{beat.code}"
    return [
        Snippet(
            "crontab", "Crontab", "behind the command", f"0 3 * * * backup.sh && curl -fsS -m 10 --retry 5 {url}\n"
        ),
        Snippet(
            "shell",
            "Start, end and exit status",
            "around the command",
            f"curl -fsS -m 10 {url}/start\nout=$(backup.sh 2>&1); status=$?\n"
            f'curl -fsS -m 10 --retry 5 --data-raw "$out" {url}/$status\n',
        ),
        Snippet(
            "python",
            "Python",
            "at the end of the job",
            f'import urllib.request\nurllib.request.urlopen("{url}", timeout=10)\n',
        ),
    ]


def site(one: Site) -> list[Snippet]:
    """How the pages of a front end report: the portal's own script, or Google's web-vitals."""
    url = settings.PORTAL_URL.rstrip("/")
    return [
        Snippet(
            f"{one.name}-script",
            "The portal's script",
            f"in every page of {one.name}",
            f'<script src="{url}/rum/beacon.js" data-key="{one.key}" defer></script>\n',
        ),
        Snippet(
            f"{one.name}-web-vitals",
            "web-vitals",
            f"in the bundle of {one.name}",
            "import {onCLS, onINP, onLCP, onFCP, onTTFB} from 'web-vitals';\n"
            f"const send = (m) => navigator.sendBeacon('{url}/rum/{one.key}', JSON.stringify(m));\n"
            "[onCLS, onINP, onLCP, onFCP, onTTFB].forEach((on) => on(send));\n",
        ),
    ]
