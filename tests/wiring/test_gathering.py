"""Rounds of requests: who is served together, and who waits for whom."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from monitoring_portal import gathering as module
from monitoring_portal.gathering import Gathering


class Served:
    """Remembers the rounds; the first one may be held up."""

    def __init__(self):
        self.rounds = []
        self.began, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self, asked):
        self.rounds.append(list(asked))
        self.began.set()
        self.go_on.wait(10)
        if "bad" in asked:
            raise ZeroDivisionError
        return [one.upper() for one in asked]


@pytest.fixture
def served():
    return Served()


@pytest.fixture
def gathering(served, monkeypatch):
    monkeypatch.setattr(module, "SLOW", 1_000.0)  # a busy machine is no round that takes long
    with ThreadPoolExecutor(4) as pool:
        yield Gathering(pool, served, rounds=2)


async def first_held_up(gathering, served, *others):
    """Ask `a`, and the others while it is served; return all answers."""
    served.go_on.clear()
    tasks = [asyncio.create_task(gathering.ask("a", 1))]
    await asyncio.to_thread(served.began.wait, 10)
    tasks += [asyncio.create_task(gathering.ask(one, 1)) for one in others]
    await asyncio.sleep(0)
    served.go_on.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_who_comes_while_a_round_is_served_is_served_together_in_the_next(gathering, served):
    assert asyncio.run(first_held_up(gathering, served, "b", "c", "d")) == ["A", "B", "C", "D"]
    assert served.rounds == [["a"], ["b", "c", "d"]]


def test_who_asks_alone_does_not_wait(gathering, served, monkeypatch):
    monkeypatch.setattr(module, "MOMENT", 1_000.0)

    async def ask():
        return [await gathering.ask(one, 1) for one in "abc"]

    assert asyncio.run(ask()) == ["A", "B", "C"]


def test_a_round_waits_for_as_many_as_came_to_the_last_one(gathering, served, monkeypatch):
    async def ask():
        await first_held_up(gathering, served, "b", "c")
        monkeypatch.setattr(module, "MOMENT", 1_000.0)
        early = asyncio.create_task(gathering.ask("d", 1))
        await asyncio.sleep(0.02)
        return await asyncio.gather(early, gathering.ask("e", 1))

    assert asyncio.run(ask()) == ["D", "E"]
    assert served.rounds[-1] == ["d", "e"]


def test_it_does_not_wait_longer_than_a_moment(gathering, served):
    async def ask():
        await first_held_up(gathering, served, "b", "c")
        return await asyncio.wait_for(gathering.ask("d", 1), 5)

    assert asyncio.run(ask()) == "D"
    assert served.rounds[-1] == ["d"]


def test_a_round_that_takes_long_holds_up_nobody(gathering, served, monkeypatch):
    monkeypatch.setattr(module, "SLOW", 0.001)

    async def ask():
        served.go_on.clear()
        slow = asyncio.create_task(gathering.ask("slow", 1))
        await asyncio.to_thread(served.began.wait, 10)
        served.began.clear()
        quick = asyncio.create_task(gathering.ask("quick", 1))
        await asyncio.to_thread(served.began.wait, 10)
        begun = list(served.rounds)
        served.go_on.set()
        await asyncio.gather(slow, quick)
        return begun

    assert asyncio.run(ask()) == [["slow"], ["quick"]]


def test_a_round_takes_so_many_bytes_and_leaves_the_rest_to_the_next(gathering, served, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 2)
    assert asyncio.run(first_held_up(gathering, served, "b", "c", "d")) == ["A", "B", "C", "D"]
    assert served.rounds == [["a"], ["b", "c"], ["d"]]


def test_what_fails_a_round_is_told_to_all_of_it_and_the_next_one_is_served(gathering, served):
    answers = asyncio.run(first_held_up(gathering, served, "b", "bad"))
    assert answers[0] == "A"
    assert [type(answer) for answer in answers[1:]] == [ZeroDivisionError] * 2
    assert asyncio.run(gathering.ask("e", 1)) == "E"


def test_who_does_not_wait_any_more_spoils_nothing(gathering, served):
    async def ask():
        served.go_on.clear()
        left = asyncio.create_task(gathering.ask("a", 1))
        await asyncio.to_thread(served.began.wait, 10)
        left.cancel()
        served.go_on.set()
        return await gathering.ask("b", 1)

    assert asyncio.run(ask()) == "B"
