"""The publisher of live push: a server that hangs costs one time-out a pause, not one a commit."""

import pytest
import redis

from apps.core import live


@pytest.mark.parametrize(("error", "asked"), [(redis.TimeoutError("slow"), 1), (redis.ConnectionError("gone"), 3)])
def test_a_hanging_server_is_left_alone_for_a_while_and_a_refusing_one_is_asked_again(monkeypatch, error, asked):
    calls: list[str] = []

    def broken() -> redis.Redis:
        calls.append("asked")
        raise error

    monkeypatch.setattr(live, "client", broken)
    monkeypatch.setattr(live, "_away_until", float("-inf"))
    for _ in range(3):
        live.send({("alerts", None): None})
    assert len(calls) == asked
