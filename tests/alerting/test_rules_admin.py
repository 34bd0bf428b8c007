"""Rule files and unit tests in the admin: a preview before anything is written, and a test that fails refuses."""

from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from apps.accounts.models import AuditEntry
from apps.alerting.models import AlertRule, RecordingRule, RuleTest
from tests.alerting.conftest import World
from tests.alerting.test_admin import NO_TESTS, browser, form, plain_theme  # noqa: F401 - a fixture
from tests.alerting.test_rulefiles_stored import FILE
from tests.alerting.test_rules_command import HOT_TEST


def with_test(text: str) -> dict[str, str]:
    return {
        "pending_period": "0",
        "tests-TOTAL_FORMS": "1",
        "tests-INITIAL_FORMS": "0",
        "tests-0-name": "Hot days",
        "tests-0-text": text,
    }


def test_a_rule_whose_test_fails_is_not_saved(world: World) -> None:
    editor, add = browser("editor"), reverse("admin:alerting_alertrule_add")
    levels = [("warning", ">", "85"), ("critical", ">", "90")]
    refused = editor.post(add, form(world.group(), levels, **with_test(HOT_TEST)))
    assert refused.status_code == 200
    assert 'labels {alertname="Hot", host="a", severity="warning"}' in str(refused.context["errors"].as_data())
    assert "<script" not in str(refused.context["errors"])
    assert not AlertRule.objects.exists()
    assert not RuleTest.objects.exists()
    editor.post(add, form(world.group(), [("warning", ">", "80"), levels[1]], **with_test(HOT_TEST)))
    assert AlertRule.objects.get().tests.get().text == HOT_TEST.strip()


def test_it_is_saved_all_the_same_where_somebody_says_so_and_the_audit_tells(world: World) -> None:
    sent = form(world.group(), [("warning", ">", "85")], although_tests_fail="on", **with_test(HOT_TEST))
    browser("editor").post(reverse("admin:alerting_alertrule_add"), sent)
    assert AlertRule.objects.get().tests.count() == 1
    entry = AuditEntry.objects.get(verb="alerting.save_rule")
    assert entry.after is not None
    assert entry.after["saved_although_failed"] == ["Hot days"]


def test_a_recording_rule_cannot_break_the_test_of_an_alert(world: World) -> None:
    record = world.record("temperature:max", "max by (host) (temperature)")
    rule = world.rule(expression="temperature:max")
    editor = browser("editor")
    page = reverse("admin:alerting_alertrule_change", args=[rule.pk])
    sent = form(world.group(), [("warning", ">", "80"), ("critical", ">", "90")], expression="temperature:max")
    for number, level in enumerate(rule.levels.all()):
        sent |= {f"levels-{number}-id": str(level.pk), f"levels-{number}-rule": str(rule.pk)}
    answer = editor.post(page, sent | {"levels-INITIAL_FORMS": "2"} | with_test(HOT_TEST))
    assert answer.status_code == 302, answer.context["errors"]
    sent = {"name": record.name, "group": str(record.group_id), "enabled": "on", "labels": "{}"}
    path = reverse("admin:alerting_recordingrule_change", args=[record.pk])
    refused = editor.post(path, sent | {"expression": "min by (rack) (temperature)"})
    assert "Hot days" in str(refused.context["errors"])
    assert RecordingRule.objects.get().expression == "max by (host) (temperature)"
    assert editor.post(path, sent | {"expression": "avg by (host) (temperature)"}).status_code == 302


def test_a_group_has_tests_of_its_own(world: World) -> None:
    world.rule()
    group = world.group()
    editor, path = browser("editor"), reverse("admin:alerting_rulegroup_change", args=[group.pk])
    sent = {"name": group.name, "interval": "10s", "enabled": "on"}
    refused = editor.post(path, sent | with_test(HOT_TEST.replace("85", "75")))
    assert "Hot days" in str(refused.context["errors"])
    editor.post(path, sent | with_test(HOT_TEST))
    assert group.tests.count() == 1


def test_an_import_is_shown_before_it_is_done(world: World) -> None:
    editor, path = browser("editor"), reverse("admin:alerting_rulegroup_import_file")
    assert editor.get(path).status_code == 200
    file = SimpleUploadedFile("in.yml", FILE.replace("HighLoad", "<b>High</b>").encode())
    preview = editor.post(path, {"file": file, "remove": "nothing"})
    assert "&lt;b&gt;High&lt;/b&gt;" in preview.text
    assert "<b>High" not in preview.text
    assert not AlertRule.objects.exists()
    text = preview.context["form"].initial["text"]
    editor.post(path, {"text": text, "name": "in.yml", "remove": "nothing", "confirmed": "yes"})
    assert AlertRule.objects.count() == 3
    wrong = editor.post(path, {"text": "groups: [{nam: x}]", "remove": "nothing", "confirmed": "yes"})
    assert "pasted:1" in wrong.text
    assert browser("viewer").get(path).status_code == 403


def test_an_export_asks_for_the_version_and_says_what_stands_in_its_way(world: World) -> None:
    world.rule(keep_firing_for=60)
    viewer, path = browser("viewer"), reverse("admin:alerting_rulegroup_export_all")
    assert "house" in viewer.get(path).text
    refused = viewer.post(path, {"confirmed": "yes", "target": "2.40"})
    assert "keep_firing_for (since 2.42)" in refused.text
    answer = viewer.post(path, {"confirmed": "yes", "target": "2.42"})
    assert answer["Content-Disposition"] == 'attachment; filename="rules.yml"'
    assert "- alert: Hot" in answer.text
    chosen = {"action": "export", "_selected_action": [world.group("empty").pk]}
    listed = reverse("admin:alerting_rulegroup_changelist")
    assert "2.42" in viewer.post(listed, chosen).text
    assert "groups: []" in viewer.post(listed, chosen | {"confirmed": "yes", "target": "2.42"}).text


def test_no_tests_is_the_usual_case(world: World) -> None:
    answer = browser("editor").post(
        reverse("admin:alerting_alertrule_add"), form(world.group(), [("warning", ">", "80")], **NO_TESTS)
    )
    assert answer.status_code == 302
