"""A real Chromium looks at the real application: uvicorn in a thread, the test database, Valkey of the run."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page, expect

from apps.accounts.models import User
from apps.accounts.permissions import Principal
from apps.alerting.models import Alert
from tests.browser import scene
from tests.serving import serving

# Playwright keeps an event loop in this thread; Django would refuse the database in it.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "1")

axe = Axe()
PASSWORD = "correct horse battery"
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1360, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1360, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 400, "height": 800}, "color_scheme": "light"},
}


def picture(name: str) -> Path:
    """Return where a picture goes (with PORTAL_SCREENSHOTS): over the one that docs show, else to what git ignores."""
    shown = settings.ROOT / f"docs/screenshots/{name}.png"
    return shown if shown.exists() else settings.ROOT / f"test-results/screenshots/{name}.png"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs the browser."""
    for item in items:
        if "tests/browser/" in str(item.path):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def server(django_db_setup: None) -> Iterator[str]:
    """Serve the portal's own ASGI application on a free port; gives its address."""
    with serving() as (_, place):
        yield f"http://{place}"


@pytest.fixture
def people(transactional_db: None) -> dict[str, User]:
    """Mara operates, Vic looks."""
    found = {}
    for name, role in (("mara", "operator"), ("vic", "viewer"), ("ada", "administrator")):
        user = User.objects.create_user(name, password=PASSWORD)
        user.groups.add(Group.objects.get_or_create(name=role)[0])
        found[name] = user
    return found


@pytest.fixture
def mara(people: dict[str, User]) -> Principal:
    return Principal.of_user(people["mara"])


@pytest.fixture
def full_scene(mara: Principal) -> list[Alert]:
    """An hour of samples, the shipped rules, three active alerts."""
    now = timezone.now()
    scene.write_hour(now=now)
    scene.write_people_to_tell(now=now)
    scene.write_targets(now=now)
    scene.write_checks(now=now)
    scene.write_measured(now=now)
    scene.write_logs(now=now)
    return scene.write_alerts(now=now, mara=mara)


class Window:
    """A browser window of one person that remembers everything it complained about."""

    def __init__(self, context: BrowserContext, server: str) -> None:
        self.context = context
        self.server = server
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
        )
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def go(self, path: str) -> Page:
        """Open a page and wait until it is live and its visible charts are drawn."""
        self.page.goto(self.server + path)
        if self.page.locator("[data-live-sign]").count():
            expect(self.page.locator("html")).to_have_attribute("data-live", "live")
            self.page.wait_for_load_state("networkidle")
        return self.page

    def barriers(self, *but: str) -> list[str]:
        """Return what axe-core finds in the way of people who see, hear or move differently, but for some rules."""
        found = axe.run(self.page, options={"rules": {rule: {"enabled": False} for rule in but}}).response["violations"]
        return [f"{one['id']}: {' | '.join(node['html'][:160] for node in one['nodes'][:4])}" for one in found]

    def overflow(self) -> list[str]:
        """Return what sticks out to the right; empty where nothing makes the page scroll sideways."""
        return self.page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
            [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
            .map((e) => e.tagName + '.' + e.className).slice(0, 8)"""
        )


@pytest.fixture
def window(chromium: Browser, server: str, people: dict[str, User]):
    """Return a function that opens a window for a person: window("mara", look="dark")."""
    opened: list[BrowserContext] = []

    def open_window(name: str | None = None, look: str = "light") -> Window:
        context = chromium.new_context(locale="en-US", timezone_id="UTC", **LOOKS[look])
        opened.append(context)
        if name is not None:
            client = Client()
            client.force_login(people[name])
            context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": server}])
        return Window(context, server)

    yield open_window
    for context in opened:
        context.close()
