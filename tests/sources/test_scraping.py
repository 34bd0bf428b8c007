"""Targets are asked at their ticks; what they show is stored, and what they stop showing ends."""

import math
from datetime import timedelta

import pytest

from apps.metrics.models import Metric
from apps.sources import services
from apps.sources.models import ScrapeJob, ScrapeTarget
from tests.sources.conftest import ADMIN, NOW, job, only

pytestmark = pytest.mark.django_db(transaction=True)


def stale(values):
    return [math.isnan(value) for value in values]


def test_a_new_target_is_asked_at_once_and_then_at_its_ticks(target, rounds):
    job(target.address)
    assert rounds.run() == 1
    row = only()
    assert (row.health, row.samples, row.kept, row.added, row.error) == ("up", 2, 2, 2, "")
    assert row.labels == {"job": "web", "instance": target.address}
    assert NOW < row.due_at <= NOW + timedelta(seconds=30)
    assert rounds.run() == 0
    assert rounds.next() == 1
    assert only().due_at - row.due_at == timedelta(seconds=30)
    assert rounds.values("a") == {"": [1.0, 1.0]}
    assert rounds.values("b") == {"x=1": [2.0, 2.0]}


def test_every_scrape_adds_the_series_about_itself(target, rounds):
    job(target.address, metric_relabel=[{"source_labels": ["__name__"], "regex": "b", "action": "drop"}])
    rounds.run()
    rounds.next()
    assert rounds.values("up") == {"": [1.0, 1.0]}
    assert rounds.values("scrape_samples_scraped") == {"": [2.0, 2.0]}
    assert rounds.values("scrape_samples_post_metric_relabeling") == {"": [1.0, 1.0]}
    assert rounds.values("scrape_series_added") == {"": [1.0, 0.0]}
    assert all(0 < value < 5 for value in rounds.values("scrape_duration_seconds")[""])


def test_a_series_that_vanishes_ends_and_may_come_back(target, rounds):
    job(target.address)
    rounds.run()
    target.body = b"a 1\n"
    rounds.next()
    rounds.next()
    target.body = b'b{x="1"} 5\n'
    rounds.next()
    assert stale(rounds.values("b")["x=1"]) == [False, True, False]
    assert stale(rounds.values("a")[""]) == [False, False, False, True]


def test_a_target_that_fails_is_down_for_a_reason_and_its_series_end(target, rounds):
    job(target.address)
    rounds.run()
    target.status = 503
    rounds.next()
    row = only()
    assert (row.health, row.error) == ("down", "The target answered with HTTP status 503 instead of 200.")
    assert stale(rounds.values("a")[""]) == [False, True]
    assert rounds.values("up") == {"": [1.0, 0.0]}
    target.status = 200
    rounds.next()
    assert only().health == "up"
    assert stale(rounds.values("a")[""]) == [False, True, False]


def test_a_target_that_is_taken_out_ends_with_all_its_series_and_its_row_goes(target, rounds):
    made = job(target.address)
    rounds.run()
    made.targets = []
    services.save_job(by=ADMIN, job=made, now=NOW + timedelta(seconds=10))
    assert only().ended
    rounds.next()
    assert not ScrapeTarget.objects.exists()
    assert stale(rounds.values("a")[""]) == [False, True]
    assert stale(rounds.values("up")[""]) == [False, True]


def test_the_targets_of_a_deleted_job_end_too(target, rounds):
    made = job(target.address)
    rounds.run()
    services.delete_job(by=ADMIN, job=made, now=NOW + timedelta(seconds=10))
    assert not ScrapeJob.objects.exists()
    rounds.next()
    assert not ScrapeTarget.objects.exists()
    assert stale(rounds.values("up")[""]) == [False, True]


def test_a_target_that_moves_to_another_path_goes_on_without_a_gap(target, rounds):
    made = job(target.address)
    rounds.run()
    made.metrics_path = "/other"
    rounds.clock.now = NOW + timedelta(seconds=10)
    services.save_job(by=ADMIN, job=made, now=rounds.clock.now)
    rounds.run()
    assert target.paths == ["/metrics", "/other"]
    assert ScrapeTarget.objects.count() == 1
    assert not math.isnan(rounds.values("a")[""][-1])


def test_a_change_of_the_job_compares_with_what_was_there_before_it(target, rounds):
    made = job(target.address)
    rounds.run()
    made.metric_relabel = [{"source_labels": ["__name__"], "regex": "b", "action": "drop"}]
    services.save_job(by=ADMIN, job=made, now=NOW + timedelta(seconds=1))
    rounds.next()
    assert stale(rounds.values("b")["x=1"]) == [False, True]
    assert stale(rounds.values("a")[""]) == [False, False]


