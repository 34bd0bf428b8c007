"""The doors of logs: the portal's own address, Loki's push and OTLP, and where they are looked through by token.

2xx comes after the commit. Good records of a request are kept; those that are not are counted and named as the protocol
has it. A full disk is 503, a token or a day that is full 429, both with Retry-After. `Idempotency-Key` makes a request
to the portal's own address count once; Loki's and OTLP's protocols know no such thing.
"""

from collections import Counter as Tally
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from django.core.exceptions import ValidationError
from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.core.lanes import GET, GET_OR_POST, JSON, Answer, BadRequest, Lane, Parameter, Request
from apps.metrics.intake import RETRY_AFTER, Push, Refused, pushed, turn
from apps.metrics.otlp_api import PROTOBUF, answered, body_of, is_json, refused_in_kind, refused_unread
from apps.metrics.protocols.unpacking import unpacked, unsnapped
from apps.metrics.samples import REASONS
from apps.sources.logs import deletion, formats, search, services
from apps.sources.logs.formats import SHOWN, Defaults, Found
from apps.sources.logs.records import level_of, moment_of
from apps.sources.logs.search import BadSearch, Cursor, Wanted

NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/stream+json")
LONGEST_KEY: Final = 200
DAY: Final = timedelta(days=1)
PATIENCE: Final = 3.0
"""Seconds that a deletion is waited for; it goes on by itself."""
FOREVER: Final = "9999-12-31T00:00:00Z"
MOST_LISTED: Final = search.MOST_ROWS


# --- Intake ---------------------------------------------------------------------------------------------------------


def logs(by: Principal, request: Request) -> Answer:
    """POST takes records, GET looks through them."""
    return _take(by, request) if request.method == "POST" else _listed(by, request)


@pushed("logs")
def _take(push: Push, request: Request) -> Answer:
    body, kind = _unpacked(request), _kind(request)
    if not body.strip():
        raise Refused(400, "The body is empty: send an object, a list of objects, or lines.", reason="malformed")
    defaults = _defaults(request)
    with turn(len(body)):
        if kind in NDJSON:
            found = formats.read_ndjson(body, defaults)
        elif kind == JSON or (kind not in ("text/plain",) and body.lstrip()[:1] in b"[{"):
            found = _json(body, defaults)
        else:
            found = formats.read_lines(body, defaults)
        key = request.header(b"idempotency-key").strip() or found.key
        if len(key) > LONGEST_KEY:
            raise Refused(400, f"Idempotency-Key is longer than {LONGEST_KEY} characters.", reason="malformed")
        lost, accepted, is_repeated = _stored(push, found, key)
    said: dict[str, Any] = {"success": not lost, "accepted": accepted, "refused": len(lost)}
    if lost:
        said["rejected"] = [{"index": index, "error": REASONS[reason]} for index, reason in lost[:SHOWN]]
        if not accepted:
            said["error"] = f"No record was stored. {_told(lost)}"
    if is_repeated:
        said["repeated"] = True
    return Answer(400 if lost and not accepted else 200, orjson.dumps(said), JSON)


def _json(body: bytes, defaults: Defaults) -> Found:
    """JSON, or lines of it where a sender calls those JSON too."""
    head = body.lstrip()
    if head[:1] == b"{" and b"}\n{" in head.replace(b"}\r\n", b"}\n"):
        return formats.read_ndjson(body, defaults)
    return formats.read_json(body, defaults)


@pushed("loki")
def _take_loki(push: Push, request: Request) -> Answer:
    """204 where all was stored, 400 where some was not, as Loki answers."""
    if _kind(request) == JSON:
        body = _unpacked(request)
        with turn(len(body)):
            lost, accepted, _ = _stored(push, formats.read_loki_json(body))
    elif _kind(request) in (PROTOBUF, ""):
        if request.header(b"content-encoding").strip().lower() not in ("", "snappy"):
            raise Refused(415, "Loki's protobuf is packed by snappy.", reason="unsupported")
        body = unsnapped(request.body)
        with turn(len(body)):
            lost, accepted, _ = _stored(push, formats.read_loki(body))
    else:
        raise Refused(415, f"The body is {_kind(request)!r}; a push is {PROTOBUF} or {JSON}.", reason="unsupported")
    if not lost:
        return Answer(204)
    sentence = f"{accepted} log records were stored, {len(lost)} refused. {_told(lost)}"
    return Answer(400, orjson.dumps({"error": sentence, "message": sentence}), JSON)


