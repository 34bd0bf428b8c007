"""What becomes of messages that were held back, and the one message that tells what they would have. Pure.

Every delivery has exactly one fate: it leaves, is told in the digest, waits on, or is dropped with a reason. None is
forgotten.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from apps.notifications.holding import HOURS, ORDER
from apps.notifications.message import Message
from apps.oncall import messages
from apps.oncall.messages import AlertView

NAMED: Final = 10
"""Kinds of alerts that the digest counts by name."""


@dataclass(frozen=True)
class Waiting:
    """One alert in one held delivery, as things stand now. `is_end`: the delivery would say that it is over.

    `muted`: why nobody is paged for it; `is_told`: the contact was told of it in the meantime, as bad as it is.
    """

    alert: int
    is_active: bool
    is_end: bool = False
    acknowledged_by: str = ""
    muted: str = ""
    is_told: bool = False

    @property
    def is_news(self) -> bool:
        """Whether it goes on, unheard and unattended."""
        return self.is_active and not (self.is_end or self.acknowledged_by or self.muted or self.is_told)


@dataclass(frozen=True)
class Held:
    """One delivery that was held back and is due: for what, and what it is about."""

    delivery: int
    why: str
    about: tuple[Waiting, ...]


@dataclass(frozen=True)
class Fates:
    """What becomes of each: `leave` by itself, go into the `digest`, `wait` on, or `drop` for a reason."""

    leave: tuple[int, ...] = ()
    digest: tuple[int, ...] = ()
    wait: tuple[int, ...] = ()
    drop: Mapping[int, str] = field(default_factory=dict)


def fates(held: Sequence[Held], *, bundles: bool = True) -> Fates:
    """Return what becomes of one contact's deliveries, in their order. `bundles`: several may be told as one there.

    A message later in somebody's order leaves if anything of it is news. What quiet hours held leaves if anything is,
    all together; what business hours held is told in any case, for a digest also says what has come and gone. An end
    that somebody is owed is told. What is muted waits, unless it is told along.
    """
    leave: list[int] = []
    pool: list[Held] = []
    wait: list[int] = []
    drop: dict[int, str] = {}
    for one in held:
        if any(each.is_news or each.is_end for each in one.about):
            if one.why != ORDER and bundles:
                pool.append(one)
            else:
                leave.append(one.delivery)
        elif any(each.is_active and each.muted and not each.is_told for each in one.about):
            wait.append(one.delivery)
        elif one.why == HOURS and bundles and any(not each.is_told for each in one.about):
            pool.append(one)
        else:
            drop[one.delivery] = _why_not(one)
    if len(pool) == 1 and all(each.is_news or each.is_end for each in pool[0].about):
        return Fates((*leave, pool[0].delivery), (), tuple(wait), drop)
    return Fates(tuple(leave), tuple(one.delivery for one in pool), tuple(wait), drop)


def _why_not(one: Held) -> str:
    if not one.about:
        return "What it was about is gone."
    if by := next((each.acknowledged_by for each in one.about if each.is_active and each.acknowledged_by), ""):
        return f"Acknowledged by {by} before it was told."
    if any(each.is_told for each in one.about):
        return "Told in the meantime."
    return "It was over before it was told."


def compose(
    still: Sequence[AlertView],
    gone: Sequence[AlertView],
    occasion: messages.Occasion,
    *,
    since: datetime,
    zone: ZoneInfo,
    most: int = messages.LISTED,
) -> Message:
    """Return the digest: what is still wrong first, then what has come and gone, with counts. One of them is enough."""
    message = messages.build((), still, gone, occasion, most=most)
    parts = [f"{len(still)} still wrong"] if still else []
    parts += [f"{len(gone)} came and went"] if gone else []
    began = since.astimezone(zone)
    lines = [f"Held back since {began:%a %H:%M} ({zone.key}): {' and '.join(parts)}."]
    if still:
        lines.append(f"Still wrong: {_counted(still)}.")
    if gone:
        lines.append(f"Came and went: {_counted(gone)}.")
    mark = message.severity.upper() if still else "RESOLVED"
    return replace(message, title=f"[{mark}] Digest: {', '.join(parts)}", body="\n".join(lines), facts=())


def _counted(views: Sequence[AlertView]) -> str:
    counts = Counter(view.name for view in views)
    named = [f"{name} ×{count}" if count > 1 else name for name, count in counts.most_common(NAMED)]
    more = len(counts) - NAMED
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")
