"""The first page of the admin names what somebody should see to, to those who may, and as cheaply for much."""

from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.accounts.models import Token
from apps.accounts.permissions import Principal
from apps.accounts.rights import ALL_RIGHTS, ROLES
from apps.alerting.models import AlertRule, GroupRun, RuleGroup
from apps.core.models import Shipped
from apps.dashboards import snapshots
from apps.dashboards.todos import todos
from apps.metrics.models import Tombstone
from apps.notifications.models import Contact, Delivery, MessageTemplate
from apps.oncall.models import CoverageFinding
from apps.sources.models import Check, LogDeletion, ScrapeJob
from tests.house.rows import make, many

pytestmark = pytest.mark.django_db
ROOT = Principal("user", "1", "root", ALL_RIGHTS)
VIEWER = Principal("user", "2", "vic", ROLES["viewer"])
NOW = timezone.now()


def trouble() -> None:
    """Something of everything that somebody should see to."""
    soon = NOW + timedelta(days=3)
    many("notifications.delivery", 3)
    Delivery.objects.update(state="failed", error="refused", finished_at=NOW)
    many("accounts.token", 3)
    Token.objects.update(expires_at=soon, revoked_at=None)
    many("sources.check", 3)
    Check.objects.update(certificate={"not_after": soon.isoformat()}, enabled=True)
    many("sources.scrapejob", 3)
    ScrapeJob.objects.update(problem="no such file", enabled=True)
    many("notifications.messagetemplate", 3)
    first = MessageTemplate.objects.order_by("pk").values("pk")[:1]  # one for each place can be on
    MessageTemplate.objects.filter(pk__in=first).update(problem="no such name", problem_at=NOW, enabled=True)
    many("metrics.tombstone", 3)
    Tombstone.objects.update(created_at=NOW - timedelta(days=3), applied_at=None)
    many("sources.logdeletion", 3)
    LogDeletion.objects.update(created_at=NOW - timedelta(days=3), applied_at=None)
    many("oncall.coveragefinding", 3)
    rules = [make("alerting.rulelevel", comparison=">", threshold=5.0).rule for _ in range(3)]
    AlertRule.objects.update(enabled=True, runbook="", review_on=NOW.date())
    RuleGroup.objects.update(enabled=True)
    for number, rule in enumerate(rules):
        lines = {"error": "no such function"} if number == 0 else {"series": number - 1}
        GroupRun.objects.create(group=rule.group, due_at=NOW, results={"rules": {str(rule.pk): lines}})
    AccessAttempt.objects.get_or_create(username="mallory", ip_address="192.0.2.1", failures_since_start=99)


def asked(who: Principal) -> list[str]:
    reach, active = snapshots.reach(), snapshots.alerts(scope=who.scope)
    return [row["text"] for row in todos(who, active, reach, now=NOW)]


def test_each_trouble_is_a_sentence_with_the_page_where_it_is_mended():
    trouble()
    found = "\n".join(asked(ROOT))
    for words in (
        "3 messages of the last day failed for good", "mallory", "3 tokens expire within 14 days",
        "3 certificates end within 14 days", "cannot be found: no such file", "could not be used: no such name",
        "3 deletions of series are not out", "3 deletions of log records are not done",
        "1 rule could not be evaluated", "1 rule of your own finds no series",
        "3 rules have no runbook", "3 rules are due to be reviewed",
    ):  # fmt: skip
        assert words in found


def test_who_may_not_administer_is_not_told_of_tokens_and_of_who_is_locked_out():
    trouble()
    found = "\n".join(asked(VIEWER))
    assert "mallory" not in found
    assert "token" not in found


def test_what_is_left_to_do_costs_as_many_queries_for_many_troubles_as_for_few():
    counts = []
    for _ in range(2):
        trouble()
        with CaptureQueriesContext(connection) as queries:
            asked(ROOT)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_where_nothing_is_wrong_there_is_nothing_to_do_but_to_name_a_contact():
    texts = asked(ROOT)
    assert len(texts) <= 1
    assert not Contact.objects.exists()
    assert not CoverageFinding.objects.exists()


def test_defaults_that_a_release_ships_otherwise_are_named_to_administrators():
    Shipped.objects.create(model="metrics.QueryBudget", key="viewer", row={"role": "viewer"}, shipped_at=NOW)
    assert any("1 shipped default has changed" in text for text in asked(ROOT))
    assert not any("shipped default" in text for text in asked(VIEWER))
