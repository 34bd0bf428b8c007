"""Prometheus' HTTP API over the store: queries, and what series, labels and metadata there are.

Each function is one lane: parameters in, one call, the envelope out. The caller's scope narrows every answer. `LANES`
is the table that the fast lane serves.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import orjson
from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.core.lanes import GET, GET_OR_POST, Answer, Lane, Parameter, Request
from apps.metrics import listing, query
from apps.metrics.budgets import limits_for
from apps.metrics.envelope import (
    TRUNCATED,
    ApiError,
    enveloped,
    failure,
    invalid,
    limit_of,
    needed_duration,
    needed_time,
    refuse,
    selectors_of,
    streamed,
    success,
    time_of,
    whole_number,
)
from apps.metrics.exposition import SUFFIXES
from apps.metrics.models import Metric
from apps.metrics.prometheus_syntax import tree
from apps.promql.ast import Expr, value_type
from apps.promql.engine import Limits, Result
from apps.promql.errors import ParseError
from apps.promql.functions import RANGE, STRING
from apps.promql.labels import NAME, Labels
from apps.promql.parser import parse
from apps.promql.printer import pretty
from apps.promql.text import quote, valid_name

MOST_INTERVALS: Final = 11_000
ROWS: Final = 2_000
"""Label sets in one slice of an answer."""


# --- Queries --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What a request says of its query beside the times: the text, its tree, and how it is to be evaluated."""

    text: str
    expr: Expr
    limits: Limits
    options: Mapping[str, Any]


def expression(request: Request) -> tuple[str, Expr, bool]:
    """(text, tree, whether plain): `dialect=prometheus` refuses what the portal adds to the language."""
    text, dialect = request.one("query"), request.one("dialect")
    if dialect not in ("", "portal", "prometheus"):
        raise invalid("dialect", f"not supported value {quote(dialect)}")
    plain = dialect == "prometheus"
    return text, parse(text, plain=plain), plain


def asked(by: Principal, request: Request) -> Asked:
    """Read what every lane that evaluates takes: the caller's budget, and no longer than the caller wants to wait."""
    limits = limits_for(by)
    if request.one("timeout"):
        seconds = needed_duration(request, "timeout").total_seconds()
        limits = replace(limits, seconds=seconds if limits.seconds is None else min(seconds, limits.seconds))
    lookback = _lookback(request)
    text, expr, plain = expression(request)
    return Asked(text, expr, limits, {"plain": plain, "lookback": lookback})


def _lookback(request: Request) -> timedelta:
    """How old a current sample may be; Prometheus takes nothing and less for "as usual"."""
    if not request.one("lookback_delta"):
        return query.LOOKBACK
    try:
        found = needed_duration(request, "lookback_delta")
    except ApiError as error:
        why = error.message.partition(": ")[2]
        raise ApiError("bad_data", f"error parsing lookback delta duration: {why}") from None
    return found if found > timedelta(0) else query.LOOKBACK


def span_of(request: Request) -> tuple[datetime, datetime, timedelta]:
    """Read start, end and step of a range. Raises ApiError."""
    start, end = needed_time(request, "start"), needed_time(request, "end")
    if end < start:
        raise invalid("end", "end timestamp must not be before start time")
    step = needed_duration(request, "step")
    if step <= timedelta(0):
        raise invalid("step", "zero or negative query resolution step widths are not accepted. Try a positive integer")
    if (end - start) // step > MOST_INTERVALS:
        raise ApiError(
            "bad_data",
            "exceeded maximum resolution of 11,000 points per timeseries. "
            "Try decreasing the query resolution (?step=XX)",
        )
    return start, end, step


def must_be_of_numbers(expr: Expr) -> None:
    """Refuse what has no value at each of many steps. Raises ApiError."""
    if (kind := value_type(expr)) in (RANGE, STRING):
        raise invalid(
            "query", f"invalid expression type {quote(kind)} for range query, must be Scalar or instant Vector"
        )


@enveloped
def instant(by: Principal, request: Request) -> Answer:
    """/api/v1/query: the value of an expression at one time."""
    limit = limit_of(request)
    at = time_of(request, "time", None) or timezone.now()
    wanted = asked(by, request)
    started = time.perf_counter()
    result = query.instant(
        wanted.text, at=at, scope=by.scope, limits=wanted.limits, cancelled=request.cancelled, **wanted.options
    )
    return _answer(result, request, limit, started)


@enveloped
def over_time(by: Principal, request: Request) -> Answer:
    """/api/v1/query_range: the values of an expression at start, start + step, … up to end."""
    limit = limit_of(request)
    start, end, step = span_of(request)
    wanted = asked(by, request)
    must_be_of_numbers(wanted.expr)
    started = time.perf_counter()
    result = query.query_range(
        wanted.text,
        start=start,
        end=end,
        step=step,
        scope=by.scope,
        # Prometheus counts the distances, the engine their ends.
        limits=replace(wanted.limits, steps=MOST_INTERVALS + 1),
        cancelled=request.cancelled,
        **wanted.options,
    )
    return _answer(result, request, limit, started)


