"""The charts of single rows that have no page in the portal: a rule, a metric, a contact; drawn beside their forms."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from django.db import connection

from apps.accounts.permissions import Principal
from apps.alerting.models import AlertRule
from apps.alerting.units import unit_of
from apps.dashboards import plots
from apps.dashboards.panels import Panel, Query
from apps.dashboards.plots import Row
from apps.dashboards.timespan import Span
from apps.metrics.models import Metric
from apps.notifications.models import Contact
from apps.promql.text import quote

COUNTED = {"counter", "histogram"}
NOT_ASKED = "The rule's expression has no value in this time."
NOT_SENT = "Nothing was sent to it in this time."
NOT_MEASURED = "It was not measured in this time."
RULE = "rule-values"
DELIVERIES = (
    Panel("contact-sent", "Messages", "count", (), (), stacked=True, empty=NOT_SENT),
    Panel("contact-latency", "From written to sent", "seconds", (), (), empty=NOT_SENT),
)


def panels_of_rule(rule: AlertRule) -> tuple[Panel, ...]:
    """Return the chart of a rule: what it looks at, its limits, and when it had fired."""
    query = Query(rule.expression)
    return (
        Panel(RULE, "What the rule looks at", unit_of(rule.expression), (query,), ("*",), rule.expression, wide=True,
              minimum=None, empty=NOT_ASKED),
    )  # fmt: skip


def panels_of_metric(metric: Metric) -> tuple[Panel, ...]:
    """Return the charts of a metric: its values over all series, and how many series there are."""
    own = f"{{__name__={quote(metric.name)}}}"
    title, unit = "Values", unit_of(metric.name)
    queries: tuple[Query, ...]
    if metric.type in COUNTED:
        queries = (Query(f"sum(rate({own}[$window]))", "all series together"),)
        title, unit = "A second", "/s"
    else:
        queries = tuple(Query(f"{name}({own})", words) for name, words in
                        (("max", "highest"), ("avg", "average"), ("min", "lowest")))  # fmt: skip
    return (
        Panel("metric-values", title, unit, queries, ("*",), minimum=None, empty=NOT_MEASURED),
        Panel("metric-series", "Series", "count", (Query(f"count({own})", "with a value"),), ("*",),
              empty=NOT_MEASURED),
    )  # fmt: skip


def answers(who: Principal, keys: Iterable[str], query: Mapping[str, str], span: Span) -> dict[str, Row]:
    """Return the numbers of those of the panels `keys` that belong to the row that a page's query names.

    None for whom a team narrows: the forms beside which they stand are closed to them, too.
    """
    wanted = set() if who.scope.matchers else set(keys)
    found: dict[str, Row] = {}
    if RULE in wanted and (rule := AlertRule.objects.filter(pk=_key(query, "rule")).first()) is not None:
        watched = plots.watched([rule.expression], span, scope=who.scope)
        own = replace(watched, levels={rule.expression: plots.levels_of_rule(rule)})
        (panel,) = panels_of_rule(rule)
        found[RULE] = plots.plot(panel, span, own, scope=who.scope)
    if wanted & {"metric-values", "metric-series"}:
        metric = Metric.objects.filter(pk=_key(query, "metric")).first()
        for panel in panels_of_metric(metric) if metric else ():
            if panel.key in wanted:
                found[panel.key] = plots.plot(panel, span, plots.UNWATCHED, scope=who.scope)
    if wanted & {panel.key for panel in DELIVERIES}:
        contact = Contact.objects.filter(pk=_key(query, "contact")).first()
        found |= {key: row for key, row in deliveries(contact, span).items() if key in wanted} if contact else {}
    return found


def _key(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    return int(text) if text.isdecimal() and len(text) <= 18 else 0


SENT = """
SELECT width_bucket(extract(epoch FROM created_at), %(edges)s::float8[]) AS place,
       count(*) FILTER (WHERE state = 'sent') AS sent,
       count(*) FILTER (WHERE state = 'failed') AS failed,
       count(*) FILTER (WHERE state NOT IN ('sent', 'failed')) AS other,
       avg(extract(epoch FROM finished_at - created_at)) FILTER (WHERE state = 'sent') AS latency
  FROM notifications_delivery
 WHERE contact_id = %(contact)s AND created_at >= %(start)s AND created_at < %(end)s
 GROUP BY place
"""


def deliveries(contact: Contact, span: Span) -> dict[str, Row]:
    """Return what became of the messages to a contact, and how long they took, in each step (from its instant on)."""
    grid = plots.grid(span)
    starts = grid["start"] + grid["step"] * np.arange(grid["count"])
    columns = np.zeros((3, grid["count"]))
    latency = np.full(grid["count"], np.nan)
    with connection.cursor() as cursor:
        cursor.execute(
            SENT,
            {"edges": starts.tolist(), "contact": contact.pk, "start": span.start, "end": span.end + span.step},
        )
        for place, *counts, took in cursor.fetchall():
            columns[:, place - 1] = counts
            latency[place - 1] = np.nan if took is None else float(took)
    rows = {name: row for name, row in zip(("sent", "failed", "other"), columns, strict=True) if row.any()}
    times = [] if np.isnan(latency).all() else [{"name": "on average", "values": latency.tolist()}]
    sent, took = DELIVERIES
    return {
        sent.key: plots.counted(sent, span, [{"name": name, "values": row.tolist()} for name, row in rows.items()]),
        took.key: plots.counted(took, span, times),
    }
