"""What an administrator does in the admin: look at a rule's chart beside its form, change many rows at once."""

import os
import re

from playwright.sync_api import expect

from apps.alerting.models import AlertRule
from tests.browser.conftest import picture


def test_the_chart_beside_a_rule_shows_limits_and_alerts_and_follows_range_and_theme(window, full_scene):
    it = window("ada", "light")
    page = it.go(f"/admin/alerting/alertrule/{full_scene[0].rule_id}/change/")
    chart = page.locator("[data-panel=rule-values]")
    expect(chart.locator("canvas")).to_be_visible()
    expect(chart).to_contain_text("An alert fired")
    expect(chart).to_contain_text("Limits: ")
    page.get_by_role("button", name="1h", exact=True).click()
    expect(page).to_have_url(re.compile(r"range=1h"))
    light = chart.evaluate("e => getComputedStyle(e).backgroundColor")
    page.evaluate("document.documentElement.classList.add('dark')")
    expect(chart.locator("canvas")).to_be_visible()
    assert chart.evaluate("e => getComputedStyle(e).backgroundColor") != light
    assert it.complaints == []


def test_many_rules_are_switched_off_after_one_question(window, full_scene):
    it = window("ada", "light")
    page = it.go("/admin/alerting/alertrule/?q=disk")
    rules = AlertRule.objects.filter(slug__contains="disk", enabled=True).count()
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option("switch_off")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("Their open alerts end.")).to_be_visible()
    assert it.barriers("landmark-one-main", "region", "landmark-unique") == []
    if os.environ.get("PORTAL_SCREENSHOTS"):
        page.screenshot(path=picture("admin-question-light"))
    assert AlertRule.objects.filter(enabled=False, slug__contains="disk").count() == 0
    page.get_by_role("button", name="Switch off").click()
    expect(page.get_by_text(re.compile(r"alert rules? switched off"))).to_be_visible()
    assert AlertRule.objects.filter(enabled=False).count() >= rules > 0
    assert it.complaints == []


def test_a_page_is_there_before_its_scripts_have_run_in_the_theme_that_was_chosen(window, full_scene):
    it = window("ada", "dark")
    it.page.route(re.compile(r"/alpine\.[^/]*js$"), lambda route: route.abort())
    page = it.go("/admin/alerting/alertrule/")
    expect(page.locator("#action-toggle")).to_be_visible()
    expect(page.locator("html")).to_have_class("dark")
    expect(page.locator("#search-input-command")).to_be_hidden()
    it.page.unroute_all()
    page = it.go("/admin/alerting/alertrule/add/")
    expect(page.locator("html")).not_to_have_attribute("x-cloak", re.compile(".*"))
    page.evaluate("localStorage.setItem('adminTheme', '\"light\"')")
    page.reload()
    expect(page.locator("html")).to_have_class("light")
