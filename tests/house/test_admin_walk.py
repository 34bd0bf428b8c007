"""Every admin page: opens for an administrator, costs as many queries for twenty rows as for two, writes audited."""

import csv
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.admin import AuditedAdmin, AuditedStackedInline, AuditedTabularInline
from apps.accounts.models import AuditEntry, User
from apps.accounts.rights import Principal
from apps.core.registry import extensions
from apps.notifications.services import save_contact
from apps.oncall.services import save_policy
from tests.house.browser import form_of
from tests.house.rows import AT, house_models, make, many

pytestmark = pytest.mark.django_db

PAGES: list[Any] = sorted(admin.site._registry.values(), key=lambda page: page.opts.label_lower)
EDITED = [page for page in PAGES if getattr(page, "edit_right", None)]
EXPORTS = {"export_csv", "export_json"}
ACTIONS = [
    pytest.param(page, name, marks=[pytest.mark.slow] if name == "switch_off" else [])  # as switch_on, the other way
    for page in PAGES
    for _, name, _ in page._get_base_actions()
    if name not in EXPORTS | {"delete_selected"}
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


def hook(**values: Any) -> Any:
    url = {"url": "https://example.com/x"}
    return save_contact(by=Principal.system("test"), name="Hook", kind="webhook", values=url, now=AT, **values)


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


# Tables that only grow with time: no list may ask them for all that occurs in a column.
LONG = {
    "accounts.auditentry", "accounts.login", "alerting.alert", "alerting.change", "alerting.incident",
    "alerting.transition", "metrics.series", "notifications.delivery", "notifications.reply", "oncall.escalation",
    "oncall.notice", "oncall.notificationgroup", "sources.checkchange",
}  # fmt: skip


def asked(page: Any, client: Client) -> list[str]:
    """Return the statements that a look at the list costs."""
    with CaptureQueriesContext(connection) as queries:
        assert client.get(url_of(page, "changelist")).status_code == 200
    return [query["sql"] for query in queries]


def walk_lists(page: Any, client: Client, *, few: int, more: int) -> None:
    many(page.model, few)
    asked(page, client)  # what a process remembers from its first look on
    before = asked(page, client)
    many(page.model, more - few)
    after = asked(page, client)
    assert len(before) == len(after), after[-5:]
    if name_of(page) in LONG:
        assert [sql for sql in after if "SELECT DISTINCT" in sql] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_list_costs_as_many_queries_for_thirty_rows_as_for_three(page, client):
    walk_lists(page, client, few=3, more=30)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_list_costs_as_many_queries_for_ten_thousand_rows_as_for_ten(page, client):
    walk_lists(page, client, few=10, more=10_000)


# Models without a page of their own.
INNER = {
    "alerting.bandseries": "what a band has learned, in bytes; counted on the page of its band",
    "alerting.grouprun": "columns of its group's row",
    "alerting.incidenttrait": "by what new alerts find an incident: an index",
    "alerting.quietchange": "a wake-up for on-call, gone in seconds",
    "alerting.rulelevel": "on the page of its rule",
    "alerting.ruletest": "on the page of its rule or group",
    "metrics.census": "one row: when series were last counted",
    "metrics.deltatotals": "the store's sums of what senders of deltas sent",
    "metrics.eventreceipt": "ids that were stored, so that a repeated event counts once",
    "metrics.metriccount": "columns of its metric's row",
    "metrics.rolledwindow": "the store's own book of its roll-ups",
    "oncall.groupmember": "counted on the page of its group",
    "oncall.layer": "on the page of its schedule",
    "oncall.roundrobin": "whose turn it is: a counter",
    "oncall.ruletarget": "on the page of its rule",
    "oncall.step": "on the page of its policy",
    "oncall.steptaken": "on the page of its escalation",
}
# Lists that cannot be searched: they are short by nature, or hold nothing but numbers.
UNSEARCHED = {
    "metrics.batch": "numbers", "metrics.block": "numbers", "metrics.tokencount": "counted anew each minute",
    "metrics.querybudget": "a row for each role", "metrics.seriesbudget": "one row",
    "metrics.collectionswitch": "one row", "sources.logrun": "numbers", "sources.logintake": "one row",
}  # fmt: skip
# What a list is narrowed by wherever its rows have it.
NARROWING = {"enabled", "state", "health", "kind", "severity", "type", "owner", "team", "origin", "category", "policy"}


def filters_of(page: Any) -> set[str]:
    specs = [spec[0] if isinstance(spec, tuple) else spec for spec in page.list_filter]
    return {spec if isinstance(spec, str) else spec.parameter_name for spec in specs}


def test_every_model_has_a_page_or_a_reason_for_none():
    there = {page.model for page in PAGES}
    assert {model._meta.label_lower for model in house_models() if model not in there} == set(INNER)


def test_every_list_can_be_searched_or_has_a_reason_not_to():
    assert {name_of(page) for page in PAGES if not page.search_fields} == set(UNSEARCHED)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_list_says_more_than_names_and_is_narrowed_by_what_its_rows_have(page):
    assert len(page.list_display) > 1
    held = {field.name for field in page.opts.get_fields() if field.concrete}
    assert sorted(held & NARROWING - filters_of(page) - UNFILTERED.get(name_of(page), set())) == []


UNFILTERED: dict[str, set[str]] = {
    "alerting.alert": {"type"},  # as many as people post
    "metrics.collectorsetting": {"kind"},  # one row of each
    "metrics.retentionpolicy": {"category"},  # its name
}


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


def acted_on(page: Any, action: str) -> Any:
    """Return a row that the action has something to do with."""
    row = ACTED.get(f"{name_of(page)} {action}", partial(row_of, page))()
    if action.startswith("switch_"):
        type(row)._default_manager.filter(pk=row.pk).update(enabled=action == "switch_off")
    return row


def assigned(page: Any) -> dict[str, str]:
    """Return what is chosen on the page that asks for owner, team and the like."""
    fields = [page.opts.get_field(name) for name in page.assigned]
    return {field.name: str(make(field.related_model).pk) if field.is_relation else "web" for field in fields}


MESSAGE = {"title": "db is down", "body": "It does not answer."}
# What is typed on the page that asks first, and rows that an action wants to be of a certain kind.
ANSWERS: dict[str, dict[str, str]] = {"silence": {"lasts": "1h", "comment": "Known."}}
ACTED: dict[str, Callable[[], Any]] = {
    "alerting.recordingrule switch_on": lambda: make("alerting.recordingrule", expression="up"),
    "alerting.recordingrule switch_off": lambda: make("alerting.recordingrule", expression="up"),
    "notifications.delivery send_again": lambda: make(
        "notifications.delivery", contact=hook(), state="failed", error="refused", finished_at=AT, message=MESSAGE
    ),
    "accounts.user test_people": lambda: hook(owner=make("accounts.user")).owner,
    **{
        f"alerting.alertrule {action}": lambda: make("alerting.rulelevel", comparison=">", threshold=5.0).rule
        for action in ("switch_on", "switch_off", "assign")
    },
}


@pytest.mark.parametrize(("page", "action"), ACTIONS, ids=str)
def test_an_action_asks_first_and_then_leaves_an_entry(page, action, client):
    row, more = acted_on(page, action), assigned(page) if action == "assign" else ANSWERS.get(action, {})
    last = last_entry()
    form = {"action": action, "_selected_action": [row.pk]}
    question = client.post(url_of(page, "changelist"), form)
    if question.get("Content-Disposition") is None and question.status_code == 200 and action != "export":
        assert f"1 {page.opts.verbose_name}?" in question.text
    assert entries_after(last) == []
    answer = client.post(url_of(page, "changelist"), {**form, **more, "confirmed": "yes"})
    assert answer.status_code in (200, 302)
    said = [str(message) for message in get_messages(answer.wsgi_request)]
    assert entries_after(last), f"{action} of {name_of(page)} wrote nothing down: {said}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_rows_of_a_list_leave_as_files_without_secrets_and_an_entry_says_so(page, client):
    row = make(page.model)
    form = {"_selected_action": [row.pk], "index": 0}
    before = last_entry()
    table = client.post(url_of(page, "changelist"), {**form, "action": "export_csv"})
    rows = list(csv.DictReader(io.StringIO(table.text)))
    (found,) = client.post(url_of(page, "changelist"), {**form, "action": "export_json"}).json()
    assert list(rows[0]) == list(found)
    assert str(found[page.opts.pk.name]) == str(row.pk)
    assert not {"password", "secrets", "digest", "payload"} & set(found)
    assert [entry.verb for entry in entries_after(before)] == ["accounts.export_rows"] * 2


BESIDE = sorted(
    {page.model for page in PAGES if extensions(page.model, "links") or extensions(page.model, "charts")},
    key=lambda model: model._meta.label_lower,
)


@pytest.mark.slow
@pytest.mark.parametrize("model", BESIDE, ids=lambda model: model._meta.label_lower)
def test_every_way_from_a_row_leads_somewhere_and_every_chart_beside_it_is_answered(model, client):
    row = ROWS.get(model._meta.label_lower, partial(make, model))()
    page = client.get(reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[row.pk]))
    links = [link for link in page.context["links"] if not link.url.startswith("#")]
    assert [link for link in links if client.get(link.url, follow=False).status_code != 200] == []
    charts = page.context["charts"]
    assert (charts is None) == (not extensions(model, "charts"))
    if charts:
        state = charts["state"]
        asked = {**state["query"], "panel": [panel.key for panel in charts["panels"]], "range": charts["range"]}
        answer = client.get(state["data_url"], asked)
        assert answer.status_code == 200, answer.text
        assert [each for each in answer.json()["panels"].values() if "series" not in each] == []
