"""Tests of routes and policies: the dry run, and a real message to whoever it would tell first, if somebody wants it.

A test starts no escalation and waits for nothing: only the first who would be told now are, once a minute at most.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError

from apps.accounts.audit import record, verb
from apps.accounts.rights import Principal, Right
from apps.alerting.lifecycle import Severity
from apps.notifications import outbox
from apps.notifications.message import Message
from apps.notifications.models import Contact, Delivery
from apps.oncall import foresight
from apps.oncall.foresight import Told, Way
from apps.oncall.models import Policy, Route

PAUSE: Final = timedelta(minutes=1)
"""Between two tests of one route or policy: whoever is told shall not be flooded."""
AS_IF: Final = Severity.CRITICAL.value


@dataclass(frozen=True)
class Trial:
    """What a test would do: the dry run, and who is told first by it (None: nobody ever is)."""

    way: Way
    first: Told | None

    @property
    def sentence(self) -> str:
        """Return, for people, who gets the test message."""
        if self.first is None:
            return "Nobody would be told: name a contact in it, or a fall-back contact."
        return f"{', '.join(self.first.contacts)}: {self.first.reason}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"dry_run": self.way.as_dict(), "told_first": list(self.first.contacts if self.first else ())}


def trial(what: Route | Policy, *, at: datetime, severity: str = AS_IF) -> Trial:
    """Return what would happen if an alert came there at that time and nobody acknowledged; nothing is told."""
    if isinstance(what, Route):
        way = foresight.way_of(what, foresight.severity_of(severity), at)
    else:
        way = foresight.dry_run(what, at=at, severity=severity)
    return Trial(way, next((step for step in way.steps if step.contacts), None))


@verb("oncall.try_route", right=Right.OPERATE)
def try_route(*, by: Principal, route: Route, now: datetime, severity: str = AS_IF) -> list[Delivery]:
    """Send a test message to whoever an alert that takes this route would be told to first, if it fired now."""
    return _send("oncall.try_route", by, route, f"the route {route}", now, severity)


@verb("oncall.try_policy", right=Right.OPERATE)
def try_policy(*, by: Principal, policy: Policy, now: datetime, severity: str = AS_IF) -> list[Delivery]:
    """Send a test message to whoever the policy would tell first, if it began now."""
    return _send("oncall.try_policy", by, policy, f"the policy {policy}", now, severity)


def _send(name: str, by: Principal, what: Route | Policy, words: str, now: datetime, severity: str) -> list[Delivery]:
    found = trial(what, at=now, severity=severity)
    if found.first is None:
        raise ValidationError(found.sentence)
    key = f"test:{what._meta.label_lower}:{what.pk}"
    last = Delivery.objects.filter(group_key=key, created_at__gt=now - PAUSE).order_by("-id").first()
    if last is not None:
        left = int((last.created_at + PAUSE - now).total_seconds()) + 1
        raise ValidationError(f"{words[0].upper()}{words[1:]} was tested just now: wait {left} s for the next test.")
    sent = []
    for contact in Contact.objects.enabled().filter(name__in=found.first.contacts).order_by("name"):
        message = Message(
            title=f"Test of {words}"[:300],
            body=f"{by.name} asked the monitoring portal for this test. Nothing is wrong; nobody has to answer. "
            f"Were it an alert, {contact.name} would be told first.",
            status="test",
            url=f"{settings.PORTAL_URL}/monitoring/alerts/?tab=notifications",
            facts=(("Told", found.first.reason[:500]), ("Sent by", by.name)),
            group_key=key,
            reason=f"somebody tested {words}"[:200],
        )
        sent.append(outbox.enqueue(contact=contact, message=message, purpose="test", now=now))
    after = {"contacts": [each.contact_name for each in sent], "deliveries": [str(each.key) for each in sent]}
    record(by=by, verb=name, target=what, after=after)
    return sent
