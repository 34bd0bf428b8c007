"""Relabelling: what Prometheus' relabel_configs do to a set of labels. Pure: rules and labels in, labels or None out.

Regular expressions are RE2 and match the whole value, as there. Rules are kept as they are written in a configuration
(a list of mappings); `parse` says what is wrong with them in the words of the field.

Source: prometheus.io/docs/prometheus/latest/configuration/configuration (relabel_config).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from apps.promql.errors import QueryError
from apps.promql.relabel import expand
from apps.promql.source import compiled
from apps.promql.text import IDENTIFIER, valid_name

ACTIONS: Final = (
    "replace", "keep", "drop", "keepequal", "dropequal", "hashmod", "labelmap", "labeldrop", "labelkeep", "lowercase",
    "uppercase",
)  # fmt: skip
FIELDS: Final = ("source_labels", "separator", "regex", "modulus", "target_label", "replacement", "action")
MOST_RULES: Final = 200
NEED_TARGET: Final = {"replace", "hashmod", "lowercase", "uppercase", "keepequal", "dropequal"}
_DEFAULTS: Final = {"separator": ";", "regex": "(.*)", "replacement": "$1"}
_ALLOWED: Final[Mapping[str, set[str]]] = {
    "labelmap": {"regex", "replacement"},
    "labeldrop": {"regex"},
    "labelkeep": {"regex"},
    "keepequal": {"source_labels", "target_label"},
    "dropequal": {"source_labels", "target_label"},
}
"""What may stand beside these actions; all else would be silently without effect."""


class BadRule(ValueError):
    """A rule that cannot be applied; the text names its place and what is wrong."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One relabel_config, with its defaults filled in."""

    action: str
    sources: tuple[str, ...] = ()
    separator: str = ";"
    regex: str = "(.*)"
    modulus: int = 0
    target: str = ""
    replacement: str = "$1"


def parse(configs: object) -> tuple[Rule, ...]:
    """Read a list of relabel_configs. Raises BadRule."""
    if configs in (None, ""):
        return ()
    if not isinstance(configs, list):
        raise BadRule("relabelling is a list of rules")
    if len(configs) > MOST_RULES:
        raise BadRule(f"there are {len(configs)} rules, more than {MOST_RULES}")
    rules = []
    for number, config in enumerate(configs, start=1):
        try:
            rules.append(_rule(config))
        except (BadRule, QueryError) as error:
            raise BadRule(f"rule {number}: {error}") from None
    return tuple(rules)


def _rule(config: object) -> Rule:
    if not isinstance(config, dict):
        raise BadRule("a rule is a mapping, such as {source_labels: [job], regex: web, action: keep}")
    if unknown := sorted(set(map(str, config)) - set(FIELDS)):
        raise BadRule(f"{unknown[0]} is no part of a rule; there are {', '.join(FIELDS)}")
    action = str(config.get("action", "replace")).lower()
    if action not in ACTIONS:
        raise BadRule(f"{action!r} is no action; there are {', '.join(ACTIONS)}")
    allowed = _ALLOWED.get(action)
    if allowed is not None and (extra := sorted(set(config) - allowed - {"action"} - _at_default(config))):
        raise BadRule(f"{extra[0]} has no meaning beside the action {action}")
    texts = {name: _text(config, name, default) for name, default in _DEFAULTS.items()}
    target = _text(config, "target_label", "")
    if action in NEED_TARGET and not target:
        raise BadRule(f"the action {action} needs a target_label")
    if target and action != "replace" and not valid_name(target):
        raise BadRule(f"{target!r} is no label name")
    compiled(texts["regex"])
    sources = config.get("source_labels") or []
    if not isinstance(sources, list) or not all(isinstance(name, str) and valid_name(name) for name in sources):
        raise BadRule("source_labels is a list of label names")
    modulus = config.get("modulus", 0)
    if action == "hashmod" and (not isinstance(modulus, int) or isinstance(modulus, bool) or modulus < 1):
        raise BadRule("the action hashmod needs a modulus of 1 or more")
    return Rule(
        action, tuple(sources), texts["separator"], texts["regex"], int(modulus or 0), target, texts["replacement"]
    )


def _at_default(config: Mapping[str, Any]) -> set[str]:
    return {name for name, default in _DEFAULTS.items() if config.get(name) == default}


def _text(config: Mapping[str, Any], name: str, default: str) -> str:
    value = config.get(name, default)
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        raise BadRule(f"{name} is a text")
    return str(value)


def relabel(rules: Sequence[Rule], labels: Mapping[str, str]) -> dict[str, str] | None:
    """Apply rules in turn; None where one of them drops the labels. Labels of empty value do not exist."""
    found = dict(labels)
    for rule in rules:
        if not _apply(rule, found):
            return None
    return {name: value for name, value in found.items() if value}


def _apply(rule: Rule, labels: dict[str, str]) -> bool:
    """Change labels by one rule; whether they stay."""
    value = rule.separator.join(labels.get(name, "") for name in rule.sources)
    match rule.action:
        case "keep":
            return compiled(rule.regex).fullmatch(value) is not None
        case "drop":
            return compiled(rule.regex).fullmatch(value) is None
        case "keepequal":
            return labels.get(rule.target, "") == value
        case "dropequal":
            return labels.get(rule.target, "") != value
        case "replace":
            _replace(rule, labels, value)
        case "lowercase":
            _set(labels, rule.target, value.lower())
        case "uppercase":
            _set(labels, rule.target, value.upper())
        case "hashmod":
            digest = hashlib.md5(value.encode(), usedforsecurity=False).digest()
            _set(labels, rule.target, str(int.from_bytes(digest[8:], "big") % rule.modulus))
        case "labelmap":
            _map(rule, labels)
        case _:
            _thin_out(rule, labels)
    return True


def _replace(rule: Rule, labels: dict[str, str], value: str) -> None:
    program = compiled(rule.regex)
    match = program.fullmatch(value)
    if match is None:
        return
    groups = (value, *(group or "" for group in match.groups()))
    target = expand(rule.target, groups, program.groupindex)
    if not valid_name(target) or ("$" in rule.target and not IDENTIFIER.match(target)):
        return
    _set(labels, target, expand(rule.replacement, groups, program.groupindex))


def _map(rule: Rule, labels: dict[str, str]) -> None:
    program = compiled(rule.regex)
    for name, value in list(labels.items()):
        if (match := program.fullmatch(name)) is not None:
            groups = (name, *(group or "" for group in match.groups()))
            if new := expand(rule.replacement, groups, program.groupindex):
                _set(labels, new, value)


def _thin_out(rule: Rule, labels: dict[str, str]) -> None:
    program = compiled(rule.regex)
    for name in list(labels):
        if (program.fullmatch(name) is not None) is (rule.action == "labeldrop"):
            del labels[name]


def _set(labels: dict[str, str], name: str, value: str) -> None:
    if value:
        labels[name] = value
    else:
        labels.pop(name, None)
