"""Writes the rules of fixtures/ through the ordinary verbs, each once; afterwards the admin is the truth."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from apps.accounts.permissions import Principal
from apps.alerting.models import AdaptiveBand, AlertRule, RecordingRule, RuleGroup, RuleTest
from apps.alerting.services.bands import save_band
from apps.alerting.services.rules import (
    DEFAULT_GROUP,
    duration,
    group_named,
    rule_from_dict,
    save_recording_rule,
    save_rule,
)
from apps.alerting.services.ruletests import save_rule_test


def natural_key(row: Mapping[str, Any]) -> str:
    """The key under which a shipped row is remembered: a rule's slug, a recording rule's or group's name."""
    return str(row.get("slug") or row["name"])


def ship_rule(row: Mapping[str, Any], *, by: Principal, now: datetime) -> AlertRule:
    """Write one row of fixtures/alert_rules.yaml, unless a person has made a rule of that slug.

    Its unit tests were run when the release was made; a first start does not wait for them.
    """
    known = AlertRule.objects.filter(slug=row["slug"]).first()
    if known is not None:
        return known
    group = _shipped_group(row, by, now)
    levels = [{"comparison": "", "threshold": None, **level} for level in row["levels"]]
    rule = rule_from_dict({name: value for name, value in row.items() if name != "tests"}, group=group)
    rule = save_rule(by=by, rule=rule, levels=levels, tests=row.get("tests"), run_tests=False, now=now)
    rule.tests.update(is_shipped=True)
    if "band" in row:
        save_band(by=by, band=AdaptiveBand(slug=rule.slug, rule=rule, **row["band"]), now=now)
    return rule


def ship_recording_rule(row: Mapping[str, Any], *, by: Principal, now: datetime) -> RecordingRule:
    """Write one row of fixtures/recording_rules.yaml, unless a person has made a rule of that name.

    Its tests are its group's: only alert rules have tests of their own.
    """
    known = RecordingRule.objects.filter(name=row["name"]).first()
    if known is not None:
        return known
    group = _shipped_group(row, by, now)
    rule = RecordingRule(
        group=group,
        name=row["name"],
        expression=row["expression"].strip(),
        labels=row.get("labels") or {},
    )
    rule = save_recording_rule(by=by, rule=rule, run_tests=False, now=now)
    for test in row.get("tests", ()):
        if not group.tests.filter(name=test["name"]).exists():
            mine = RuleTest(group=group, name=test["name"], text=test["text"])
            save_rule_test(by=by, test=mine, run=False, now=now)
    group.tests.filter(name__in=[test["name"] for test in row.get("tests", ())]).update(is_shipped=True)
    return rule


def _shipped_group(row: Mapping[str, Any], by: Principal, now: datetime) -> RuleGroup:
    interval = duration(row["interval"], "interval") if "interval" in row else None
    return group_named(row.get("group") or DEFAULT_GROUP, interval, by=by, now=now)
