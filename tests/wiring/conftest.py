"""A running portal for clients of other people, and a token of theirs."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from django.db import connections
from django.utils import timezone

from apps.accounts import services
from apps.accounts.rights import Principal
from monitoring_portal import celery


@pytest.fixture
def server(transactional_db) -> Iterator[str]:
    """The portal's own ASGI application on a free port; gives its address."""
    from monitoring_portal.asgi import application

    celery.configure()
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(application, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    running.should_exit = running.force_exit = True
    thread.join(10)
    connections.close_all()


@pytest.fixture
def secret(transactional_db):
    by = Principal.system("test")
    return services.issue_token(by=by, name="agent", scopes=["ingest"], expires_at=None, now=timezone.now())[1]
