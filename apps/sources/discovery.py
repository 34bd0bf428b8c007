"""From addresses to targets: discovered groups become labels, relabelling decides what is scraped where. Pure.

The labels that Prometheus sets before relabelling are set here, too: `__address__`, `__scheme__`, `__metrics_path__`,
`__param_…`, `__scrape_interval__`, `__scrape_timeout__`, `job`, and `__meta_…` of the discovery. After it, those that
begin with two underscores are gone, and `instance` is the address unless something set it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from apps.promql.lexer import parse_duration
from apps.promql.text import duration
from apps.sources.relabel import Rule, relabel

MOST_TARGETS: Final = 10_000
MOST_BYTES: Final = 10_000_000
"""Of a file or an answer that lists targets."""
MOST_LABELS: Final = 100


class BadGroups(ValueError):
    """Groups of targets that cannot be read; the text says what they should be, and quotes nothing of them."""


@dataclass(frozen=True)
class Group:
    """Addresses that share labels, and where they were found."""

    targets: tuple[str, ...]
    labels: Mapping[str, str]
    source: str


@dataclass(frozen=True)
class How:
    """What of a job's settings becomes labels of its targets."""

    job: str
    scheme: str
    path: str
    params: Mapping[str, Sequence[str]]
    interval: timedelta
    timeout: timedelta


@dataclass(frozen=True)
class Target:
    """An address after relabelling. `key` is its identity: the same labels and address are the same target."""

    key: str
    url: str
    labels: Mapping[str, str]
    discovered: Mapping[str, str]
    source: str
    interval: timedelta
    timeout: timedelta
    dropped: bool


def groups_of(listed: object, source: str, extra: Mapping[str, str] | None = None) -> list[Group]:
    """Read a list of groups, as static_configs and discovery have it. Raises BadGroups."""
    if not isinstance(listed, list):
        raise BadGroups("it should be a list of groups, each with targets and labels")
    groups = []
    for number, group in enumerate(listed, start=1):
        targets = group.get("targets") if isinstance(group, dict) else None
        labels = (group.get("labels") or {}) if isinstance(group, dict) else None
        if not isinstance(targets, list) or not all(isinstance(text, str) and text for text in targets):
            raise BadGroups(f"group {number} should have targets, a list of addresses")
        if not isinstance(labels, dict) or not all(isinstance(name, str) and name for name in labels):
            raise BadGroups(f"the labels of group {number} should be names with texts")
        if any(isinstance(value, (dict, list)) for value in labels.values()) or len(labels) > MOST_LABELS:
            raise BadGroups(f"the labels of group {number} should be at most {MOST_LABELS} names with texts")
        texts = {name: "" if value is None else str(value) for name, value in labels.items()}
        groups.append(Group(tuple(targets), {**texts, **(extra or {})}, source))
    if (count := sum(len(group.targets) for group in groups)) > MOST_TARGETS:
        raise BadGroups(f"it has {count} targets, more than {MOST_TARGETS}")
    return groups


def read_groups(text: bytes, source: str, extra: Mapping[str, str], *, is_yaml: bool = False) -> list[Group]:
    """Read groups from JSON or YAML. Raises BadGroups."""
    try:
        # A text with aliases may unfold to any size.
        listed = _PlainLoader(text.decode()).get_single_data() if is_yaml else json.loads(text)
    except (ValueError, yaml.YAMLError, RecursionError):
        raise BadGroups(f"it is no {'YAML' if is_yaml else 'JSON'}") from None
    return groups_of(listed if listed is not None else [], source, extra)


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read here")
        return super().compose_node(parent, index)


def targets_of(how: How, rules: Sequence[Rule], groups: Iterable[Group]) -> tuple[list[Target], list[str]]:
    """(targets, each once; what is wrong with addresses that can be none)."""
    found: dict[str, Target] = {}
    problems: list[str] = []
    for group in groups:
        for address in group.targets:
            if len(found) >= MOST_TARGETS:
                return list(found.values()), [*problems, f"Only the first {MOST_TARGETS} targets are taken."]
            try:
                target = _target(how, rules, group, address)
            except ValueError as error:
                problems.append(f"{address[:200]}: {error}")
            else:
                found.setdefault(target.key, target)
    return list(found.values()), problems


def _target(how: How, rules: Sequence[Rule], group: Group, address: str) -> Target:
    labels = {**group.labels, "__address__": address}
    defaults = {
        "job": how.job,
        "__scheme__": how.scheme,
        "__metrics_path__": how.path,
        "__scrape_interval__": duration(round(how.interval.total_seconds() * 1000)),
        "__scrape_timeout__": duration(round(how.timeout.total_seconds() * 1000)),
        **{f"__param_{name}": values[0] for name, values in how.params.items() if values},
    }
    for name, value in defaults.items():
        if not labels.get(name):
            labels[name] = value
    discovered = {name: value for name, value in labels.items() if value}
    after = relabel(rules, discovered)
    if after is None:
        key = _digest(["dropped", sorted(discovered.items())])
        return Target(key, "", {"job": how.job}, discovered, group.source, how.interval, how.timeout, dropped=True)
    url = _url(how, after)
    interval, timeout = _times(after)
    final = {name: value for name, value in after.items() if not name.startswith("__")}
    final.setdefault("instance", after["__address__"])
    key = _digest([url, sorted(final.items())])
    return Target(key, url, final, discovered, group.source, interval, timeout, dropped=False)


def _url(how: How, labels: Mapping[str, str]) -> str:
    address, scheme, path = labels.get("__address__", ""), labels.get("__scheme__", ""), labels.get("__metrics_path__")
    if not address:
        raise ValueError("it has no address left")
    if any(sign in address for sign in "/?#@ \t\r\n\\"):
        raise ValueError("an address is a host and a port, such as web-1:9100")
    if scheme not in ("http", "https"):
        raise ValueError(f"its scheme is {scheme!r}, not http or https")
    path = path or "/"
    params = {name: list(values) for name, values in how.params.items()}
    for name, value in labels.items():
        if name.startswith("__param_"):
            param = name.removeprefix("__param_")
            params[param] = [value, *params.get(param, [])[1:]]
    query = urlencode(sorted(params.items()), doseq=True)
    joint = "&" if "?" in path else "?"
    return f"{scheme}://{address}{'' if path.startswith('/') else '/'}{path}{joint + query if query else ''}"


def _times(labels: Mapping[str, str]) -> tuple[timedelta, timedelta]:
    interval, timeout = (
        timedelta(milliseconds=parse_duration(labels.get(name, "")))
        for name in ("__scrape_interval__", "__scrape_timeout__")
    )
    if not timedelta(seconds=1) <= interval <= timedelta(days=1):
        raise ValueError("its interval should be from 1 second to 1 day")
    if not timedelta(0) < timeout <= interval:
        raise ValueError("its time-out should be more than nothing and no longer than its interval")
    return interval, timeout


def _digest(parts: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
