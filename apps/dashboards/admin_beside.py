"""What the portal adds beside the forms of the admin: its panels of a rule, metric, contact, target and so on, and ways
to its own pages of the same thing.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from apps.accounts.admin import Link, to_list
from apps.accounts.models import User
from apps.accounts.permissions import Principal, Right
from apps.alerting.models import Alert, AlertRule, Incident, Service, Silence
from apps.core.registry import extend
from apps.dashboards import check_panels, measured_panels, row_panels, target_panels
from apps.dashboards.panels import Panel
from apps.dashboards.timespan import RANGES
from apps.metrics.models import Metric, Series
from apps.notifications.models import Contact
from apps.oncall.models import Schedule
from apps.promql.text import quote, quote_name
from apps.sources.models import BusinessMetric, Check, DataSource, Heartbeat, ScrapeJob, ScrapeTarget, Site

# model: what its rows draw, the name of the row in the page's query, and the stretch shown at first.
CHARTS: dict[type[Any], tuple[Callable[[Any], tuple[Panel, ...]], str, str]] = {
    AlertRule: (row_panels.panels_of_rule, "rule", "24h"),
    Metric: (row_panels.panels_of_metric, "metric", "6h"),
    Contact: (lambda _: row_panels.DELIVERIES, "contact", "7d"),
    ScrapeTarget: (target_panels.panels_of, "target", "6h"),
    Check: (check_panels.panels_of_check, "check", "24h"),
    Heartbeat: (check_panels.panels_of_heartbeat, "heartbeat", "7d"),
    BusinessMetric: (lambda metric: (measured_panels.panel_of(metric),), "", "24h"),
}


def charts(row: Any, who: Principal) -> dict[str, Any] | None:
    """Return what the page of a row draws; the numbers are asked for by its script, as this person."""
    panels_of, name, stretch = CHARTS[type(row)]
    panels = panels_of(row)
    if not panels or not who.can(Right.READ):
        return None
    return {
        "template": "monitoring/_admin_charts.html",
        "panels": panels,
        "ranges": list(RANGES),
        "range": stretch,
        "state": {
            "data_url": reverse("data"),
            "explore_url": reverse("explore") if who.can(Right.QUERY) else None,
            "logs_url": reverse("logs"),
            "query": {name: str(row.pk)} if name else {},
        },
    }


for _model in CHARTS:
    extend(_model, "charts", charts)


# --- Ways -----------------------------------------------------------------------------------------------------------
PAGES: dict[type[Any], Callable[[Any], str]] = {
    Alert: lambda alert: reverse("alert", args=[alert.key]),
    Incident: lambda incident: reverse("incident", args=[incident.pk]),
    Silence: lambda silence: reverse("silence", args=[silence.pk]),
    Service: lambda _: reverse("services"),
    AlertRule: lambda _: f"{reverse('alerts')}?tab=rules",
    Contact: lambda _: f"{reverse('alerts')}?tab=notifications",
    ScrapeJob: lambda _: reverse("targets"),
    ScrapeTarget: lambda target: reverse("target", args=[target.pk]),
    Check: lambda check: reverse("check", args=[check.pk]),
    Heartbeat: lambda beat: reverse("heartbeat", args=[beat.pk]),
    DataSource: lambda _: reverse("databases"),
    BusinessMetric: lambda _: reverse("business"),
    Site: lambda _: reverse("frontend"),
    Schedule: lambda _: reverse("oncall"),
    User: lambda person: reverse("person", args=[person.pk]),
}
"""The page of the portal that shows the same row."""

ASKED: dict[type[Any], Callable[[Any], str]] = {
    AlertRule: lambda rule: str(rule.expression),
    Metric: lambda metric: f"{{__name__={quote(metric.name)}}}",
    ScrapeTarget: lambda target: "{" + ",".join(f"{quote_name(n)}={quote(v)}" for n, v in target.shown_labels()) + "}",
    Check: lambda check: f"{{check={quote(check.name)}}}",
    Heartbeat: lambda beat: f"{{heartbeat={quote(beat.slug)}}}",
    BusinessMetric: lambda metric: f"{{__name__={quote(metric.name)}}}",
    Series: lambda series: "{" + ",".join(
        f"{quote_name(n)}={quote(v)}" for n, v in {**series.labels, "__name__": series.metric.name}.items()
    ) + "}",
}  # fmt: skip
"""What Explore is asked for a row's series."""


def ways(row: Any, who: Principal) -> list[Link]:
    """Return the ways from a row's form to the portal: its page, and its series in Explore."""
    found = [Link("In the portal", PAGES[type(row)](row))] if type(row) in PAGES else []
    if type(row) in ASKED and who.can(Right.QUERY):
        found.append(Link("In Explore", f"{reverse('explore')}?{urlencode({'q': ASKED[type(row)](row)})}"))
    if isinstance(row, AlertRule):
        found.append(Link("Hygiene", f"{reverse('alerts')}?tab=hygiene"))
    if isinstance(row, ScrapeTarget):
        found.append(to_list("Its alerts", Alert, q=row.instance))
    if isinstance(row, Metric):
        found.append(to_list("Its series", Series, metric__id__exact=row.pk))
    return found


for _model in {**PAGES, **ASKED}:
    extend(_model, "links", ways)
