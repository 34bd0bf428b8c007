"""Alertmanager's HTTP API v2 as bare lanes: a Prometheus, vmalert, amtool, karma and Grafana work unchanged.

Answers and refusals have its shapes: a JSON text where its own code refuses, {"code", "message"} where its schema
does. It also answers below `/alertmanager`, for clients that are given one prefix for all of it.
"""

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, Final

import orjson
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.alerting import intake
from apps.alerting import services as alerting
from apps.alerting.matching import MatcherError, accept_anything, from_json
from apps.alerting.models import Silence
from apps.core.lanes import GET, GET_OR_POST, JSON, Answer, BadRequest, Lane, Parameter, Request
from apps.oncall import alertmanager
from apps.oncall.alertmanager import Wanted
from apps.promql.text import quote

STARTED: Final = timezone.now()
VERSION: Final = "0.28.0"
"""The Alertmanager whose API this is; karma and others choose by it."""
TRUE: Final = frozenset({"true", "1", "yes", "ok", "y", "on", "selected", "checked", "t", "enabled"})
"""What go-openapi takes for true."""


def said(value: Any, status: int = 200) -> Answer:
    """Answer JSON."""
    return Answer(status, orjson.dumps(value) + b"\n", JSON)


def refuse(status: int, sentence: str) -> Answer:
    """Refuse as Alertmanager's server does."""
    return said({"code": status, "message": sentence}, status)


Serve = Callable[[Principal, Request], Answer]


def alertmanagers(serve: Serve) -> Serve:
    """Turn what goes wrong into Alertmanager's answers."""

    @wraps(serve)
    def answered(by: Principal, request: Request) -> Answer:
        try:
            return serve(by, request)
        except intake.Unreadable as error:
            return said({"code": error.code, "message": str(error)}, error.status)
        except MatcherError as error:
            return said(str(error), 400)
        except BadRequest as error:
            return refuse(400, str(error))

    return answered


def json_body(request: Request) -> bytes:
    """Return the body of a request that says it is JSON. Raises Unreadable."""
    kind = request.header(b"content-type").partition(";")[0].strip().lower()
    if kind not in ("", JSON):
        raise intake.Unreadable(415, f'unsupported media type "{kind}", only [application/json] are allowed')
    return request.body


def _wanted(request: Request) -> Wanted:
    flags = {
        name: request.one(name).lower() in TRUE if request.every(name) else True
        for name in ("active", "silenced", "inhibited", "muted", "unprocessed")
    }
    return Wanted(
        alertmanager.matchers_of(request.every("filter")),
        alertmanager.receiver_pattern(request.one("receiver")),
        **flags,
    )


@alertmanagers
def alerts(by: Principal, request: Request) -> Answer:
    """/api/v2/alerts: list what fires, or take in what a Prometheus has found."""
    if request.method == "POST":
        return _post_alerts(by, request)
    return said(alertmanager.alerts(_wanted(request), scope=by.scope, now=timezone.now()))


def _post_alerts(by: Principal, request: Request) -> Answer:
    batch = intake.posted_alerts(json_body(request))
    taken = alerting.take_in(
        by=by, reports=batch.reports, source="alertmanager", lasts=settings.ALERT_RESOLVE_TIMEOUT, now=timezone.now()
    )
    problems = [*batch.problems.values(), *taken.refused.values()]
    if problems:
        more = f" (and {len(problems) - 10} more)" if len(problems) > 10 else ""
        return said("; ".join(problems[:10]) + more, 400)
    return Answer(200, b"", JSON)


@alertmanagers
def groups(by: Principal, request: Request) -> Answer:
    """/api/v2/alerts/groups: what is told together."""
    return said(alertmanager.groups(_wanted(request), scope=by.scope, now=timezone.now()))


@alertmanagers
def receivers(by: Principal, request: Request) -> Answer:
    """/api/v2/receivers: names of routes, and of rules with contacts of their own."""
    return said([{"name": name} for name in alertmanager.receivers()])


@alertmanagers
def status(by: Principal, request: Request) -> Answer:
    """/api/v2/status: the routes as an alertmanager.yml, and what this claims to be."""
    return said(
        {
            "cluster": {"name": "portal", "peers": [], "status": "ready"},
            "config": {"original": alertmanager.configuration()},
            "uptime": alertmanager.rfc3339(STARTED),
            "versionInfo": {
                "branch": "portal",
                "buildDate": "",
                "buildUser": "",
                "goVersion": "",
                "revision": f"monitoring-portal {settings.VERSION}",
                "version": VERSION,
            },
        }
    )


# --- Silences -------------------------------------------------------------------------------------------------------
NOT_FOUND: Final = "silence not found"


@alertmanagers
def silences(by: Principal, request: Request) -> Answer:
    """/api/v2/silences: list them, make one, or change the one whose id is sent along."""
    now = timezone.now()
    if request.method == "POST":
        return _post_silence(by, request, now)
    return said(alertmanager.silences(alertmanager.matchers_of(request.every("filter")), scope=by.scope, now=now))


