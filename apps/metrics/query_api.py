"""The portal's own questions about queries, for its page to explore and for editors: cost, parts, functions."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.core.lanes import GET, Answer, Lane, Parameter, Request
from apps.metrics import query
from apps.metrics.envelope import enveloped, refuse, success, time_of
from apps.metrics.prometheus_api import (
    DIALECT,
    END,
    MOST_INTERVALS,
    QUERY,
    START,
    TIMEOUT,
    asked,
    must_be_of_numbers,
    span_of,
)
from apps.promql.functions import AGGREGATIONS, FUNCTIONS, VECTOR


def _times(request: Request) -> tuple[datetime, datetime, timedelta | None]:
    """(start, end, step) of a range, or (time, time, None)."""
    if request.one("step") or request.one("start") or request.one("end"):
        return span_of(request)
    at = time_of(request, "time", None) or timezone.now()
    return at, at, None


@enveloped
def cost(by: Principal, request: Request) -> Answer:
    """/api/monitoring/query/cost: what a query would read, before it reads anything, beside the caller's budget."""
    start, end, step = _times(request)
    wanted = asked(by, request)
    limits = replace(wanted.limits, steps=MOST_INTERVALS + 1)
    if step is not None:
        must_be_of_numbers(wanted.expr)
    found = query.cost(wanted.text, start=start, end=end, step=step, scope=by.scope, limits=limits, **wanted.options)
    return success(
        {
            "series": found.series,
            "samples": found.samples,
            "points": found.points,
            "steps": found.steps,
            "heavy": found.heavy,
            "refused": found.refused,
            "budget": {
                "series": limits.series,
                "samples": limits.samples,
                "points": limits.points,
                "seconds": limits.seconds,
            },
        }
    )


@enveloped
def explain(by: Principal, request: Request) -> Answer:
    """/api/monitoring/query/explain: the query evaluated, with series, samples, time and values of each part."""
    start, end, step = _times(request)
    wanted = asked(by, request)
    if step is not None:
        must_be_of_numbers(wanted.expr)
    found = query.explain(
        wanted.text,
        start=start,
        end=end,
        step=step,
        scope=by.scope,
        limits=replace(wanted.limits, steps=MOST_INTERVALS + 1),
        cancelled=request.cancelled,
        **wanted.options,
    )
    stats = found.result.stats
    return success(
        {
            "tree": found.tree,
            "stats": {"series": stats.series, "samples": stats.samples, "seconds": found.seconds},
        },
        warnings=found.result.warnings,
        infos=found.result.infos,
    )


@enveloped
def functions(by: Principal, request: Request) -> Answer:
    """/api/monitoring/query/functions: every function and aggregation by name, with a sentence."""
    found: list[dict[str, Any]] = [
        {
            "name": one.name,
            "signature": one.signature,
            "returns": one.returns,
            "help": one.help,
            "extension": one.extension,
            "experimental": one.experimental,
            "kind": "function",
        }
        for one in FUNCTIONS.values()
    ]
    found += [
        {
            "name": one.name,
            "signature": one.signature,
            "returns": VECTOR,
            "help": one.help,
            "extension": False,
            "experimental": one.experimental,
            "kind": "aggregation",
        }
        for one in AGGREGATIONS.values()
    ]
    return success(sorted(found, key=lambda one: str(one["name"])))


_TIMES: Final = (
    Parameter("time", "When, for a query at one time; now if absent."),
    START,
    END,
    Parameter("step", "Distance of two points, for a range.", example="60"),
    TIMEOUT,
    DIALECT,
)

LANES: Final[dict[str, Lane]] = {
    "/api/monitoring/query/cost": Lane(
        GET, Right.QUERY, cost, refuse, "What a query would cost, beside your budget.", (QUERY, *_TIMES)
    ),
    "/api/monitoring/query/explain": Lane(
        GET, Right.QUERY, explain, refuse, "What each part of a query comes to.", (QUERY, *_TIMES)
    ),
    "/api/monitoring/query/functions": Lane(
        GET, Right.QUERY, functions, refuse, "The functions and aggregations of the language."
    ),
}
