"""Imports of other products' files and of rows, as an administrator sees them in every look: the report comes first."""

import os
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from apps.accounts.permissions import Principal
from apps.oncall.models import Route
from apps.oncall.services import save_route
from apps.sources.models import Heartbeat
from tests.browser.conftest import LOOKS, picture
from tests.house.rows import make
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


ROWS = (
    "slug;name;period;enabled;labels;expected_at;colour\n"
    'backup;Nightly backup;43200;TRUE;"{""team"": ""db""}";;red\n'
    "invoices;Invoices;3600;TRUE;{};;red\n"
    "mails;<b>Mails</b> with a name that is long enough to need more than the one line of a telephone;600;TRUE;{};;\n"
    "reports;Reports;soon;TRUE;{};;\n"
)


def test_rows_of_a_list_are_told_before_they_are_imported(window):
    for slug, name, hours in (("backup", "Backup", 24), ("invoices", "Invoices", 1)):
        make("sources.heartbeat", slug=slug, name=name, period=timedelta(hours=hours), enabled=True, labels={})
    for look in LOOKS:
        it = window("ada", look)
        page = it.go("/admin/sources/heartbeat/")
        it.go(page.get_by_role("link", name="Import CSV or JSON", include_hidden=True).get_attribute("href") or "")
        for rows, kind in ((ROWS, "refused"), (ROWS.replace("soon", "86400"), "report")):
            file = {"name": "a.csv", "mimeType": "text/csv", "buffer": rows.encode()}
            page.set_input_files("input[type=file]", file)
            page.get_by_role("button", name="Preview").click()
            expect(page.get_by_text("2 new" if kind == "report" else "1 refused")).to_be_visible()
            expect(page.get_by_role("button", name="Import", exact=True)).to_have_count(int(kind == "report"))
            assert (look, it.complaints) == (look, [])
            assert (look, it.overflow()) == (look, [])
            if os.environ.get("PORTAL_SCREENSHOTS"):
                page.screenshot(path=picture(f"import-rows-{kind}-{look}"), full_page=True)
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("Imported: 2 new, 1 changed, 1 unchanged.")).to_be_visible()
    assert Heartbeat.objects.get(slug="backup").name == "Nightly backup"
