"""The seed's HTTP API under /api/monitoring/: metrics, alerts and health; epoch milliseconds, JSON, no redirects."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

import numpy as np
from django.conf import settings
from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import APIException, NotAuthenticated, NotFound, PermissionDenied, ValidationError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import Principal, Right, Scope, principal_of
from apps.alerting import services as alerting
from apps.alerting import statistics
from apps.alerting.models import Alert
from apps.core.telemetry import Reading
from apps.dashboards import request_figures, system_figures
from apps.dashboards.health import judge
from apps.metrics import query, services
from apps.metrics.samples import Samples
from apps.promql.errors import DeadlineExceeded, PromQLError

T = TypeVar("T")
TYPES = ("performance", "system", "alerts", "database", "application", "business")
BUILT_IN = {
    "database": "pg_.*|dbConnections",
    "application": "redis_.*|celery_.*|portal_.*|process_.*|http_.*|responseTime|errorRate|throughput",
    "business": "",
}
SEVERITIES = ("INFO", "WARNING", "ERROR", "CRITICAL")
MOST_SERIES = 100
LOOKBACK = 300_000
"""How far back (ms) an expression looks for the newest sample, as Prometheus does."""
MOST_POSTED = 10_000
JOB = "push"
LAST_MOMENT = 253_402_300_799_000
"""The end of the year 9999 in milliseconds since 1970: the last moment that Python's calendar knows."""


class Rights(BasePermission):
    """The view names a right a method; reads are open to all where MONITORING_AUTH_ENABLED is false."""

    def has_permission(self, request: Request, view: Any) -> bool:
        method = "GET" if request.method == "HEAD" else request.method
        # Who may do something there may ask what; a method that there is not is refused as that.
        right = next(iter(view.rights.values())) if method == "OPTIONS" else view.rights.get(method)
        if right is None:
            return True
        if request.method in {"GET", "HEAD"} and not settings.MONITORING_AUTH_ENABLED:
            return True
        by = principal_of(request)
        if by.kind == "anonymous":
            raise NotAuthenticated("Give a token: `Authorization: Bearer …` or `X-API-Key`, or log in.")
        if not by.can(right):
            raise PermissionDenied(f"This needs the right to {right}; {by.name} does not have it.")
        return True


class Unavailable(APIException):
    """503, to be tried again after `wait` seconds."""

    status_code = 503

    def __init__(self, detail: str, *, wait: int) -> None:
        super().__init__(detail)
        self.wait = wait


class Unanswerable(APIException):
    """422: well formed, and asks for what the engine cannot or may not do."""

    status_code = 422


class Endpoint(APIView):
    """A view of the seed's API."""

    permission_classes = [Rights]
    rights: ClassVar[dict[str, Right | None]] = {}

    @property
    def by(self) -> Principal:
        return principal_of(self.request)

    def handle_exception(self, exc: Exception) -> Response:
        """What the store and the engine refuse is 503 with Retry-After where it passes, 422 where it does not."""
        match exc:
            case services.StoreFull():
                exc = Unavailable(str(exc), wait=60)
            case query.Outrun() | DeadlineExceeded():
                exc = Unavailable(str(exc), wait=5)
            case PromQLError():
                exc = Unanswerable(str(exc))
        return super().handle_exception(exc)


OBJECT = {200: OpenApiTypes.OBJECT}


@extend_schema(tags=["monitoring"], request=OpenApiTypes.OBJECT, responses=OBJECT)
class Metrics(Endpoint):
    """Figures of a kind over a time range; and metrics pushed by applications."""

    rights = {"GET": Right.READ, "POST": Right.INGEST}

    def get(self, request: Request) -> Response:
        kind = request.query_params.get("type", "performance")
        if kind not in TYPES:
            raise ValidationError(f"type is {kind!r}, but must be one of {', '.join(TYPES)}.")
        now = timezone.now()
        start, end = time_range(request.query_params.get("timeRange", ""), now=now)
        data = figures(kind, start, end, scope=self.by.scope, now=now)
        step = data.pop("step", None)
        return Response({"success": True, "data": data, "timeRange": {"start": start, "end": end}, "step": step})

    def post(self, request: Request) -> Response:
        body = request.data
        if not isinstance(body, dict) or body.get("type") not in TYPES or body.get("type") == "alerts":
            raise ValidationError('The body must be {"type": …, "metrics": …} with a type other than alerts.')
        rows = _rows(body.get("metrics"), "metrics")
        now = timezone.now()
        kind = str(body["type"])
        convert = request_reading if kind == "performance" else metric_reading
        readings, index, rejected = _converted(rows, lambda row: convert(row, kind, now))
        if kind == "performance":
            written = services.record_events(readings=readings, by=self.by, now=now)
        else:
            written = services.ingest(samples=Samples.from_readings(readings, at=now), by=self.by, now=now)
        return _counted(written, index, rejected)


