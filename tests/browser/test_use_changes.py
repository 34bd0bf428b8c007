"""What was changed is seen where something went wrong."""


def test_changes_stand_below_charts_and_beside_the_alert(window, full_scene):
    page = window("ada").go("/monitoring/system/")
    page.wait_for_selector("[data-changes]")
    assert "search: new index" in page.locator("[data-changes]").first.inner_text()
    page = window("ada").go(f"/monitoring/alerts/{full_scene[1].key}/")
    assert "shop 1.4.2 deployed" in page.locator("section", has_text="What changed before").last.inner_text()
