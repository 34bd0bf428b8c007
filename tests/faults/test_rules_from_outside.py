"""Shipped rules of what is asked from outside and of what reports by itself, seen firing and ending by real faults."""

import ssl
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest

from apps.core.lanes import Request
from apps.core.telemetry import Reading
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from apps.sources import beacon_api, checks, heartbeats, sites
from apps.sources.heartbeats import Call
from apps.sources.models import Check, Heartbeat, Site
from tests.faults.watch import Watch
from tests.sources.conftest import ADMIN, Target, serving
from tests.sources.test_checks import self_signed

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
FIREFOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def server() -> Iterator[Target]:
    with serving() as made:
        yield made


def check(watch: Watch, url: str, **values: Any) -> None:
    made = Check(name="shop", kind="http", timeout=timedelta(seconds=1))
    checks.save_check(by=ADMIN, check=made, values={"url": url, "redirects": 5, **values}, now=watch.now)


def test_an_endpoint_that_is_too_slow_is_down_until_it_is_quick_again(server: Target) -> None:
    watch = Watch("check-down")
    check(watch, f"http://{server.address}/")
    watch.passes(30)
    assert watch.firing() == {}
    server.answer = lambda handler: server.stop.wait(3)
    alert = watch.fires("check-down", "critical", within=60)
    assert "did not answer within 1 s" in Check.objects.get().error
    assert alert.labels["check"] == "shop"
    server.answer = None
    watch.resolves("check-down", within=30)


def test_a_certificate_ends_soon_then_has_ended_and_a_new_one_is_served(server: Target, tmp_path: Path) -> None:
    watch = Watch("certificate-expiry", "check-down")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def serve(days: float) -> None:
        self_signed(tmp_path / "cert.pem", watch.now + timedelta(days=days))
        context.load_cert_chain(tmp_path / "cert.pem")

    serve(90)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    check(watch, f"https://{server.address}/")
    watch.passes(30)
    assert "certificate-expiry" not in watch.firing()
    serve(10)
    watch.fires("certificate-expiry", "warning", within=30)
    serve(-1)
    alert = watch.fires("certificate-expiry", "critical", within=30)
    assert alert.value is not None
    assert alert.value == pytest.approx(-1, abs=0.01)
    assert "certificate" in Check.objects.get().error
    assert watch.firing()["check-down"] == "critical"
    serve(90)
    watch.resolves("certificate-expiry", within=30)


def test_a_job_that_fails_and_one_that_never_calls_are_told_and_end_with_a_call() -> None:
    watch = Watch("heartbeat-missed")
    made = Heartbeat(name="Backup", period=timedelta(minutes=2), grace=timedelta(minutes=1))
    beat = heartbeats.save_heartbeat(by=ADMIN, beat=made, now=watch.now)

    def call(signal: str, **more: Any) -> None:
        heartbeats.ping(beat=beat, call=Call(signal, **more), now=watch.now)

    call("success")
    watch.passes(120)
    assert watch.firing() == {}
    watch.fires("heartbeat-missed", "error", within=90)
    assert "has not called" in Heartbeat.objects.get().reason
    call("success")
    watch.resolves("heartbeat-missed", within=30)
    call("fail", exit_status=3)
    watch.fires("heartbeat-missed", "error", within=30)
    call("success")
    watch.resolves("heartbeat-missed", within=30)


# --- Front ends ------------------------------------------------------------------------------------------------------
@pytest.fixture
def shop() -> Site:
    sites.forget()
    return sites.save_site(by=ADMIN, site=Site(name="shop", origins=["https://shop.example"], rate=10_000))


_ids = count()


def reported(shop: Site, times: int, *names: str, **vitals: float) -> None:
    """So many views that report these vitals."""
    page = {"navigationURL": "https://shop.example/cart"}
    headers = [(b"origin", b"https://shop.example"), (b"user-agent", FIREFOX)]
    for _ in range(times):
        body = [{"name": name, "value": value, "id": f"v{next(_ids)}", **page} for name, value in vitals.items()]
        body += [{"name": name, "id": f"v{next(_ids)}", **page} for name in names]
        sent = Request("POST", "/rum/x", b"", orjson.dumps(body), headers, captured={"key": shop.key})
        assert beacon_api.beacon(ADMIN, sent).status == 204


def test_pages_that_become_poor_are_told_and_pages_that_become_good_end_it(shop: Site) -> None:
    watch = Watch("poor-lcp", "poor-inp", "poor-cls")
    slugs = ("poor-lcp", "poor-inp", "poor-cls")
    watch.passes(600, lambda: reported(shop, 2, LCP=1200, INP=80, CLS=0.02))
    assert watch.firing() == {}
    watch.fires("poor-lcp", "info", within=2400, each=lambda: reported(shop, 8, LCP=5200, INP=700, CLS=0.4))
    assert set(watch.firing()) == set(slugs)
    for slug in slugs:
        watch.resolves(slug, within=3600, each=lambda: reported(shop, 40, LCP=1200, INP=80, CLS=0.02))


def test_a_script_that_breaks_is_a_burst_of_errors(shop: Site) -> None:
    watch = Watch("script-errors")
    watch.passes(300, lambda: reported(shop, 5, "view"))
    assert watch.firing() == {}
    watch.fires("script-errors", "warning", within=900, each=lambda: reported(shop, 5, "view", "error"))
    watch.resolves("script-errors", within=1200, pace=60, each=lambda: reported(shop, 20, "view"))


# --- The store -------------------------------------------------------------------------------------------------------
def test_samples_of_a_wrong_clock_are_refused_until_it_is_set() -> None:
    watch = Watch("store-refusals")

    def sent(ahead: float) -> None:
        at = watch.now + timedelta(seconds=ahead)
        samples = Samples.from_readings([Reading("a", 1.0, {"n": str(n)}) for n in range(500)], at=at)
        metrics.ingest(samples=samples, by=ADMIN, now=watch.now)

    watch.passes(60, lambda: sent(0))
    watch.fires("store-refusals", "warning", within=1200, each=lambda: sent(3600))
    watch.resolves("store-refusals", within=600, each=lambda: sent(0))
