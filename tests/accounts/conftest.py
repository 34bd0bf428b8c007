"""People of every role, tokens of any scope, and nothing remembered from the test before."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.cache import cache

from apps.accounts import permissions, services
from apps.accounts.models import AuditEntry, User
from apps.accounts.rights import Principal

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROOT = Principal.system("test")


def known(secret: str, **where: str) -> Principal:
    """Return the principal of a secret that must work."""
    principal = permissions.authenticate(secret, address=where.get("address", ""))
    assert principal is not None
    return principal


def newest() -> AuditEntry:
    """Return the last audit entry, which must exist."""
    return AuditEntry.objects.latest("id")


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    permissions.forget_tokens()
    yield
    permissions.forget_tokens()


@pytest.fixture
def person(db: None) -> Callable[..., User]:
    """Return a maker of people: person("editor") has that role, person() none."""

    def make(*roles: str, **fields: Any) -> User:
        user = User.objects.create_user(f"{'-'.join(roles) or 'nobody'}-{User.objects.count()}", **fields)
        return services.set_roles(by=ROOT, user=user, roles=roles)

    return make


@pytest.fixture
def secret(db: None) -> Callable[..., str]:
    """Return a maker of tokens: secret("read", "query") is a usable one with these scopes."""

    def make(*scopes: str, **fields: Any) -> str:
        values: dict[str, Any] = {"name": "-".join(scopes), "expires_at": None, "now": NOW} | fields
        return services.issue_token(by=ROOT, scopes=scopes, **values)[1]

    return make


@pytest.fixture
def rooms_urls(settings: Any) -> None:
    """Serve this room alone."""
    settings.ROOT_URLCONF = "tests.accounts.urls"
    settings.UNFOLD = {}  # the side bar links to pages of rooms above
    cache.clear()
