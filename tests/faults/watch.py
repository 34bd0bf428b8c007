"""The way from a measurement to an alert, by the portal's own parts, on a clock that a test moves.

Collectors, counters of this process, checks, data sources, scrapes and heartbeats run as they do at work; the shipped
rules are shipped as they are, their waiting times included. Only the clock is ours: a round of fifteen seconds costs as
much as its work does.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import yaml
from django.conf import settings
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.alerting import evaluation
from apps.alerting import services as alerting
from apps.alerting.models import Alert
from apps.alerting.plans import question
from apps.core import telemetry
from apps.metrics import services as metrics
from apps.metrics.collection import Collection, tick
from apps.metrics.models import CollectorSetting
from apps.metrics.telemetry_flush import EVERY, Flusher
from apps.sources import checking, heartbeats, measuring
from apps.sources.models import BusinessMetric, Check, DataSource, ScrapeTarget
from apps.sources.scraping import Scraper

BY = Principal.system("test")
SETTLED = timedelta(seconds=3)
"""After a tick: its samples are there."""


def shipped(name: str) -> dict[str, dict[str, Any]]:
    """The rows of a fixture by slug or name."""
    rows = yaml.safe_load((settings.BASE_DIR / "fixtures" / f"{name}.yaml").read_text())
    return {row.get("slug") or row.get("name") or row["kind"]: row for row in rows}


class Watch:
    """The shipped rules of these slugs, with the recording rules that they read and the collectors of these kinds."""

    def __init__(self, *slugs: str, collectors: tuple[str, ...] = ()) -> None:
        self.now = tick(timezone.now(), EVERY)
        telemetry.reset()
        self.flusher = Flusher("web", started=self.now - EVERY)
        self.collection = Collection()
        self.scraper = Scraper(threads=4, clock=lambda: self.now)
        for kind in collectors:
            metrics.ship_collector(shipped("collectors")[kind], by=BY, now=self.now)
        rules, records = shipped("alert_rules"), shipped("recording_rules")
        for slug in slugs:
            for name in (question(rules[slug]["expression"]).reads or frozenset()) & set(records):
                alerting.ship_recording_rule({**records[name], "tests": ()}, by=BY, now=self.now)
            alerting.ship_rule({**rules[slug], "tests": ()}, by=BY, now=self.now)

    def round(self, seconds: float = 15) -> None:
        """Fifteen seconds later: measure everything, then judge it."""
        self.now += timedelta(seconds=seconds)
        self.collection.collect(now=self.now)
        self.flusher.flush(now=self.now, at=self.now)
        for model in (Check, DataSource, BusinessMetric):
            model._default_manager.update(due_at=self.now)
        checking.rounds_of(4).run(now=self.now)
        measuring.rounds_of(4).run(now=self.now)
        if ScrapeTarget.objects.filter(dropped=False, due_at__lte=self.now).exists():
            self.scraper.run(now=self.now)
        heartbeats.look_after(now=self.now)
        evaluation.evaluate(now=self.now + SETTLED)

    def judge(self, minutes: int) -> None:
        """Let so many minutes pass in which nothing is measured anew, four at most: a sample stands for five."""
        for _ in range(minutes):
            self.now += timedelta(minutes=1)
            evaluation.evaluate(now=self.now + SETTLED)

    def configure(self, kind: str, **config: object) -> None:
        """Give a collector other settings."""
        CollectorSetting.objects.filter(kind=kind).update(config=config)

    def firing(self) -> dict[str, str]:
        """What fires now: severity by slug, the worst where several do."""
        order = ("info", "warning", "error", "critical")
        found: dict[str, str] = {}
        for alert in Alert.objects.filter(state="firing"):
            found[alert.type] = max(alert.severity, found.get(alert.type, "info"), key=order.index)
        return found

    def passes(self, seconds: float, each: Callable[[], object] | None = None, *, pace: float = 15) -> None:
        """Let time pass; `each` is done before every round; `pace` as for `resolves`."""
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            if each is not None:
                each()
            self.round(pace)

    def fires(
        self, slug: str, severity: str, *, within: float, each: Callable[[], object] | None = None, pace: float = 15
    ) -> Alert:
        """Let time pass until the rule fires so badly, within so many seconds; `pace` as for `resolves`."""
        begin = self.now
        while self.firing().get(slug) != severity:
            assert self.now - begin < timedelta(seconds=within), self.told(slug)
            if each is not None:
                each()
            self.round(pace)
        return Alert.objects.filter(type=slug, state="firing", severity=severity).latest("id")

    def resolves(self, slug: str, *, within: float, each: Callable[[], object] | None = None, pace: float = 15) -> None:
        """Let time pass until nothing of the rule fires; `pace` is how many seconds a round stands for."""
        begin = self.now
        while slug in self.firing():
            assert self.now - begin < timedelta(seconds=within), self.told(slug)
            if each is not None:
                each()
            self.round(pace)
        assert Alert.objects.filter(type=slug).latest("id").state == "resolved"

    def told(self, slug: str) -> str:
        """How the alerts of a rule stand, for a test that fails."""
        rows = Alert.objects.filter(type=slug).values_list("state", "severity", "value", "labels")
        return f"{slug} after {self.now:%H:%M:%S}: {list(rows) or 'no alert'}; firing: {self.firing()}"


def waited_since(alert: Alert) -> timedelta:
    """How long an alert was pending before it fired."""
    begun = alert.transitions.filter(after="pending").latest("id").at
    fired: datetime = alert.transitions.filter(after="firing").latest("id").at
    return fired - begun
