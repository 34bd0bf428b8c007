"""The verbs of alerting: the only writers of rules, alerts and incidents besides the evaluation itself."""

from apps.alerting.services.alerts import (
    acknowledge,
    acknowledge_incident,
    expire,
    post_alert,
    resolve,
    resolve_incident,
    unacknowledge,
)
from apps.alerting.services.rulefiles import export_rules, import_rules
from apps.alerting.services.rules import (
    delete_group,
    delete_recording_rule,
    delete_rule,
    draft,
    duration,
    natural_key,
    rule_from_condition,
    rule_from_dict,
    save_group,
    save_recording_rule,
    save_rule,
    ship_recording_rule,
    ship_rule,
    write_rule,
)
from apps.alerting.services.ruletests import delete_rule_test, save_rule_test

__all__ = [
    "acknowledge",
    "acknowledge_incident",
    "delete_group",
    "delete_recording_rule",
    "delete_rule",
    "delete_rule_test",
    "draft",
    "duration",
    "expire",
    "export_rules",
    "import_rules",
    "natural_key",
    "post_alert",
    "resolve",
    "resolve_incident",
    "rule_from_condition",
    "rule_from_dict",
    "save_group",
    "save_recording_rule",
    "save_rule",
    "save_rule_test",
    "ship_recording_rule",
    "ship_rule",
    "unacknowledge",
    "write_rule",
]
