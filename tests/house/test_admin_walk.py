"""Every admin page: opens for an administrator, costs as many queries for twenty rows as for two, writes audited."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.admin import AuditedAdmin, AuditedStackedInline, AuditedTabularInline
from apps.accounts.models import AuditEntry, User
from apps.accounts.rights import Principal
from apps.notifications.services import save_contact
from apps.oncall.services import save_policy
from tests.house.browser import form_of
from tests.house.rows import AT, make

pytestmark = pytest.mark.django_db

PAGES: list[Any] = sorted(admin.site._registry.values(), key=lambda page: page.opts.label_lower)
EDITED = [page for page in PAGES if getattr(page, "edit_right", None)]
ACTIONS = [
    (page, name) for page in PAGES for name in [getattr(action, "__name__", action) for action in page.actions or ()]
]

DETAIL_ACTIONS = [(page, name) for page in PAGES for name in page.actions_detail or ()]

# What a person changes on each page: {field: value}; every page that can be edited needs one.
EDITS: dict[str, dict[str, str]] = {
    "accounts.calendar": {"hours": "mon-fri 08:00-18:00"},
    "accounts.team": {"description": "At night, too."},
    "accounts.user": {"first_name": "Ann"},
    "accounts.token": {"name": "another"},
    "alerting.adaptiveband": {"width": "4"},
    "alerting.alertrule": {"runbook": "Look at it.", "levels-0-severity": "warning"},
    "alerting.inhibition": {"equal": "instance"},
    "alerting.maintenancewindow": {"ends_at_0": "2100-01-01", "ends_at_1": "00:00:00"},
    "alerting.recordingrule": {"expression": "up"},
    "alerting.service": {"description": "what it is"},
    "alerting.rulegroup": {"name": "another"},
    "dashboards.dashboard": {"description": "What it shows."},
    "dashboards.folder": {"name": "another"},
    "metrics.collectionswitch": {"on": ""},
    "metrics.collectorsetting": {"every": "00:00:42"},
    "metrics.metric": {"help": "What it says."},
    "metrics.pushgroup": {"ttl": "00:10:00"},
    "metrics.querybudget": {"samples": "1000"},
    "metrics.retentionpolicy": {"description": "For ever."},
    "metrics.seriesbudget": {"series": "5"},
    "notifications.contact": {"name": "another"},
    "notifications.messagetemplate": {"title": "{{ title }}"},
    "notifications.quiethours": {"hours": "mon-fri 21:00-06:00"},
    "oncall.importedcalendar": {"name": "another"},
    "oncall.policy": {"description": "For nights."},
    "oncall.route": {"name": "another"},
    "oncall.schedule": {"description": "Who has the database."},
    "sources.check": {"name": "another"},
    "sources.heartbeat": {"name": "another"},
    "sources.businessmetric": {"name": "another"},
    "sources.datasource": {"name": "another"},
    "sources.logintake": {"records_per_day": "5000"},
    "sources.site": {"name": "another"},
    "sources.scrapejob": {"metrics_path": "/other"},
}


def hook() -> Any:
    return save_contact(
        by=Principal.system("test"), name="Hook", kind="webhook", values={"url": "https://example.com/x"}, now=AT
    )


def telling_policy() -> Any:
    steps = [{"kind": "notify", "config": {"contacts": [hook().pk]}}, {"kind": "wait", "config": {"minutes": 5}}]
    return save_policy(by=Principal.system("test"), name="Night", steps=steps)


# Rows that saving or an action wants to be of a certain kind.
ROWS: dict[str, Callable[[], Any]] = {
    "alerting.incident": lambda: make("alerting.alert").incident,
    "metrics.collectorsetting": lambda: make("metrics.collectorsetting", kind="cpu"),
    "oncall.policy": telling_policy,
    "oncall.route": lambda: make("oncall.route", policy=telling_policy()),
    "notifications.contact": hook,
}


@pytest.fixture
def client(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def name_of(page: Any) -> str:
    return str(page.opts.label_lower)


def row_of(page: Any) -> Any:
    return ROWS.get(name_of(page), partial(make, page.model))()


def url_of(page: Any, what: str, *args: Any) -> str:
    return reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_{what}", args=args)


def entries_after(last: int) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(id__gt=last).order_by("id"))


def last_entry() -> int:
    return AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_is_an_audited_one_with_audited_inlines(page):
    assert isinstance(page, AuditedAdmin)
    for inline in page.get_inlines(None, None):
        assert issubclass(inline, (AuditedTabularInline, AuditedStackedInline)), inline


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_list_costs_as_many_queries_for_twenty_rows_as_for_two(page, client):
    counts = []
    for rows in (2, 18):
        for _ in range(rows):
            make(page.model)
        client.get(url_of(page, "changelist"))
        with CaptureQueriesContext(
            connection,
        ) as queries:
            answer = client.get(url_of(page, "changelist"))
        assert answer.status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1], [query["sql"] for query in queries][-5:]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_search_and_filters_work(page, client):
    make(page.model)
    if page.search_fields:
        assert client.get(url_of(page, "changelist"), {"q": "x1"}).status_code == 200
    found = client.get(url_of(page, "changelist")).context["cl"]
    for spec in found.filter_specs:
        choices = list(spec.choices(found))
        for choice in choices:
            if query := choice.get("query_string"):
                assert client.get(url_of(page, "changelist") + query).status_code == 200, query


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_row_its_history_and_the_empty_form_open(page, client):
    row = make(page.model)
    pages = [url_of(page, "change", row.pk), url_of(page, "history", row.pk)]
    if page in EDITED:
        if client.get(url_of(page, "add")).status_code != 403:  # some rows only the portal adds
            pages.append(url_of(page, "add"))
        assert client.get(url_of(page, "delete", row.pk)).status_code in (200, 403)
    assert [url for url in pages if client.get(url).status_code != 200] == []


def test_every_page_that_can_be_edited_has_an_example():
    assert set(EDITS) == {name_of(page) for page in EDITED}


@pytest.mark.parametrize("page", [page for page in EDITED if name_of(page) in EDITS], ids=name_of)
def test_saving_leaves_an_entry_with_what_changed(page, client):
    row = row_of(page)
    url = url_of(page, "change", row.pk)
    form: dict[str, Any] = form_of(client.get(url).text, f"{page.opts.model_name}_form")
    form |= EDITS[name_of(page)]
    last = last_entry()
    answer = client.post(url, form)
    assert answer.status_code == 302, answer.context["errors"]
    entries = [entry for entry in entries_after(last) if entry.target_type == name_of(page)]
    assert entries
    assert all(entry.actor_name == "root" and entry.via == "admin" for entry in entries)


@pytest.mark.parametrize("page", EDITED, ids=name_of)
def test_deleting_leaves_an_entry_for_each(page, client):
    rows = [make(page.model), make(page.model)]
    form = {"action": "delete_selected", "_selected_action": [row.pk for row in rows], "post": "yes"}
    last = last_entry()
    client.post(url_of(page, "changelist"), form)
    gone = {str(row.pk) for row in rows} - {str(pk) for pk in page.model.objects.values_list("pk", flat=True)}
    assert gone <= {entry.target_id for entry in entries_after(last)}
    if page.has_delete_permission(_request(client)):
        assert gone == {str(row.pk) for row in rows}


def _request(client: Client) -> Any:
    return client.get(reverse("admin:index")).wsgi_request


@pytest.mark.parametrize(("page", "action"), DETAIL_ACTIONS, ids=str)
def test_an_action_on_one_row_asks_first_and_then_leaves_an_entry(page, action, client):
    """A link that acts at once could be followed on somebody's behalf by any page on the web."""
    row = row_of(page)
    url = reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_{action}", args=[row.pk])
    last = last_entry()
    assert client.get(url).status_code == 200
    assert entries_after(last) == [], "the link acted at once: see AuditedAdmin.ask"
    client.post(url, {"confirmed": "yes"})
    assert entries_after(last)


@pytest.mark.parametrize(("page", "action"), ACTIONS, ids=str)
def test_an_action_leaves_an_entry(page, action, client):
    row = row_of(page)
    last = last_entry()
    form = {"action": action, "_selected_action": [row.pk], "confirmed": "yes"}
    answer = client.post(url_of(page, "changelist"), form)
    assert answer.status_code in (200, 302)
    assert entries_after(last), f"{action} of {name_of(page)} wrote nothing down"
