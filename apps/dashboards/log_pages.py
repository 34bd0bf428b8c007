"""The pages of logs: records and templates of a time, how many there were, and records as a file."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

import orjson
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from apps.accounts.permissions import Principal, Right, page, principal_of
from apps.dashboards import snapshots, views
from apps.dashboards.panels import Panel
from apps.dashboards.plots import counted, table_of
from apps.dashboards.timespan import Span
from apps.promql.text import quote
from apps.sources.logs import api, search, services
from apps.sources.logs.records import LEVELS
from apps.sources.logs.search import BadSearch, Cursor, Wanted
from apps.sources.models import LogTemplate

TABS: Final = (("records", "Records"), ("templates", "Templates"))
FILTERS: Final = ("service", "level", "template", "host", "text")
EXPORTED: Final = 20_000
"""Records of one file."""
PANEL: Final = Panel(
    "logs", "Records by level", "count", (), ("logs",), stacked=True, wide=True,
    empty="Nothing that fits was logged in this time.",
)  # fmt: skip
TONES: Final = {level: level if level != "debug" else "series-7" for level in LEVELS}


@require_GET
@never_cache
@page(Right.READ)
def logs(request: HttpRequest) -> HttpResponse:
    """The frame: filters, chart and tabs; the page's script asks for records or templates."""
    who = principal_of(request)
    tab = request.GET.get("tab", "records")
    tab = tab if tab in dict(TABS) else "records"
    problem = ""
    try:
        wanted = _wanted(request)
    except BadSearch as error:
        wanted, problem = Wanted(0, 1), str(error)
    pairs = [(name, value) for name in FILTERS for value in request.GET.getlist(name) if value] if not problem else []
    chosen = None
    if wanted.template is not None:
        chosen = LogTemplate.objects.visible_to(who.scope).filter(pk=wanted.template).first()

    def without(*names: str, tab: str = tab) -> str:
        kept = [pair for pair in pairs if pair[0] not in names]
        return "?" + urlencode([*kept, *([("tab", tab)] if tab != "records" else [])])

    state = {
        "alerts": snapshots.alerts(scope=who.scope),
        "data_url": reverse("logs-data"),
        "data_query": _data_query(pairs),
        "logs": {
            "tab": tab,
            "wanted": pairs,
            "list_url": reverse("logs-list"),
            "templates_url": reverse("logs-templates"),
            "charts_url": reverse("performance"),
        },
    }
    return views.shell(
        request,
        "logs",
        "Logs",
        "logs",
        state,
        tab=tab,
        tabs=[{"key": key, "title": title, "url": without(tab=key)} for key, title in TABS],
        panel=PANEL,
        services=search.services(who.scope),
        levels=LEVELS,
        wanted=wanted,
        template=chosen,
        without_template=without("template"),
        without_host=without("host"),
        problem=problem,
        may_delete=who.can(Right.ADMINISTER),
        with_range=True,
    )


