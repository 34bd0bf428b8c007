"""Routes as an alertmanager.yml that a real Alertmanager (0.25 or later) loads: for amtool, and to move out. Pure.

Routes here are a list in order; there they are the children of the root. What the file cannot say stands in comments:
escalation policies, and contacts of a kind that Alertmanager has no receiver for.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import yaml

from apps.promql.source import Matcher
from apps.promql.text import duration

RESOLVE_TIMEOUT: Final = timedelta(minutes=5)
_PLAIN: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True)
class Receiver:
    """Who is told: `configs` by section ("webhook_configs": […]), and what there is no section for."""

    name: str
    configs: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Branch:
    """A route: where it leads, what it takes and its timers."""

    receiver: str
    matchers: Sequence[Matcher]
    group_by: Sequence[str]
    group_wait: timedelta
    group_interval: timedelta
    repeat_interval: timedelta
    goes_on: bool = False


def matcher_text(matcher: Matcher) -> str:
    """Return the matcher as the file has it; of escapes it knows three."""
    value = matcher.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{matcher.name}{matcher.op}"{value}"'


def render(
    root: Branch, branches: Sequence[Branch], receivers: Sequence[Receiver], inhibits: Sequence[Any] = ()
) -> str:
    """Return the file.

    Here a route with `continue` offers its alerts to the root, too; there the root takes only what no child took: then
    a last child stands for it.
    """
    children = [_branch(branch) for branch in branches]
    if any(branch.goes_on for branch in branches):
        children.append({"receiver": root.receiver})
    document: dict[str, Any] = {
        "global": {"resolve_timeout": _duration(RESOLVE_TIMEOUT)},
        "route": {**_branch(root), **({"routes": children} if children else {})},
        "receivers": [
            {"name": one.name, **{name: list(rows) for name, rows in one.configs.items()}} for one in receivers
        ],
    }
    if inhibits:
        document["inhibit_rules"] = list(inhibits)
    remarks = [f"# {one.name}: {' '.join(remark.split())}" for one in receivers for remark in one.remarks]
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    return "\n".join([*remarks, text]) if remarks else text


def _branch(branch: Branch) -> dict[str, Any]:
    found: dict[str, Any] = {"receiver": branch.receiver}
    if branch.matchers:
        found["matchers"] = [matcher_text(matcher) for matcher in branch.matchers]
    found["group_by"] = _group_by(branch.group_by)
    if branch.goes_on:
        found["continue"] = True
    found["group_wait"] = _duration(branch.group_wait)
    found["group_interval"] = _duration(branch.group_interval)
    found["repeat_interval"] = _duration(branch.repeat_interval)
    return found


def _group_by(names: Sequence[str]) -> list[str]:
    if "..." in names:
        return ["..."]
    return [name for name in dict.fromkeys(names) if _PLAIN.fullmatch(name)]


def _duration(span: timedelta) -> str:
    return duration(span // timedelta(milliseconds=1))


def inhibit_rule(source: Sequence[Matcher], target: Sequence[Matcher], equal: Sequence[str]) -> dict[str, Any]:
    """Return one entry of inhibit_rules."""
    return {
        "source_matchers": [matcher_text(matcher) for matcher in source],
        "target_matchers": [matcher_text(matcher) for matcher in target],
        "equal": list(equal),
    }
