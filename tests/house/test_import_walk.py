"""Every list that is imported takes its own export back: unchanged where it came from, as the same rows elsewhere."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import ProtectedError
from django.test import Client
from django.utils import timezone

from apps.accounts.models import AuditEntry, User
from apps.accounts.rights import Principal
from apps.sources.checks import save_check
from apps.sources.models import Check
from tests.house.rows import DAY, make
from tests.house.test_admin_walk import EDITED, name_of, row_of, url_of

pytestmark = pytest.mark.django_db

IMPORTED = [page for page in EDITED if page.imported]
NOT_IMPORTED = {
    "accounts.token": "its secret is shown once, when it is issued",
    "accounts.user": "log-ins, passwords and roles are given one by one",
    "alerting.adaptiveband": "belongs to a rule or a group, and learns here",
    "alerting.alertrule": "rule files",
    "alerting.recordingrule": "rule files",
    "alerting.rulegroup": "rule files",
    "dashboards.dashboard": "its panels: JSON, on the portal's page of dashboards",
    "metrics.collectionswitch": "one row",
    "metrics.pushgroup": "what was pushed",
    "metrics.seriesbudget": "one row",
    "notifications.quiethours": "a person's own, kept on /monitoring/me/",
    "oncall.importedcalendar": "an address that is a secret, or a file",
    "oncall.policy": "its steps are no columns: other products' configuration, the API",
    "oncall.schedule": "its layers are no columns: other products' configuration, the API",
    "sources.logintake": "one row",
}


@pytest.fixture
def client(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def exported(page: Any, client: Client, kind: str, *rows: Any) -> bytes:
    form = {"_selected_action": [row.pk for row in rows], "index": 0, "action": f"export_{kind}"}
    return client.post(url_of(page, "changelist"), form).content


def told(page: Any, client: Client, content: bytes, **more: Any) -> Any:
    """Upload a file; return the answer."""
    return client.post(url_of(page, "import_rows"), {"file": SimpleUploadedFile("rows", content), **more})


def confirmed(page: Any, client: Client, answer: Any) -> Any:
    """Confirm what an answer told."""
    form = {"content": answer.context["form"].initial["content"], "seen": answer.context["report"].digest}
    return client.post(url_of(page, "import_rows"), {**form, "confirmed": "yes"})


def test_every_list_that_is_edited_is_imported_or_has_a_reason_not_to_be():
    assert {name_of(page) for page in EDITED if not page.imported} == set(NOT_IMPORTED)


@pytest.mark.parametrize("page", IMPORTED, ids=name_of)
def test_what_a_list_exports_comes_back_as_unchanged(page, client):
    rows = [row_of(page)]
    before = AuditEntry.objects.count()
    for kind in ("csv", "json"):
        answer = told(page, client, exported(page, client, kind, *rows))
        report = answer.context["report"]
        assert report, answer.context["form"].errors
        assert [(change.action, change.differences, change.remarks) for change in report.changes] == [
            ("unchanged", (), ())
        ]
        assert report.unknown == []
    assert AuditEntry.objects.count() == before + 2  # the exports


MOVED = [page for page in IMPORTED if name_of(page) not in ("metrics.metric", "metrics.querybudget")]  # never added


# Rows as only a verb makes them, and such as are not over.
NEW: dict[str, Callable[[], Any]] = {
    "alerting.maintenancewindow": lambda: make(
        "alerting.maintenancewindow", ends_at=timezone.now().replace(microsecond=0) + DAY
    ),
    "sources.check": lambda: save_check(
        by=Principal.system("test"), now=timezone.now(), values={"address": "db.example:5432"},
        check=Check(name="Database", kind="tcp"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("page", MOVED, ids=name_of)
def test_what_a_list_exports_is_made_anew_in_another_portal(page, client):
    row = NEW.get(name_of(page), partial(row_of, page))()
    before = exported(page, client, "json", row)
    try:
        row.delete()
    except ProtectedError as error:
        pytest.fail(str(error))
    seen = told(page, client, before)
    assert [change.action for change in seen.context["report"].changes] == ["new"], seen.context["report"].changes
    last = AuditEntry.objects.latest("id").pk
    assert confirmed(page, client, seen).status_code == 302
    made = page.model.objects.latest("pk")
    written = set(seen.context["report"].changes[0].differences)
    columns = {page.imported} | {one.column.partition(".")[0] for one in written}
    (was,), (now,) = json.loads(before), json.loads(exported(page, client, "json", made))
    assert {name: now[name] for name in columns} == {name: was[name] for name in columns}
    entries = AuditEntry.objects.filter(id__gt=last)
    assert entries.filter(target_type=name_of(page), target_id=str(made.pk)).exists()
    assert entries.filter(verb="accounts.import_rows").exists()