def test_samples_have_the_time_of_the_tick_unless_the_scrape_is_late(target, rounds):
    job(target.address)
    rounds.run()
    due = only().due_at
    rounds.clock.now = due + timedelta(milliseconds=250)
    rounds.run()
    rounds.clock.now = only().due_at + timedelta(milliseconds=350)
    rounds.run()
    times = sorted(rounds.times("a").tolist())
    assert times[1] == int(due.timestamp() * 1000)
    assert times[2] == int(rounds.clock.now.timestamp() * 1000)


def test_times_that_a_target_gives_count_where_the_job_says_so(target, rounds):
    ms = int(NOW.timestamp() * 1000) - 5000
    target.body = f"a 1 {ms}\n".encode()
    made = job(target.address)
    rounds.run()
    assert rounds.times("a").tolist() == [ms]
    made.honor_timestamps = False
    services.save_job(by=ADMIN, job=made, now=NOW + timedelta(seconds=1))
    rounds.next()
    assert rounds.times("a").tolist()[-1] == int(rounds.clock.now.timestamp() * 1000)


def test_labels_of_the_target_win_and_the_others_are_kept_beside_them(target, rounds):
    target.body = b'a{job="inner",exported_job="odd"} 1\n'
    made = job(target.address)
    rounds.run()
    assert rounds.values("a", job="web") == {"exported_exported_job=inner,exported_job=odd": [1.0]}
    made.honor_labels = True
    services.save_job(by=ADMIN, job=made, now=NOW + timedelta(seconds=1))
    rounds.next()
    assert list(rounds.values("a", job="inner")) == ["exported_job=odd"]


def test_openmetrics_is_asked_for_and_its_types_are_kept(target, rounds):
    target.headers = {"Content-Type": "application/openmetrics-text; version=1.0.0"}
    target.body = b"# TYPE calls counter\n# HELP calls How many.\ncalls_total 7\n# EOF\n"
    job(target.address)
    rounds.run()
    assert target.asked[0]["accept"].startswith("application/openmetrics-text;version=1.0.0")
    assert target.asked[0]["x-prometheus-scrape-timeout-seconds"] == "10"
    metric = Metric.objects.get(name="calls_total")
    assert (metric.type, metric.help) == ("counter", "How many.")
    assert Metric.objects.get(name="up").type == "gauge"


@pytest.mark.parametrize(
    ("values", "secret", "name", "header"),
    [
        ({"auth": "basic", "auth_name": "me"}, "pass", "authorization", "Basic bWU6cGFzcw=="),
        ({"auth": "bearer"}, "tok", "authorization", "Bearer tok"),
        ({"auth": "header", "auth_name": "X-Key"}, "val", "x-key", "val"),
    ],
)
def test_the_portal_says_who_it_is(target, rounds, values, secret, name, header):
    job(target.address, secrets={"credential": secret}, **values)
    rounds.run()
    assert target.asked[0][name] == header


def test_a_key_that_is_lost_stops_only_jobs_that_carry_secrets(target, rounds, settings):
    job(target.address, name="open")
    job(target.address, name="shut", auth="bearer", secrets={"credential": "tok"})
    settings.SECRET_FIELD_KEYS = ["another key"]
    rounds.run()
    rows = {str(row.job): row for row in ScrapeTarget.objects.all().with_job()}
    assert rows["open"].health == "up"
    assert "cannot be decrypted" in rows["shut"].error


def test_another_process_takes_over_what_its_holder_leaves(target, rounds):
    from tests.sources.conftest import Round

    job(target.address)
    rounds.run()
    other = Round()
    other.clock.now = only().due_at
    assert other.run() == 0  # its holder is expected
    ScrapeTarget.objects.update(due_at=only().due_at - timedelta(days=1))
    assert other.run() == 1


def test_nothing_is_asked_while_collection_is_off(target, rounds):
    from apps.metrics import services as metrics

    job(target.address)
    metrics.switch_collection(by=ADMIN, on=False, now=NOW)
    assert rounds.run() == 0
    metrics.switch_collection(by=ADMIN, on=True, now=NOW)


def test_the_driver_scrapes_at_the_ticks_by_itself(target, settings):
    from django.utils import timezone

    from apps.sources.scraping import Scraper
    from tests.sources.conftest import ticking, wait_for

    job(target.address, interval=timedelta(seconds=1), timeout=timedelta(seconds=1), now=timezone.now())
    scraper = Scraper(threads=4)
    ticking(scraper, lambda: len(target.paths) >= 4)
    assert scraper._driver is None, "it ends with what it was stopped at"
    asked = len(target.paths)
    row = only()
    assert row.health == "up"
    assert row.last_at.microsecond < 500_000
    scraper.tick(now=timezone.now())
    wait_for(lambda: len(target.paths) > asked)
    scraper.stop()
