"""The Pushgateway's paths: batch jobs push to the portal as they did to a Pushgateway, by a changed host name.

`/metrics/job/NAME{/LABEL/VALUE}`: PUT replaces a group, POST replaces families of the same names in it, DELETE deletes
it. `?ttl=30m` gives the group a time to live. `/api/v1/metrics` lists the groups.

Source: the README of prometheus/pushgateway, and its behaviour.
"""

from typing import Any, Final

import orjson
from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.core.lanes import GET, Answer, BadRequest, Lane, Parameter, Request
from apps.metrics import envelope, gateway, push_groups
from apps.metrics.intake import RETRY_AFTER, Push, Refused, pushed, told
from apps.metrics.protocols.unpacking import unpacked
from apps.metrics.push_groups import BadGroup, Inconsistent, Labels
from apps.metrics.services import StoreFull


@pushed("pushgateway")
def push(push: Push, request: Request) -> Answer:
    """PUT, POST or DELETE a group."""
    labels = _group(request)
    now = timezone.now()
    if request.method == "DELETE":
        if (group := gateway.find(labels)) is not None:
            gateway.delete(by=push.by, group=group, now=now)
        return Answer(202)
    try:
        ttl = envelope.duration(request.one("ttl")) if request.one("ttl") else None
    except (ValueError, BadRequest) as error:
        raise Refused(400, f"ttl: {error}", reason="malformed") from None
    body = unpacked(request.body, request.header(b"content-encoding"))
    try:
        found = push_groups.read(body, request.header(b"content-type"), labels)
        push.take(push_groups.size(found) + 2)
        replace = request.method == "PUT"
        written = gateway.push(labels=labels, families=found, replace=replace, ttl=ttl, by=push.by, now=now)
    except Inconsistent as error:
        gateway.note_failure(labels=labels, error=str(error), by=push.by, now=now)
        raise Refused(400, str(error), reason="inconsistent") from None
    except gateway.TooManyGroups as error:
        raise Refused(429, str(error), reason="group_limit", wait=RETRY_AFTER) from None
    except StoreFull as error:
        raise Refused(503, str(error), wait=RETRY_AFTER) from None
    push.stored(written)
    if written.rejected:
        return Answer(400, orjson.dumps({"error": told(written)}), "application/json")
    return Answer(200)


def _group(request: Request) -> Labels:
    """The group that the path names. Raises Refused."""
    try:
        return push_groups.group_of(request.path.strip("/").removeprefix("metrics/"))
    except BadGroup as error:
        raise Refused(400, str(error), reason="malformed") from None


@envelope.enveloped
def groups(by: Principal, request: Request) -> Answer:
    """/api/v1/metrics: every group with what was pushed to it."""
    return envelope.success([_shown(group) for group in gateway.seen_by(by.scope)])


def _shown(group: Any) -> dict[str, Any]:
    pushed_at, failed_at = group.pushed_at, group.failed_at
    at = envelope.rfc3339(pushed_at or failed_at)
    own = {
        push_groups.PUSHED: 0.0 if pushed_at is None else pushed_at.timestamp(),
        push_groups.FAILED: 0.0 if failed_at is None else failed_at.timestamp(),
    }
    times = {
        name: {
            "time_stamp": at,
            "type": "GAUGE",
            "help": push_groups.ABOUT[name],
            "metrics": [{"labels": group.labels, "value": repr(value)}],
        }
        for name, value in own.items()
    }
    good = pushed_at is not None and (failed_at is None or failed_at <= pushed_at)
    return {
        "labels": group.labels,
        "last_push_successful": good,
        **push_groups.as_json(group.families, at),
        **times,
    }


_LANE: Final = Lane(
    frozenset({"PUT", "POST", "DELETE"}),
    Right.INGEST,
    push,
    summary="Takes, replaces and deletes groups of metrics as a Pushgateway does.",
    parameters=(Parameter("ttl", "How long the group lives after its last push, as 30m; for ever if absent."),),
)
LANES: Final[dict[str, Lane]] = {
    "/metrics/job/<group...>": _LANE,
    "/metrics/job@base64/<group...>": _LANE,
    "/api/v1/metrics": Lane(GET, Right.READ, groups, envelope.refuse, "Groups of pushed metrics, as a Pushgateway."),
}
