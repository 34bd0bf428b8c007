"""Many open pages ask at the same moment: their questions are gathered and answered together, in one thread.

Questions that come while a round is being answered wait for the next one, so what several pages want is read once and
nobody's question is answered by what was read before it was put. Each is answered through the person who asks.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from channels.db import database_sync_to_async

from apps.accounts.permissions import Principal, Right
from apps.accounts.sessions import holders


class Put(Protocol):
    """A question that says by which session it is put."""

    @property
    def session(self) -> str: ...


Question = TypeVar("Question")
Asked = TypeVar("Asked", bound=Put)
Answer = TypeVar("Answer")
Found = TypeVar("Found")
GATHER: Final = 0.01
"""Seconds that a round waits for more: pages that one event has woken ask within that time."""

# A thread of their own: sockets that wait for the database must not wait for each other.
in_thread = partial(database_sync_to_async, thread_sensitive=False)


class Rounds(Generic[Question, Answer]):
    """Asks `answer` for a list of questions at a time; it gives the answers in their order. One event loop's.

    An exception instead of an answer is raised for that question alone: others in its round have asked for nothing bad.
    """

    def __init__(self, answer: Callable[[Sequence[Question]], Sequence[Answer | Exception]]) -> None:
        self._answer = answer
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Return the answer, or raise what answering it, or its whole round, raised."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="live-rounds")
        return await future

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER)
            taken = [(question, future) for question, future in self._waiting if not future.done()]
            self._waiting = []
            try:
                answers = await in_thread(self._answer)([question for question, _ in taken])
            except Exception as error:
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(taken, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)


@dataclass(frozen=True)
class Reply(Generic[Found]):
    """Who asks, and what was found for them; None where they may not read."""

    who: Principal
    found: Found | None


def through_readers(
    questions: Sequence[Asked],
    read: Callable[[Asked, Principal], Found],
    same: Callable[[Asked, Principal], Hashable],
) -> list[Reply[Found] | Exception]:
    """Answer a round, in its order: for those to whom it is the `same`, `read` is called once.

    Rights are looked at before and after reading: what was written after they were lost must not slip through.
    """
    who = holders(question.session for question in questions)
    while True:
        made: dict[Hashable, Found | Exception] = {}
        replies: list[Reply[Found] | Exception] = []
        for question in questions:
            reader = who[question.session]
            if not reader.can(Right.READ):
                replies.append(Reply(reader, None))
                continue
            key = same(question, reader)
            if key not in made:
                try:
                    made[key] = read(question, reader)
                except Exception as error:  # what one page asks, such as an alert that no key can name, is its own
                    made[key] = error
            found = made[key]
            replies.append(found if isinstance(found, Exception) else Reply(reader, found))
        again = holders(question.session for question in questions)
        if all(_may(again[session]) == _may(reader) for session, reader in who.items()):
            return replies
        who = again


def _may(who: Principal) -> Hashable:
    return (who.id, who.rights, who.scope, who.roles, who.teams)
