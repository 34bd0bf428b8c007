"""What pages report is made fit for labels, counted once, and bounded whatever is sent."""

import itertools

import orjson
import pytest
from django.core.exceptions import ValidationError

from apps.core import telemetry
from apps.core.lanes import Request
from apps.sources import beacon_api, sites
from apps.sources.models import Site
from apps.sources.visits import Unreadable, device_of, reports, route_of
from tests.sources.conftest import ADMIN

FIREFOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


# --- Pure ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("page", "route"),
    [
        ("https://a.example/", "/"), ("https://a.example/orders/4711/?q=1", "/orders/:id"), ("/x/y", "/x/y"),
        ("https://a.example/u/6a1f0c9e-8f0e-4b4e-9f39-3f7f0d1f2a3b", "/u/:id"), ("/f/ann@example.org", "/f/:id"),
        ("/" + "/".join("abcdefghij"), "/a/b/c/d/e/f/g/h/…"), ("/" + "x" * 200, "other"), ("http://[bad", "other"),
        ("/\u202e/x", "other"), ("/<script>", "/<script>"),
    ],
)  # fmt: skip
def test_an_address_becomes_a_kind_of_page(page, route):
    assert route_of(page) == route


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        (FIREFOX.decode(), "desktop"), ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0)", "phone"),
        ("Mozilla/5.0 (Linux; Android 14; Pixel 8) Mobile", "phone"), ("Mozilla/5.0 (iPad)", "tablet"),
        ("Googlebot/2.1", "bot"), ("", "bot"),
    ],
)  # fmt: skip
def test_a_device_is_known_by_what_the_browser_says(agent, device):
    assert device_of(agent) == device


@pytest.mark.parametrize(
    "body",
    [
        {"name": "LCP", "value": -1}, {"name": "LCP", "value": "fast"}, {"name": "LCP", "value": 1e9}, {"name": "XYZ"},
        {"name": 7, "value": 1}, "text", 5, None, {"name": "LCP", "value": True}, {"name": "CLS", "value": 0, "id": 4},
    ],
)  # fmt: skip
def test_a_report_that_cannot_be_is_left_out(body):
    assert reports(orjson.dumps([body]), "/") == ([], 1)


def test_what_is_no_json_is_refused():
    with pytest.raises(Unreadable):
        reports(b"<html>", "")


# --- Beacons -------------------------------------------------------------------------------------------------------
pytestmark = pytest.mark.django_db


@pytest.fixture
def site() -> Site:
    sites.forget()
    beacon_api.VIEWS.reset()
    return sites.save_site(by=ADMIN, site=Site(name="shop", origins=["https://shop.example/"]))


def send(site: Site, body: object, *, origin: bytes = b"https://shop.example", agent: bytes = FIREFOX) -> int:
    headers = [(b"origin", origin), (b"user-agent", agent), (b"referer", b"https://shop.example/cart")]
    sent = Request("POST", "/rum/x", b"", orjson.dumps(body), headers, captured={"key": site.key})
    return beacon_api.beacon(ADMIN, sent).status


def counted(route: str) -> float:
    return beacon_api.VIEWS.value(site="shop", route=route, device="desktop")


def test_a_report_of_web_vitals_is_counted_once_by_its_id(site):
    report = {
        "name": "LCP",
        "value": 1834.5,
        "delta": 1834.5,
        "id": "v5-1-2",
        "navigationURL": "https://shop.example/a",
    }
    assert send(site, report) == 204
    assert send(site, report) == 204
    found = [one for one in beacon_api.SERIES["LCP"].readings(close=False) if one.labels.get("route") == "/a"]
    assert {one.name: one.value for one in found if one.name.endswith(("_sum", "_count"))} == {
        "web_vitals_lcp_seconds_sum": 1.8345,
        "web_vitals_lcp_seconds_count": 1.0,
    }


