"""A running portal for clients of other people, and a token of theirs."""

from collections.abc import Iterator

import pytest
from django.utils import timezone

from apps.accounts import services
from apps.accounts.rights import Principal
from tests.serving import serving


@pytest.fixture
def server(transactional_db) -> Iterator[str]:
    """The portal's own ASGI application on a free port; gives its address."""
    with serving() as (_, place):
        yield f"http://{place}"


@pytest.fixture
def secret(transactional_db):
    by = Principal.system("test")
    return services.issue_token(by=by, name="agent", scopes=["ingest"], expires_at=None, now=timezone.now())[1]
