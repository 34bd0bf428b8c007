"""Rules and alerts in the admin: saved by the verb, refused at the field, acted on after a question."""

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from apps.accounts import services as accounts
from apps.accounts.models import AuditEntry, User
from apps.alerting.models import Alert, AlertRule, RecordingRule, RuleGroup
from tests.alerting.conftest import World


@pytest.fixture(autouse=True)
def plain_theme(settings: Any) -> None:
    """The theme's menu leads into other rooms."""
    settings.UNFOLD = {}


def browser(role: str) -> Client:
    accounts.create_roles()
    user = User.objects.create(username=role, is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    found = Client()
    found.force_login(user)
    return found


def form(group: RuleGroup, levels: list[tuple[str, str, str]], **values: str) -> dict[str, str]:
    sent = {
        "name": "Hot",
        "slug": "hot",
        "enabled": "on",
        "type": "system",
        "group": str(group.pk),
        "expression": "temperature",
        "pending_period": "1m30s",
        "keep_firing_for": "0",
        "cooldown": "300",
        "new_series_delay": "0",
        "no_data_policy": "ok",
        "error_policy": "keep",
        "missing_evaluations": "1",
        "labels": "{}",
        "annotations": "{}",
        "levels-TOTAL_FORMS": str(len(levels)),
        "levels-INITIAL_FORMS": "0",
        **values,
    }
    for number, (severity, comparison, threshold) in enumerate(levels):
        row = {"severity": severity, "comparison": comparison, "threshold": threshold}
        sent |= {f"levels-{number}-{name}": value for name, value in row.items()}
    # What other rooms add to the page stays empty.
    for prefix in ("target", "ruletarget", "tests"):
        sent = {f"{prefix}-TOTAL_FORMS": "0", f"{prefix}-INITIAL_FORMS": "0"} | sent
    return sent


NO_TESTS = {"tests-TOTAL_FORMS": "0", "tests-INITIAL_FORMS": "0"}


def test_a_rule_is_saved_with_its_levels_by_the_verb(world: World) -> None:
    editor = browser("editor")
    sent = form(world.group(), [("warning", ">", "80"), ("critical", ">", "90")])
    answer = editor.post(reverse("admin:alerting_alertrule_add"), sent)
    assert answer.status_code == 302, answer.context["errors"]
    rule = AlertRule.objects.get()
    assert [str(level) for level in rule.levels.all()] == ["warning > 80", "critical > 90"]
    assert rule.pending_period.total_seconds() == 90
    assert AuditEntry.objects.get(verb="alerting.save_rule").actor_name == "editor"
    page = editor.get(reverse("admin:alerting_alertrule_change", args=[rule.pk])).content.decode()
    assert "1m30s" in page


@pytest.mark.parametrize(
    ("values", "levels", "words"),
    [
        ({"expression": "sum(temperature"}, [("warning", ">", "80")], "1:16"),
        ({"annotations": '{"summary": "{{ $x }}"}'}, [("warning", ">", "80")], "undefined variable"),
        ({}, [], "At least one level"),
        ({}, [("warning", ">", "80"), ("warning", ">", "90")], "duplicate"),
        ({"pending_period": "soon"}, [("warning", ">", "80")], "no duration"),
    ],
)
def test_a_wrong_rule_is_refused_at_its_field(
    world: World, values: dict[str, str], levels: list[tuple[str, str, str]], words: str
) -> None:
    answer = browser("editor").post(reverse("admin:alerting_alertrule_add"), form(world.group(), levels, **values))
    assert answer.status_code == 200
    assert words in str(answer.context["errors"])
    assert not AlertRule.objects.exists()


def test_a_viewer_sees_rules_and_changes_nothing(world: World) -> None:
    rule = world.rule()
    viewer = browser("viewer")
    assert viewer.get(reverse("admin:alerting_alertrule_change", args=[rule.pk])).status_code == 200
    assert viewer.post(reverse("admin:alerting_alertrule_add"), {}).status_code == 403
    world.tick(95.0)
    path = reverse("admin:alerting_alert_changelist")
    viewer.post(path, {"action": "resolve", "_selected_action": [Alert.objects.get().pk], "confirmed": "yes"})
    assert Alert.objects.get().state == "firing"


def test_alerts_are_resolved_after_a_question(world: World) -> None:
    world.rule()
    world.tick(95.0)
    alert = Alert.objects.get()
    operator = browser("operator")
    path, sent = reverse("admin:alerting_alert_changelist"), {"action": "resolve", "_selected_action": [alert.pk]}
    question = operator.post(path, sent)
    assert "Resolve: 1 alert?" in question.content.decode()
    assert Alert.objects.get().state == "firing"
    operator.post(path, {**sent, "confirmed": "yes", "resolved_by": "Bob"})
    assert (Alert.objects.get().state, Alert.objects.get().resolved_by) == ("resolved", "Bob")


@pytest.mark.parametrize("model", ["alert", "incident"])
def test_one_is_acknowledged_from_its_page_after_a_question(world: World, model: str) -> None:
    world.rule()
    world.tick(95.0)
    alert = Alert.objects.get()
    thing = alert if model == "alert" else alert.incident
    assert thing is not None
    operator = browser("operator")
    page = operator.get(reverse(f"admin:alerting_{model}_change", args=[thing.pk]))
    path = reverse(f"admin:alerting_{model}_acknowledge_this", args=[thing.pk])
    assert path in page.content.decode()
    assert "Acknowledge this?" in operator.get(path).content.decode()
    assert Alert.objects.get().acknowledged_at is None
    operator.post(path, {"confirmed": "yes"})
    assert Alert.objects.get().acknowledged_by == "operator"


def test_groups_and_recording_rules_are_written_and_deleted_by_their_verbs(world: World) -> None:
    editor = browser("editor")
    editor.post(
        reverse("admin:alerting_rulegroup_add"), {"name": "web", "interval": "15s", "enabled": "on", **NO_TESTS}
    )
    group = RuleGroup.objects.get()
    sent = {"name": "a:b", "group": group.pk, "enabled": "on", "expression": "sum(", "labels": "{}"}
    refused = editor.post(reverse("admin:alerting_recordingrule_add"), sent)
    assert "1:5" in str(refused.context["errors"])
    editor.post(reverse("admin:alerting_recordingrule_add"), {**sent, "expression": "sum(up)"})
    rule = RecordingRule.objects.get()
    editor.post(reverse("admin:alerting_recordingrule_delete", args=[rule.pk]), {"post": "yes"})
    editor.post(reverse("admin:alerting_rulegroup_delete", args=[group.pk]), {"post": "yes"})
    assert not RuleGroup.objects.exists()
    verbs = set(
        AuditEntry.objects.filter(actor_name="editor", verb__startswith="alerting").values_list("verb", flat=True)
    )
    assert verbs == {
        "alerting.save_group",
        "alerting.save_recording_rule",
        "alerting.delete_recording_rule",
        "alerting.delete_group",
    }


@pytest.mark.parametrize("model", ["rulegroup", "alertrule", "recordingrule", "alert", "incident", "transition"])
def test_every_list_costs_the_same_however_long_it_is(
    world: World, model: str, django_assert_max_num_queries: Any
) -> None:
    viewer = browser("viewer")
    path = reverse(f"admin:alerting_{model}_changelist")

    def cost() -> int:
        with django_assert_max_num_queries(25) as context:
            assert viewer.get(path).status_code == 200
        return len(context)

    def grow(number: int) -> None:
        world.rule(f"hot-{number}", group=world.group(f"group-{number}"))
        world.record(f"hot:{number}", "temperature", group=world.group(f"group-{number}"))

    grow(0)
    world.tick(95.0)
    cost()
    first = cost()
    for number in range(1, 4):
        grow(number)
    world.tick(95.0)
    assert cost() <= first


def test_a_question_about_no_alert_is_404(world: World) -> None:
    assert browser("operator").get("/admin/alerting/alert/zz/resolve/").status_code == 404
