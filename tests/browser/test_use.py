"""What people do with the pages: log in, walk by keyboard, watch an alert arrive, take it, look closer at a chart."""

import re
import time
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.accounts.models import AuditEntry
from apps.accounts.rights import Principal
from apps.alerting import services as alerting
from apps.alerting.models import Alert, Service
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from apps.oncall import services as oncall
from apps.oncall.models import Policy, Schedule
from monitoring_portal import setup
from tests.browser import scene
from tests.browser.conftest import PASSWORD


def post(message="The till is empty", severity="critical", kind="till"):
    return alerting.post_alert(by=scene.BY, type=kind, severity=severity, message=message, now=timezone.now())


def test_a_person_logs_in_and_out_again(window):
    it = window()
    page = it.go("/monitoring/system/")
    page.get_by_label("User name").fill("mara")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile("/monitoring/system/$"))
    page.get_by_role("button", name="Log out").first.click()
    expect(page).to_have_url(re.compile("/accounts/login/"))
    page.goto(it.server + "/monitoring/")
    expect(page).to_have_url(re.compile("/accounts/login/"))


def test_an_alert_appears_without_a_reload_and_is_announced(window):
    page = window("vic").go("/monitoring/")
    expect(page.get_by_text("No active alerts", exact=True)).to_be_visible()
    page.evaluate("window.stillHere = true")
    post()
    row = page.locator("[data-alerts] a", has_text="The till is empty")
    expect(row).to_be_visible()
    expect(page.locator("[data-announce]")).to_have_text(re.compile("New critical alert: till"))
    expect(page).to_have_title(re.compile(r"^\(1\) "))
    expect(page.locator("[data-verdict]")).to_contain_text("1 critical alert: till")
    assert page.evaluate("window.stillHere")


def test_what_is_written_in_an_alert_stays_text(window):
    page = window("vic").go("/monitoring/")
    post(message="<img src=x onerror=alert(1)><b>bold</b>")
    expect(page.locator("[data-alerts]")).to_contain_text("<img src=x onerror=alert(1)><b>bold</b>")
    assert page.locator("[data-alerts] img, [data-alerts] b").count() == 0


@pytest.mark.parametrize("look", ["light", "phone"])
def test_a_name_without_an_end_widens_no_page(window, mara, look):
    long, now = "x" * 1000, timezone.now()
    alert = post(message=long, kind="x" * 100)
    Alert.objects.filter(pk=alert.pk).update(acknowledged_by="x" * 150, acknowledged_at=now)
    Service.objects.create(name="x" * 100, description="x" * 300)
    alerting.silence(
        by=mara, matchers=['alertname="z"'], starts_at=now, ends_at=now + timedelta(hours=1), comment=long, now=now
    )
    Schedule.objects.create(name="x" * 100)
    it = window("mara", look)
    for path in ("", "alerts/", "alerts/?tab=history", f"alerts/{alert.key}/", "services/", "quiet/", "on-call/"):
        it.go(f"/monitoring/{path}")
        assert (path, it.overflow()) == (path, [])


def test_one_person_takes_an_alert_and_the_other_sees_it(window):
    alert = post()
    hers, his = window("mara"), window("vic")
    looking = his.go("/monitoring/")
    page = hers.go("/monitoring/")
    page.locator("[data-alerts] a", has_text="The till is empty").click()
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("[data-alert-headline]")).to_have_text("Firing, mara is on it")
    expect(page.get_by_role("button", name="Acknowledge")).to_be_hidden()
    expect(looking.locator("[data-alerts]")).to_contain_text("acknowledged by mara")
    page.get_by_role("button", name="Resolve").click()
    expect(page.locator("[data-alert-headline]")).to_have_text(re.compile("^Resolved by mara"))
    expect(looking.get_by_text("No active alerts", exact=True)).to_be_visible()
    assert Alert.objects.get(pk=alert.pk).resolved_by == "mara"
    assert AuditEntry.objects.filter(verb="alerting.acknowledge", actor_name="mara").exists()


def test_who_may_not_act_has_no_buttons(window):
    alert = post()
    page = window("vic").go(f"/monitoring/alerts/{alert.key}/")
    expect(page.locator("[data-alert-headline]")).to_be_visible()
    expect(page.get_by_role("button", name="Acknowledge")).to_be_hidden()
    expect(page.get_by_role("button", name="Resolve")).to_be_hidden()


def test_the_alert_page_follows_what_others_do(window, mara):
    alert = post()
    page = window("vic").go(f"/monitoring/alerts/{alert.key}/")
    alerting.acknowledge(by=mara, alert=alert, now=timezone.now())
    expect(page.locator("[data-timeline]")).to_contain_text("Acknowledged by mara")


