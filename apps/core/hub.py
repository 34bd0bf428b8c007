"""One subscription per web process to everything that is pushed, fanned out to this process's sockets.

The hub knows topics and ids and nothing of what they mean. An inbox keeps each (topic, id) once, so it is bounded by
what exists, and beyond `LIMIT` it only remembers that the reader must look at everything again. The same happens after
a lost connection: whoever waits is told to catch up.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable

import orjson
import redis.asyncio
from django.conf import settings

from apps.core.live import PREFIX

log = logging.getLogger(__name__)

LIMIT = 500
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
        found = {topic: {None} for topic in self.topics} if self._behind else self._ids
        self._ids, self._behind = {}, False
        self.something.clear()
        return found


class Hub:
    """Listens while anybody does, reconnects by itself, and never lets a slow reader hold up another."""

    def __init__(self) -> None:
        self._inboxes: set[Inbox] = set()
        self._listener: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def inbox(self, topics: Iterable[str]) -> AsyncIterator[Inbox]:
        """Yield an inbox for these topics; it starts with "look at everything"."""
        mine = Inbox(topics)
        mine.put_all()
        self._inboxes.add(mine)
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._listen(), name="live-hub")
        try:
            yield mine
        finally:
            self._inboxes.discard(mine)
            if not self._inboxes and self._listener is not None:
                self._listener.cancel()
                self._listener = None

    async def _listen(self) -> None:
        failures = 0
        while True:
            client = redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2.0)
            try:
                async with client.pubsub(ignore_subscribe_messages=False) as channel:
                    await channel.psubscribe(f"{PREFIX}*")
                    async for message in channel.listen():
                        if message["type"] == "psubscribe":
                            # From here on nothing is missed; what happened before it has to be looked up.
                            failures = 0
                            for inbox in self._inboxes:
                                inbox.put_all()
                        elif message["type"] == "pmessage":
                            self._deliver(message["data"])
            except (redis.RedisError, OSError) as error:
                if failures == 0:
                    log.warning("Live push is away (%s); open pages poll until it is back.", type(error).__name__)
                await asyncio.sleep(RETRY[min(failures, len(RETRY) - 1)])
                failures += 1
            finally:
                with contextlib.suppress(redis.RedisError, OSError):
                    await client.aclose()

    def _deliver(self, data: bytes) -> None:
        try:
            message = orjson.loads(data)
            topic, ident = str(message["topic"]), message.get("id")
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("Live push brought a message that is none: %.80r", data)
            return
        for inbox in self._inboxes:
            inbox.put(topic, None if ident is None else str(ident))


_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def hub() -> Hub:
    """Return the hub of the running event loop: a web process has one."""
    loop = asyncio.get_running_loop()
    for stopped in [known for known in _hubs if known.is_closed()]:
        del _hubs[stopped]
    return _hubs.setdefault(loop, Hub())