@pushed("otlp_logs", refused_in_kind)
def _take_otlp(push: Push, request: Request) -> Answer:
    body = body_of(request)
    with turn(len(body)):
        found = formats.read_otlp_json(body) if is_json(request) else formats.read_otlp(body)
        lost, _, _ = _stored(push, found)
    return answered(request, len(lost), "rejectedLogRecords", _told(lost))


def _stored(push: Push, found: Found, key: str = "") -> tuple[list[tuple[int, str]], int, bool]:
    """Store; return ((place in the request, reason) of what was not, how many were, whether it was a repetition)."""
    push.take(found.seen)
    now = timezone.now()
    found.date(int(now.timestamp() * 1000))
    try:
        written = services.ingest(records=found.records, by=push.by, now=now, key=key)
    except services.StoreFull as error:
        raise Refused(503, str(error), wait=RETRY_AFTER) from None
    except services.OverBudget as error:
        raise Refused(429, str(error), reason=error.reason, wait=error.wait) from None
    lost = sorted(found.refused + [(found.places[index], reason) for index, reason in written.rejected])
    push.accepted(written.accepted)
    for reason, count in Tally(reason for _, reason in lost).items():
        push.refused(reason, count)
    return lost, written.accepted, written.is_repeated


def _told(lost: Sequence[tuple[int, str]]) -> str:
    return "; ".join(f"{count}: {REASONS[reason]}" for reason, count in Tally(r for _, r in lost).most_common()) + "."


def _unpacked(request: Request) -> bytes:
    return unpacked(request.body, request.header(b"content-encoding"))


def _kind(request: Request) -> str:
    return request.header(b"content-type").partition(";")[0].strip().lower()


def _defaults(request: Request) -> Defaults:
    """What the address says of records that do not say it themselves."""
    level = level_of(request.one("level")) if request.one("level") else None
    made = Defaults(0, request.one("service"), request.one("host"))
    return replace(made, level=level) if level is not None else made


# --- Reading --------------------------------------------------------------------------------------------------------


def wanted_of(one: Callable[[str], str], every: Callable[[str], list[str]], *, now: datetime) -> Wanted:
    """Read which records an address asks for: since, until, service, level…, template, host, text. Raises BadSearch."""
    until, since = one("until"), one("since")
    end = _moment(until, "until") if until else int(now.timestamp() * 1000) + 60_000
    start = _moment(since, "since") if since else end - int(DAY.total_seconds() * 1000)
    template = one("template")
    if template and not (template.isdecimal() and len(template) < 19):
        raise BadSearch("template: the id of a template, a number.")
    levels = tuple(dict.fromkeys(level for text in every("level") for level in text.split(",") if level))
    return Wanted(
        start, end, one("service"), levels, int(template) if template else None, one("host"), one("text")
    ).checked()


def _moment(text: str, name: str) -> int:
    found = moment_of(text)
    if found is None:
        raise BadSearch(f"{name}: {text[:60]!r} is no time; RFC 3339 or milliseconds since 1970.")
    return found


def _read(read: Callable[[Principal, Request, Wanted], Any]) -> Callable[[Principal, Request], Answer]:
    def answer(by: Principal, request: Request) -> Answer:
        try:
            wanted = wanted_of(request.one, request.every, now=timezone.now())
            return Answer(200, orjson.dumps(read(by, request, wanted)), JSON)
        except BadSearch as error:
            raise BadRequest(str(error)) from None

    return answer


def page_as_dict(found: search.Page) -> dict[str, Any]:
    """Return a page as JSON has it."""
    return {
        "logs": [{"key": line.key, **line.as_dict()} for line in found.lines],
        "cursor": None if found.cursor is None else str(found.cursor),
        "partial": found.is_partial,
        "reached": found.reached,
        "looked": found.looked,
        "damaged": found.damaged,
    }


@_read
def _listed(by: Principal, request: Request, wanted: Wanted) -> dict[str, Any]:
    limit = request.one("limit") or "100"
    if not limit.isdecimal() or not 1 <= int(limit[:6]) <= MOST_LISTED:
        raise BadSearch(f"limit: a number from 1 to {MOST_LISTED}.")
    cursor = Cursor.read(request.one("cursor"))
    return page_as_dict(search.page(wanted, scope=by.scope, limit=int(limit), cursor=cursor))


@_read
def _counted(by: Principal, request: Request, wanted: Wanted) -> dict[str, Any]:
    text = request.one("step") or "60"
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 31 * 86_400:
        raise BadSearch("step: whole seconds, such as 60.")
    step = int(text)
    start = wanted.start // (step * 1000) * step * 1000
    if (wanted.end - start) / (step * 1000) > 11_000:
        raise BadSearch("The answer would have more than 11,000 steps: take a longer one.")
    found = search.counts(replace(wanted, start=start), scope=by.scope, step=timedelta(seconds=step))
    levels = {level: values.tolist() for level, values in found.levels.items()}
    return {"start": start, "step": step, "counts": levels, "reached": found.reached}


