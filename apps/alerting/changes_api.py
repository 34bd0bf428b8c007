"""The door of changes: `/api/v1/portal/changes`, and PagerDuty's change events at `/v2/change/enqueue`."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.alerting import changes, intake, services
from apps.alerting.changes import Happening
from apps.alerting.intake_api import event_lane, invalid_event
from apps.core.lanes import GET_OR_POST, JSON, Answer, BadRequest, Lane, Parameter, Request

MOST_POSTED: Final = 1000
MOST_LISTED: Final = 1000
FIELDS: Final = frozenset(
    {"title", "summary", "kind", "service", "at", "timestamp", "author", "link", "details", "id", "version"}
)


def changed(by: Principal, request: Request) -> Answer:
    """List changes, or take one or a list of them: all or none."""
    if request.method == "POST":
        return _post(by, request)
    now = timezone.now()
    until = _moment(request.one("until"), "until") or now
    since = _moment(request.one("since"), "since") or until - timedelta(days=1)
    limit = request.one("limit") or "100"
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:6]) <= MOST_LISTED:
        raise BadRequest(f"limit: a number from 1 to {MOST_LISTED}.")
    found = changes.happenings(since=since, until=until, scope=by.scope, limit=MOST_LISTED)
    if service := request.one("service"):
        found = [one for one in found if one.service == service]
    if kind := request.one("kind"):
        found = [one for one in found if one.kind == kind]
    return _said({"changes": [shown(one) for one in found[: int(limit)]]})


def shown(one: Happening) -> dict[str, Any]:
    """Return a change as JSON."""
    return {
        "id": one.key or None,
        "at": one.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "timestamp": int(one.at.timestamp() * 1000),
        "kind": one.kind,
        "title": one.title,
        "service": one.service,
        "by": one.by,
        "link": one.link,
    }


def _post(by: Principal, request: Request) -> Answer:
    try:
        found = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is no JSON: {error}.") from None
    rows = found if isinstance(found, list) else [found]
    if not 1 <= len(rows) <= MOST_POSTED:
        raise BadRequest(f"One to {MOST_POSTED} changes in one request.")
    made = []
    with transaction.atomic():
        for place, row in enumerate(rows):
            where = f"Change {place}: " if isinstance(found, list) else ""
            try:
                made.append(services.note_change(by=by, now=timezone.now(), **_arguments(row)))
            except ValidationError as error:
                raise BadRequest(where + _sentence(error)) from None
            except BadRequest as error:
                raise BadRequest(f"{where}{error}") from None
    return _said({"success": True, "ids": [change.key for change in made]}, 201)


def _arguments(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise BadRequest('an object is expected, such as {"title": "shop 1.4", "service": "shop"}.')
    if unknown := sorted(set(row) - FIELDS):
        raise BadRequest(f"there is no field {unknown[0]!r}; there are {', '.join(sorted(FIELDS))}.")
    texts = {name: row.get(name) or "" for name in ("title", "summary", "kind", "service", "author", "link", "id")}
    if wrong := [name for name, text in texts.items() if not isinstance(text, str)]:
        raise BadRequest(f"{wrong[0]}: a text is expected.")
    details = row.get("details") or {}
    if not isinstance(details, dict):
        raise BadRequest("details: an object is expected.")
    if row.get("version"):
        details = {"version": row["version"], **details}
    title = texts["title"] or texts["summary"]
    if not title and texts["service"] and row.get("version"):
        title = f"{texts['service']} {row['version']}"
    return {
        "title": title,
        "kind": texts["kind"] or "deployment",
        "service": texts["service"],
        "at": _moment(row.get("at") or row.get("timestamp"), "at"),
        "author": texts["author"],
        "link": texts["link"],
        "details": details,
        "ident": texts["id"],
    }


def _moment(value: Any, name: str) -> datetime | None:
    """Read a time: RFC 3339, or milliseconds since 1970."""
    try:
        if isinstance(value, str) and not value.isdigit():
            return intake.moment(value)
        return None if value in (None, "") else datetime.fromtimestamp(float(value) / 1000, tz=UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise BadRequest(f"{name}: {value!r} is no time; RFC 3339 or milliseconds since 1970.") from None


def _sentence(error: ValidationError) -> str:
    if hasattr(error, "error_dict"):
        name, sentences = next(iter(error.message_dict.items()))
        return f"{name}: {sentences[0]}"
    return str(error.messages[0])


def _said(value: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value), JSON)


def change_event(by: Principal, request: Request) -> Answer:
    """Take a change as PagerDuty's clients tell it."""
    try:
        event = intake.change_event(request.body)
        services.note_change(
            by=by,
            title=event.summary,
            kind="deployment",
            service=str(event.details.get("service") or event.source)[:100],
            at=event.at,
            link=event.links[0] if event.links else "",
            details=event.details,
            now=timezone.now(),
        )
    except intake.InvalidEvent as error:
        return _said(invalid_event(error.errors), 400)
    except ValidationError as error:
        return _said(invalid_event([_sentence(error)]), 400)
    return _said({"status": "success", "message": "Change event processed"}, 202)


LANES: Final[dict[str, Lane]] = {
    "/api/v1/portal/changes": Lane(
        GET_OR_POST,
        Right.READ,
        changed,
        summary="Deployments and other changes: GET lists them with the portal's own, POST tells of one or of several.",
        parameters=(
            Parameter("since", "From: RFC 3339 or milliseconds; a day before `until` if absent."),
            Parameter("until", "To; now if absent."),
            Parameter("service", "Of this service only."),
            Parameter("kind", "Of this kind only.", choices=("deployment", "configuration", "other")),
            Parameter("limit", "Most changes of the answer (100).", "integer"),
        ),
        writes=Right.OPERATE,
    ),
    "/v2/change/enqueue": event_lane(change_event, "Takes a change event of PagerDuty's Events API v2."),
}
