"""The pytest plugin that gives every test run a real PostgreSQL and a real Valkey, and a whole second portal where a test asks for one.

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
    """Start the servers before any other plugin's turn: wrappers run first, and pytest-django reads the settings in its own."""
    global _servers  # noqa: PLW0603 - one run, one pair of servers
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
    global _servers  # noqa: PLW0603
    if _servers is not None:
        _servers.stop()
        _servers = None
