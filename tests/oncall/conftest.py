"""A night on call: alerts come and go, a clock is stepped by hand, and what everybody was told is written down."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.accounts.rights import Principal
from apps.alerting import services as alerting
from apps.alerting.models import Alert, Transition
from apps.notifications.models import Contact, Delivery
from apps.oncall import book, escalating, releasing, services, settling, telling
from apps.oncall.models import Escalation, Notice, NotificationGroup, Policy, Route

START = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
BY = Principal.system("test")
ANNA = Principal.system("anna")


class Night:
    """Posts alerts, steps the clock, runs on-call's loops, and lets messages leave at once unless told otherwise."""

    def __init__(self) -> None:
        self.now = START
        self.broken: set[str] = set()
        self.held: set[str] = set()

    # --- the cast ---
    def contact(self, name: str, **fields: Any) -> Contact:
        return Contact.objects.create(name=name, kind="webhook", config={"url": f"https://{name}.example/"}, **fields)

    def policy(self, *steps: tuple[str, dict[str, Any]], name: str = "night", **values: Any) -> Policy:
        rows = [{"kind": kind, "config": config} for kind, config in steps]
        return services.save_policy(by=BY, name=name, steps=rows, **values)

    def route(self, name: str = "root", *contacts: Contact, is_root: bool = True, **values: Any) -> Route:
        values = {"name": name, "group_wait": timedelta(seconds=30), **values}
        return services.save_route(by=BY, route=Route(is_root=is_root, position=0), values=values, contacts=contacts)

    # --- what happens ---
    def fire(self, name: str = "disk", severity: str = "warning", service: str = "") -> Alert:
        return alerting.post_alert(
            by=BY, type=name, severity=severity, message=f"{name} is bad", service=service, now=self.now
        )

    def end(self, alert: Alert) -> None:
        alerting.resolve(by=BY, alert=alert, now=self.now)

    def worsen(self, alert: Alert, severity: str) -> None:
        """Do what the evaluation does when a level of a rule is left behind."""
        before = alert.severity
        Alert.objects.filter(pk=alert.pk).update(severity=severity)
        Transition.objects.create(
            alert=alert, incident=alert.incident, at=self.now, kind="severity", before=before, after=severity,
            reason="value", severity=severity, by="alerting.evaluate",
        )  # fmt: skip

    def acknowledge(self, alert: Alert) -> None:
        alerting.acknowledge(by=ANNA, alert=alert, now=self.now)

    def wait(self, **span: float) -> None:
        """Let time pass, the loops running whenever something is due."""
        ends = self.now + timedelta(**span)
        self.run()
        while self.now < ends:
            groups = NotificationGroup.objects.filter(due_at__gt=self.now).values_list("due_at", flat=True)
            steps = Escalation.objects.filter(due_at__gt=self.now).values_list("due_at", flat=True)
            open_since = Notice.objects.unsettled().values_list("at", flat=True)
            stuck = [at + book.UNTOLD_FOR for at in open_since if at + book.UNTOLD_FOR > self.now]
            held = Delivery.objects.held().filter(due_at__gt=self.now).values_list("due_at", flat=True)
            due = [at for at in (*groups, *steps, *stuck, *held) if at is not None]
            self.now = min([*due, ends])
            self.run()

    def run(self) -> None:
        escalating.resume(now=self.now)
        telling.tell(now=self.now)
        telling.flush(now=self.now)
        while Escalation.objects.running().filter(due_at__lte=self.now).exists():
            escalating.escalate(now=self.now)
        releasing.release(now=self.now)
        self.deliver()
        settling.settle(now=self.now)

    def deliver(self) -> None:
        queued = Delivery.objects.queued()
        queued.filter(contact_name__in=self.broken).update(state="failed", finished_at=self.now, error="gone")
        queued.exclude(contact_name__in=self.held).update(state="sent", finished_at=self.now, attempts=1)

    # --- what came of it ---
    def told(self, contact: Contact | str) -> list[tuple[str, str]]:
        """Return (seconds since the start, what: which alerts) of every message to the contact."""
        found = []
        for delivery in Delivery.objects.filter(contact_name=str(contact)).order_by("pk"):
            notices = Notice.objects.filter(delivery=delivery).order_by("pk").select_related("alert")
            said = " ".join(f"{'+' if n.kind == 'firing' else '-'}{n.alert.type}" for n in notices)
            at = int((delivery.created_at - START).total_seconds())
            found.append((f"{at}", said))
        return found

    def texts(self, contact: Contact | str) -> str:
        return "; ".join(f"{at}s {said}" for at, said in self.told(contact))

    @property
    def group(self) -> NotificationGroup:
        return NotificationGroup.objects.get()

    @property
    def escalation(self) -> Escalation:
        return Escalation.objects.get()


@pytest.fixture
def night(db: None) -> Night:
    return Night()


@pytest.fixture(scope="session", autouse=True)
def clockwork() -> None:
    """Point Celery at the test run's own broker, as every process of the portal does."""
    from monitoring_portal.celery import configure

    configure()