def test_the_history_is_drawn_anew_when_something_ends(window, mara):
    alert = post()
    page = window("vic").go("/monitoring/alerts/?tab=history")
    alerting.resolve(by=mara, alert=alert, now=timezone.now())
    expect(page.locator("[data-redraw]")).to_contain_text("by mara")


def test_losing_the_role_takes_the_page_away(window, people):
    it = window("vic")
    page = it.go("/monitoring/")
    people["vic"].groups.clear()
    post()
    expect(page.get_by_text("You may not see this")).to_be_visible()
    assert "The till is empty" not in page.content()


def test_a_broken_connection_is_shown_and_comes_back_with_what_was_missed(window):
    it = window("vic")
    connections = []
    it.page.route_web_socket(
        re.compile("/ws/live"), lambda socket: connections.append((socket, socket.connect_to_server()))
    )
    page = it.go("/monitoring/")
    page.evaluate(
        "window.seen = []; new MutationObserver(() => seen.push(document.documentElement.dataset.live))"
        ".observe(document.documentElement, {attributes: true, attributeFilter: ['data-live']})"
    )
    mine, _ = connections[0]
    mine.close(code=1012)
    post("Missed meanwhile")
    expect(page.locator("[data-alerts]")).to_contain_text("Missed meanwhile")
    expect(page.locator("[data-live-text]")).to_have_text("live")
    assert page.evaluate("window.seen")[0] == "reconnecting"


def test_the_pages_are_walked_by_keyboard(window):
    post()
    page = window("mara").go("/monitoring/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("[data-alerts] a").first).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("s")
    expect(page).to_have_url(re.compile("/monitoring/system/"))


def test_every_control_can_be_reached_and_shows_its_focus(window, full_scene):
    page = window("mara").go("/monitoring/performance/")
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        name, has_ring = page.evaluate(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
            "const ring = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0;"
            "return [e === document.body ? '' : e.innerText || e.ariaLabel || e.tagName, ring]; })()"
        )
        if not name:
            break
        assert has_ring, name
        seen.add(name.strip())
    assert {"Overview", "1h", "Custom"} <= seen


def test_on_a_phone_the_bar_holds_four_pages_and_a_sheet_all_of_them(window):
    page = window("mara", "phone").go("/monitoring/")
    bar = page.get_by_role("navigation", name="Main")
    assert bar.get_by_role("link").all_inner_texts() == ["Overview", "Performance", "Alerts", "Incidents"]
    bar.get_by_role("button", name="More").click()
    sheet = page.get_by_role("navigation", name="All pages")
    expect(sheet.get_by_role("link", name="Overview")).to_have_attribute("aria-current", "page")
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    bar.get_by_role("button", name="More").press("Enter")
    sheet.get_by_role("link", name="Targets").click()
    expect(page).to_have_url(re.compile("/monitoring/targets/$"))


def test_the_theme_is_chosen_and_remembered(window):
    page = window("vic").go("/monitoring/")
    dark = "getComputedStyle(document.documentElement).colorScheme"
    assert page.evaluate(dark) == "light dark"
    page.keyboard.press("t")
    page.keyboard.press("t")
    assert page.evaluate(dark) == "dark"
    page.reload()
    assert page.evaluate(dark) == "dark"


def test_a_chart_shows_its_values_as_a_legend_and_as_a_table(window, full_scene):
    page = window("vic").go("/monitoring/system/")
    panel = page.locator("[data-panel=memory]")
    expect(panel.locator("canvas")).to_be_visible()
    expect(panel.locator(".legend tbody tr")).to_have_count(3)
    expect(panel.locator(".legend")).to_contain_text("GiB")
    panel.get_by_role("button", name="Numbers of Memory").click()
    rows = panel.locator(".numbers tbody tr")
    assert rows.count() > 200
    expect(rows.first).to_contain_text("GiB")


def test_dragging_over_a_chart_zooms_all_of_them_and_back_undoes_it(window, full_scene):
    page = window("vic").go("/monitoring/performance/")
    area = page.locator("[data-panel=response-time] .u-over")
    box = area.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"from=\d+&to=\d+"))
    expect(page.locator("[data-custom]")).to_have_attribute("aria-pressed", "true")
    page.go_back()
    expect(page.locator("[data-range] [data-value='1h']")).to_have_attribute("aria-pressed", "true")


def test_the_range_stands_in_the_address(window, full_scene):
    page = window("vic").go("/monitoring/system/")
    with page.expect_request(re.compile("range=6h")):
        page.get_by_role("button", name="6h").click()
    expect(page).to_have_url(re.compile("range=6h"))
    page.reload()
    expect(page.locator("[data-value='6h']")).to_have_attribute("aria-pressed", "true")


