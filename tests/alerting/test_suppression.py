"""What mutes whom: silences, windows, inhibition without muting itself, dependencies however deep. Pure."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.alerting.matching import MatcherError, from_json, parse_matcher, parse_matchers, spelled, to_json
from apps.alerting.suppression import Inhibition, Quiet, Subject, Suppressor
from apps.alerting.topology import behind, circle
from apps.promql.source import Matcher

AT = datetime(2026, 11, 29, tzinfo=UTC)
CRITICAL = 3


def subject(number: int, service: str = "", rank: int = 1, **labels: str) -> Subject:
    return Subject(number, {"service": service, **labels} if service else labels, service, rank)


def quiet(matchers: str, ident: str = "s", hours: int = 1, **fields: object) -> Quiet:
    return Quiet(ident, f"silence {ident}", parse_matchers(matchers), AT + timedelta(hours=hours), **fields)  # type: ignore[arg-type]


def rule(source: str, target: str, *equal: str) -> Inhibition:
    return Inhibition(1, "rule", parse_matchers(source), parse_matchers(target), equal)


# --- Silences and windows --------------------------------------------------------------------------------------------
def test_a_silence_mutes_what_all_its_matchers_accept():
    ask = Suppressor([quiet('service="db", instance!="b"')])
    assert ask.verdict(subject(1, "db", instance="a")).silenced_by == ("s",)
    assert not ask.verdict(subject(2, "db", instance="b")).is_muted
    assert not ask.verdict(subject(3, "web", instance="a")).is_muted


def test_of_several_silences_the_last_to_end_says_until_when():
    ask = Suppressor([quiet('a="1"', "one", 1), quiet('a=~"1|2"', "two", 5), quiet('a="3"', "three", 9)])
    verdict = ask.verdict(subject(1, a="1"))
    assert (set(verdict.silenced_by), verdict.until) == ({"one", "two"}, AT + timedelta(hours=5))


def test_an_absent_label_is_an_empty_one():
    assert Suppressor([quiet('a="", b="x"')]).verdict(subject(1, b="x")).is_muted


def test_a_window_of_a_service_mutes_what_depends_on_it_too():
    window = quiet('service="db"', "work", is_window=True, service="db")
    ask = Suppressor([window], depends_on={"web": {"api"}, "api": {"db"}})
    assert ask.verdict(subject(1, "db")).muted_by == ("work",)
    verdict = ask.verdict(subject(2, "web"))
    assert (verdict.muted_by, verdict.reason) == (("work",), "web depends on db, which is being worked on")
    assert verdict.until == AT + timedelta(hours=1)


# --- Inhibition ------------------------------------------------------------------------------------------------------
def test_a_source_mutes_targets_that_agree_in_the_equal_labels():
    ask = Suppressor(
        inhibitions=[rule('severity="critical"', 'severity="warning"', "instance")],
        sources=[subject(1, severity="critical", instance="a")],
    )
    muted = ask.verdict(subject(2, severity="warning", instance="a"))
    assert (muted.inhibited_by, muted.until, muted.reason) == ((1,), None, "inhibited by “rule”")
    assert not ask.verdict(subject(3, severity="warning", instance="b")).is_muted
    assert not ask.verdict(subject(1, severity="critical", instance="a")).is_muted


def test_what_is_source_and_target_at_once_does_not_mute_itself_nor_its_like():
    both = [subject(1, a="x"), subject(2, a="x")]
    ask = Suppressor(inhibitions=[rule('a="x"', 'a=~".+"')], sources=both)
    assert not any(ask.verdict(one).is_muted for one in both)
    assert ask.verdict(subject(3, a="y")).inhibited_by == (1,)


def test_what_is_both_is_muted_by_what_is_source_alone():
    alone = subject(2, a="x")
    ask = Suppressor(inhibitions=[rule('a="x"', 'b="y"')], sources=[subject(1, a="x", b="y"), alone])
    assert ask.verdict(subject(1, a="x", b="y")).inhibited_by == (2,)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("xyz")), min_size=1, max_size=8), st.booleans())
def test_inhibition_never_mutes_all_that_fire(pairs, equal):
    """Somebody is always left who explains the rest."""
    subjects = [subject(n, a=a, b=b) for n, (a, b) in enumerate(pairs)]
    ask = Suppressor(inhibitions=[rule('a="x"', 'b=~"x|y"', *(["b"] if equal else []))], sources=subjects)
    verdicts = [ask.verdict(one) for one in subjects]
    assert not all(verdict.is_muted for verdict in verdicts)
    assert all(one.id not in verdict.inhibited_by for one, verdict in zip(subjects, verdicts, strict=True))


# --- Dependencies ----------------------------------------------------------------------------------------------------
GRAPH = {"web": {"api"}, "api": {"db", "cache"}}


def asked(*sources: Subject) -> Suppressor:
    return Suppressor(sources=sources, depends_on=GRAPH, fails_at={"db": CRITICAL, "cache": CRITICAL, "api": CRITICAL})


def test_a_failure_mutes_whatever_depends_on_it_however_many_steps_away():
    ask = asked(subject(1, "db", CRITICAL))
    assert ask.verdict(subject(2, "web", CRITICAL)).reason == "web depends on db, which has failed"
    assert ask.verdict(subject(3, "api")).inhibited_by == (1,)
    assert not ask.verdict(subject(1, "db", CRITICAL)).is_muted
    assert not ask.verdict(subject(4, "cache")).is_muted
    assert not ask.verdict(subject(5, "mail")).is_muted


def test_a_warning_is_no_failure_and_the_nearest_failure_is_named():
    assert not asked(subject(1, "db")).verdict(subject(2, "web")).is_muted
    near = asked(subject(1, "db", CRITICAL), subject(2, "api", CRITICAL))
    assert near.verdict(subject(3, "web")).inhibited_by == (2,)


def test_the_end_of_a_source_or_of_something_depended_on_may_let_others_be_heard():
    ask = Suppressor(inhibitions=[rule('a="x"', 'b="y"')], depends_on=GRAPH)
    assert [ask.could_mute_others(one) for one in (subject(1, a="x"), subject(2, "db"), subject(3, "web"))] == [
        True,
        True,
        False,
    ]


def test_what_stands_behind_a_service_comes_nearest_first_and_once():
    assert behind({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}, "a") == {"b": 1, "c": 1, "d": 2}
    assert behind({"a": {"b"}, "b": {"a"}}, "a") == {"b": 1}


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}}, []),
        ({"a": {"a"}}, ["a", "a"]),
        ({"x": {"a"}, "a": {"b"}, "b": {"a"}}, ["a", "b", "a"]),
    ],
)
def test_circles_are_found(graph, found):
    assert circle(graph) == found


def test_a_chain_of_thousands_is_no_recursion():
    chain = {f"{n:05}": {f"{n + 1:05}"} for n in range(5000)}
    assert circle(chain) == []
    assert circle(chain | {"05000": {"00000"}})[:2] == ["00000", "00001"]


@given(st.dictionaries(st.integers(0, 7), st.sets(st.integers(0, 7), max_size=3), max_size=8))
def test_a_graph_has_a_circle_exactly_when_something_stands_behind_itself(edges):
    graph = {str(name): {str(parent) for parent in parents} for name, parents in edges.items()}
    itself = any(name in {q for p in graph[name] for q in (p, *behind(graph, p))} for name in graph)
    assert bool(circle(graph)) is itself


# --- Matchers --------------------------------------------------------------------------------------------------------
@given(
    st.lists(
        st.builds(
            Matcher,
            st.sampled_from(["service", "a_b", "_x"]),
            st.sampled_from(["=", "!=", "=~", "!~"]),
            st.text('ab"\\,\n}{= |', max_size=8).map(lambda text: text.replace("{", "").replace("\\", "")),
        ),
        max_size=4,
    )
)
def test_matchers_survive_their_spelling_and_their_json(matchers):
    assert from_json(to_json(matchers)) == tuple(matchers)
    assert parse_matchers("{" + spelled(matchers) + "}") == tuple(matchers)


def test_a_matcher_without_is_equal_is_an_equality_as_in_alertmanager():
    assert from_json([{"name": "a", "value": "b", "isRegex": False}]) == (Matcher("a", "=", "b"),)
    assert parse_matchers("service=db, severity=~error|critical\nteam!=web")[1] == Matcher(
        "severity", "=~", "error|critical"
    )
    assert parse_matcher('a="b,c"') == Matcher("a", "=", "b,c")


@pytest.mark.parametrize(
    "rows", ["a=b", [["a", "b"]], [{"name": 1, "value": "x"}], [{"value": "x"}], ["a=b"] * 51, [None]]
)
def test_what_is_no_list_of_matchers_is_refused(rows):
    with pytest.raises(MatcherError):
        from_json(rows)
