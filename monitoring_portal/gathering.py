"""Requests that wait at the same time are served in one go; knows threads and turns, not what is served.

Each round is one hop to a thread, which serves what waits one after the other. While a round runs others gather for
the next one. Where several came together the last time, a round waits for as many again, a moment at most: senders
that were answered together ask again together. One that asks alone never waits.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Final, Generic, TypeVar

MOMENT: Final = 0.001
"""Seconds that a round waits for those who came to the last one."""
SLOW: Final = 0.05
"""Seconds after which a round holds up nobody else: another one may begin beside it."""
MOST_BYTES: Final = 1_000_000
"""A round takes no more once it has so many."""

Asked = TypeVar("Asked")
Said = TypeVar("Said")


class Gathering(Generic[Asked, Said]):
    """Rounds of requests. Everything here happens on the event loop, but for `serve`, which answers all of a round."""

    def __init__(self, pool: Executor, serve: Callable[[Sequence[Asked]], Sequence[Said]], *, rounds: int) -> None:
        """At most `rounds` rounds at once: one, and those that take long."""
        self._pool = pool
        self._serve = serve
        self._rounds = rounds
        self._waiting: list[tuple[Asked, int, asyncio.Future[Said]]] = []
        self._running = 0
        self._slow = 0
        self._expected = 1
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, asked: Asked, size: int) -> Said:
        """Have a request of `size` bytes served in the next round. Raises what `serve` raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Said] = loop.create_future()
        self._waiting.append((asked, size, answer))
        self._look(loop)
        return await answer

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a round if one may begin and there is nothing to wait for."""
        if not self._waiting or self._running > self._slow or self._running >= self._rounds:
            return
        if len(self._waiting) >= self._expected:
            self._begin(loop)
        elif self._timer is None:
            self._timer = loop.call_later(MOMENT, self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        size = count = 0
        while count < len(self._waiting) and size < MOST_BYTES:
            size += self._waiting[count][1]
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        if not taken:
            return
        self._running += 1
        one = _Round(self, [answer for _, _, answer in taken], loop)
        future = self._pool.submit(self._serve, [asked for asked, _, _ in taken])
        future.add_done_callback(one.tell)

    def round_is_slow(self) -> None:
        """Let another round begin."""
        self._slow += 1
        self._look(asyncio.get_running_loop())

    def round_ended(self, count: int, slow: bool) -> None:
        """Count who may come to the next round, and begin it."""
        self._running -= 1
        self._slow -= slow
        self._expected = max(1, count + len(self._waiting))
        self._look(asyncio.get_running_loop())


class _Round(Generic[Said]):
    """One round: whom to answer, and whether it takes long."""

    def __init__(
        self,
        gathering: "Gathering[Asked, Said]",
        answers: Sequence["asyncio.Future[Said]"],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._gathering = gathering
        self._answers = answers
        self._loop = loop
        self._slow = False
        self._watch = loop.call_later(SLOW, self._is_slow)

    def _is_slow(self) -> None:
        self._slow = True
        self._gathering.round_is_slow()

    def tell(self, served: "Future[Sequence[Said]]") -> None:
        """Called in the thread that served."""
        self._loop.call_soon_threadsafe(self._tell, served)

    def _tell(self, served: "Future[Sequence[Said]]") -> None:
        self._watch.cancel()
        error = served.exception()
        for number, answer in enumerate(self._answers):
            if answer.done():  # its client left
                continue
            if error is None:
                answer.set_result(served.result()[number])
            else:
                answer.set_exception(error)
        self._gathering.round_ended(len(self._answers), self._slow)
