"""Relabelling as Prometheus does it, action by action."""

import pytest

from apps.sources.relabel import BadRule, parse, relabel

A = {"a": "foo", "b": "bar", "c": "baz"}
TABLE = [
    ([{"source_labels": ["a"], "regex": "f(.*)", "target_label": "d", "replacement": "${1}-${1}"}], A | {"d": "oo-oo"}),
    (
        [{"source_labels": ["a", "b"], "regex": "f(.*);(.*)r", "target_label": "a", "replacement": "b${1}${2}m"}],
        A | {"a": "boobam"},
    ),
    ([{"source_labels": ["a"], "regex": "o", "action": "drop"}], A),
    ([{"source_labels": ["a"], "regex": ".*o.*", "action": "drop"}], None),
    ([{"source_labels": ["a"], "regex": "no", "action": "keep"}], None),
    ([{"source_labels": ["a"], "regex": "f.*", "action": "keep"}], A),
    ([{"source_labels": ["a"], "target_label": "d", "regex": "no-match"}], A),
    ([{"source_labels": ["c"], "target_label": "d", "action": "hashmod", "modulus": 1000}], A | {"d": "976"}),
    ([{"regex": "(b.*)", "replacement": "bar_${1}", "action": "labelmap"}], A | {"bar_b": "bar"}),
    ([{"regex": "(a|b)", "action": "labeldrop"}], {"c": "baz"}),
    ([{"regex": "(a|b)", "action": "labelkeep"}], {"a": "foo", "b": "bar"}),
    ([{"source_labels": ["a"], "target_label": "a", "action": "uppercase"}], A | {"a": "FOO"}),
    ([{"source_labels": ["a"], "target_label": "d", "action": "lowercase"}], A | {"d": "foo"}),
    ([{"source_labels": ["a"], "target_label": "b", "action": "keepequal"}], None),
    ([{"source_labels": ["a"], "target_label": "b", "action": "dropequal"}], A),
    ([{"source_labels": ["a"], "target_label": "a", "action": "dropequal"}], None),
    ([{"target_label": "a", "replacement": ""}], {"b": "bar", "c": "baz"}),
    ([{"target_label": "d", "replacement": "x", "source_labels": []}], A | {"d": "x"}),
    ([{"source_labels": ["a"], "regex": "(?P<n>f)oo", "target_label": "${n}x", "replacement": "$$"}], A | {"fx": "$"}),
    ([{"source_labels": ["a"], "regex": "some-([^-]+)", "target_label": "${3}", "replacement": "y"}], A),
    ([{"source_labels": ["a"], "regex": "(foo|x)", "target_label": "${1}-y", "replacement": "z"}], A),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "after"), TABLE)
def test_rules_by_table(rules, after):
    assert relabel(parse(rules), A) == after


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ({}, "a list of rules"),
        ([3], "rule 1: a rule is a mapping"),
        ([{"action": "explode"}], "'explode' is no action"),
        ([{"target": "x"}], "target is no part of a rule"),
        ([{"action": "replace"}], "needs a target_label"),
        ([{"regex": "(", "target_label": "a"}], "invalid regular expression"),
        ([{"action": "hashmod", "target_label": "a"}], "modulus of 1 or more"),
        ([{"action": "labeldrop", "regex": "a", "source_labels": ["b"]}], "source_labels has no meaning"),
        ([{"source_labels": "a", "target_label": "b"}], "a list of label names"),
        ([{}] * 300, "more than 200"),
    ],
)
def test_bad_rules_are_refused_with_their_place(rules, why):
    with pytest.raises(BadRule, match=why.replace("(", r"\(")):
        parse(rules)
