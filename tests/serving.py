"""The portal's own ASGI application, for tests that come over a real socket."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from monitoring_portal import celery


@contextmanager
def serving(*options: tuple[int, int, int]) -> Iterator[tuple[uvicorn.Server, str]]:
    """Serve on a free port, in a thread; `options` are those of the listening socket. Give the server and host:port."""
    from monitoring_portal.asgi import application

    celery.configure()
    listener = socket.create_server(("127.0.0.1", 0))
    for option in options:
        listener.setsockopt(*option)
    config = uvicorn.Config(application, lifespan="off", log_level="warning", ws_ping_interval=None)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, name="server", daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield running, f"127.0.0.1:{listener.getsockname()[1]}"
    running.should_exit = running.force_exit = True
    thread.join(10)