def _answer(result: Result, request: Request, limit: int, started: float) -> Answer:
    warnings = result.warnings
    if limit and result.kind in ("vector", "matrix") and result.labels.size > limit:
        result = replace(result, labels=result.labels.take(np.arange(limit)), v=result.v[:limit], ok=result.ok[:limit])
        warnings = (*warnings, TRUNCATED)
    data = result.json_slices()
    if request.one("stats"):
        data = _with_stats(data, result, time.perf_counter() - started)
    return streamed(data, warnings=warnings, infos=result.infos)


def _with_stats(data: Iterator[bytes], result: Result, seconds: float) -> Iterator[bytes]:
    """The same object with `stats` as its last member."""
    last = b""
    for part in data:
        yield last
        last = part
    cost = result.stats
    stats = {
        "timings": {
            "evalTotalTime": seconds,
            "resultSortTime": 0,
            "queryPreparationTime": 0,
            "innerEvalTime": seconds,
            "execQueueTime": 0,
            "execTotalTime": seconds,
        },
        "samples": {"totalQueryableSamples": cost.samples, "peakSamples": cost.samples},
        "series": cost.series,
        "steps": cost.steps,
    }
    yield last[:-1] + b',"stats":' + orjson.dumps(stats) + b"}"


@enveloped
def exemplars(by: Principal, request: Request) -> Answer:
    """/api/v1/query_exemplars: none, for the store keeps none; a wrong request is told so all the same."""
    start, end = time_of(request, "start", None), time_of(request, "end", None)
    if start is not None and end is not None and end < start:
        raise ApiError("bad_data", "end timestamp must not be before start timestamp")
    try:
        parse(request.one("query"))
    except ParseError as error:
        return failure("bad_data", str(error))
    return success([])


@enveloped
def formatted(by: Principal, request: Request) -> Answer:
    """/api/v1/format_query: the expression in canonical form, long ones over several lines."""
    return success(pretty(expression(request)[1]))


@enveloped
def parsed(by: Principal, request: Request) -> Answer:
    """/api/v1/parse_query: the syntax tree of the expression."""
    return success(tree(expression(request)[1]))


# --- What there is --------------------------------------------------------------------------------------------------


def _span(request: Request) -> listing.Span:
    return time_of(request, "start", None), time_of(request, "end", None)


@enveloped
def series(by: Principal, request: Request) -> Answer:
    """/api/v1/series: the label sets that match any selector, sorted."""
    if not request.every("match[]"):
        raise ApiError("bad_data", "no match[] parameter provided")
    limit, span = limit_of(request), _span(request)
    found = listing.series(selectors_of(request), scope=by.scope, span=span)
    order = found.order()
    truncated = 0 < limit < len(order)
    if truncated:
        order = order[:limit]
    return streamed(_label_sets(found, order), warnings=(TRUNCATED,) if truncated else ())


def _label_sets(found: Labels, order: Any) -> Iterator[bytes]:
    yield b"["
    for low in range(0, len(order), ROWS):
        rows = found.take(order[low : low + ROWS]).dicts()
        yield (b"," if low else b"") + orjson.dumps(rows, option=orjson.OPT_SORT_KEYS)[1:-1]
    yield b"]"


@enveloped
def label_names(by: Principal, request: Request) -> Answer:
    """/api/v1/labels: the names of labels, of the series that match or of all."""
    limit, span = limit_of(request), _span(request)
    found = listing.series(selectors_of(request) or [()], scope=by.scope, span=span)
    return _texts(listing.label_names(found), limit)


@enveloped
def label_values(by: Principal, request: Request) -> Answer:
    """/api/v1/label/<name>/values: the values of one label, of the series that match or of all."""
    name = unescaped(request.captured["name"])
    if not valid_name(name) or "\ufffd" in name:
        raise ApiError("bad_data", f"invalid label name: {quote(name)}")
    limit, span, selectors = limit_of(request), _span(request), selectors_of(request)
    if name == NAME and not selectors:
        return _texts(listing.metric_names(scope=by.scope, span=span), limit)
    found = listing.series(selectors or [()], scope=by.scope, span=span)
    return _texts(listing.label_values(found, name), limit)


def _texts(found: list[str], limit: int) -> Answer:
    if 0 < limit < len(found):
        return success(found[:limit], warnings=(TRUNCATED,))
    return success(found)


