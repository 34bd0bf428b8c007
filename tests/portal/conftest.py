"""One running portal for the tests of a module; one that a test has ended is started again for the next."""

from collections.abc import Iterator

import pytest

from monitoring_portal.testing import Portal


@pytest.fixture(scope="module")
def one_portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    with Portal(tmp_path_factory.mktemp("portal")) as running:
        yield running


@pytest.fixture(scope="module")
def first_output(one_portal: Portal) -> str:
    """What the very first start printed, before any test has ended it."""
    return one_portal.output


@pytest.fixture
def portal(one_portal: Portal, first_output: str) -> Portal:
    if one_portal.process is None or one_portal.process.poll() is not None:
        one_portal.start()
    return one_portal
