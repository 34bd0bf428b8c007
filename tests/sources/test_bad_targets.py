"""Whatever a target does it is bounded, told on its page, and delays no other target."""

import contextlib
import gzip
import math
import threading
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.core import telemetry
from apps.metrics import services as metrics
from apps.metrics.services import REFUSED
from apps.sources import services
from apps.sources.models import ScrapeTarget
from tests.sources.conftest import ADMIN, EDITOR, NOW, Target, job, only, ticking

pytestmark = pytest.mark.django_db(transaction=True)
BAD = [
    (b"a 1\nb{x=\xff\"\"} 2\n", "not UTF-8"),
    (b"a 1\nb{x=\"" + b"y" * 300_000 + b"\"} 2\n", "longer than 131072 bytes"),
    (b"a 1\nb{" + b",".join(b'l%d="v"' % i for i in range(40)) + b"} 2\n", "at most 30 labels"),
    (b"a 1\nb{x=\"" + b"y" * 2000 + b"\"} 2\n", "values of 1024 bytes"),
    (b"a 1\na 2\n", "more than once with the same time"),
    (b"# TYPE a histogram\n# TYPE a counter\na 1\nb twelve\n", "'twelve' is no number"),
    (b"a 1\nb 2 4102444800000\n", "more than 10 minutes ahead"),
    (b"a 1\nb 2 -5000\n", "before 1970"),
]  # fmt: skip


def refusals():
    """How many refusals this process counted, whatever the reason."""
    return sum(one.value for one in telemetry.snapshot() if one.name == REFUSED.name)


@pytest.mark.parametrize(("body", "why"), BAD, ids=[why for _, why in BAD])
def test_what_is_bad_is_refused_by_name_and_the_rest_is_kept(target, rounds, body, why):
    target.body = body
    job(target.address)
    before = refusals()
    rounds.run()
    row = only()
    assert row.health == "up"
    assert row.refused == 1
    assert why in row.problems[0]
    assert rounds.values("a") == {"": [1.0]}
    assert refusals() == before + 1


def test_a_time_long_ago_is_refused_once_the_series_has_a_newer_one(target, rounds):
    target.body = b"a 1\n"
    job(target.address)
    rounds.run()
    target.body = b"a 1 3600000\n"
    rounds.next()
    row = only()
    assert row.refused == 1
    assert "further behind its series' newest one" in row.problems[0]


def test_more_samples_than_the_job_takes_is_a_target_that_is_down(target, rounds):
    target.body = b"".join(b"a%d 1\n" % i for i in range(11))
    made = job(target.address, sample_limit=10)
    rounds.run()
    row = only()
    assert (row.health, row.error) == ("down", "It has 11 samples, and 10 are taken at most.")
    made.metric_relabel = [{"source_labels": ["__name__"], "regex": "a[12]", "action": "drop"}]
    services.save_job(by=ADMIN, job=made, now=NOW)
    rounds.next()
    assert (only().health, only().kept) == ("up", 9)


def test_a_body_beyond_the_limit_is_not_read_to_its_end(target, rounds):
    sent = [0]

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(b"x" * 1_000_000)
                sent[0] += 1

    target.answer = endless
    job(target.address, body_limit=2_000_000)
    rounds.run()
    assert only().error == "The answer is larger than 2000000 bytes."
    assert sent[0] < 50


def test_a_gzip_bomb_unpacks_no_further_than_the_limit(target, rounds):
    target.body = gzip.compress(b"\n" * 50_000_000)
    target.headers["Content-Encoding"] = "gzip"
    job(target.address)
    rounds.run()
    assert only().error == "The answer is larger than 10000000 bytes."


def test_gzip_is_asked_for_and_read(target, rounds):
    target.body = gzip.compress(b"a 1\n") + gzip.compress(b"c 2\n")
    target.headers["Content-Encoding"] = "gzip"
    job(target.address)
    rounds.run()
    assert "gzip" in target.asked[0]["accept-encoding"]
    assert rounds.values("c") == {"": [2.0]}


@pytest.mark.parametrize(
    ("packing", "body", "why"),
    [("gzip", b"no gzip", "cannot be unpacked"), ("br", b"x", "not asked for"), ("gzip", b"", "ended before its gzip")],
)
def test_what_cannot_be_unpacked_is_said_so(target, rounds, packing, body, why):
    target.body, target.headers["Content-Encoding"] = body, packing
    job(target.address)
    rounds.run()
    assert why in only().error


