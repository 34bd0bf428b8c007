"""The page of the applications that are measured by the wheel: all of them, and the charts of one."""

from dataclasses import replace
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from apps.accounts.permissions import Right, page, principal_of
from apps.dashboards import application_panels, plots, snapshots, views
from apps.dashboards.timespan import span_of
from apps.metrics import query
from apps.promql.errors import DeadlineExceeded, PromQLError
from apps.promql.source import Matcher


@require_GET
@never_cache
@page(Right.READ)
def applications(request: HttpRequest) -> HttpResponse:
    """Every application as it does now, and one of them in full: `?job=…`, else the one with most processes."""
    who, now = principal_of(request), timezone.now()
    problem, rows = "", []
    try:
        span = replace(span_of({}, now=now), end=now)
        rows = _rows(plots.tabulate(application_panels.APPLICATIONS, span, scope=who.scope))
    except (PromQLError, query.Outrun, DeadlineExceeded) as error:
        problem = f"The applications cannot be read at the moment: {error}"
    job = request.GET.get("job", "")[: application_panels.LONGEST] or (rows[0]["job"] if rows else "")
    names = query.label_values("__name__", [Matcher("job", "=", job)], who.scope) if job else []
    sections = application_panels.told(job, names)
    return views.shell(
        request,
        "applications",
        "Applications",
        "badge",
        {"alerts": snapshots.alerts(scope=who.scope), "data_query": {"application": job}},
        rows=rows,
        job=job,
        problem=problem,
        sections=sections,
        with_range=bool(sections),
    )


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    names = ("job", "processes", "requests", "errors", "p95", "tasks")
    return [dict(zip(names, row, strict=True)) for row in table["rows"]]
