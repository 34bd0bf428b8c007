"""The pytest plugin that gives a test run a real PostgreSQL and Valkey, and a whole portal to a test that asks.

Load it with `-p monitoring_portal.testing`: the servers must be up before Django reads its settings.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from monitoring_portal import embedded
from monitoring_portal.throwaway import Servers

_servers: Servers | None = None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(args: list[str]) -> Generator[None, object, object]:
    """Start the servers before any plugin's turn: wrappers run first; pytest-django reads the settings in its."""
    global _servers
    wanted = not {"--help", "-h", "--version", "-V"} & set(args)
    if wanted and "PYTEST_XDIST_WORKER" not in os.environ and _servers is None:
        _servers = Servers()
        try:
            _servers.start()
        except embedded.Refused as error:
            _servers.stop()
            raise pytest.UsageError(str(error)) from error
    return (yield)


def pytest_unconfigure() -> None:
    """Stop what this process started; xdist's workers started nothing."""
    global _servers
    if _servers is not None:
        _servers.stop()
        _servers = None
