"""What a browser with an empty cache loads for each page: at most 300 kB over the wire, static files once, packed."""

import re

import pytest
from playwright.sync_api import Browser, BrowserContext

from apps.dashboards.navigation import GROUPS
from monitoring_portal.testing import Portal

MOST = 300_000
STEPS = 14
ADDRESSES = {"overview": "", "oncall": "on-call/"}
PAGES = [f"/monitoring/{ADDRESSES.get(e.address, f'{e.address}/')}" for group in GROUPS for e in group.entries]
OTHERS = ["/monitoring/alerts/?tab=rules", "/monitoring/alerts/?tab=notifications", "/monitoring/me/", "/admin/",
          "/admin/alerting/alertrule/"]  # fmt: skip
HASHED = re.compile(r"/static/.*\.[0-9a-f]{12}\.\w+$")

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def admin(chromium: Browser, portal: Portal):
    """A browser in which the administrator is logged in."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(portal.url + "/accounts/login/")
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", portal.password)
    page.click("[type=submit]")
    page.wait_for_url(re.compile("/monitoring/"))
    page.close()
    yield context
    context.close()


def policy_of(context: BrowserContext, portal: Portal) -> str:
    """Make a policy of many steps; returns the path of its editor."""
    token = next(cookie["value"] for cookie in context.cookies() if cookie["name"] == "csrftoken")
    steps = [{"kind": "wait", "config": {"minutes": 5}} for _ in range(STEPS)]
    answer = context.request.post(
        portal.url + "/api/v1/portal/policies/",
        data={"name": "Fourteen steps", "steps": steps},
        headers={"X-CSRFToken": token, "Referer": portal.url},
    )
    assert answer.status == 201, answer.text()
    return f"/admin/oncall/policy/{answer.json()['id']}/change/"


def loaded(context: BrowserContext, url: str) -> tuple[int, list]:
    """Return the bytes over the wire and the answers of one page in a browser that has nothing yet."""
    page = context.new_page()
    wire = context.new_cdp_session(page)
    wire.send("Network.enable")
    wire.send("Network.setCacheDisabled", {"cacheDisabled": True})
    sizes: list[int] = []
    wire.on("Network.loadingFinished", lambda found: sizes.append(int(found["encodedDataLength"])))
    answers: list = []

    def answered(answer) -> None:  # what the driver marks has to be a function of Python
        answers.append(answer)

    page.on("response", answered)
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.close()
    return sum(sizes), answers


def test_no_page_weighs_more_than_it_may_and_its_files_are_packed_and_kept_for_ever(admin, portal):
    weights, wrong = {}, []
    for path in [*PAGES, *OTHERS, policy_of(admin, portal)]:
        weights[path], answers = loaded(admin, portal.url + path)
        assert answers[0].status == 200, path
        for answer in answers:
            kept, packed = answer.headers.get("cache-control", ""), answer.headers.get("content-encoding")
            if "/static/" in answer.url:
                # A font is packed in itself, and what is very small gains nothing by it.
                is_small = int(answer.headers.get("content-length", MOST)) < 300
                is_packed = packed == "gzip" or is_small or answer.url.endswith(".woff2")
                if not HASHED.search(answer.url) or "immutable" not in kept or not is_packed:
                    wrong.append((answer.url, kept, packed))
            elif answer.request.resource_type == "document" and packed != "gzip":
                wrong.append((answer.url, kept, packed))
    assert wrong == []
    assert {path: size for path, size in weights.items() if not 20_000 < size <= MOST} == {}
