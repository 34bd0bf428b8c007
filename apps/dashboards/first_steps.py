"""The list that leads a new portal's people through their first evening, on the overview until it is done or dismissed.

Each item knows by itself whether it is done, from the rows that the thing itself leaves; nobody ticks anything. That
the list was dismissed is remembered by the audit trail alone, for the whole portal.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.urls import reverse

from apps.accounts.audit import record, verb
from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Principal, Right
from apps.notifications.models import Contact, Delivery
from apps.oncall.models import Layer
from apps.sources.models import Check, Heartbeat, ScrapeJob, Site

DISMISSED: Final = "dashboards.dismiss_first_steps"


@dataclass(frozen=True)
class Step:
    """One thing to do: its words, the place where it is done, and whether it is."""

    title: str
    text: str
    url: str
    is_done: bool


def first_steps(who: Principal) -> list[Step]:
    """Return the list for those who may set the portal up; nothing once all is done, and once it was dismissed."""
    if not who.can(Right.EDIT) or who.scope.matchers or AuditEntry.objects.filter(verb=DISMISSED).exists():
        return []
    notices = reverse("alerts") + "?tab=notifications"
    steps = [
        Step(
            "Connect something",
            "A check of a page, a target to scrape, a job's heartbeat or a front end; the portal's own host is there.",
            reverse("checks"),
            any(model.objects.exists() for model in (Check, ScrapeJob, Heartbeat, Site)),
        ),
        Step(
            "Add a contact",
            "Where messages go: e-mail, chat, SMS, a call, a webhook.",
            reverse("admin:notifications_contact_add"),
            Contact.objects.filter(is_fallback=False, enabled=True).exists(),
        ),
        Step(
            "Send a test",
            "A message that arrived once will arrive at night.",
            notices,
            Delivery.objects.filter(purpose="test", state="sent").exists(),
        ),
        Step(
            "Set a rule, with its preview",
            "What is wrong, and since when: the preview shows when the rule would have fired.",
            reverse("admin:alerting_alertrule_add"),
            AuditEntry.objects.filter(verb="alerting.save_rule").exclude(actor_kind="system").exists(),
        ),
        Step(
            "Put somebody on call",
            "A schedule of people who take turns, for a policy to name.",
            reverse("oncall"),
            Layer.objects.exclude(people=[]).exists(),
        ),
    ]
    return [] if all(step.is_done for step in steps) else steps


@verb(DISMISSED, right=Right.ADMINISTER)
def dismiss_first_steps(*, by: Principal, now: datetime) -> None:
    """Take the list from everybody's overview for good."""
    target = ("dashboards.first_steps", "", "first steps")
    record(by=by, verb=DISMISSED, target=target, after={"at": now.isoformat()})
