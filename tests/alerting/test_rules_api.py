"""Rule files and unit tests through the API: parse, one verb, answer."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from apps.accounts.models import User
from apps.alerting.models import AlertRule, RuleTest
from tests.alerting.conftest import World
from tests.alerting.test_rulefiles_stored import FAILS, FILE, HOT

pytestmark = pytest.mark.urls("tests.alerting.api_urls")
RULES, TESTS = "/rules/", "/rule-tests/"


@pytest.fixture
def client(world: World) -> APIClient:
    found = APIClient()
    found.force_login(User.objects.create_superuser("root"))
    return found


def send(client: APIClient, text: str, **more: Any) -> Any:
    return client.post(f"{RULES}import/", {"files": [{"name": "f.yml", "text": text}], **more}, format="json")


def test_a_file_comes_in_and_goes_out(client: APIClient) -> None:
    planned = send(client, FILE, dry_run=True)
    assert (planned.status_code, planned.json()["counts"]["new"]) == (200, 5)
    assert not AlertRule.objects.exists()
    assert send(client, FILE).json()["dry_run"] is False
    answer = client.get(f"{RULES}export/", {"target": "2.42", "group": "hosts"})
    assert answer["Content-Type"] == "application/yaml; charset=utf-8"
    text = answer.content.decode()
    assert "# rule: highload-critical, level: critical" in text
    assert send(client, text).json()["counts"]["unchanged"] == 5


def test_what_is_wrong_is_said_in_the_answer(client: APIClient) -> None:
    answer = send(client, FILE.replace("expr: absent", "expr: absent("))
    assert answer.status_code == 400
    assert "f.yml:22: expr of the alert Gone" in answer.content.decode()
    assert client.get(f"{RULES}export/", {"target": "old"}).status_code == 400
    assert client.get(f"{RULES}export/", {"group": "nobody"}).status_code == 400
    assert send(client, FILE, remove="everything").status_code == 400


def test_what_a_target_lacks_is_refused_or_left_out(client: APIClient) -> None:
    send(client, FILE)
    assert client.get(f"{RULES}export/", {"target": "2.40"}).status_code == 400
    partial = client.get(f"{RULES}export/", {"target": "2.40", "partial": "true"})
    assert "keep_firing_for" in partial["X-Left-Out"]
    assert "8" in partial.content.decode()
    assert "keep_firing_for" not in partial.content.decode()


def test_a_rule_is_sent_with_its_tests(client: APIClient, world: World) -> None:
    body = {
        "slug": "hot", "name": "Hot", "group": "house", "expression": "temperature",
        "levels": [{"severity": "warning", "comparison": ">", "threshold": 60}],
        "tests": [{"name": "not at seventy", "text": HOT}],
    }  # fmt: skip
    refused = client.post(RULES, body, format="json")
    assert refused.status_code == 400
    assert "not at seventy" in refused.content.decode()
    body["levels"] = [{"severity": "warning", "comparison": ">", "threshold": 80}]
    assert client.post(RULES, body, format="json").json()["tests"] == [{"name": "not at seventy", "text": HOT}]
    refused = client.patch(f"{RULES}hot/", {"expression": "temperature + 20"}, format="json")
    assert refused.status_code == 400
    saved = {"expression": "temperature + 20", "although_tests_fail": True}
    assert client.patch(f"{RULES}hot/", saved, format="json").status_code == 200
    test = RuleTest.objects.get()
    assert client.get(f"{TESTS}{test.pk}/result/").json()["passed"] is False


def test_tests_are_kept_by_themselves(client: APIClient, world: World) -> None:
    rule = world.rule()
    made = client.post(TESTS, {"name": "one", "rule": rule.slug, "text": HOT}, format="json")
    assert made.status_code == 201
    path = f"{TESTS}{made.json()['id']}/"
    assert client.get(f"{path}result/").json() == {"passed": True, "failures": []}
    assert client.patch(path, {"text": FAILS}, format="json").status_code == 400
    assert client.patch(path, {"group": "house"}, format="json").status_code == 400
    assert client.delete(path).status_code == 204
    assert not RuleTest.objects.exists()
