"""Push to the browsers: after a commit, ids and versions (never content) go to one Redis channel per topic.

What is published is only "something of this topic changed"; the consumer reads through its own permissions.
A lost message costs a refresh, never an alert, so failures are logged and swallowed.
"""

import logging
import time
import weakref
from typing import Any

import orjson
import redis
from django.conf import settings
from django.db import transaction

log = logging.getLogger(__name__)

PREFIX = "live:"
PAUSE = 5.0
SELDOM = 1.0
_said: dict[tuple[str, str | None], float] = {}
_away_until = float("-inf")
_client: redis.Redis | None = None
_pending: "weakref.WeakKeyDictionary[Any, _Pending]" = weakref.WeakKeyDictionary()
"""What each connection's open transaction wants to push."""


def client() -> redis.Redis:
    """Return this process's publisher: one lazily opened connection pool (survives a restarted server)."""
    global _client
    if _client is None:
        _client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2.0, socket_connect_timeout=1.0)
    return _client


class _Pending:
    """What one transaction wants to push, each (topic, id) once."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str | None], int | None] = {}

    def __call__(self) -> None:
        send(self.items)


def send(items: dict[tuple[str, str | None], int | None]) -> None:
    """Publish now; errors are logged, never raised: a browser catches up by itself.

    A server that hangs is left alone for `PAUSE` seconds: whoever has just committed must not wait for it each time.
    """
    global _away_until
    if time.monotonic() < _away_until:
        return
    try:
        with client().pipeline(transaction=False) as pipe:
            for (topic, ident), version in items.items():
                message: dict[str, Any] = {
                    "topic": topic,
                    "id": ident,
                    "version": version,
                    "at": int(time.time() * 1000),
                }
                pipe.publish(PREFIX + topic, orjson.dumps(message))
            pipe.execute()
    except redis.RedisError as error:
        if isinstance(error, redis.TimeoutError):
            _away_until = time.monotonic() + PAUSE
        log.warning("Live push failed (%s); open pages show it after their next catch-up.", error)


def publish(
    topic: str, id: str | int | None = None, version: int | None = None, *, seldom: bool = False  # noqa: A002
) -> None:  # fmt: skip
    """Push to `topic` once the current transaction has committed; once per transaction, topic and id.

    seldom: of what is said again and again, this process says it at most once in `SELDOM` seconds.
    """
    connection = transaction.get_connection()
    key = (topic, None if id is None else str(id))
    if seldom:
        if time.monotonic() < _said.get(key, float("-inf")) + SELDOM:
            return
        _said[key] = time.monotonic()
    if not connection.in_atomic_block:
        send({key: version})
        return
    pending = _pending.get(connection)
    if pending is None or not any(entry[1] is pending for entry in connection.run_on_commit):
        # It was sent with a former commit, or dropped with a rolled-back transaction's list.
        pending = _pending[connection] = _Pending()
        transaction.on_commit(pending)
    pending.items[key] = version