def unescaped(name: str) -> str:
    """Return the label name that `U__…` stands for: `__` is `_`, `_hex_` a code point; anything else is as it is.

    >>> unescaped("U__http_2e_method__x"), unescaped("U__a_zz_"), unescaped("plain_name")
    ('http.method_x', 'U__a_zz_', 'plain_name')
    """
    if not name.startswith("U__"):
        return name
    out: list[str] = []
    rest = name[3:]
    while rest:
        before, found, rest = rest.partition("_")
        out.append(before)
        if not found:
            break
        code, found, rest = rest.partition("_")
        if not found:
            return name
        try:
            out.append(chr(int(code, 16)) if code else "_")
        except (ValueError, OverflowError):
            return name
        if len(code) > 6 or "\ud800" <= out[-1] <= "\udfff":
            return name
    return "".join(out)


@enveloped
def metadata(by: Principal, request: Request) -> Answer:
    """/api/v1/metadata: type, help and unit by family of metrics."""
    limit, each = whole_number(request, "limit", -1), whole_number(request, "limit_per_metric", -1)
    wanted = request.one("metric")
    shown = set(query.metric_names(by.scope)) if by.scope.matchers else None
    found: dict[str, list[dict[str, str]]] = {}
    for name, kind, text, unit in Metric.objects.order_by("name").values_list("name", "type", "help", "unit"):
        if shown is not None and name not in shown:
            continue
        family = _family(name, kind)
        if wanted and wanted != family:
            continue
        if 0 <= limit <= len(found) and family not in found:
            continue
        about = {"type": kind, "help": text, "unit": unit}
        known = found.setdefault(family, [])
        if about not in known and not 0 < each <= len(known):
            known.append(about)
    return success(found)


def _family(name: str, kind: str) -> str:
    """The name that HELP and TYPE of a metric stand under."""
    suffix = next((one for one in SUFFIXES if name.endswith(one)), "") if kind in ("histogram", "summary") else ""
    return name.removesuffix(suffix)


# --- The table ------------------------------------------------------------------------------------------------------

QUERY: Final = Parameter("query", "A PromQL expression.", required=True, example="up")
TIMEOUT: Final = Parameter("timeout", "Longest evaluation, such as 10s; never longer than the caller's budget allows.")
LIMIT: Final = Parameter(
    "limit", "Most rows of the answer; 0 for all. A warning tells that some are missing.", "integer"
)
START: Final = Parameter("start", "From: seconds since 1970, or RFC 3339.", example="2026-01-01T00:00:00Z")
END: Final = Parameter("end", "To, as start.", example="1767225600")
MATCH: Final = Parameter("match[]", "A selector; several are united.", many=True, example="up")
DIALECT: Final = Parameter(
    "dialect", "`prometheus` refuses the portal's own functions.", choices=("portal", "prometheus")
)
ASKED: Final = (
    TIMEOUT,
    LIMIT,
    Parameter("lookback_delta", "How old a sample may be to count as current, instead of 5m."),
    Parameter("stats", "Anything: tell what the query cost."),
    DIALECT,
)


def _lane(serve: Any, summary: str, *parameters: Parameter, get_only: bool = False) -> Lane:
    methods = GET if get_only else GET_OR_POST
    return Lane(methods, Right.QUERY, serve, refuse, summary, parameters)


def needed(parameter: Parameter) -> Parameter:
    """Return the same parameter where it must be there."""
    return replace(parameter, required=True)


LANES: Final[dict[str, Lane]] = {
    "/api/v1/query": _lane(
        instant, "The value of an expression at one time.", QUERY, Parameter("time", "When; now if absent."), *ASKED
    ),
    "/api/v1/query_range": _lane(
        over_time,
        "The values of an expression over a span of time.",
        QUERY,
        needed(START),
        needed(END),
        Parameter("step", "Distance of two points: seconds, or such as 5m.", required=True, example="60"),
        *ASKED,
    ),
    "/api/v1/query_exemplars": _lane(exemplars, "Exemplars: always none.", QUERY, START, END),
    "/api/v1/format_query": _lane(formatted, "An expression in canonical form.", QUERY, DIALECT),
    "/api/v1/parse_query": _lane(parsed, "The syntax tree of an expression.", QUERY, DIALECT),
    "/api/v1/series": _lane(series, "Label sets of series.", needed(MATCH), START, END, LIMIT),
    "/api/v1/labels": _lane(label_names, "Names of labels.", MATCH, START, END, LIMIT),
    "/api/v1/label/<name>/values": _lane(label_values, "Values of one label.", MATCH, START, END, LIMIT, get_only=True),
    "/api/v1/metadata": _lane(
        metadata,
        "Type, help and unit of metrics.",
        Parameter("metric", "One family only."),
        Parameter("limit", "Most families; negative for all.", "integer"),
        Parameter("limit_per_metric", "Most entries of one family.", "integer"),
        get_only=True,
    ),
}