@extend_schema(tags=["monitoring"], request=OpenApiTypes.OBJECT, responses=OBJECT)
class Events(Endpoint):
    """What happened in an application, one by one: a booking, a payment, a rating."""

    rights = {"POST": Right.INGEST}

    def post(self, request: Request) -> Response:
        rows = _rows(request.data, "The body")
        now = timezone.now()
        events, index, rejected = _converted(rows, lambda row: event_reading(row, now))
        written = services.record_events(
            readings=[reading for reading, _ in events], ids=[id_ for _, id_ in events], by=self.by, now=now
        )
        return _counted(written, index, rejected)


def _rows(posted: Any, name: str) -> list[Any]:
    """Return what was posted as a list: one object is as good as a list of it."""
    rows = [posted] if isinstance(posted, dict) else posted
    if not isinstance(rows, list) or not rows:
        raise ValidationError(f"{name} must be an object or a list of at least one.")
    if len(rows) > MOST_POSTED:
        raise ValidationError(f"{name}: {len(rows)} in one request; at most {MOST_POSTED} are taken.")
    return rows


def _converted(rows: list[Any], convert: Callable[[Any], T]) -> tuple[list[T], list[int], list[dict[str, Any]]]:
    """Return what the good rows mean, the place of each among the rows, and the refusals of the others."""
    good: list[T] = []
    index: list[int] = []
    rejected: list[dict[str, Any]] = []
    for place, row in enumerate(rows):
        try:
            good.append(convert(row))
            index.append(place)
        except ValueError as error:
            rejected.append({"index": place, "error": str(error)})
    return good, index, rejected


def _counted(written: services.Written, index: list[int], rejected: list[dict[str, Any]]) -> Response:
    """Return how many were taken, and what was refused by its place in the request."""
    refused = rejected + [{"index": index[refusal.index], "error": refusal.text} for refusal in written.rejected]
    refused.sort(key=lambda item: item["index"])
    return Response({"success": True, "accepted": written.accepted, "rejected": refused})


