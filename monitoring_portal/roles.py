"""What each process of the portal does once it has been forked (web, worker, slow, beat, statsd), until a signal."""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable

WORKER_THREADS = 8  # Four for the clock's loops, four for sends that wait for a slow receiver.
WAKE_THREADS = 4  # What one loop wakes another for: telling, escalating, sending.
SLOW_THREADS = 2
GRACE_SECONDS = 5
GIVE_BACK_SECONDS = 30


def enter(process: str) -> None:
    """Give this process its name: in the settings, for logs and the pool, and on its counters."""
    from django.conf import settings

    os.environ["PORTAL_PROCESS"] = process
    settings.PROCESS = process
    options = settings.DATABASES["default"].get("OPTIONS", {})
    options["application_name"] = f"portal-{process}"
    if process == "beat" and isinstance(options.get("pool"), dict):
        options["pool"].update(min_size=0, max_size=6)  # It asks for connections only while the workers are away.
    from apps.metrics import telemetry_flush
    from apps.sources.logs import own

    telemetry_flush.start(process=process)
    own.start(process)
    threading.Thread(target=_give_back, name="give-back", daemon=True).start()


def _give_back() -> None:
    """Return freed memory to the system now and then: glibc keeps it (a worker: 82 to 70 MB)."""
    with contextlib.suppress(AttributeError):
        trim = ctypes.CDLL(None).malloc_trim
        while True:
            time.sleep(GIVE_BACK_SECONDS)
            trim(0)


def web(listening: socket.socket) -> None:
    """Serve HTTP and WebSocket on a socket that was bound before this process existed."""
    import uvicorn
    from django.conf import settings

    from monitoring_portal.asgi import application

    # A thread in pure Python gives the others their turn after 0.5 ms instead of 5 (measured: p99 306 -> 30 ms).
    sys.setswitchinterval(0.0005)
    # uvicorn raises the signal that ended it once more when it has shut down; left to its default that would be the end
    # before the last counters are written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    enter("web")
    # WhiteNoise's answers are small files, read whole on purpose.
    warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
    config = uvicorn.Config(
        application,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws_max_size=1_000_000,
        # Behind a proxy its word counts for the address; otherwise anybody could claim one.
        proxy_headers=settings.TRUST_PROXY,
    )
    uvicorn.Server(config).run(sockets=[listening])


def worker() -> None:
    """Run the clock's loops and send messages; nothing here may take long."""
    from apps.core.tasks import serve_here

    serve_here(("fast", "send"), WAKE_THREADS)
    _celery_worker("worker", queues="fast,send", threads=WORKER_THREADS)


def slow() -> None:
    """Run what may take long: compaction, retention, reports."""
    _celery_worker("slow", queues="slow", threads=SLOW_THREADS)


def beat() -> None:
    """Tick. While the workers are away it also runs the loops a page depends on, by itself."""
    from celery.beat import Service

    from monitoring_portal import fallback
    from monitoring_portal.celery import app

    enter("beat")
    fallback.start()
    app.finalize()
    service = Service(app, scheduler_cls=app.conf.beat_scheduler)
    # Celery's own command raises SystemExit in the handler, which is at times swallowed on its way up (seen).
    signal.signal(signal.SIGTERM, lambda *_: service.stop())
    service.start()


def statsd() -> None:
    """Take StatsD packets where STATSD_BIND says."""
    from django.conf import settings

    from apps.metrics import statsd_server

    sys.setswitchinterval(0.0005)
    try:
        server = statsd_server.Server(statsd_server.listen(settings.STATSD_BIND))
    except statsd_server.Address as error:
        sys.exit(f"ERROR {error}")
    enter("statsd")
    signal.signal(signal.SIGTERM, lambda *_: server.stopping.set())
    server.start()
    server.run()


def demo() -> None:
    """Let the demo's clinic live on."""
    from monitoring_portal.demo import role

    enter("demo")
    role.main()


def _celery_worker(process: str, *, queues: str, threads: int) -> None:
    from celery.exceptions import SecurityWarning

    from monitoring_portal.celery import app

    enter(process)
    # It warns of root because of pickle; here, as by default, JSON alone is accepted.
    warnings.simplefilter("ignore", SecurityWarning)
    app.worker_main(
        [
            *("worker", "--pool=threads", f"--concurrency={threads}", f"--queues={queues}", f"--hostname={process}@%h"),
            *("--without-mingle", "--without-gossip", "--without-heartbeat", "--loglevel=INFO"),
        ]
    )


def _playing(role: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """The role, and however it ends its counters are written down a last time (the launcher leaves without atexit)."""

    def play(listening: socket.socket) -> None:
        from apps.metrics import telemetry_flush
        from apps.sources.logs import own

        try:
            role(listening)
        finally:
            own.stop(timeout=2.0)
            telemetry_flush.stop(timeout=2.0)

    return play


ROLES: dict[str, Callable[[socket.socket], None]] = {
    "web": _playing(web),
    "worker": _playing(lambda _: worker()),
    "slow": _playing(lambda _: slow()),
    "beat": _playing(lambda _: beat()),
    "statsd": _playing(lambda _: statsd()),
    "demo": _playing(lambda _: demo()),
}
