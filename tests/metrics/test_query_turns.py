"""Heavy queries take turns: first come, first served, and whoever cannot wait leaves."""

import threading
from collections.abc import Callable

import pytest

from apps.metrics.turns import Turns
from apps.promql.errors import Cancelled, DeadlineExceeded
from apps.promql.limits import Watch


def until(condition: Callable[[], bool]) -> None:
    patience = threading.Event()
    for _ in range(1000):
        if condition():
            return
        patience.wait(0.01)
    raise AssertionError("it did not come to pass within ten seconds")


def test_so_many_run_and_the_others_follow_in_the_order_in_which_they_came():
    turns = Turns(2)
    order: list[int] = []
    leave = [threading.Event() for _ in range(5)]

    def work(number: int) -> None:
        with turns.take(Watch(30)):
            order.append(number)
            leave[number].wait(20)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        until(lambda number=number: len(order) + turns.waiting == number + 1)  # type: ignore[misc]
    assert (sorted(order), turns.waiting) == ([0, 1], 3)
    for number in range(5):
        leave[number].set()
        until(lambda number=number: len(order) >= min(number + 3, 5))  # type: ignore[misc]
    for thread in threads:
        thread.join(20)
    assert order[2:] == [2, 3, 4]
    assert turns.waiting == 0


@pytest.mark.parametrize(
    ("watch", "error", "says"),
    [
        (Watch(0.05), DeadlineExceeded, "only 1 like it run at a time"),
        (Watch(None, lambda: True), Cancelled, "canceled"),
    ],
)
def test_who_waits_in_vain_leaves_and_blocks_nobody(watch, error, says):
    turns = Turns(1)
    watch.restart()
    with turns.take(Watch()):
        with pytest.raises(error, match=says), turns.take(watch):
            raise AssertionError("two had the only place")
        assert turns.waiting == 0
    with turns.take(Watch(5)):
        pass


def test_a_place_comes_back_whatever_happens():
    turns = Turns(1)
    with pytest.raises(ZeroDivisionError), turns.take(Watch()):
        raise ZeroDivisionError
    with turns.take(Watch(5)):
        pass
