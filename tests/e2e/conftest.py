"""One running portal for the end-to-end tests, with a real SMTP server and a real HTTP receiver."""

from collections.abc import Iterator

import pytest

from monitoring_portal.testing import Portal
from tests.e2e.receivers import Hooks, Mailbox

TOKEN = "story-token-0123456789-abcdef"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One portal for everything in this folder, and so one worker."""
    for item in items:
        if "tests/e2e/" in str(item.path):
            item.add_marker(pytest.mark.xdist_group("portal-e2e"))


@pytest.fixture(scope="session")
def mailbox() -> Iterator[Mailbox]:
    running = Mailbox()
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def hooks() -> Iterator[Hooks]:
    running = Hooks()
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="package")
def portal(tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox, hooks: Hooks) -> Iterator[Portal]:
    environment = {
        "ALERT_EMAIL_FROM": "alerts@portal.example",
        "ALERT_EMAIL_TO": "oncall@portal.example",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(mailbox.port),
        "WEBHOOK_URL": hooks.url,
        "WEBHOOK_TOKEN": "hook-token",
        "OUTBOUND_ALLOW": "127.0.0.0/8",
        "MONITORING_AUTH_TOKEN": TOKEN,
    }
    with Portal(tmp_path_factory.mktemp("story"), environment) as running:
        yield running
