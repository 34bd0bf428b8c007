"""Answers to messages become deeds: what somebody replied is done to the alerts that the message was about."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Q

from apps.accounts.models import User
from apps.accounts.rights import Principal, Right
from apps.alerting import services as alerting
from apps.alerting.models import Alert
from apps.alerting.services import silences
from apps.notifications.models import Delivery, Reply
from apps.oncall import renewal
from apps.oncall.models import Escalation

AT_ONCE: Final = 50
SILENCE: Final = timedelta(hours=1)


def take(*, now: datetime) -> int:
    """Do what was replied and is not done yet, each in a transaction of its own; returns how many there were.

    A worker that dies leaves the reply as it was: all deeds can be done twice without harm.
    """
    done = 0
    while done < AT_ONCE:
        with transaction.atomic():
            waiting = Reply.objects.select_for_update(skip_locked=True, of=("self",)).filter(handled_at=None)
            reply = waiting.select_related("delivery").order_by("pk").first()
            if reply is None:
                break
            try:
                with transaction.atomic():
                    reply.outcome, reply.was_done = _do(reply, now), True
            except (ValidationError, PermissionDenied) as error:
                words = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
                reply.outcome, reply.was_done = words or "It was refused.", False
            reply.handled_at = now
            reply.save(update_fields=["handled_at", "outcome", "was_done"])
            if reply.action != "acknowledge" or not reply.was_done:  # which is told by its transition
                about = [alert.pk for alert in alerts_of(reply)]
                renewal.rewrite(about, reason=f"{reply.who}: {reply.outcome}", now=now)
            done += 1
    return done


def principal_of(reply: Reply) -> Principal:
    """Return whose rights count: a person's of today, or those of whoever reads a team's contact."""
    if reply.who_kind == "user":
        user = User.objects.filter(pk=reply.who_id, is_active=True).first()
        if user is None:
            raise ValidationError(f"The account of {reply.who} is closed.")
        return Principal.of_user(user, via="page")
    return Principal("contact", reply.who_id, reply.who, frozenset({Right.OPERATE}), via="page")


def alerts_of(reply: Reply) -> list[Alert]:
    """Return what the message said fires and that still does, oldest first; messages told along count, too.

    So does what they listed as still firing, of which they brought no notice, unless somebody had taken that on.
    """
    delivery = reply.delivery
    told_along = Delivery.objects.filter(carrier=delivery.pk).values_list("message", flat=True)
    news = Q(notices__delivery=delivery.pk) | Q(notices__delivery__carrier=delivery.pk)
    if delivery.purpose == "update":  # which repeats what was told of the group, and has no notices of its own
        news |= Q(notices__contact=delivery.contact_id, notices__group__key=delivery.group_key)
    about = (news & Q(notices__kind="firing")) | Q(key__in=_listed([delivery.message, *told_along]))
    return list(Alert.objects.active().filter(about).distinct().order_by("pk"))


def _listed(messages: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the keys of the alerts that messages list as firing and nobody's, by the pages they link to."""
    items = [item for message in messages for item in message.get("alerts", ())]
    burning = [item for item in items if item.get("status") == "firing" and not item.get("acknowledged_by")]
    return {str(item.get("url", "")).rstrip("/").rpartition("/")[2] for item in burning}


def _do(reply: Reply, now: datetime) -> str:
    by, alerts = principal_of(reply), alerts_of(reply)
    if not alerts:
        return "Nothing that this message told of is wrong any more."
    return DEEDS[reply.action](by, alerts, now)


def _acknowledge(by: Principal, alerts: list[Alert], now: datetime) -> str:
    for alert in alerts:
        alerting.acknowledge(by=by, alert=alert, now=now)
    return f"Acknowledged: {_counted(alerts)}. Nobody else is paged for it."


def _resolve(by: Principal, alerts: list[Alert], now: datetime) -> str:
    for alert in alerts:
        alerting.resolve(by=by, alert=alert, now=now)
    return f"Resolved: {_counted(alerts)}. What is still wrong fires again after its cooldown."


def _silence(by: Principal, alerts: list[Alert], now: datetime) -> str:
    wanted = {matchers: alert for alert in alerts if (matchers := silences.matchers_of(alert))}
    for matchers, alert in wanted.items():
        alerting.silence(
            by=by,
            matchers=[str(matcher) for matcher in matchers],
            ends_at=now + SILENCE,
            comment=f"Asked for by a reply to the message about {alert}."[:1000],
            now=now,
        )
    return f"Silenced for an hour: {_counted(alerts)}."


def _escalate(by: Principal, alerts: list[Alert], now: datetime) -> str:
    incidents = {alert.incident_id for alert in alerts}
    for alert in alerts:
        if alert.acknowledged_at is not None:
            alerting.unacknowledge(by=by, alert=alert, now=now)
    hurried = Escalation.objects.running().filter(incident__in=incidents).update(due_at=now)
    if not hurried:
        raise ValidationError("Nothing escalates here: no policy is on its way, so there is no next one to ask.")
    return f"The next step of {hurried} escalation{'s' if hurried > 1 else ''} is taken now."


DEEDS: Final[dict[str, Callable[[Principal, list[Alert], datetime], str]]] = {
    "acknowledge": _acknowledge,
    "escalate": _escalate,
    "silence": _silence,
    "resolve": _resolve,
}


def _counted(alerts: list[Alert]) -> str:
    return "1 alert" if len(alerts) == 1 else f"{len(alerts)} alerts"