@extend_schema(tags=["monitoring"], request=OpenApiTypes.OBJECT, responses=OBJECT)
class Alerts(Endpoint):
    """Alerts from rules and from outside: list, post, resolve."""

    rights = {"GET": Right.READ, "POST": Right.OPERATE, "PUT": Right.OPERATE}

    def get(self, request: Request) -> Response:
        status = request.query_params.get("status", "active")
        limit = _limit(request.query_params.get("limit", "100"))
        visible = Alert.objects.visible_to(self.by.scope)
        if status == "active":
            return Response(
                {"success": True, "alerts": [as_seed(a) for a in visible.active().order_by("-fired_at")[:limit]]}
            )
        if status == "history":
            return Response({"success": True, "alerts": [as_seed(alert) for alert in visible.history()[:limit]]})
        if status == "stats":
            now = timezone.now()
            return Response({"success": True, "alerts": stats(now - timedelta(hours=24), now, scope=self.by.scope)})
        raise ValidationError(f"status is {status!r}, but must be active, history or stats.")

    def post(self, request: Request) -> Response:
        body = request.data
        if not isinstance(body, dict):
            raise ValidationError("The body must be an object with type, severity and message.")
        kind, message = (_text(body, name, most) for name, most in (("type", 100), ("message", 2_000)))
        severity = _text(body, "severity", 20).upper()
        if severity not in SEVERITIES:
            raise ValidationError(f"severity is {severity!r}, but must be one of {', '.join(SEVERITIES)}.")
        metadata = {} if body.get("metadata") is None else body["metadata"]
        if not isinstance(metadata, dict):
            raise ValidationError("metadata must be an object.")
        service = "" if body.get("service") is None else body["service"]
        if not isinstance(service, str) or len(service) > 100:
            raise ValidationError("service must be a text of at most 100 characters.")
        ends_at = None
        if body.get("endsAt") is not None:
            ends_at = _moment(body["endsAt"], "endsAt")
        alert = alerting.post_alert(
            by=self.by, type=kind, severity=severity.lower(), message=message, service=service, metadata=metadata,
            ends_at=ends_at, now=timezone.now(),
        )  # fmt: skip
        return Response({"success": True, "alert": as_seed(alert)})

    def put(self, request: Request) -> Response:
        body = request.data
        if not isinstance(body, dict):
            raise ValidationError("The body must be an object with alertId and resolvedBy.")
        key, by_name = _text(body, "alertId", 60), _text(body, "resolvedBy", 200)
        alert = Alert.objects.visible_to(self.by.scope).filter(key=key, fired_at__isnull=False).first()
        if alert is None:
            raise NotFound(f"There is no alert {key}.")
        alert = alerting.resolve(by=self.by, alert=alert, resolved_by=by_name, now=timezone.now())
        return Response({"success": True, "alert": as_seed(alert)})


@extend_schema(tags=["monitoring"], responses=OBJECT | {503: OpenApiTypes.OBJECT})
class HealthEndpoint(Endpoint):
    """Is the portal fine? Open to all; the details need the right to read."""

    rights = {"GET": None}
    throttle_classes = []

    def get_authenticators(self) -> list[Any]:
        """Ask nobody who they are for the plain answer: a probe with an outdated token still gets it."""
        return super().get_authenticators() if self.request is None or _is_detailed(self.request) else []

    def get(self, request: Request) -> Response:
        detailed = _is_detailed(request)
        if detailed and settings.MONITORING_AUTH_ENABLED and not self.by.can(Right.READ):
            raise NotAuthenticated("The details of the health need a token or a login with the right to read.")
        verdict = judge(now=timezone.now())
        status = 503 if verdict.status == "unhealthy" else 200
        return Response(verdict.as_json(detailed=detailed), status=status, headers={"Cache-Control": "no-store"})


def _is_detailed(request: Any) -> bool:
    return str(request.GET.get("detailed", "")).lower() in {"true", "1"}


def time_range(text: str, *, now: datetime) -> tuple[int, int]:
    """Return (start, end) in ms from `start,end`; empty means the last 24 hours, an empty end means now."""
    present = int(now.timestamp() * 1000)
    first, _, second = text.partition(",")
    try:
        end = _milliseconds(second) if second.strip() else present
        start = _milliseconds(first) if first.strip() else end - 86_400_000
    except ValueError:
        raise ValidationError(f"timeRange is {text!r}, but must be `start,end` in milliseconds since 1970.") from None
    if start > end:
        raise ValidationError(f"timeRange starts at {start}, after its end at {end}.")
    if start < 0 or end > LAST_MOMENT:
        raise ValidationError("timeRange must lie between 1970 and 9999.")
    return start, end


def _milliseconds(text: str) -> int:
    if not re.fullmatch(r"\s*-?[0-9]{1,20}\s*", text):
        raise ValueError(text)
    return int(text)


def figures(kind: str, start: int, end: int, *, scope: Scope, now: datetime) -> dict[str, Any]:
    """Return the data of that kind over the range (ms), with the step that was chosen for where there are samples."""
    if kind != "alerts":
        start, end = _with_samples(start, end, now)
    if kind == "performance":
        return request_figures.performance(start, end, scope=scope)
    if kind == "system":
        return system_figures.system(start, end, scope=scope)
    if kind == "alerts":
        active = Alert.objects.visible_to(scope).active().order_by("-fired_at")[:1000]
        spans = [datetime.fromtimestamp(ms / 1000, tz=UTC) for ms in (start, end)]
        return {"active": [as_seed(alert) for alert in active], "stats": stats(spans[0], spans[1], scope=scope)}
    return categorised(kind, start, end, scope=scope)


