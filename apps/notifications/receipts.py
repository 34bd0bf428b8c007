"""What providers tell of messages that were sent, as pure functions: which word stays, and whether anybody was told.

Receipts come late, twice and in any order. A worse word takes the place of a better one and never the other way round:
what bounced after it had been taken did not arrive, and a late "sent" changes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final

RANK: Final = {"": 0, "underway": 1, "delivered": 2, "complained": 3, "unanswered": 4, "failed": 4, "bounced": 4}
LOST: Final = frozenset({"unanswered", "failed", "bounced"})
"""Nobody read it."""
LASTING: Final = frozenset({"complained", "failed", "bounced"})
"""The next message will fare no better: the contact has a problem."""
CAME_BACK: Final = "Came back: "
"""How a contact's problem begins that only a receipt can take away, not a message that was merely handed over."""


def after(before: str, news: str) -> str:
    """Return what is known of one recipient after a receipt; words that nobody knows change nothing."""
    return news if RANK.get(news, 0) > RANK[before] else before


def summary(known: Mapping[str, str], addressed: Sequence[str]) -> str:
    """Return the message's own state: lost when it is for everybody `addressed`, "partly" when only for some.

    `known` are states by lower-case recipient; a provider that names none tells of the only one ("").
    """
    lost = [state for state in known.values() if state in LOST]
    if not lost:
        return max(known.values(), key=RANK.__getitem__, default="")
    people = [""] if "" in known else [address.lower() for address in addressed] or list(known)
    return lost[0] if all(known.get(address, "") in LOST for address in people) else "partly"
