"""A rule is tried in the admin before it is saved: progress, firings, a suggestion, two drafts side by side."""

import os

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from apps.alerting.models import AlertRule
from tests.browser.conftest import LOOKS, picture


@pytest.fixture
def rule(full_scene):
    found = AlertRule.objects.filter(expression__contains="responseTime").first() or AlertRule.objects.first()
    assert found is not None
    return found


@pytest.mark.parametrize("look", LOOKS)
def test_a_draft_shows_what_it_would_have_done_and_nothing_is_saved(window, rule, look):
    it = window("ada", look)
    page = it.go(reverse("admin:alerting_alertrule_change", args=[rule.pk]))
    page.locator("[name=expression]").fill("responseTime")
    page.locator("[name=levels-0-threshold]").fill("150")
    page.locator("[name=levels-0-recovery_threshold]").fill("130")
    page.locator("[name=pending_period]").fill("0")
    page.locator("[data-hours]").select_option("1")
    page.locator("[data-wanted]").fill("200")
    page.locator("[data-compare]").check()
    page.locator("[data-run]").click()
    results = page.locator("[data-results]")
    expect(results).to_have_attribute("data-shown", "2", timeout=20_000)
    expect(results.locator("article").first).to_contain_text("warning")
    expect(results.locator("canvas").first).to_be_visible()
    expect(results).to_contain_text("there would have been")
    assert it.complaints == []
    assert it.overflow() == []
    rule.refresh_from_db()
    assert rule.expression != "responseTime" or rule.levels.first().threshold != 150
    if os.environ.get("PORTAL_SCREENSHOTS"):
        page.wait_for_timeout(400)
        page.add_style_tag(content="[id=submit-row], .submit-row { display: none !important }")
        page.locator("[data-preview]").screenshot(path=picture(f"rule-preview-{look}"))


def test_what_is_wrong_with_a_draft_is_said_beneath_it(window, rule):
    page = window("ada", "light").go(reverse("admin:alerting_alertrule_change", args=[rule.pk]))
    page.locator("[name=expression]").fill("responseTime +")
    page.locator("[data-run]").click()
    expect(page.locator("[data-error]")).to_contain_text("expression")
