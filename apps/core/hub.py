"""One subscription per web process to everything that is pushed, fanned out to this process's sockets.

The hub knows topics and ids and nothing of what they mean. An inbox keeps each (topic, id) once, so it is bounded by
what exists, and beyond `LIMIT` it only remembers that the reader must look at everything again. The same happens after
a lost connection: whoever waits is told to catch up.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import redis
from django.conf import settings

from apps.core.live import PREFIX

log = logging.getLogger(__name__)

LIMIT = 500
PATIENCE = 1.0
RETRY = (0.1, 0.2, 0.5, 1.0, 2.0)


class Inbox:
    """What one socket has not looked at yet."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = frozenset(topics)
        self.something = asyncio.Event()
        self._ids: dict[str, set[str | None]] = {}
        self._behind = False

    def put(self, topic: str, ident: str | None) -> None:
        """Remember that this changed."""
        if topic not in self.topics:
            return
        if sum(map(len, self._ids.values())) >= LIMIT:
            self._behind = True
            self._ids.clear()
        if not self._behind:
            self._ids.setdefault(topic, set()).add(ident)
        self.something.set()

    def put_all(self) -> None:
        """Remember that anything may have changed."""
        self._behind = True
        self._ids.clear()
        self.something.set()

    def take(self) -> dict[str, set[str | None]]:
        """Return what changed, ids by topic (None: no particular one), and forget it."""
        everything: dict[str, set[str | None]] = {topic: {None} for topic in self.topics}
        found = everything if self._behind else self._ids
        self._ids, self._behind = {}, False
        self.something.clear()
        return found


class Hub:
    """Listens while anybody does, reconnects by itself, and never lets a slow reader hold up another.

    A plain thread listens: redis.asyncio can lose a cancellation while it connects, and would keep the loop open.
    """

    def __init__(self) -> None:
        self.arrived = time.monotonic()
        """When the last word of new samples came, or the connection that brings it (monotonic seconds)."""
        self._loop = asyncio.get_running_loop()
        self._inboxes: set[Inbox] = set()
        self._lock = threading.Lock()
        self._listener: threading.Thread | None = None

    @contextlib.contextmanager
    def inbox(self, topics: Iterable[str]) -> Iterator[Inbox]:
        """Give an inbox for these topics; it starts with "look at everything"."""
        mine = Inbox(topics)
        mine.put_all()
        with self._lock:
            self._inboxes.add(mine)
            if self._listener is None:
                self._listener = threading.Thread(target=self._listen, name="live-hub", daemon=True)
                self._listener.start()
        try:
            yield mine
        finally:
            with self._lock:
                self._inboxes.discard(mine)

    def _is_over(self) -> bool:
        """Tell the thread to end where nobody reads any more; the next reader starts another one."""
        with self._lock:
            if self._inboxes and not self._loop.is_closed():
                return False
            self._listener = None
            return True

    def _listen(self) -> None:
        client = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2.0)
        failures = 0
        while not self._is_over():
            try:
                with client.pubsub() as channel:  # type: ignore[no-untyped-call]
                    channel.psubscribe(f"{PREFIX}*")
                    while True:
                        message = channel.get_message(timeout=PATIENCE)
                        if message is not None:
                            failures = 0
                            self._loop.call_soon_threadsafe(self._hand_out, message["type"], message["data"])
                        elif self._is_over():
                            return
            except (redis.RedisError, OSError) as error:
                if failures == 0:
                    log.warning("Live push is away (%s); open pages poll until it is back.", type(error).__name__)
                time.sleep(RETRY[min(failures, len(RETRY) - 1)])
                failures += 1
            except RuntimeError:  # the loop was closed under a message
                return

    def _hand_out(self, kind: str, data: Any) -> None:
        if kind == "psubscribe":
            # From here on nothing is missed; what happened before it has to be looked up.
            self.arrived = time.monotonic()
            for inbox in self._inboxes:
                inbox.put_all()
        elif kind == "pmessage":
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        try:
            message = orjson.loads(data)
            topic, ident = str(message["topic"]), message.get("id")
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("Live push brought a message that is none: %.80r", data)
            return
        if topic == "series":
            self.arrived = time.monotonic()
        for inbox in self._inboxes:
            inbox.put(topic, None if ident is None else str(ident))


_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def hub() -> Hub:
    """Return the hub of the running event loop: a web process has one."""
    loop = asyncio.get_running_loop()
    for stopped in [known for known in _hubs if known.is_closed()]:
        del _hubs[stopped]
    if loop not in _hubs:
        _hubs[loop] = Hub()
    return _hubs[loop]
