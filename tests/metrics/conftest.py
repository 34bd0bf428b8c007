"""Processes remember series and rows; between tests the tables are emptied under this one."""

import pytest

from apps.metrics import catalog, registry, storage


@pytest.fixture(autouse=True)
def _nothing_remembered():
    registry.forget()
    catalog.forget()
    storage.forget()
