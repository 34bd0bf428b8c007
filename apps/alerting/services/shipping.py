"""Writes the rules of fixtures/ through the ordinary verbs, each once; afterwards the admin is the truth."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from apps.accounts.permissions import Principal
from apps.alerting.models import AdaptiveBand, AlertRule, RecordingRule, RuleGroup
from apps.alerting.services.bands import save_band
from apps.alerting.services.rules import (
    DEFAULT_GROUP,
    duration,
    group_named,
    rule_from_dict,
    save_recording_rule,
    save_rule,
)


def natural_key(row: Mapping[str, Any]) -> str:
    """The key under which a shipped row is remembered: a rule's slug, a recording rule's or group's name."""
    return str(row.get("slug") or row["name"])


def ship_rule(row: Mapping[str, Any], *, by: Principal, now: datetime) -> AlertRule:
    """Write one row of fixtures/alert_rules.yaml, unless a person has made a rule of that slug."""
    known = AlertRule.objects.filter(slug=row["slug"]).first()
    if known is not None:
        return known
    group = _shipped_group(row, by, now)
    levels = [{"comparison": "", "threshold": None, **level} for level in row["levels"]]
    rule = rule_from_dict({name: value for name, value in row.items() if name != "tests"}, group=group)
    rule = save_rule(by=by, rule=rule, levels=levels, tests=row.get("tests"), now=now)
    if "band" in row:
        save_band(by=by, band=AdaptiveBand(slug=rule.slug, rule=rule, **row["band"]), now=now)
    return rule


def ship_recording_rule(row: Mapping[str, Any], *, by: Principal, now: datetime) -> RecordingRule:
    """Write one row of fixtures/recording_rules.yaml, unless a person has made a rule of that name."""
    known = RecordingRule.objects.filter(name=row["name"]).first()
    if known is not None:
        return known
    rule = RecordingRule(
        group=_shipped_group(row, by, now),
        name=row["name"],
        expression=row["expression"].strip(),
        labels=row.get("labels") or {},
    )
    return save_recording_rule(by=by, rule=rule, now=now)


def _shipped_group(row: Mapping[str, Any], by: Principal, now: datetime) -> RuleGroup:
    interval = duration(row["interval"], "interval") if "interval" in row else None
    return group_named(row.get("group") or DEFAULT_GROUP, interval, by=by, now=now)