@alertmanagers
def silence(by: Principal, request: Request) -> Answer:
    """/api/v2/silence/{id}: one silence, or its end."""
    ident, now = request.captured["id"], timezone.now()
    if alertmanager.UUID.fullmatch(ident) is None:
        raise intake.Unreadable(601, f"silenceID in path must be of type uuid: {quote(ident)}")
    row = Silence.objects.visible_to(by.scope).filter(pk=ident).first()
    if request.method == "GET":
        return Answer(404) if row is None else said(alertmanager.silence(row, now))
    if row is None:
        return said(NOT_FOUND, 404)
    alerting.expire_silence(by=by, silence=row, now=now)
    return Answer(200, b"", JSON)


def _post_silence(by: Principal, request: Request, now: datetime) -> Answer:
    found = intake.document("silence", json_body(request))
    if not isinstance(found, dict):
        raise intake.wrong_type("silence", found, "models.PostableSilence")
    for name in ("comment", "createdBy", "endsAt", "matchers", "startsAt"):
        if found.get(name) is None:
            raise intake.Unreadable(602, f"{name} in body is required")
    starts_at, ends_at = intake.time_in("silence", found["startsAt"]), intake.time_in("silence", found["endsAt"])
    if not isinstance(found["matchers"], list):
        raise intake.wrong_type("silence", found["matchers"], "models.Matchers")
    if not found["matchers"]:
        raise intake.Unreadable(612, "matchers in body should have at least 1 items")
    row = _named(by, found.get("id"), now)
    if isinstance(row, Answer):
        return row
    try:
        matchers = from_json(found["matchers"])
    except MatcherError as error:
        return said(f"silence invalid: {error}", 400)
    if accept_anything(matchers):
        return said("silence invalid: at least one matcher must not match the empty string", 400)
    if starts_at is None or ends_at is None or ends_at <= starts_at:
        return said("Failed to create silence: start time must be before end time", 400)
    if ends_at <= now:
        return said("Failed to create silence: end time can't be in the past", 400)
    kept = {} if row is None else {name: getattr(row, name) for name in _BEYOND}
    try:
        made = alerting.silence(
            by=by,
            silence=row,
            matchers=found["matchers"],
            starts_at=starts_at,
            ends_at=ends_at,
            comment=str(found["comment"]),
            created_by=str(found["createdBy"]),
            now=now,
            **kept,
        )
    except ValidationError as error:
        return said(f"silence invalid: {' '.join(error.messages)}", 400)
    return said({"silenceID": str(made.pk)})


_BEYOND: Final = ("until_resolved", "recurrence", "duration", "time_zone")
"""What a silence here may have that Alertmanager's API has no word for: a change by it leaves them as they are."""


def _named(by: Principal, ident: Any, now: datetime) -> Silence | Answer | None:
    """The silence that is to be changed; None where a new one is made: also of one that is over, as there."""
    if not ident:
        return None
    row = None
    if isinstance(ident, str) and alertmanager.UUID.fullmatch(ident):
        row = Silence.objects.visible_to(by.scope).filter(pk=ident).first()
    if row is None:
        return said(NOT_FOUND, 404)
    return row if row.ends_at > now else None


_FLAGS: Final = (
    Parameter("filter", "A matcher; all of several must hold.", many=True, example='severity="critical"'),
    Parameter("receiver", "A regular expression for the whole name of a receiver."),
    Parameter("active", "`false` leaves out what is neither silenced nor inhibited.", "boolean"),
    Parameter("silenced", "`false` leaves out what is silenced.", "boolean"),
    Parameter("inhibited", "`false` leaves out what is inhibited.", "boolean"),
    Parameter("muted", "`false` leaves out what a time interval mutes.", "boolean"),
)

_LANES: Final[dict[str, Lane]] = {
    "/alerts": Lane(
        GET_OR_POST,
        Right.READ,
        alerts,
        refuse,
        summary="Alertmanager's alerts: GET lists what fires, POST takes in what a Prometheus sends.",
        parameters=(
            *_FLAGS,
            Parameter("unprocessed", "`false` leaves out what on-call has not taken up yet.", "boolean"),
        ),
        writes=Right.OPERATE,
    ),
    "/alerts/groups": Lane(
        GET, Right.READ, groups, refuse, summary="Alerts by the groups in which they are told.", parameters=_FLAGS
    ),
    "/silences": Lane(
        GET_OR_POST,
        Right.READ,
        silences,
        refuse,
        summary="Silences: GET lists them, POST makes or changes one.",
        parameters=(
            Parameter("filter", "What the silences' own matchers must name.", many=True, example='service="db"'),
        ),
        writes=Right.OPERATE,
    ),
    "/silence/<id>": Lane(
        frozenset({"GET", "DELETE"}),
        Right.READ,
        silence,
        refuse,
        summary="One silence; DELETE ends it.",
        writes=Right.OPERATE,
    ),
    "/receivers": Lane(GET, Right.READ, receivers, refuse, summary="Names of the receivers."),
    "/status": Lane(
        GET, Right.READ, status, refuse, summary="Alertmanager's status, with the routes as alertmanager.yml."
    ),
}
LANES: Final[dict[str, Lane]] = {
    f"{prefix}/api/v2{path}": lane for prefix in ("", "/alertmanager") for path, lane in _LANES.items()
}
