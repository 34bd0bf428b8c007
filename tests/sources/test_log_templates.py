"""Templates: alike messages share one, in whatever order they come, and there are never more than there may be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.sources.logs.templates import ANY, OTHER, Group, masked, tokens_of, widened

WORDS = st.sampled_from(["user", "login", "failed", "for", "order", "17", "a1b2c3d4e5", "10.0.0.7", "/var/log/x"])
MESSAGES = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
TOKENS = st.lists(st.sampled_from("abc"), min_size=3, max_size=3).map(tuple)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("took 12.5 ms, 99%", "took <num> ms, <num>%"), ("from 10.0.0.7:5432 to fe80:0:0:1", "from <ip> to <ip>"),
        ("id 0b4e9f39-3f7f-4b4e-9f39-3f7f0d1f2a3b", "id <uuid>"), ("sha deadbeef01 0xff", "sha <hex> <hex>"),
        ("open /var/lib/x.db: 'gone away'", "open <path>: <str>"), ("at 2026-11-01T12:00:00.5Z", "at <time>"),
        ("mail ada@example.org", "mail <email>"), ("see https://a.example/x?y=1", "see <url>"),
        ("worker-17 of db_main2", "<id> of <id>"), ("user's can't", "user's can't"), ("first\nsecond", "first <lines>"),
        ("utf8 über 5s", "<id> über <num>s"),
    ],
)  # fmt: skip
def test_values_are_replaced_by_what_they_are(text, shape):
    assert masked(text) == shape


def test_alike_messages_join_and_others_do_not():
    group = Group()
    for name in ("ada", "bob", "eve"):
        group.learn(f"user {name} logged in")
    group.learn("cache is away and nothing else")
    assert [one.pattern for one in group.templates] == [f"user {ANY} logged in", "cache is away and nothing else"]


def test_what_is_too_many_goes_under_one_template():
    group = Group(most=3)
    for number in range(10):
        group.learn(" ".join(["w" * (number + 1)] * (number + 2)))
    assert len(group.templates) == 4
    assert group.templates[-1].pattern == OTHER


@given(TOKENS, TOKENS, TOKENS)
def test_widening_is_the_same_in_any_order(one, two, three):
    assert widened(one, two) == widened(two, one)
    assert widened(one, one) == one
    assert widened(widened(one, two), three) == widened(one, widened(two, three))


@given(st.lists(MESSAGES, max_size=40))
@settings(max_examples=80)
def test_every_message_fits_its_template_and_the_same_order_gives_the_same(messages):
    group, again = Group(most=5), Group(most=5)
    found = [group.learn(text) for text in messages]
    for text in messages:
        again.learn(text)
    assert len(group.templates) <= 6
    assert [t.pattern for t in again.templates] == [t.pattern for t in group.templates]
    for text, template in zip(messages, found, strict=True):
        tokens = tokens_of(text)
        assert template.tokens == (OTHER,) or widened(template.tokens, tokens) == template.tokens


@given(st.lists(MESSAGES, max_size=20), MESSAGES)
@settings(max_examples=60)
def test_a_group_that_was_stored_goes_on_as_it_was(messages, next_one):
    group = Group()
    for text in messages:
        group.learn(text)
    again = Group.of((number, template.pattern) for number, template in enumerate(group.templates, start=1))
    assert again.learn(next_one).pattern == group.learn(next_one).pattern


@given(st.text(max_size=300))
def test_any_text_has_a_shape(text):
    assert tokens_of(text)
    assert len(tokens_of(text)) <= 40
