"""Every page in light, in dark and on a phone: no complaint of the browser, nothing sticks out, enough contrast."""

import os
import re

import pytest
from django.conf import settings

PAGES = {
    "login": "/accounts/login/",
    "overview": "/monitoring/",
    "performance": "/monitoring/performance/",
    "system": "/monitoring/system/",
    "alerts": "/monitoring/alerts/",
    "history": "/monitoring/alerts/?tab=history",
    "rules": "/monitoring/alerts/?tab=rules",
    "notifications": "/monitoring/alerts/?tab=notifications",
    "alert": "/monitoring/alerts/{key}/",
    "not-found": "/nothing/",
    "admin": "/admin/",
}
CONTRAST = (settings.ROOT / "tests/browser/contrast.js").read_text()
EXPECTED = {"not-found": re.compile("404")}


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(window, full_scene, name, look):
    it = window(None if name == "login" else "ada", look)
    page = it.go(PAGES[name].format(key=full_scene[0].key))
    complaints = [text for text in it.complaints if not EXPECTED.get(name, re.compile("$^")).search(text)]
    assert complaints == []
    assert it.overflow() == []
    if name != "admin":  # the admin's colours are its theme's
        assert page.evaluate(CONTRAST) == []
        assert (
            page.evaluate(
                "[...document.querySelectorAll('button, a[href], input, select')].filter((e) => "
                "e.checkVisibility() && !(e.innerText || e.ariaLabel || e.labels?.length || e.title)"
                ").map((e) => e.outerHTML)"
            )
            == []
        )
    if os.environ.get("PORTAL_SCREENSHOTS"):
        page.wait_for_timeout(400)
        page.screenshot(path=settings.ROOT / f"docs/screenshots/{name}-{look}.png")
