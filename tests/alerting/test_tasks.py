"""The clock runs the room's loops under their lease, and the pages of the docs are fresh."""

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from apps.alerting import lifecycle, services, tasks
from apps.alerting.models import Alert
from apps.core.models import Loop
from apps.core.tasks import LOOPS, run
from tests.alerting.conftest import SETUP, World


def test_evaluation_runs_every_second_and_when_the_workers_are_away() -> None:
    spec = LOOPS["alerting.evaluate"]
    assert (spec.body, spec.every, spec.queue, spec.fallback) == (tasks.evaluate, 1.0, "fast", True)


@pytest.mark.parametrize("name", ["alerting.evaluate", "alerting.expire"])
def test_a_loop_runs_and_writes_down_how_it_went(world: World, name: str) -> None:
    assert run(name, now=world.now)
    assert (Loop.objects.get().runs, Loop.objects.get().error) == (1, "")


def test_the_clock_of_expiry_ends_what_is_over(world: World) -> None:
    now = timezone.now()
    ends = now + timedelta(minutes=1)
    services.post_alert(by=SETUP, type="backup", severity="error", message="failed", now=now, ends_at=ends)
    run("alerting.expire", now=now + timedelta(minutes=2))
    assert Alert.objects.get().resolve_reason == "expired"


def test_the_drawing_in_the_docs_is_the_one_of_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "generated" / "alert-life.md"
    assert page.read_text() == lifecycle.diagram()
