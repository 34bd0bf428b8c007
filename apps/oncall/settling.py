"""Messages that did not arrive: the fail-over contact is told instead, else the fall-back contact."""

from datetime import datetime, timedelta
from typing import Final

from django.db.models import Exists, F, OuterRef, Q

from apps.notifications import outbox
from apps.notifications.holding import QUIET
from apps.notifications.models import Delivery
from apps.oncall import failover, grouping
from apps.oncall.addressing import fallback
from apps.oncall.book import LOST, UNTOLD_FOR, Book, Quiet
from apps.oncall.grouping import Decision
from apps.oncall.loops import BATCH, each
from apps.oncall.models import Escalation, Notice

REOPENED_FOR: Final = timedelta(days=1)
"""How long after a message came back this is still taken up: longer than any loop stands still."""


def settle(*, now: datetime, limit: int = BATCH) -> int:
    """Look at notices whose fate was open: sent is settled, failed or stuck goes to the fall-back contact.

    What was sent and came back since (bounced, not delivered) is open again.
    """
    outbox.cancel_orphans(now=now)
    came_back = Delivery.objects.filter(state="failed", receipt_at__gt=now - REOPENED_FOR)
    open_again = Notice.objects.filter(kind="firing", delivery__in=came_back)
    open_again = open_again.filter(settled_at__lt=F("delivery__receipt_at"))
    Notice.objects.filter(pk__in=open_again.values("pk")).update(settled_at=None)
    known = Notice.objects.unsettled().filter(Q(delivery__state="sent") | Q(delivery__isnull=True))
    known.update(settled_at=now)
    escalates = Escalation.objects.running().filter(incident=OuterRef("alert__incident"))
    sleeps = Q(delivery__state="held", delivery__held_for=QUIET) & ~Exists(escalates)
    late = (~Q(delivery__state="held") | sleeps) & Q(at__lte=now - UNTOLD_FOR)
    lost = Notice.objects.unsettled().filter(Q(delivery__state__in=LOST) | late)
    muting = Quiet(now)
    keys = list(lost.order_by("pk").values_list("pk", flat=True)[:limit])
    return each(keys, lambda pk: _settle(pk, muting, now), "Notice")


def _settle(pk: int, muting: Quiet, now: datetime) -> None:
    found = Notice.objects.select_related("alert__rule", "contact__failover", "delivery", "group")
    notice = found.filter(pk=pk, settled_at=None).first()
    if notice is None:
        return
    if failover.stand_in(notice, now=now):
        return
    if notice.kind == "firing" and not _is_known(notice, now):
        alert = notice.alert
        book = Book(notice.group, {alert.pk: alert}, muting, now)
        for contact in fallback().values():
            if contact.pk == notice.contact_id:
                continue
            decision = grouping.page(book.standings(contact), now=now)
            if decision.firing:
                book.send(contact, Decision(decision.firing, (), (), _in_vain(notice)))
            elif decision.next_at is not None:
                return  # in the cooldown of an earlier firing: looked at again until that is over
    Notice.objects.filter(pk=pk).update(settled_at=now)


def _in_vain(notice: Notice) -> str:
    if notice.delivery is not None and notice.delivery.state == "held":
        return f"{notice.contact_name} is not disturbed ({notice.delivery.error.lower()})"[:200]
    return f"{notice.contact_name} could not be told"


def _is_known(notice: Notice, now: datetime) -> bool:
    """Whether nobody has to be told in place of the notice's contact: it is over, or somebody else knows or will."""
    alert = notice.alert
    if not alert.is_active or alert.acknowledged_at is not None:
        return True
    others = Notice.objects.filter(alert=alert, kind="firing").exclude(pk=notice.pk)
    on_its_way = Q(delivery__state="queued", at__gt=now - UNTOLD_FOR)  # its own fate is looked at in its turn
    return others.filter(Q(delivery__state="sent") | on_its_way).exists()
