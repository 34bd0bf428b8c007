"""The verbs of alerting: the only writers of rules, alerts and incidents besides the evaluation itself."""

from apps.alerting.services.alerts import (
    acknowledge,
    expire,
    post_alert,
    resolve,
    unacknowledge,
)
from apps.alerting.services.bands import delete_band, make_adaptive, not_an_anomaly, save_band
from apps.alerting.services.changes import forget_changes, note_change
from apps.alerting.services.dependencies import delete_service, save_service
from apps.alerting.services.incidents import acknowledge_incident, merge_incidents, resolve_incident, split_incident
from apps.alerting.services.intake import Taken, settle_outside, shift_ends, take_in
from apps.alerting.services.rulefiles import export_rules, import_rules
from apps.alerting.services.rules import (
    apply_proposal,
    as_proposed,
    delete_group,
    delete_recording_rule,
    delete_rule,
    draft,
    duration,
    keep_rule,
    rule_from_condition,
    rule_from_dict,
    save_group,
    save_recording_rule,
    save_rule,
    write_rule,
)
from apps.alerting.services.ruletests import delete_rule_test, save_rule_test, shipped_tests_that_fail
from apps.alerting.services.shipping import natural_key, ship_recording_rule, ship_rule
from apps.alerting.services.silences import (
    end_resolved_silences,
    expire_silence,
    matchers_of,
    muted_alerts,
    silence,
)
from apps.alerting.services.windows import delete_inhibition, delete_window, save_inhibition, save_window

__all__ = [
    "Taken",
    "acknowledge",
    "acknowledge_incident",
    "apply_proposal",
    "as_proposed",
    "delete_band",
    "delete_group",
    "delete_inhibition",
    "delete_recording_rule",
    "delete_rule",
    "delete_rule_test",
    "delete_service",
    "delete_window",
    "draft",
    "duration",
    "end_resolved_silences",
    "expire",
    "expire_silence",
    "export_rules",
    "forget_changes",
    "import_rules",
    "keep_rule",
    "make_adaptive",
    "matchers_of",
    "merge_incidents",
    "muted_alerts",
    "natural_key",
    "not_an_anomaly",
    "note_change",
    "post_alert",
    "resolve",
    "resolve_incident",
    "rule_from_condition",
    "rule_from_dict",
    "save_band",
    "save_group",
    "save_inhibition",
    "save_recording_rule",
    "save_rule",
    "save_rule_test",
    "save_service",
    "save_window",
    "settle_outside",
    "shift_ends",
    "ship_recording_rule",
    "ship_rule",
    "shipped_tests_that_fail",
    "silence",
    "split_incident",
    "take_in",
    "unacknowledge",
    "write_rule",
]
