"""Whatever a target shows, in whatever order, what is stored is what it shows, and what vanished ends exactly once."""

import math

from hypothesis import given
from hypothesis import strategies as st

from apps.metrics.protocols.exposition import Format
from apps.metrics.registry import Registry
from apps.sources.lineup import REPORTS, Lineup, Round, Settings
from apps.sources.relabel import parse

RULES = parse([{"source_labels": ["x"], "regex": "drop", "action": "drop"}, {"regex": "y", "action": "labeldrop"}])
LONG = 'f{l="' + "v" * 2000 + '"}'
LINES = ["a", 'a{x="1"}', 'a{y="1"}', "b", 'b{x="drop"}', 'c{x="2",y="3"}', "d ", 'e{x="é"}', "no line", LONG]
"""`a` and `a{y="1"}` are the same series once relabelled; the last two are refused."""
KEPT = {0: "a{}", 1: "a{x=1}", 2: "a{}", 3: "b{}", 5: "c{x=2}", 6: "d{}", 7: "e{x=é}"}
bodies = st.lists(st.sampled_from(range(len(LINES))), max_size=12)


def stored(done: Round) -> dict[str, float]:
    found = {}
    for slot, value in zip(done.slots.tolist(), done.v.tolist(), strict=True):
        labels = done.registry.labels(slot)
        name = labels.pop("__name__")
        del labels["job"]
        text = ",".join(f"{key}={text}" for key, text in sorted(labels.items()))
        assert f"{name}{{{text}}}" not in found, "a series is stored once"
        found[f"{name}{{{text}}}"] = value
    return found


@given(st.lists(st.none() | bodies, max_size=8))
def test_a_line_up_agrees_with_a_naive_one(shown):
    lineup = Lineup(Settings({"job": "j"}, RULES), Registry())
    before: set[str] = set()
    for number, lines in enumerate(shown):
        value = float(number)
        if lines is None:
            done = lineup.fail("It hangs.", 1000 * number, 0.1)
            now: set[str] = set()
        else:
            body = "".join(f"{LINES[one]} {value}\n" for one in lines)
            done = lineup.read(body.encode(), Format.TEXT, 1000 * number, 0.1)
            now = {KEPT[one] for one in lines if one in KEPT}
        found = stored(done)
        reports = {name: found.pop(f"{name}{{}}") for name in REPORTS}
        assert {name for name, v in found.items() if not math.isnan(v)} == now
        assert {name for name, v in found.items() if math.isnan(v)} == before - now
        assert all(v == value for v in found.values() if not math.isnan(v))
        assert reports["up"] == (lines is not None)
        assert reports["scrape_series_added"] == len(now - before) == done.added
        assert reports["scrape_samples_post_metric_relabeling"] == len(now)
        if lines is not None:
            twice = len([one for one in lines if one in KEPT]) - len(now)
            assert done.refused["duplicate_series"] == twice
            assert sum(done.refused.values()) == twice + lines.count(8) + lines.count(9)
        lineup.stored(done)
        before = now
    assert {name for name in stored(lineup.end(10**6)) if name.removesuffix("{}") not in REPORTS} == before


@given(bodies)
def test_a_round_that_was_not_stored_is_compared_again(lines):
    lineup = Lineup(Settings({"job": "j"}, RULES), Registry())
    lineup.stored(lineup.read(b"z 1\n", Format.TEXT, 0, 0.1))
    body = "".join(f"{LINES[one]} 1\n" for one in lines).encode()
    first, again = (stored(lineup.read(body, Format.TEXT, 1000, 0.1)) for _ in range(2))
    assert first.keys() == again.keys()
    assert math.isnan(again["z{}"])
