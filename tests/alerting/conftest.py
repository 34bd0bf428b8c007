"""A clock that is stepped by hand, series to judge, and rules to judge them by."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.accounts.permissions import Principal
from apps.alerting import evaluation, recording, services
from apps.alerting.models import AlertRule, RecordingRule, RuleGroup
from apps.core.telemetry import Reading
from apps.metrics import catalog, registry, storage
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from monitoring_portal.celery import configure

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SETUP = Principal.system("test")


class World:
    """Time, a store and rules: `push` samples, `tick` the evaluation."""

    def __init__(self) -> None:
        self.now = START
        self.interval = timedelta(seconds=10)

    def group(self, name: str = "house", **kw: Any) -> RuleGroup:
        found = RuleGroup.objects.filter(name=name).first()
        return found or services.save_group(
            by=SETUP, group=RuleGroup(name=name, interval=self.interval, **kw), now=self.now
        )

    def rule(self, slug: str = "hot", expression: str = "temperature", **kw: Any) -> AlertRule:
        levels = kw.pop("levels", [("warning", ">", 80.0), ("critical", ">", 90.0)])
        group = kw.pop("group", None) or self.group()
        rule = services.rule_from_dict(
            {"slug": slug, "name": slug.title(), "expression": expression, **kw}, group=group
        )
        rows = [{"severity": severity, "comparison": sign, "threshold": number} for severity, sign, number in levels]
        return services.save_rule(by=SETUP, rule=rule, levels=rows, now=self.now)

    def record(self, name: str, expression: str, group: RuleGroup | None = None, **labels: str) -> RecordingRule:
        rule = RecordingRule(group=group or self.group(), name=name, expression=expression, labels=labels)
        return services.save_recording_rule(by=SETUP, rule=rule, now=self.now)

    def push(self, value: float, name: str = "temperature", **labels: str) -> None:
        at = evaluation.tick_of(self.now, self.interval)
        metrics.ingest(samples=Samples.from_readings([Reading(name, value, labels)], at=at), by=SETUP, now=self.now)

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def tick(self, value: float | None = None, **labels: str) -> int:
        """Go on by one interval; the sample, if any, is of the new instant."""
        self.wait(self.interval.total_seconds())
        if value is not None:
            self.push(value, **labels)
        return evaluation.evaluate(now=self.now)


@pytest.fixture
def forget() -> Callable[[], None]:
    """Forget what only this process's memory holds, as a restart does."""

    def restart() -> None:
        recording._last.clear()
        for memory in (registry, catalog, storage):
            memory.forget()

    return restart


@pytest.fixture(autouse=True, scope="session")
def clock() -> None:
    """Tasks are really sent, to the run's own Valkey."""
    configure()


@pytest.fixture
def world(db: None, forget: Callable[[], None]) -> Iterator[World]:
    forget()
    # A second after the tick of START has settled.
    here = World()
    here.now = START + timedelta(seconds=2)
    yield here
    forget()
