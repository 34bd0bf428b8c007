"""A sender's side of OTLP, made with OpenTelemetry's own message classes: what tests and benchmarks send."""

from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

DELTA, CUMULATIVE = 1, 2
SHOP = {"service.name": "shop", "service.namespace": "web", "service.instance.id": "i-1", "host.name": "h1"}
MS = 1_000_000


def value(told: Any) -> dict[str, Any]:
    match told:
        case bool():
            return {"boolValue": told}
        case int():
            return {"intValue": str(told)}
        case float():
            return {"doubleValue": told}
        case list():
            return {"arrayValue": {"values": [value(one) for one in told]}}
        case dict():
            return {"kvlistValue": {"values": attributes(told)}}
        case _:
            return {"stringValue": told}


def attributes(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(one)} for key, one in told.items()]


def point(ms: int, told: float | None = None, start: int = 0, flags: int = 0, **labels: Any) -> dict[str, Any]:
    """A data point of a number (a float is a double), or the beginning of another kind's."""
    found: dict[str, Any] = {"timeUnixNano": str(ms * MS), "attributes": attributes(labels)}
    if start:
        found["startTimeUnixNano"] = str(start * MS)
    if flags:
        found["flags"] = flags
    if told is not None:
        found |= {"asDouble": told} if isinstance(told, float) else {"asInt": str(told)}
    return found


def gauge(name: str, *points: Any, unit: str = "") -> dict[str, Any]:
    return {"name": name, "unit": unit, "description": f"About {name}.", "gauge": {"dataPoints": points}}


def total(
    name: str, *points: Any, unit: str = "", temporality: int = CUMULATIVE, monotonic: bool = True
) -> dict[str, Any]:
    data = {"dataPoints": points, "aggregationTemporality": temporality, "isMonotonic": monotonic}
    return {"name": name, "unit": unit, "description": f"About {name}.", "sum": data}


def histogram(name: str, *points: Any, unit: str = "", temporality: int = CUMULATIVE) -> dict[str, Any]:
    return {"name": name, "unit": unit, "histogram": {"dataPoints": points, "aggregationTemporality": temporality}}


def request(*metrics: Any, resource: dict[str, Any] | None = None, scope: dict[str, Any] | None = None) -> Any:
    """As JSON has it."""
    told = SHOP if resource is None else resource
    return {
        "resourceMetrics": [
            {
                "resource": {"attributes": attributes(told)},
                "scopeMetrics": [{"scope": scope or {"name": "lib"}, "metrics": list(metrics)}],
            }
        ]
    }


def protobuf(told: Any) -> bytes:
    """As OpenTelemetry's own classes encode it."""
    return json_format.ParseDict(told, ExportMetricsServiceRequest()).SerializeToString()
