"""Errors that a service really sends make the shipped rule fire, and it resolves by itself when they end."""

from datetime import timedelta

import orjson
import pytest
import yaml
from django.conf import settings

from apps.accounts.permissions import Principal
from apps.alerting import evaluation, services
from apps.alerting.models import Alert
from apps.core.lanes import Request
from apps.core.telemetry import reset
from apps.metrics.telemetry_flush import Flusher
from apps.sources.logs import api
from tests.alerting.conftest import SETUP, START, World

PAY = Principal("token", "5", "pay", SETUP.rights)


def test_a_burst_of_errors_fires_and_resolves(
    world: World, django_capture_on_commit_callbacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = (
        row
        for row in yaml.safe_load((settings.BASE_DIR / "fixtures/alert_rules.yaml").read_text())
        if row["slug"] == "log-error-burst"
    )
    services.ship_rule(row, by=SETUP, now=world.now)
    monkeypatch.setattr("django.utils.timezone.now", lambda: world.now)
    reset()
    flusher = Flusher("web", started=START)

    def send(errors: int) -> None:
        body = orjson.dumps(
            [{"level": "error", "service": "pay", "message": f"charge {n} failed"} for n in range(errors)]
        )
        with django_capture_on_commit_callbacks(execute=True):
            said = api.logs(PAY, Request("POST", "/api/v1/portal/logs", b"", body))
        assert said.status == 200

    def go_on(seconds: int) -> str:
        for _ in range(0, seconds, 15):
            world.wait(15)
            flusher.flush(now=world.now, at=evaluation.tick_of(world.now, timedelta(seconds=15)))
            evaluation.evaluate(now=world.now)
        found = Alert.objects.filter(rule__slug="log-error-burst").order_by("-pk").first()
        return "" if found is None else f"{found.state} {found.labels.get('service')}"

    send(1)
    assert go_on(60) == ""
    send(60)
    assert go_on(60) == "firing pay"
    assert go_on(330) == "resolved pay"
