"""Previews as they are asked for: drafts from what was given, one or two of them, with progress line by line."""

import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404

from apps.accounts.rights import Principal
from apps.alerting import services
from apps.alerting.lifecycle import Severity
from apps.alerting.models import AlertRule
from apps.alerting.plans import RulePlan
from apps.alerting.preview import Preview, Progress, Refused, Span, check_span, preview, suggest
from apps.core.registry import extensions
from apps.promql.errors import PromQLError

LINES: Final = "application/x-ndjson"


def answer(by: Principal, given: Mapping[str, Any], now: datetime) -> HttpResponseBase:
    """Preview what was asked for: as one answer, or line by line until whoever asked has left. ValidationError."""
    end = given.get("end") or now
    start = given.get("start") or end - timedelta(hours=given.get("hours") or 24)
    try:
        span = check_span(start, min(end, now))
    except Refused as why:
        raise ValidationError({"start": [str(why)]}) from None
    drafts = [_draft(given, name) for name in ("rule", "compare") if name == "rule" or given.get("compare")]
    gone = threading.Event()
    lines = _lines(by, drafts, span, given, gone)
    if given.get("stream"):
        # Not compressed on its way: each line would be a gzip of its own, of which browsers read the first only.
        headers = {"Cache-Control": "no-store", "Content-Encoding": "identity"}
        return StreamingHttpResponse(_spoken(lines, gone), content_type=LINES, headers=headers)
    *_, last = lines
    if "error" in last:
        raise ValidationError({"rule": [last["error"]]})
    return HttpResponse(orjson.dumps(last["result"]), content_type="application/json")


def _draft(given: Mapping[str, Any], name: str) -> RulePlan:
    saved = None
    if given.get("slug"):
        saved = get_object_or_404(AlertRule.objects.select_related("group", "schedule"), slug=given["slug"])
    try:
        return services.draft(values=given.get(name) or {}, rule=saved)
    except ValidationError as error:
        raise ValidationError({f"{name}: {field}": found for field, found in error.message_dict.items()}) from None


def _lines(
    by: Principal, drafts: list[RulePlan], span: Span, given: Mapping[str, Any], gone: threading.Event
) -> Iterator[dict[str, Any]]:
    """{"progress": 0 to 1} after each slice, at last {"result": {"previews": [one or two]}} or {"error": why}."""
    shown = []
    wanted = given.get("alerts_per_week")
    try:
        for number, rule in enumerate(drafts):
            for step in preview(rule, span, by=by, cancelled=gone.is_set, keep=wanted is not None):
                if isinstance(step, Progress):
                    yield {"progress": round((number + step.done / step.total) / len(drafts), 3)}
                else:
                    shown.append(_shown(step, wanted, given.get("severity")))
    except (Refused, PromQLError) as why:
        yield {"error": str(why)}
        return
    yield {"result": {"previews": shown}}


def _shown(found: Preview, wanted: float | None, severity: str | None) -> dict[str, Any]:
    about = found.as_dict()
    for tell in extensions(AlertRule, "preview"):  # the room that knows who is told
        about["notifications"] = tell(found).as_dict()
    if wanted is not None:
        level = Severity(severity) if severity else next(iter(found.rule.mildest))
        hint = suggest(found, level, per_week=wanted)
        about["suggestion"] = {
            "severity": hint.severity.value,
            "threshold": hint.threshold,
            "alerts": hint.alerts,
            "reason": hint.reason,
        }
    return about


def _next(lines: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    return next(lines, None)


async def _spoken(lines: Iterator[dict[str, Any]], gone: threading.Event) -> AsyncIterator[bytes]:
    """Each line as soon as it is there; when the connection is lost, the work ends with its slice."""
    try:
        while (line := await sync_to_async(_next)(lines)) is not None:
            yield orjson.dumps(line) + b"\n"
    finally:
        gone.set()