def _with_samples(start: int, end: int, now: datetime) -> tuple[int, int]:
    """Return the part of the range (ms) that lies between the first sample and now."""
    end = max(start, min(end, int(now.timestamp() * 1000)))
    oldest = query.oldest()
    return (start if oldest is None else min(max(start, oldest - 1), end)), end


def categorised(category: str, start: int, end: int, *, scope: Scope) -> dict[str, Any]:
    """Return the series that were pushed with this type, and the portal's own of that kind, with their points."""
    wanted = [f'{{category="{category}"}}']
    if BUILT_IN[category]:
        wanted.append(f'{{__name__=~"{BUILT_IN[category]}", __name__!~".*_bucket", category=""}}')
    steps = system_figures.steps_for(start, end, most=300)
    if steps.step > LOOKBACK:  # what was pushed between two steps must not fall through
        wanted = [f"last_over_time({selector}[{steps.step // 1000}s])" for selector in wanted]
    series: list[dict[str, Any]] = []
    for expression in wanted:
        result = query.query_range(expression, **steps.range, scope=scope)
        for labels, values, ok in zip(result.labels.dicts(), result.v, result.ok, strict=True):
            good = ok & np.isfinite(values)
            points = [[int(ts), float(v)] for ts, v in zip(result.ts[good], values[good], strict=True)]
            name = labels.pop("__name__", "")
            if points and len(series) < MOST_SERIES:
                series.append({"name": name, "labels": labels, "points": points})
    room = request_figures.ROWS
    for entry in series:  # the newest points win where the answer would grow too long
        entry["points"] = entry["points"][-max(room // len(series), 1) :]
    summary: dict[str, dict[str, float]] = {}
    for name in sorted({entry["name"] for entry in series}):
        values = [value for entry in series if entry["name"] == name for _, value in entry["points"]]
        newest = [entry["points"][-1] for entry in series if entry["name"] == name]
        summary[name] = {
            "current": max(newest)[1],
            "avg": round(math.fsum(values) / len(values), 6),
            "min": min(values),
            "max": max(values),
        }
    return {"series": series, "summary": summary, "step": steps.step}


def stats(start: datetime, end: datetime, *, scope: Scope) -> dict[str, Any]:
    """Return the seed's statistics of alerts over the range."""
    return {
        **statistics.stats(start=start, end=end, scope=scope),
        "timeRange": {"start": int(start.timestamp() * 1000), "end": int(end.timestamp() * 1000)},
    }


def as_seed(alert: Alert) -> dict[str, Any]:
    """Return the alert in the seed's words."""
    answer: dict[str, Any] = {
        "id": alert.key,
        "type": alert.type,
        "category": alert.category,
        "severity": alert.severity.upper(),
        "message": alert.message,
        "timestamp": _ms(alert.fired_at),
        "service": alert.service,
        "metadata": alert.metadata
        or ({"labels": alert.labels, "value": alert.value} if alert.source == "rule" else {}),
        "count": alert.count,
        "resolved": alert.state == "resolved",
        "acknowledged": alert.acknowledged_at is not None,
    }
    if alert.state == "resolved":
        answer |= {"resolvedAt": _ms(alert.resolved_at), "resolvedBy": alert.resolved_by or alert.resolve_reason}
    if alert.acknowledged_at is not None:
        answer |= {"acknowledgedAt": _ms(alert.acknowledged_at), "acknowledgedBy": alert.acknowledged_by}
    return answer


def request_reading(row: Any, kind: str, now: datetime) -> Reading:
    """Return one pushed request as a sample; raises ValueError with what is wrong.

    `userId` is checked and dropped: no figure of this part needs it, and what is not kept cannot leak.
    """
    if not isinstance(row, dict):
        raise ValueError("not an object")
    endpoint, method = row.get("endpoint"), row.get("method", "GET")
    if not isinstance(endpoint, str) or not endpoint or len(endpoint) > 500:
        raise ValueError("endpoint must be a text of 1 to 500 characters")
    if not isinstance(method, str) or not method.isalpha() or len(method) > 20:
        raise ValueError("method must be a word such as GET")
    status = row.get("statusCode", 200)
    if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
        raise ValueError("statusCode must be a whole number from 100 to 599")
    if not isinstance(row.get("userId", ""), str | int | None):
        raise ValueError("userId must be a text or a number")
    milliseconds = _number(row.get("responseTime"), "responseTime")
    if milliseconds < 0:
        raise ValueError("responseTime must not be negative")
    return Reading(
        request_figures.PUSHED,
        milliseconds / 1000,
        {"endpoint": endpoint.split("?")[0], "method": method.upper(), "code": str(status), "job": JOB},
        "gauge",
        "Duration of single requests that applications pushed.",
        _timestamp(row, now),
    )


def metric_reading(row: Any, kind: str, now: datetime) -> Reading:
    """Return one pushed metric as a sample of its category; raises ValueError with what is wrong."""
    if not isinstance(row, dict):
        raise ValueError("not an object")
    name = row.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("name must be a text")
    labels = row.get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(v, str | int | float) for v in labels.values()):
        raise ValueError("labels must be an object of texts")
    if "__name__" in labels:
        raise ValueError("labels must not hold __name__")
    value = _number(row.get("value"), "value")
    texts = {str(k): str(v) for k, v in labels.items()}
    return Reading(name, value, {"job": JOB, **texts, "category": kind}, "gauge", "", _timestamp(row, now))


def event_reading(row: Any, now: datetime) -> tuple[Reading, str]:
    """Return one event as a sample of the metric of its name, and its id; raises ValueError with what is wrong."""
    if not isinstance(row, dict):
        raise ValueError("not an object")
    name, id_ = row.get("event"), "" if row.get("id") is None else row["id"]
    if not isinstance(name, str) or not name:
        raise ValueError("event must be a text such as booking_made")
    if isinstance(id_, bool) or not isinstance(id_, str | int) or len(str(id_)) > 200:
        raise ValueError("id must be a text or a whole number of at most 200 characters")
    properties = {} if row.get("properties") is None else row["properties"]
    if not isinstance(properties, dict) or not all(isinstance(v, str | int | float) for v in properties.values()):
        raise ValueError("properties must be an object of texts and numbers")
    if "__name__" in properties:
        raise ValueError("properties must not hold __name__")
    value = 1.0 if row.get("value") is None else _number(row["value"], "value")
    texts = {label: str(v).lower() if isinstance(v, bool) else str(v) for label, v in properties.items()}
    labels = {"job": JOB, **texts, "category": "business"}
    return Reading(name, value, labels, "gauge", "", _timestamp(row, now)), str(id_)


def _number(value: Any, name: str) -> float:
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError:  # JSON's whole numbers have no end
        pass
    raise ValueError(f"{name} must be a finite number")


def _timestamp(row: dict[str, Any], now: datetime) -> int:
    value = row.get("timestamp")
    if value is None:
        return int(now.timestamp() * 1000)
    moment = _number(value, "timestamp")
    if abs(moment) > LAST_MOMENT:
        raise ValueError("timestamp must be milliseconds since 1970, before the year 10000")
    return int(moment)


def _moment(value: Any, name: str) -> datetime:
    try:
        return datetime.fromtimestamp(_number(value, name) / 1000, tz=UTC)
    except (ValueError, OverflowError, OSError):
        raise ValidationError(f"{name} must be a time in milliseconds since 1970.") from None


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 1000:
        raise ValidationError(f"limit is {text!r}, but must be a whole number from 1 to 1000.")
    return int(text)


def _text(body: dict[str, Any], name: str, most: int) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise ValidationError(f"{name} must be a text of 1 to {most} characters.")
    return value


def _both(name: str, view: type[Endpoint]) -> list[Any]:
    """The address with and without its slash: the seed's clients use both, and a redirect would drop a body."""
    return [path(name, view.as_view(), name=f"seed-{name}"), path(f"{name}/", view.as_view())]


urlpatterns = [
    *_both("metrics", Metrics),
    *_both("events", Events),
    *_both("alerts", Alerts),
    *_both("health", HealthEndpoint),
]