@pytest.mark.parametrize(
    ("change", "status"),
    [({"origin": b"https://evil.example"}, 403), ({"agent": b"Googlebot"}, 204), ({"origin": b"null"}, 403)],
)
def test_other_origins_and_robots_are_not_counted(site, change, status):
    assert send(site, {"name": "view", "url": "/never"}, **change) == status
    assert counted("/never") == 0


def test_a_flood_is_refused_and_counted(site, monkeypatch):
    monkeypatch.setattr(site, "rate", 1)
    sites.save_site(by=ADMIN, site=site)
    statuses = [send(site, {"name": "view", "id": str(number), "url": "/flood"}) for number in range(20)]
    assert 429 in statuses
    assert counted("/flood") == statuses.count(204)


def test_a_flood_of_one_site_is_no_other_sites(site, monkeypatch):
    other = sites.save_site(by=ADMIN, site=Site(name="till", origins=["https://shop.example"]))
    site.rate = 1
    sites.save_site(by=ADMIN, site=site)
    assert 429 in {send(site, {"name": "view"}) for _ in range(20)}
    assert send(other, {"name": "view"}) == 204


def test_a_flood_of_keys_that_nobody_has_costs_no_queries(site, django_assert_max_num_queries):
    with django_assert_max_num_queries(1):
        assert {send(Site(key=f"{number:040}"), {"name": "view"}) for number in range(100)} == {404}


def test_ever_new_pages_share_what_a_metric_has_room_for(site):
    def refused(reason: str) -> float:
        return beacon_api.REFUSED.value(reason=reason)

    site.rate = 10_000
    sites.save_site(by=ADMIN, site=site)
    letters = ["".join(pair) for pair in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=2)]
    before = refused("report")
    for first in letters:
        assert send(site, [{"name": "view", "url": f"/{first}/page"}, {"name": "view", "url": ["not", "text"]}]) == 204
    assert len(beacon_api.VIEWS.cells) <= telemetry.LIMIT + 1
    assert beacon_api.VIEWS.value(site="overflow", route="overflow", device="overflow") > 100
    assert refused("report") == before + len(letters)


@pytest.mark.parametrize(
    "page",
    [
        "https://shop.example/<img src=x onerror=alert(1)>", "https://shop.example/\u202e\u2066evil", "/a\0b",
        "/" + "x" * 1_000, "javascript:alert(1)", "//[", "https://shop.example/%00%0a", "/\ud7ff\ue000",
    ],
)  # fmt: skip
def test_a_hostile_address_becomes_a_short_printable_label(site, page):
    assert send(site, {"name": "view", "url": page}) == 204
    routes = {one.labels["route"] for one in beacon_api.VIEWS.readings(close=False)}
    assert all(route.isprintable() and len(route) <= 120 for route in routes)


@pytest.mark.parametrize(
    "body", [b"[" * 60_000, b'{"name":"view","url":"\\ud800"}', b"NaN", b"\xff", b'[{"name":"LCP","value":1e999}]']
)
def test_a_body_that_is_odd_is_answered_and_counts_nothing(site, body):
    before = sum(one.value for one in beacon_api.VIEWS.readings(close=False))
    headers = [(b"origin", b"https://shop.example"), (b"user-agent", FIREFOX)]
    sent = Request("POST", "/rum/x", b"", body, headers, captured={"key": site.key})
    assert beacon_api.beacon(ADMIN, sent).status in (204, 400)
    assert sum(one.value for one in beacon_api.VIEWS.readings(close=False)) == before


def test_a_key_that_was_renewed_or_switched_off_counts_no_more(site):
    assert send(site, {"name": "view"}) == 204
    old = Site(key=site.key)
    sites.renew_site_key(by=ADMIN, site=site)
    assert send(old, {"name": "view"}) == 404


@pytest.mark.parametrize("origins", [[], ["shop.example"], ["https://shop.example/path"], "https://a", [1]])
def test_origins_have_to_be_origins(origins):
    with pytest.raises(ValidationError):
        sites.save_site(by=ADMIN, site=Site(name="x", origins=origins))
