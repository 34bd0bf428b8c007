"""The import of another product's configuration as an administrator sees it, in every look: the report comes first."""

import os

import pytest
from playwright.sync_api import expect

from apps.accounts.permissions import Principal
from apps.oncall.models import Route
from apps.oncall.services import save_route
from tests.browser.conftest import LOOKS, picture
from tests.oncall.test_importers import FULL

pytestmark = pytest.mark.slow


def test_the_report_comes_before_the_import(window):
    save_route(by=Principal.system("test"), route=Route(is_root=True), values={"name": "Everything else"}, contacts=[])
    for look in LOOKS:
        it = window("ada", look)
        page = it.go("/admin/oncall/route/import/")
        page.set_input_files("input[type=file]", {"name": "a.yml", "mimeType": "text/yaml", "buffer": FULL})
        page.get_by_role("button", name="Preview").click()
        expect(page.get_by_text("nothing is written yet")).to_be_visible()
        expect(page.get_by_text("ops pushover")).to_be_visible()
        assert (look, it.complaints) == (look, [])
        assert (look, it.overflow()) == (look, [])
        if os.environ.get("PORTAL_SCREENSHOTS"):
            page.screenshot(path=picture(f"import-{look}"), full_page=True)
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("Imported: 7 new")).to_be_visible()
    assert Route.objects.filter(name="night").exists()
