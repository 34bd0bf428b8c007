"""A day of a thousand series replayed by a preview, beside the one range query that only fetches their values.

`./portal bench preview`, or `python -m benchmarks.preview`. The same expression over the same day at a group's interval
of 30 seconds on both sides; the ratio says what the judging of 2.9 million values and the telling cost beyond reading
them. The series wander around the threshold, so that there is something to judge.
"""

import argparse
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from benchmarks.store import RIGHTS_OF, server

SERIES: Final = 1_000
DAY: Final = timedelta(days=1)
SCRAPE: Final = timedelta(seconds=30)
START: Final = datetime(2026, 11, 1, tzinfo=UTC)
BATCH: Final = 60


def fill(series: int) -> None:
    """Write a day of random walks."""
    from apps.accounts.permissions import Principal
    from apps.core.telemetry import Reading
    from apps.metrics import services
    from apps.metrics.samples import Samples

    by = Principal.system(RIGHTS_OF)
    draw = np.random.default_rng(7)
    value = np.full(series, 50.0)
    labels = [{"instance": f"host-{number}", "job": "bench"} for number in range(series)]
    readings: list[Reading] = []
    steps = DAY // SCRAPE
    for step in range(steps):
        at = START + SCRAPE * step
        value = np.clip(value + draw.normal(0, 2, series) + (50 - value) * 0.02, 0, 100)
        ms = int(at.timestamp() * 1000)
        readings += [
            Reading("bench_load", one, own, timestamp_ms=ms) for one, own in zip(value.tolist(), labels, strict=True)
        ]
        if (step + 1) % BATCH == 0 or step + 1 == steps:
            services.ingest(samples=Samples.from_readings(readings, at=at), by=by, now=at)
            readings = []


def main() -> int:
    """Print a row each: the query alone, the preview, the preview with a suggested threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=SERIES)
    given = parser.parse_args()
    with server():
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        from apps.accounts.permissions import Principal
        from apps.alerting.lifecycle import Severity, Terms
        from apps.alerting.plans import RulePlan, question
        from apps.alerting.preview import Preview, Span, preview, suggest
        from apps.alerting.thresholds import Level
        from apps.metrics import query
        from apps.oncall.preview import notifications

        by = Principal.system(RIGHTS_OF)
        fill(given.series)
        levels = (Level(Severity.CRITICAL, ">", 75.0), Level(Severity.WARNING, ">", 68.0, 64.0))
        terms = Terms(timedelta(minutes=1), timedelta(0), SCRAPE, flaps=True)
        rule = RulePlan(
            0, "load", "Load", "system", question("bench_load"), terms, levels, {}, {}, timedelta(minutes=5), ""
        )
        span = Span(START, START + DAY - SCRAPE)
        begun = time.perf_counter()
        found = query.query_range("bench_load", start=START + SCRAPE, end=span.end, step=SCRAPE)
        alone = time.perf_counter() - begun
        begun = time.perf_counter()
        *_, seen = preview(rule, span, by=by, keep=True)
        took = time.perf_counter() - begun
        assert isinstance(seen, Preview)
        begun = time.perf_counter()
        told = notifications(seen)
        telling = time.perf_counter() - begun
        begun = time.perf_counter()
        hint = suggest(seen, Severity.WARNING, per_week=50)
        searching = time.perf_counter() - begun
        print(f"{found.v.size:,} values of {given.series} series, {len(seen.firings)} alerts, {seen.flaps} flap")
        print(f"{'range query alone':24} {alone:6.2f} s")
        print(f"{'preview':24} {took:6.2f} s   {took / alone:.1f} times")
        print(f"{'  and its messages':24} {telling:6.2f} s   {len(told.messages)} messages")
        print(f"{'  and a threshold':24} {searching:6.2f} s   > {hint.threshold} for {hint.alerts} alerts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