@_read
def _templated(by: Principal, request: Request, wanted: Wanted) -> dict[str, Any]:
    found, total = search.templates(wanted, scope=by.scope)
    return {"templates": [template_as_dict(seen) for seen in found], "total": total}


def _deleted(by: Principal, request: Request) -> Answer:
    """Delete the records that the address names, or say how many there are (`dry_run`)."""
    try:
        wanted = doomed_of(request.one, request.every)
        if request.one("dry_run") in ("1", "true"):
            found = deletion.preview(wanted, scope=by.scope)
            counted = sum(int(each.sum()) for each in found.levels.values())
            return Answer(200, orjson.dumps({"records": counted, "partial": bool(found.reached)}), JSON)
        row = services.delete_logs(by=by, wanted=wanted, now=timezone.now())
    except BadSearch as error:
        raise BadRequest(str(error)) from None
    except ValidationError as error:
        raise BadRequest(" ".join(error.messages)) from None
    is_open = bool(deletion.carry_out(now=timezone.now(), seconds=PATIENCE))
    row.refresh_from_db()
    return Answer(202 if is_open else 200, orjson.dumps({"deletion": row.pk, "records": row.records}), JSON)


def doomed_of(one: Callable[[str], str], every: Callable[[str], list[str]]) -> Wanted:
    """What a deletion is about: without since and until, whenever it was logged. Raises BadSearch."""
    open_ends = {"since": "0", "until": FOREVER}
    return wanted_of(lambda name: one(name) or open_ends.get(name, ""), every, now=timezone.now())


def template_as_dict(seen: search.Seen) -> dict[str, Any]:
    """Return a template as JSON has it."""
    row = seen.template
    return {
        "id": row.pk, "service": row.service, "level": row.level, "pattern": row.pattern, "count": seen.count,
        "share": seen.share, "new": seen.is_new, "first": _iso(row.first_at), "last": _iso(seen.last_at),
        "spark": seen.spark,
    }  # fmt: skip


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_WHICH: Final = (
    Parameter("since", "From: RFC 3339 or milliseconds; a day before `until` if absent."),
    Parameter("until", "To, not included; now if absent."),
    Parameter("service", "Of this service only."),
    Parameter("level", "Of these levels only.", many=True, choices=("debug", "info", "warning", "error", "critical")),
    Parameter("template", "Of this template only.", "integer"),
    Parameter("host", "Of this host only."),
    Parameter("text", "Those that hold this text in message or attributes, in upper or lower case."),
)
_DOOMED: Final = (
    Parameter("since", "From: RFC 3339 or milliseconds; all that is older, too, if absent."),
    Parameter("until", "To, not included; all that is newer, too, if absent."),
    *_WHICH[2:],
)
_LOKI: Final = Lane(frozenset({"POST"}), Right.INGEST, _take_loki, summary="Takes log records by Loki's push API.")
_OTLP: Final = Lane(
    frozenset({"POST"}),
    Right.INGEST,
    _take_otlp,
    refused_unread,
    "Takes log records by OTLP over HTTP, protobuf or JSON.",
)

LANES: Final[dict[str, Lane]] = {
    "/api/v1/portal/logs": Lane(
        GET_OR_POST,
        Right.READ,
        logs,
        summary="POST takes log records (JSON, NDJSON, lines); GET returns them, newest first, page by page.",
        parameters=(
            *_WHICH,
            Parameter("limit", f"Records of the page (100, at most {MOST_LISTED}).", "integer"),
            Parameter("cursor", "Where the page before ended."),
        ),
        writes=Right.INGEST,
    ),
    "/api/v1/portal/logs/counts": Lane(
        GET, Right.READ, _counted, summary="How many log records there are by level and step of time.",
        parameters=(*_WHICH, Parameter("step", "Seconds (60).", "integer")),
    ),
    "/api/v1/portal/logs/templates": Lane(
        GET, Right.READ, _templated, summary="The templates of log records, most first; new ones are marked.",
        parameters=_WHICH,
    ),
    "/api/v1/portal/logs/delete": Lane(
        frozenset({"POST"}), Right.ADMINISTER, _deleted,
        summary="Deletes the log records that are stored now and fit; 202 where it goes on for a while.",
        parameters=(*_DOOMED, Parameter("dry_run", "true: only say how many there are.")),
    ),
    "/loki/api/v1/push": _LOKI,
    "/v1/logs": _OTLP,
    "/api/v1/otlp/v1/logs": _OTLP,
}  # fmt: skip
