"""Where other monitors tell of alerts, beside Alertmanager's own API: its webhook, and PagerDuty's Events API v2.

PagerDuty's clients know one secret, the routing key: here it is a token of the portal with the scope `alerts`.
"""

import secrets
from typing import Any, Final

import orjson
from django.conf import settings
from django.utils import timezone

from apps.accounts import permissions
from apps.accounts.permissions import Principal, Right
from apps.alerting import intake, services
from apps.core.lanes import JSON, Answer, Lane, Request, plain_refusal

POST: Final = frozenset({"POST"})
ALERTMANAGER: Final = "alertmanager"
PAGERDUTY: Final = "pagerduty"


def _said(value: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value), JSON)


# --- Alertmanager's webhook -----------------------------------------------------------------------------------------
def webhook(by: Principal, request: Request) -> Answer:
    """Take what an Alertmanager, or a Grafana, sends to a webhook; what fires lasts until it is said to be resolved."""
    try:
        batch = intake.webhook_alerts(request.body)
    except intake.Unreadable as error:
        return plain_refusal(error.status, str(error))
    taken = services.take_in(
        by=by, reports=batch.reports, source=ALERTMANAGER, lasts=settings.ALERT_EXPIRE_AFTER, now=timezone.now()
    )
    refused = {**batch.problems, **taken.refused}
    counts = {"begun": len(taken.begun), "repeated": taken.repeated, "ended": taken.ended}
    rejected = [{"index": place, "error": why} for place, why in sorted(refused.items())]
    return _said({"success": not refused, **counts, "rejected": rejected}, 400 if refused else 200)


# --- PagerDuty ------------------------------------------------------------------------------------------------------
def refuse_event(status: int, sentence: str) -> Answer:
    """Refuse as PagerDuty does: an unknown routing key is an invalid event."""
    if sentence == permissions.UNKNOWN:
        return _said(invalid_event(["Invalid routing key"]), 400)
    return _said(
        {"status": "error" if status >= 500 else "invalid event", "message": sentence, "errors": [sentence]}, status
    )


def invalid_event(errors: list[str]) -> dict[str, Any]:
    """Return PagerDuty's answer to an event that cannot be taken."""
    return {"status": "invalid event", "message": "Event object is invalid", "errors": errors}


def enqueue(by: Principal, request: Request) -> Answer:
    """Trigger, acknowledge or resolve an alert by PagerDuty's event."""
    now = timezone.now()
    try:
        event = intake.event(request.body, sender=by.id, fresh_key=secrets.token_hex(16))
    except intake.InvalidEvent as error:
        return _said(invalid_event(error.errors), 400)
    if event.report is not None:
        taken = services.take_in(
            by=by, reports=[event.report], source=PAGERDUTY, lasts=settings.ALERT_EXPIRE_AFTER, now=now
        )
        if taken.refused:
            return _said(invalid_event(list(taken.refused.values())), 400)
    else:
        services.settle_outside(
            by=by, source=PAGERDUTY, fingerprint=event.fingerprint, ends=event.action == "resolve", now=now
        )
    return _said({"status": "success", "message": "Event processed", "dedup_key": event.dedup_key}, 202)


def event_lane(serve: Any, summary: str) -> Lane:
    """Return a lane of PagerDuty's: who asks is said by the routing key."""
    return Lane(
        POST,
        Right.OPERATE,
        serve,
        refuse_event,
        summary=summary,
        secret=lambda request: intake.routing_key(request.body),
    )


LANES: Final[dict[str, Lane]] = {
    "/api/v1/portal/intake/alertmanager": Lane(
        POST, Right.OPERATE, webhook, summary="Takes the webhook (version 4) of an Alertmanager or a Grafana."
    ),
    "/v2/enqueue": event_lane(enqueue, "Takes an event of PagerDuty's Events API v2; the routing key is a token."),
}
