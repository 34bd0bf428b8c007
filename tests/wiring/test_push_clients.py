"""Real clients push over real HTTP: OpenTelemetry's Python SDK, and prometheus_client by the gateway's paths."""

import pytest
from django.utils import timezone
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, delete_from_gateway, push_to_gateway, pushadd_to_gateway
from prometheus_client import Counter as ClientCounter
from prometheus_client import Gauge as ClientGauge
from prometheus_client.exposition import basic_auth_handler

from apps.accounts.permissions import EVERYTHING
from apps.dashboards.snippets import snippets
from apps.metrics import query

pytestmark = pytest.mark.django_db(transaction=True)


def value(text):
    return query.instant(text, at=timezone.now(), scope=EVERYTHING).v[:, 0].tolist()


DELTAS = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}


@pytest.mark.parametrize("temporality", [{}, DELTAS], ids=["cumulative", "delta"])
@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_opentelemetrys_sdk_exports(server, secret, temporality, compression):
    exporter = OTLPMetricExporter(
        endpoint=f"{server}/v1/metrics",
        headers={"Authorization": f"Bearer {secret}"},
        compression=compression,
        preferred_temporality=temporality,
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    resource = Resource.create(
        {"service.name": "shop", "service.namespace": "web", "service.instance.id": "i-1", "deployment": "blue"}
    )
    provider = MeterProvider(metric_readers=[reader], resource=resource)
    meter = provider.get_meter("checkout", "1.2")
    orders = meter.create_counter("shop.orders", unit="{order}", description="Orders that were placed.")
    took = meter.create_histogram("shop.took", unit="s", explicit_bucket_boundaries_advisory=[0.1, 1.0])
    meter.create_up_down_counter("shop.carts").add(3)
    for _ in range(2):
        orders.add(2, {"kind": "new"})
        took.record(0.5)
        assert provider.force_flush()
    provider.shutdown()
    assert value('shop_orders_total{kind="new", job="web/shop", instance="i-1", otel_scope_name="checkout"}') == [4.0]
    assert value('shop_took_seconds_bucket{le="1.0"}') == [2.0]
    assert (value("shop_took_seconds_count"), value("shop_took_seconds_sum")) == ([2.0], [1.0])
    assert value("shop_carts") == [3.0]
    assert value('target_info{job="web/shop", deployment="blue", telemetry_sdk_language="python"}') == [1.0]


def test_an_sdk_without_a_valid_token_is_told(server, secret):
    exporter = OTLPMetricExporter(endpoint=f"{server}/v1/metrics", headers={"Authorization": "Bearer wrong"})
    provider = MeterProvider(metric_readers=[PeriodicExportingMetricReader(exporter, 3_600_000)])
    provider.get_meter("x").create_counter("lost").add(1)
    provider.force_flush()
    provider.shutdown()
    assert value("lost_total") == []


def test_prometheus_client_pushes_adds_and_deletes(server, secret):
    def with_token(**options):
        return basic_auth_handler(**options, username="anything", password=secret)

    registry = CollectorRegistry()
    ClientCounter("saved", "Files that were saved.", ["disk"], registry=registry).labels("a").inc(42)
    ClientGauge("last", "When.", registry=registry).set(7)
    where = {"instance": "/srv/a b", "empty": ""}
    push_to_gateway(server, job="nightly backup", registry=registry, grouping_key=where, handler=with_token)
    assert value('saved_total{disk="a", instance="/srv/a b", empty=""}') == [42.0]
    more = CollectorRegistry()
    ClientGauge("last", "When.", registry=more).set(8)
    pushadd_to_gateway(server, job="nightly backup", registry=more, grouping_key=where, handler=with_token)
    assert (value("last"), value("saved_total")) == ([8.0], [42.0])
    push_to_gateway(server, job="nightly backup", registry=more, grouping_key=where, handler=with_token)
    assert (value("last"), value("saved_total")) == ([8.0], [])
    delete_from_gateway(server, job="nightly backup", grouping_key=where, handler=with_token)
    assert (value("last"), value("push_time_seconds")) == ([], [])


def test_the_python_snippet_of_the_senders_page_pushes(server, secret):
    (snippet,) = (one for one in snippets(server, secret, "") if one.key == "client-python")
    exec(snippet.text, {})  # noqa: S102 - our own text
    assert value('backup_files{job="backup"}') == [42.0]
