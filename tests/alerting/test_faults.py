"""A worker is killed at every statement of a tick, before and after it: nothing is lost, nothing happens twice."""

import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.db import connection

from apps.alerting import evaluation, services
from apps.alerting.evaluation import TickFailed
from apps.alerting.models import (
    Alert,
    GroupRun,
    Incident,
    Transition,
)
from apps.metrics import query
from apps.metrics.models import Batch, Series
from apps.promql.labels import NAME
from tests.alerting.conftest import SETUP, World

pytestmark = pytest.mark.django_db(transaction=True)


def prepare(world: World) -> None:
    """A tick is due in which one alert begins, one ends, one gets worse, and a recorded series vanishes."""
    world.rule(expression="max by (host) (house:temperature)")
    world.rule("slow", expression="temperature", pending_period=10)
    world.record("house:temperature", "temperature > 50")
    for values in ({"ends": 85.0, "worse": 85.0, "begins": 10.0}, {"ends": 10.0, "worse": 95.0, "begins": 95.0}):
        world.wait(10)
        for host, value in values.items():
            world.push(value, host=host)
        world.wait(-10)
        if values["ends"] > 50:
            world.tick()
    world.wait(10)


def outcome(world: World) -> dict[str, Any]:
    """Everything that a tick leaves behind, without ids."""
    found = query.select([], 0, 2**60)
    series = sorted(
        (sorted(labels.items()), found.ts[a:b].tolist(), [repr(value) for value in found.v[a:b].tolist()])
        for labels, a, b in zip(found.labels.dicts(), found.off[:-1], found.off[1:], strict=True)
        if labels[NAME] != "temperature"
    )
    return {
        "alerts": list(
            Alert.objects.order_by("type", "labels__host", "id").values_list(
                "type", "labels__host", "state", "severity", "resolve_reason", "version"
            )
        ),
        "transitions": list(
            Transition.objects.order_by("alert__type", "alert__labels__host", "id").values_list(
                "alert__type", "alert__labels__host", "kind", "before", "after", "reason", "at"
            )
        ),
        "incidents": sorted(Incident.objects.values_list("severity", "state")),
        "run": list(GroupRun.objects.values_list("evaluated_at", "missed", "due_at")),
        "series": series,
    }


def die_at(moment: int) -> None:
    """From now on: end this process at the n-th edge of a statement or commit."""
    seen = 0

    def edge() -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **kwargs: Any) -> Any:
            edge()
            answer = call(*args, **kwargs)
            edge()
            return answer

        return inner

    psycopg.Cursor.execute = around(psycopg.Cursor.execute)  # type: ignore[method-assign]
    psycopg.Connection.commit = around(psycopg.Connection.commit)  # type: ignore[method-assign]


def run_in_child(world: World, moment: int) -> bool:
    """Evaluate in a process that dies at that moment; whether it did."""
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_at(moment)
            evaluation.evaluate(now=world.now)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def clear() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # no order of tables: no foreign keys
        tables = [
            model._meta.db_table for model in apps.get_app_config("alerting").get_models(include_auto_created=True)
        ]
        for table in (*tables, Batch._meta.db_table, Series._meta.db_table):
            cursor.execute(f"DELETE FROM {table}")
        cursor.execute("SET session_replication_role = origin")


@pytest.mark.slow
def test_a_worker_killed_at_any_statement_loses_and_doubles_nothing(world: World, forget: Callable[[], None]) -> None:
    start = world.now
    prepare(world)
    evaluation.evaluate(now=world.now)
    wanted = outcome(world)
    assert len(wanted["transitions"]) > 6
    moment = 0
    died = True
    while died:
        moment += 1
        clear()
        forget()
        world.now = start
        prepare(world)
        died = run_in_child(world, moment)
        forget()
        evaluation.evaluate(now=world.now)
        assert outcome(world) == wanted, f"killed at edge {moment}"
    assert moment > 20


def test_an_error_at_any_statement_fails_the_group_whole_and_the_next_try_succeeds(world: World) -> None:
    prepare(world)

    class Broken(Exception):
        pass

    count = 0

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal count
        count -= 1
        if count == 0:
            raise Broken
        return execute(sql, params, many, context)

    before = outcome(world)
    for moment in range(1, 200):
        count = moment
        try:
            with connection.execute_wrapper(fail):
                evaluation.evaluate(now=world.now)
        except (TickFailed, Broken):
            found = outcome(world)
            assert [found[key] for key in ("alerts", "transitions", "run")] == [
                before[key] for key in ("alerts", "transitions", "run")
            ]
            continue
        break
    assert moment > 8
    assert evaluation.evaluate(now=world.now) == 0
    assert Transition.objects.filter(after="firing").count() == 4


def test_two_evaluations_of_one_tick_do_it_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has read everything before the first wrote anything: its lease had run out."""
    prepare(world)
    real = evaluation._tracked

    def slow(groups: Any, tick: Any) -> Any:
        found = real(groups, tick)
        monkeypatch.setattr(evaluation, "_tracked", real)
        evaluation.evaluate(now=world.now)
        return found

    monkeypatch.setattr(evaluation, "_tracked", slow)
    evaluation.evaluate(now=world.now)
    assert Transition.objects.filter(alert__type="hot", after="firing").count() == 3
    assert Alert.objects.filter(type="hot").count() == 3


def test_a_person_who_is_faster_wins_and_the_evaluation_looks_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(world)
    real = evaluation._tracked

    def slow(groups: Any, tick: Any) -> Any:
        found = real(groups, tick)
        monkeypatch.setattr(evaluation, "_tracked", real)
        for alert in Alert.objects.active():
            services.resolve(by=SETUP, alert=alert, now=world.now)
        return found

    monkeypatch.setattr(evaluation, "_tracked", slow)
    evaluation.evaluate(now=world.now)
    ended = Transition.objects.filter(after="resolved")
    assert set(ended.values_list("reason", flat=True)) == {"manual"}
    assert ended.count() == 2
    world.wait(310)
    for host in ("worse", "begins"):
        world.push(95.0, host=host)
    evaluation.evaluate(now=world.now)
    assert {a.labels["host"] for a in Alert.objects.active().filter(type="hot")} == {"worse", "begins"}
