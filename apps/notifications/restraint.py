"""How many messages a contact gets in a time, as pure functions: what is over the limit waits and is told in one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from apps.promql.lexer import parse_duration
from apps.promql.text import duration


@dataclass(frozen=True)
class Limit:
    """At most `count` messages in any `window`."""

    count: int
    window: timedelta

    def __str__(self) -> str:
        return f"{self.count}/{duration(round(self.window.total_seconds() * 1000))}"


Limits = tuple[Limit, ...]


def parse(text: str) -> Limits:
    """Read limits as people write them: "5/15m, 11/1h"; "none" and nothing are no limit. ValueError says why not."""
    if text.strip().lower() in ("", "none"):
        return ()
    return tuple(_limit(part.strip()) for part in text.split(","))


def _limit(part: str) -> Limit:
    count, slash, window = part.partition("/")
    if not slash or not count.strip().isascii() or not count.strip().isdigit() or not 1 <= int(count) <= 10_000:
        raise ValueError(f"{part!r} is no limit: write a number of messages, a slash and a duration, such as 5/15m.")
    try:
        span = timedelta(milliseconds=parse_duration(window.strip()))
    except ValueError:
        raise ValueError(f"{window.strip()!r} is no duration: write it like 15m or 1h.") from None
    if not timedelta(seconds=1) <= span <= timedelta(days=7):
        raise ValueError(f"The window of {part!r} must be between a second and a week.")
    return Limit(int(count), span)


def room(sent: Sequence[datetime], limits: Limits, now: datetime) -> int:
    """Return how many messages may leave now, after those `sent`; -1 where nothing limits it."""
    left = [limit.count - sum(at > now - limit.window for at in sent) for limit in limits]
    return max(min(left), 0) if left else -1


def room_at(sent: Sequence[datetime], limits: Limits, now: datetime) -> datetime:
    """Return when the next message may leave: now, or as soon as every window has room again."""
    due = now
    for limit in limits:
        inside = sorted((at for at in sent if at > now - limit.window), reverse=True)
        if len(inside) >= limit.count:
            due = max(due, inside[limit.count - 1] + limit.window)
    return due
