"""Every page in light, in dark and on a phone: no complaint of the browser, nothing sticks out, enough contrast."""

import os
import re

import pytest
from django.conf import settings

from apps.notifications.links import token_of
from apps.notifications.models import Delivery
from apps.oncall.models import Policy
from apps.sources.models import Check, Heartbeat, ScrapeTarget
from tests.browser.conftest import LOOKS, picture

PAGES = {
    "login": "/accounts/login/",
    "overview": "/monitoring/",
    "performance": "/monitoring/performance/",
    "system": "/monitoring/system/",
    "alerts": "/monitoring/alerts/",
    "history": "/monitoring/alerts/?tab=history",
    "rules": "/monitoring/alerts/?tab=rules",
    "notifications": "/monitoring/alerts/?tab=notifications",
    "hygiene": "/monitoring/alerts/?tab=hygiene",
    "alert": "/monitoring/alerts/{key}/",
    "answer": "/r/{token}/",
    "senders": "/monitoring/senders/",
    "targets": "/monitoring/targets/",
    "target": "/monitoring/targets/{target}/",
    "checks": "/monitoring/checks/",
    "heartbeats": "/monitoring/checks/?tab=heartbeats",
    "certificates": "/monitoring/checks/?tab=certificates",
    "check": "/monitoring/checks/{check}/",
    "heartbeat": "/monitoring/heartbeats/{beat}/",
    "frontend": "/monitoring/frontend/",
    "security": "/monitoring/security/",
    "business": "/monitoring/business/",
    "databases": "/monitoring/databases/",
    "applications": "/monitoring/applications/?job=shop",
    "logs": "/monitoring/logs/",
    "log-templates": "/monitoring/logs/?tab=templates",
    "explore": "/monitoring/explore/?show=stacked&q=sum by (mode) (rate(node_cpu_seconds_total{{mode!='idle'}}[5m]))",
    "explore-tree": "/monitoring/explore/?show=explain&q=max by (endpoint) (rate(http_requests_total[5m])) * 60 > 1",
    "not-found": "/nothing/",
    "admin": "/admin/",
    "admin-rule": "/admin/alerting/alertrule/{rule}/change/",
    "admin-contact": "/admin/notifications/contact/{contact}/change/",
    "admin-policy": "/admin/oncall/policy/{policy}/change/",
}
CONTRAST = (settings.ROOT / "tests/browser/contrast.js").read_text()
NAMELESS = """
[...document.querySelectorAll('button, a[href], input, select')]
    .filter((e) => e.checkVisibility() && !(e.innerText || e.ariaLabel || e.labels?.length || e.title))
    .map((e) => e.outerHTML)
"""
LOW = """
[...document.querySelectorAll('button, select, summary, input, a.button, .tabs a')]
    .filter((e) => !['hidden', 'radio', 'checkbox'].includes(e.type) && !e.closest('.legend, .tree'))
    .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 43.5)
    .map((e) => e.outerHTML.slice(0, 200))
"""
"""What a thumb would miss; in a chart's legend and a query's tree, where line follows line, each has 36 px."""
EXPECTED = {"not-found": re.compile("404")}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(window, full_scene, name):
    """The three looks share one scene, for setting it up costs more than looking at it."""
    told = Delivery.objects.filter(purpose="firing").earliest("pk")
    target = ScrapeTarget.objects.get(labels__instance="shop-1:8080")
    policy = Policy.objects.order_by("-pk").values_list("pk", flat=True).first()
    path = PAGES[name].format(
        key=full_scene[0].key, token=token_of(told.key), target=target.pk, policy=policy,
        rule=full_scene[0].rule_id, contact=told.contact_id,
        check=Check.objects.get(name="Shop").pk, beat=Heartbeat.objects.get(name="Invoices").pk,
    )  # fmt: skip
    for look in LOOKS:
        it = window(None if name in ("login", "answer") else "ada", look)
        page = it.go(path)
        complaints = [text for text in it.complaints if not EXPECTED.get(name, re.compile("$^")).search(text)]
        assert (look, complaints) == (look, [])
        assert (look, it.overflow()) == (look, [])
        if not path.startswith("/admin/"):  # the admin's colours are its theme's
            assert (look, page.evaluate(CONTRAST)) == (look, [])
            assert (look, page.evaluate(NAMELESS)) == (look, [])
            assert look != "phone" or page.evaluate(LOW) == []
        # The admin's frame is its theme's, too: it has no landmark for its content.
        own = ("landmark-one-main", "region", "landmark-unique", "empty-table-header")
        themes_own = own if path.startswith("/admin/") else ()
        assert (look, it.barriers(*themes_own)) == (look, [])
        if os.environ.get("PORTAL_SCREENSHOTS"):
            page.wait_for_timeout(400)
            page.screenshot(path=picture(f"{name}-{look}"))