def _data_query(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The filters as parameters that stand once: levels with commas between them."""
    query = {name: value for name, value in pairs if name != "level"}
    levels = [value for name, value in pairs if name == "level"]
    return query | ({"level": ",".join(levels)} if levels else {})


def _wanted(request: HttpRequest) -> Wanted:
    return api.wanted_of(lambda name: request.GET.get(name, ""), request.GET.getlist, now=timezone.now())


@require_GET
@never_cache
@page(Right.READ)
def data(request: HttpRequest) -> HttpResponse:
    """How many records by level, as the charts of other pages get their numbers: ?range=1h (or from, to), since."""
    who = principal_of(request)
    try:
        return views.answered_panels(request, who, lambda span: {PANEL.key: _chart(request, span, who)}, table_of)
    except BadSearch as error:
        return views.as_json({"error": str(error)}, 400)


def _chart(request: HttpRequest, span: Span, who: Principal) -> dict[str, Any]:
    """Return what the chart draws: worst on top, and the same as an expression for Explore."""
    asked = _moved(request, span)
    found = search.counts(asked, scope=who.scope, step=span.step)
    series = [
        {"name": level, "values": found.levels[level].astype(float).tolist()[: span.count]}
        for level in reversed(LEVELS)
        if not asked.levels or level in asked.levels
    ]
    has_any = any(any(row["values"]) for row in series)
    matchers = [f"service={quote(asked.service)}"] if asked.service else []
    if asked.levels:
        matchers.append(f"level=~{quote('|'.join(asked.levels))}")
    expression = f"sum by (level) (increase(log_records_total{{{', '.join(matchers)}}}[{span.window}]))"
    return counted(PANEL, span, series if has_any or "since" in request.GET else []) | {
        "bars": True,
        "tones": TONES,
        "expressions": [expression],
        "warnings": [f"Counted back to {_when(found.reached)} only."] if found.reached else [],
    }


def _moved(request: HttpRequest, span: Span) -> Wanted:
    """The filters, over the steps of the chart."""
    start = int(span.start.timestamp() * 1000)
    end = start + span.count * int(span.step.total_seconds() * 1000)
    return replace(_wanted(request), start=start, end=end)


def _when(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"


@require_GET
@never_cache
@page(Right.READ)
def listing(request: HttpRequest) -> HttpResponse:
    """A page of records: ?since=…&until=…&limit=…&cursor=… and the filters."""
    try:
        limit = request.GET.get("limit", "100")
        most = min(int(limit), search.MOST_ROWS) if limit.isdecimal() and len(limit) < 7 else 100
        cursor = Cursor.read(request.GET.get("cursor", ""))
        found = search.page(_wanted(request), scope=principal_of(request).scope, limit=max(1, most), cursor=cursor)
    except BadSearch as error:
        return views.as_json({"error": str(error)}, 400)
    return views.as_json(api.page_as_dict(found))


@require_GET
@never_cache
@page(Right.READ)
def templates(request: HttpRequest) -> HttpResponse:
    """The templates with records in a time."""
    try:
        found, total = search.templates(_wanted(request), scope=principal_of(request).scope)
    except BadSearch as error:
        return views.as_json({"error": str(error)}, 400)
    return views.as_json({"templates": [api.template_as_dict(seen) for seen in found], "total": total})


@require_GET
@never_cache
@page(Right.READ)
def export(request: HttpRequest) -> HttpResponse:
    """The newest records of a time as a file, at most 20,000; the audit trail tells who took them."""
    who, kind = principal_of(request), request.GET.get("format", "csv")
    try:
        wanted = _wanted(request)
        lines: list[search.Line] = []
        cursor: Cursor | None = None
        while len(lines) < EXPORTED:
            found = search.page(wanted, scope=who.scope, limit=search.MOST_ROWS, cursor=cursor)
            lines += found.lines
            cursor = found.cursor
            if cursor is None or found.is_partial:
                break
    except BadSearch as error:
        return views.as_json({"error": str(error)}, 400)
    asked = {
        "from_ms": wanted.start, "to_ms": wanted.end, "format": kind,
        **{name: request.GET.getlist(name) for name in FILTERS if request.GET.get(name)},
    }  # fmt: skip
    kept = services.export_logs(by=who, asked=asked, lines=lines[:EXPORTED])
    if kind != "ndjson":
        return views.csv_file("logs", _rows(kept))
    answer = HttpResponse(b"".join(orjson.dumps(line.as_dict()) + b"\n" for line in kept), "application/x-ndjson")
    answer["Content-Disposition"] = 'attachment; filename="logs.ndjson"'
    return answer


def _rows(lines: Iterable[search.Line]) -> Iterator[list[str]]:
    yield ["time", "level", "service", "host", "message", "attributes"]
    for line in lines:
        at = datetime.fromtimestamp(line.at / 1000, tz=UTC).isoformat(timespec="milliseconds")
        yield [at, line.level, line.service, line.host, line.message, line.attributes]
