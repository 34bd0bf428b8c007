"""Ten thousand alerts: a burst is correlated, grouped and told; then some are acknowledged, and the pages opened.

`./portal bench alerts`, or `python -m benchmarks.alerts [--alerts N] [--profile]`. On a PostgreSQL with fsync and a
real Valkey. The burst comes as one rule's: 10,000 series breach at one tick of the live evaluation, on 100 hosts of 20
services, so that it is correlated; then `oncall.tell` and `oncall.escalate` run until no group is due, on a clock that
is stepped past the group's wait. Messages end in the outbox. Memory is this process's greatest, above what it had.
Limits (issue 6): burst 60 s, an acknowledgement 200 ms at the 95th percentile, the page 500 ms.
"""

import argparse
import cProfile
import os
import pstats
import resource
import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import numpy as np

from benchmarks.rules import messages
from benchmarks.store import RIGHTS_OF, START, START_MS, server

HOSTS: Final = 100
SERVICES: Final = 20
INTERVAL: Final = timedelta(seconds=10)
ACKNOWLEDGED: Final = 100
PAGES: Final = 20


def main() -> int:
    """Print what it took, against the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alerts", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true", help="show where the telling spends its time")
    options = parser.parse_args()
    with server(), messages():
        import django

        django.setup()
        from django.core.management import call_command

        from monitoring_portal.celery import configure

        configure()
        call_command("migrate", verbosity=0)
        call_command("collectstatic", interactive=False, verbosity=0)
        measure(options.alerts, profile=options.profile)
    return 0


def measure(count: int, *, profile: bool) -> None:
    """One burst, then the acknowledgements and the page while all of it is active."""
    from apps.accounts.permissions import Principal
    from apps.alerting import evaluation, services
    from apps.alerting.models import Alert, Incident, RuleGroup
    from apps.metrics import services as metrics
    from apps.metrics.samples import Samples
    from apps.oncall.models import Notice, NotificationGroup, Route
    from apps.oncall.services import save_route

    by = Principal.system(RIGHTS_OF)
    setup = Principal.system("test")
    labels = [
        {"__name__": "bench", "instance": f"h-{n % HOSTS}:9100", "service": f"s-{n % SERVICES}", "part": str(n)}
        for n in range(count)
    ]
    keys = ["\xff".join(f"{k}={v}" for k, v in one.items()).encode() for one in labels]
    stamps = np.full(count, START_MS + INTERVAL // timedelta(milliseconds=1))
    metrics.ingest(samples=Samples(keys, labels.__getitem__, stamps, np.ones(count)), by=by, now=START + INTERVAL)
    group = services.save_group(by=setup, group=RuleGroup(name="bench", interval=INTERVAL), now=START)
    made = services.rule_from_dict({"slug": "bench", "name": "Bench", "expression": "bench"}, group=group)
    rule = services.save_rule(
        by=setup, rule=made, levels=[{"severity": "warning", "comparison": ">", "threshold": 0.0}], now=START
    )
    route = Route(is_root=True)
    values = {"name": "root", "group_by": ["alertname", "service"], "group_wait": timedelta(seconds=30)}
    save_route(by=setup, route=route, values=values, contacts=[contact()])
    before = peak()
    now = START + INTERVAL + timedelta(seconds=2)

    if profile:
        profiler = cProfile.Profile()
        profiler.enable()
    started = time.perf_counter()
    evaluation.evaluate(now=now)
    judged = time.perf_counter()
    settle_all(now)
    settle_all(now + timedelta(seconds=31))
    told = time.perf_counter()
    if profile:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(45)
    active, incidents = Alert.objects.active().count(), Incident.objects.filter(state="open").count()
    notices = Notice.objects.count()
    if active != count or notices != count:
        sys.exit(f"{active} of {count} alerts are active and {notices} notices were written: the burst went wrong.")
    print(f"burst of {count:,} firings, {rule.slug}: {NotificationGroup.objects.count()} groups, {incidents} incidents")
    say("  evaluated and correlated", judged - started, None)
    say("  taken up, grouped and told", told - judged, None)
    say("  in all", told - started, 60.0)
    print(f"  memory above the start {peak() - before:,.0f} MiB")
    chosen = list(Alert.objects.active().order_by("?")[:ACKNOWLEDGED])
    took = [seconds(lambda alert=alert: services.acknowledge(by=setup, alert=alert, now=now)) for alert in chosen]  # type: ignore[misc]
    say(f"acknowledgement, p95 of {ACKNOWLEDGED}", percentile(took, 0.95), 0.2)
    show_page()


def show_page() -> None:
    """Open the alerts page as a person does, through Django's whole stack."""
    from django.contrib.auth.models import Group
    from django.test import Client

    from apps.accounts.models import User

    user = User.objects.create_user("bench")
    user.groups.add(Group.objects.get_or_create(name="operator")[0])
    client = Client(SERVER_NAME="localhost")
    client.force_login(user)
    for path, name in (("/monitoring/alerts/", "alerts page"), ("/monitoring/incidents/", "incidents page")):
        took = [seconds(lambda path=path: _opened(client, path)) for _ in range(PAGES)]  # type: ignore[misc]
        say(f"{name}, p95 of {PAGES}", percentile(took, 0.95), 0.5)


def _opened(client: Any, path: str) -> None:
    answer = client.get(path)
    if answer.status_code != 200:
        sys.exit(f"{path} answered {answer.status_code}")


def settle_all(now: Any) -> None:
    """Run on-call's loops as their clocks do until nothing is due."""
    from apps.oncall import escalating, loops, telling
    from apps.oncall.models import NotificationGroup

    while telling.tell(now=now) == loops.BATCH:
        telling.flush(now=now)
    while NotificationGroup.objects.due(now).exists():
        telling.flush(now=now)
    escalating.escalate(now=now)


def contact() -> Any:
    from apps.notifications.models import Contact

    return Contact.objects.create(name="bench", kind="webhook", config={"url": "https://bench.example/"})


def say(what: str, took: float, limit: float | None) -> None:
    """One line: what it took, and against its limit."""
    against = "" if limit is None else f"   limit {limit:g} s, {took / limit:.2f} of it"
    print(f"{what:32s} {took:9.3f} s{against}")


def seconds(body: Callable[[], object]) -> float:
    started = time.perf_counter()
    body()
    return time.perf_counter() - started


def percentile(took: list[float], share: float) -> float:
    return statistics.quantiles(took, n=100, method="inclusive")[round(share * 100) - 1]


def peak() -> float:
    """MiB that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "monitoring_portal.settings")
    sys.exit(main())