def _drip_head(handler):
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not handler.server.stop.wait(0.05):
            handler.wfile.write(b"X-A: b\r\n")


def _drip_body(handler):
    with contextlib.suppress(OSError):
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.stop.wait(0.05):
            handler.wfile.write(b"a 1\n")


def _hang(handler):
    handler.server.stop.wait(5)


@pytest.mark.parametrize("answer", [_drip_head, _drip_body, _hang])
def test_a_target_that_drips_or_hangs_ends_at_its_time_out(target, rounds, answer):
    target.answer = answer
    job(target.address, timeout=timedelta(seconds=0.4))
    rounds.run()
    assert only().error == "127.0.0.1 did not answer within 0.4 s."


def test_targets_that_hang_delay_no_other(target):
    from apps.sources.scraping import Scraper

    hanging = Target()
    hanging.answer = _hang
    thread = threading.Thread(target=hanging.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        every = timedelta(seconds=2)
        many = [{"targets": [hanging.address], "labels": {"n": str(n)}} for n in range(6)]
        now = timezone.now()
        job(name="bad", targets=many, interval=every, timeout=timedelta(seconds=1.5), now=now)
        job(target.address, interval=timedelta(seconds=1), timeout=timedelta(seconds=1), now=now)
        scraper = Scraper(threads=10)
        begun = time.monotonic()
        ticking(scraper, lambda: time.monotonic() - begun > 3.5)
        good = ScrapeTarget.objects.get(job__name="web")
        assert good.health == "up"
        assert len(target.paths) >= 3
        assert set(ScrapeTarget.objects.filter(job__name="bad").values_list("health", flat=True)) == {"down"}
    finally:
        hanging.stop.set()
        hanging.shutdown()
        hanging.server_close()
        thread.join()


@pytest.mark.parametrize("place", ["http://169.254.169.254/latest/", "http://[fd00:ec2::254]/", "http://169.254.1.1/"])
def test_a_redirect_to_metadata_or_link_local_addresses_is_refused(target, rounds, place):
    target.status, target.headers["Location"] = 302, place
    job(target.address)
    rounds.run()
    assert "metadata or link-local" in only().error


def test_a_redirect_to_the_portal_itself_is_refused(target, rounds, settings):
    settings.OWN_PORTS = {3999}
    target.status, target.headers["Location"] = 302, "http://127.0.0.1:3999/admin/"
    job(target.address)
    rounds.run()
    assert "the portal itself" in only().error


def test_a_redirect_takes_no_secret_to_another_host(target, rounds):
    other = Target()
    thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        target.status, target.headers["Location"] = 302, f"http://{other.address}/metrics"
        job(target.address, auth="bearer", secrets={"credential": "tok"})
        rounds.run()
        assert only().health == "up"
        assert "authorization" in target.asked[0]
        assert "authorization" not in other.asked[0]
    finally:
        other.shutdown()
        other.server_close()
        thread.join()


def test_redirects_are_not_followed_where_the_job_says_no(target, rounds):
    target.status, target.headers["Location"] = 302, "/elsewhere"
    job(target.address, follow_redirects=False)
    rounds.run()
    assert only().error == "The target answered with HTTP status 302 instead of 200."


def test_private_addresses_are_open_only_to_jobs_that_an_administrator_saved(target, rounds):
    job(target.address, by=EDITOR)
    rounds.run()
    assert "which is not a public address" in only().error


def test_an_address_where_nobody_answers_is_down(rounds):
    job("127.0.0.1:1")
    rounds.run()
    assert only().health == "down"
    assert rounds.values("up") == {"": [0.0]}
    assert all(not math.isnan(value) for value in rounds.values("scrape_duration_seconds")[""])


def test_a_full_store_is_said_on_the_target_and_the_next_scrape_tries_anew(target, rounds, monkeypatch):
    job(target.address)
    monkeypatch.setattr(metrics, "ensure_space", lambda: (_ for _ in ()).throw(metrics.StoreFull("The disk is full.")))
    rounds.run()
    assert only().error == "It was not stored: The disk is full."
    monkeypatch.undo()
    rounds.next()
    assert only().health == "up"
    assert rounds.values("a") == {"": [1.0]}
