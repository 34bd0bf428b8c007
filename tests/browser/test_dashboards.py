"""People's dashboards in a real browser: looked at in every look, edited by mouse and by keyboard, shared by link."""

import os

import pytest
from playwright.sync_api import expect

from apps.dashboards.models import Dashboard
from tests.browser.conftest import LOOKS, picture
from tests.browser.test_look import CONTRAST, NAMELESS

PAGES = {
    "dashboards": "/monitoring/dashboards/",
    "dashboard-web": "/monitoring/dashboards/web-requests/",
    "dashboard-host": "/monitoring/dashboards/host/",
    "dashboard-portal": "/monitoring/dashboards/portal/",
    "dashboard-history": "/monitoring/dashboards/host/history/",
    "dashboard-wall": "/monitoring/dashboards/host/?tv=1",
}


def keep(page, name):
    if os.environ.get("PORTAL_SCREENSHOTS"):
        page.wait_for_timeout(500)
        page.screenshot(path=picture(name), full_page=name.endswith("phone"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(window, full_scene, name):
    for look in LOOKS:
        it = window("ada", look)
        page = it.go(PAGES[name])
        page.wait_for_timeout(600)
        assert (look, it.complaints) == (look, [])
        assert (look, it.overflow()) == (look, [])
        assert (look, page.evaluate(CONTRAST)) == (look, [])
        assert (look, page.evaluate(NAMELESS)) == (look, [])
        keep(page, f"{name}-{look}")


def boxes(page):
    return page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[data-board] > [data-panel]')].map((e) => [e.dataset.panel,"
        " [e.style.getPropertyValue('--column'), e.style.getPropertyValue('--row')]]))"
    )


@pytest.mark.slow
def test_a_dashboard_is_edited_by_mouse_and_by_keyboard_and_saved_as_a_version(window, full_scene):
    it = window("ada")
    page = it.go("/monitoring/dashboards/web-requests/")
    page.locator("[data-edit]").click()
    before = boxes(page)
    # By keyboard: three columns narrower, then one place to the right.
    page.get_by_role("button", name="Move Requests: arrow keys").focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("ArrowRight")
    after = boxes(page)
    assert (before["rate"][0], after["rate"][0]) == ("1 / span 6", "2 / span 3")
    # By mouse: the corner makes it lower and wider, the head moves it.
    corner = page.locator("[data-panel=codes] [data-corner]").bounding_box()
    page.mouse.move(corner["x"] + 10, corner["y"] + 10)
    page.mouse.down()
    page.mouse.move(corner["x"] - 130, corner["y"] + 90, steps=4)
    page.mouse.up()
    assert boxes(page)["codes"] != before["codes"]
    # A panel of its own, tried while it is typed.
    page.get_by_label("Add a panel").select_option("timeseries")
    dialog = page.locator("dialog[open]")
    dialog.get_by_label("Title").fill("By method")
    dialog.get_by_label("PromQL expression").fill("sum by (method) (")
    expect(dialog.locator(".stage")).to_contain_text("parse error")
    dialog.get_by_label("PromQL expression").fill("sum by (method) (rate(http_requests_total[$window]))")
    dialog.get_by_label("Legend").fill("{method}")
    expect(dialog.locator(".stage .legend")).to_contain_text("POST")
    keep(page, "dashboard-edit-panel")
    dialog.get_by_role("button", name="Apply").click()
    expect(page.locator("[data-board]")).to_contain_text("By method")
    page.evaluate("scrollTo(0, 0)")
    keep(page, "dashboard-edit")
    page.get_by_role("button", name="Save").click()
    page.locator("dialog[open]").get_by_label("Message").fill("Methods, too")
    page.locator("dialog[open]").get_by_role("button", name="Save").click()
    page.wait_for_url("**/web-requests/?*")
    row = Dashboard.objects.get(slug="web-requests")
    panels = {panel["id"]: panel for panel in row.document["panels"]}
    assert (row.version, row.versions.latest("number").message) == (2, "Methods, too")
    assert (panels["rate"]["x"], panels["rate"]["w"], panels["p9"]["title"]) == (1, 3, "By method")
    expect(page.locator("[data-board]")).to_contain_text("By method")
    complaints = [text for text in it.complaints if "422" not in text]
    assert complaints == []


@pytest.mark.slow
def test_a_shared_dashboard_is_drawn_for_somebody_without_a_login(window, full_scene):
    it = window("ada")
    page = it.go("/monitoring/dashboards/host/")
    page.get_by_role("button", name="Share").click()
    page.get_by_role("button", name="Make a link").click()
    address = page.locator("[data-shared-link]").inner_text()
    stranger = window(None)
    page = stranger.go("/" + address.split("/", 3)[3])
    expect(page.locator("[data-board]")).to_contain_text("web-1")
    expect(page.locator("canvas").first).to_be_visible()
    keep(page, "dashboard-shared")
    assert stranger.complaints == []


@pytest.mark.slow
def test_a_variable_is_chosen_into_the_address(window, full_scene):
    page = window("vic").go("/monitoring/dashboards/web-requests/?range=15m")
    page.locator(".choose-many summary").click()
    boxes = page.locator(".choose-list input")
    boxes.nth(0).uncheck()
    boxes.nth(1).check()
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**var-job=portal**")
    assert "range=15m" in page.url
    expect(page.locator("[data-board]")).to_contain_text("req/s")
    assert page.locator("[data-edit]").count() == 0
