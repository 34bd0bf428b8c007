"""The order of a sender's series: what it tells of a request is what walking through it finds, whatever was sent."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.metrics import registry
from apps.metrics.protocols import order as module
from apps.metrics.protocols import remote_write
from apps.metrics.protocols.order import Order
from apps.metrics.protocols.protobuf import Malformed
from tests.metrics import remote_write as sender

NOW = 1_790_000_000_000


def one(number: int, ms: int = NOW, value: float = 1.5) -> bytes:
    return sender.series({"__name__": "up", "n": str(number)}, [(ms, value)])


def told(found: remote_write.Request) -> list[str]:
    some = found.samples
    return sorted(
        repr((some.labels_of(i), int(some.ts[i]), struct.pack("<d", some.v[i]), some.keys[i])) for i in range(len(some))
    )


def read(body: bytes, order: Order) -> list[str] | str:
    try:
        return told(remote_write.decode(body, order=order))
    except Malformed as error:
        return str(error)


def followed(body: bytes, order: Order) -> int:
    """How many series the order tells."""
    cut = remote_write._cut(body, order)
    return len(cut.keys) - len(cut.walked)


stamps = st.one_of(st.integers(NOW, NOW + 10**6), st.sampled_from([0, 5, 2**35, 2**42, 2**63 - 1, -1]))
numbers = st.sampled_from([0.0, -0.0, 1.0, 1e300, float("nan")])
parts = st.one_of(
    st.builds(one, st.integers(0, 12), stamps, numbers),
    st.builds(lambda n: sender.series({"n": str(n)}, [(NOW, 1.0), (NOW + 1, 2.0)]), st.integers(0, 3)),
    st.just(sender.metadata("up", 1, "Help.", "")),
    st.binary(max_size=12).map(lambda noise: sender.chunk(1, noise)),
    st.binary(max_size=4),
)


@given(st.lists(st.lists(parts, max_size=20), min_size=2, max_size=6))
def test_whatever_came_before_a_request_is_read_as_if_it_were_the_first(requests):
    order = Order()
    for request in requests:
        body = b"".join(request)
        assert read(body, order) == read(body, Order())


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.data())
def test_a_request_that_was_tampered_with_anywhere_is_read_as_if_it_were_the_first(which, data):
    order = Order()
    body = bytearray(b"".join(one(number) for number in which))
    read(bytes(body), order)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    assert read(bytes(body), order) == read(bytes(body), Order())


def test_requests_that_begin_and_end_anywhere_in_the_order_are_told_whole():
    order = Order()
    series = [one(number) for number in range(100)]
    read(b"".join(series), order)
    for begin, end in ((0, 100), (37, 61), (99, 100)):
        assert followed(b"".join(one(n, NOW + 15_000, 7.0) for n in range(begin, end)), order) == end - begin
    assert followed(b"".join(series[80:] + series[:20]), order) == 40


def test_a_new_series_and_one_that_became_zero_are_walked_and_the_rest_is_told():
    order = Order()
    read(b"".join(one(number) for number in range(100)), order)
    body = b"".join([one(n, value=0.0 if n == 50 else 2.0) for n in range(100)] + [one(1000)])
    assert followed(body, order) == 99
    read(body, order)
    assert followed(one(1000), order) == 1


def test_an_order_that_is_another_one_now_is_learned_anew():
    order = Order()
    numbers = np.arange(2_000)
    read(b"".join(map(one, numbers.tolist())), order)
    other = b"".join(map(one, np.random.default_rng(1).permutation(numbers).tolist()))
    for _ in range(2 * module.WORN):
        read(other, order)
    assert followed(other, order) == len(numbers)


@pytest.mark.parametrize(("most", "held"), [(0, 0), (1_000, 22)])
def test_what_is_beyond_its_size_is_not_remembered_and_read_all_the_same(most, held):
    order = Order(most)
    body = b"".join(one(number) for number in range(100))
    for _ in range(3):
        assert len(told(remote_write.decode(body, order=order))) == 100
    assert len(order) == held


def test_keys_that_stand_in_the_order_have_the_slots_that_they_have_by_themselves():
    order, known = Order(), registry.Registry()
    first = [one(number) for number in range(60)]
    for numbers in ([*range(40)], [*range(10, 40)], [*range(30, 60)], [*range(60)], [5, *range(20, 50), 3]):
        body = b"".join(first[number] for number in numbers)
        some = remote_write.decode(body, order=order).samples
        slots, refused = known.slots(some.keys, some.labels_of)
        plainly, _ = known.slots(list(some.keys), some.labels_of)
        assert (slots.tolist(), refused) == (plainly.tolist(), [])
    assert len(known) == 60


def test_an_order_that_is_begun_anew_tells_other_slots():
    known = registry.Registry()
    for numbers in (range(20), range(19, -1, -1)):
        order = Order()
        body = b"".join(one(number) for number in numbers)
        for _ in range(2):
            some = remote_write.decode(body, order=order).samples
            slots, _ = known.slots(some.keys, some.labels_of)
            assert slots.tolist() == list(numbers)
