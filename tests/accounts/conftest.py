"""People of every role, tokens of any scope, and nothing remembered from the test before."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from django.core.cache import cache

from apps.accounts import permissions, services
from apps.accounts.models import User
from apps.accounts.rights import Principal

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOT = Principal.system("test")


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    permissions.forget_tokens()
    yield
    permissions.forget_tokens()


@pytest.fixture
def person(db: None) -> Callable[..., User]:
    """Return a maker of people: person("editor") has that role, person() none."""

    def make(*roles: str, **fields: object) -> User:
        user = User.objects.create_user(f"{'-'.join(roles) or 'nobody'}-{User.objects.count()}", **fields)
        return services.set_roles(by=ROOT, user=user, roles=roles)

    return make


@pytest.fixture
def secret(db: None) -> Callable[..., str]:
    """Return a maker of tokens: secret("read", "query") is a usable one with these scopes."""

    def make(*scopes: str, **fields: object) -> str:
        values = {"name": "-".join(scopes), "expires_at": None, "now": NOW} | fields
        return services.issue_token(by=ROOT, scopes=scopes, **values)[1]

    return make


@pytest.fixture
def rooms_urls(settings: object) -> None:
    """Serve this room alone."""
    settings.ROOT_URLCONF = "tests.accounts.urls"
    settings.UNFOLD = {}  # the side bar links to pages of rooms above
    cache.clear()