def test_new_samples_are_pushed_to_the_charts_without_a_request(window, full_scene):
    it = window("vic")
    page = it.go("/monitoring/")
    tile = page.locator("[data-tile=tile-cpuUsage] [data-value]")
    expect(tile).to_have_text(re.compile(r"\d"))
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    now = timezone.now()
    at = int(time.time()) // scene.STEP * scene.STEP * 1000
    samples = Samples.of([{"__name__": "cpuUsage"}], [at], [97.0])
    metrics.ingest(samples=samples, by=scene.BY, now=now, live="recorded")
    expect(tile).to_have_text("97%", timeout=10_000)  # a panel is pushed once in five seconds at most
    assert asked == []


def test_a_chart_off_the_screen_catches_up_when_it_comes_into_view(window, full_scene):
    it = window("vic")
    it.page.set_viewport_size({"width": 1360, "height": 500})
    page = it.go("/monitoring/system/")
    last = page.locator("[data-panel=processes] .legend tbody tr", has_text="running").locator("td").first
    page.locator("[data-panel=processes]").scroll_into_view_if_needed()
    expect(last).to_have_text(re.compile(r"\d"))
    page.evaluate("scrollTo(0, 0)")
    at = int(time.time()) // scene.STEP * scene.STEP * 1000
    names = [{"__name__": "node_procs_running", "job": "node", "instance": "web-1"}]
    metrics.ingest(samples=Samples.of(names, [at], [97.0]), by=scene.BY, now=timezone.now(), live="host")
    page.wait_for_timeout(500)
    page.locator("[data-panel=processes]").scroll_into_view_if_needed()
    expect(last).to_have_text("97", timeout=10_000)


@pytest.mark.parametrize("status", [500, 422])
def test_a_panel_that_cannot_be_loaded_says_so_and_tries_again(window, full_scene, status):
    it = window("vic")
    it.page.route(
        re.compile("/monitoring/data/"), lambda route: route.fulfill(status=status, json={"error": "Too much."})
    )
    page = it.page
    page.goto(it.server + "/monitoring/performance/")
    panel = page.locator("[data-panel=error-rate]")
    expect(panel).to_contain_text("Too much.")
    page.unroute(re.compile("/monitoring/data/"))
    panel.get_by_role("button", name="Try again").click()
    expect(panel.locator("canvas")).to_be_visible()


def test_a_panel_without_data_says_so(window):
    page = window("vic").go("/monitoring/performance/")
    expect(page.locator("[data-panel=throughput]")).to_contain_text("No request was served in this time.")


def test_charts_live_with_a_language_that_intl_refuses(window, full_scene):
    it = window("vic")
    it.page.add_init_script(
        "Object.defineProperty(navigator, 'language', {get: () => 'en-US@posix', configurable: true})"
    )
    page = it.go("/monitoring/performance/")
    expect(page.locator("[data-panel=error-rate] canvas")).to_be_visible()
    assert it.complaints == []


def test_a_step_of_a_policy_shows_the_settings_of_its_kind(window):
    setup.load_defaults(now=timezone.now())
    it = window("ada")
    page = it.go(f"/admin/oncall/policy/{Policy.objects.get(name='Default').pk}/change/")
    pause, contacts = page.locator('[name="steps-1-wait__minutes"]'), page.locator('[name="steps-1-notify__contacts"]')
    expect(pause).to_be_visible()
    expect(contacts.first).to_be_hidden()
    page.locator('[name="steps-1-kind"]').select_option("notify")
    expect(pause).to_be_hidden()
    expect(contacts.first).to_be_visible()
    assert it.complaints == []


def test_steps_say_when_they_happen_and_are_moved_by_keys_and_by_hand(window):
    setup.load_defaults(now=timezone.now())
    steps = [{"kind": "wait", "config": {"minutes": minutes}} for minutes in (1, 2, 3)]
    policy = oncall.save_policy(by=Principal.system("test"), name="Waits", steps=steps)
    it = window("ada")
    page = it.go(f"/admin/oncall/policy/{policy.pk}/change/")
    groups = page.locator("#steps-group .form-group:not(.empty-form)")
    when = groups.locator(".portal-step-when")
    expect(when).to_have_text(["at once", "after 1 min", "after 3 min"])
    expect(page.locator(".portal-step-warning")).to_contain_text("the fall-back contact")
    groups.nth(2).locator(".portal-step-up").focus()
    page.keyboard.press("Enter")
    expect(groups.locator(".portal-step-text")).to_have_text(["Wait 1 min", "Wait 3 min", "Wait 2 min"])
    expect(when).to_have_text(["at once", "after 1 min", "after 4 min"])
    groups.nth(2).locator(".portal-step-handle").drag_to(groups.nth(0), target_position={"x": 200, "y": 4})
    expect(groups.locator(".portal-step-text")).to_have_text(["Wait 2 min", "Wait 1 min", "Wait 3 min"])
    page.locator('[name="_save"]').click()
    expect(page.locator("body")).to_contain_text("Wait 2 min › Wait 1 min › Wait 3 min")
    assert it.complaints == []
