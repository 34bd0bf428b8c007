"""One running portal for the tests of a module that leave it running."""

from collections.abc import Iterator

import pytest

from monitoring_portal.testing import Portal


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    with Portal(tmp_path_factory.mktemp("portal")) as running:
        yield running
