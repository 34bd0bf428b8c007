"""Dashboards of people: who sees and changes which, what their panels answer, and links that share one."""

import csv
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from apps.accounts.models import AuditEntry, Team
from apps.accounts.permissions import Principal, Scope
from apps.accounts.rights import Forbidden
from apps.alerting import services as alerting
from apps.alerting.models import AdaptiveBand, AlertRule, RuleGroup, RuleLevel
from apps.dashboards import answers, dashboard_pages, document, plots, services
from apps.dashboards.document import BadDocument, Document, Variable
from apps.dashboards.models import Dashboard, DashboardVersion, Folder, ShareLink
from apps.dashboards.timespan import span_of
from apps.metrics import budgets
from apps.metrics import services as metrics
from apps.metrics.models import QueryBudget
from apps.metrics.samples import Samples
from apps.metrics.throttle import Throttle
from monitoring_portal import setup

pytestmark = pytest.mark.django_db

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
BY = Principal.system("test")
V1 = "/api/v1/portal"
HOSTILE = ('<img src=x onerror="alert(1)">\u202e' + "x" * 1_000)[:1_000]


def stat(expression='up{instance=~"$host"}', **more):
    return {"id": "one", "kind": "stat", "queries": [{"expression": expression, "legend": "{instance}"}]} | more


def document_of(*panels, variables=()):
    return {"panels": list(panels), "variables": list(variables)}


HOST = {"name": "host", "kind": "query", "query": "label_values(up, instance)", "values": ["$__all"], "multi": True,
        "all": True}  # fmt: skip


def make(title="Shop", folder=None, by=BY, **more):
    values = {"title": title, "folder": folder, "document": document_of(stat(), variables=[HOST])} | more
    return services.save_dashboard(by=by, values=values, now=AT)


def measure(*hosts, now=None):
    now = now or timezone.now()
    stamp = int(now.timestamp() * 1000) - 20_000
    labels = [{"__name__": "up", "job": "node", "instance": host} for host in hosts]
    metrics.backfill(samples=Samples.of(labels, [stamp] * len(hosts), [1.0] * len(hosts)), by=BY, now=now)


def principal(user):
    return Principal.of_user(user)


# --- Who sees what ---------------------------------------------------------------------------------------------------
def test_a_folder_is_seen_by_its_roles_and_its_teams_and_by_administrators(person):
    night = Team.objects.create(name="Night")
    people = {name: person(role, name=name) for name, role in (
        ("olga", "operator"), ("vic", "viewer"), ("ed", "editor"), ("ada", "administrator"))}  # fmt: skip
    night.members.add(people["vic"], people["olga"])
    everybody = make("Open")
    roles = make("Roles", services.save_folder(by=BY, folder=Folder(name="Roles", roles=["operator"])))
    teams = make("Teams", services.save_folder(by=BY, folder=Folder(name="Teams"), teams=[night]))
    both = make("Both", services.save_folder(by=BY, folder=Folder(name="Both", roles=["operator"]), teams=[night]))
    seen = {
        name: set(Dashboard.objects.all().visible_to(principal(user)).values_list("title", flat=True))
        for name, user in people.items()
    }
    assert seen == {
        "olga": {"Open", "Roles", "Teams", "Both"},
        "vic": {"Open", "Teams"},
        "ed": {"Open"},
        "ada": {"Open", "Roles", "Teams", "Both"},
    }
    assert everybody.pk
    for row in (roles, teams, both):
        with pytest.raises(Forbidden):
            services.save_dashboard(by=principal(people["ed"]), values={"title": "Mine"}, now=AT, dashboard=row)


def test_someone_elses_dashboard_is_not_found_on_any_address(client, person):
    hidden = make("Hidden", services.save_folder(by=BY, folder=Folder(name="Roles", roles=["auditor"])))
    client.force_login(person("editor"))
    base = f"/monitoring/dashboards/{hidden.slug}/"
    for path in ("", "data/?panel=one", "history/"):
        assert client.get(base + path).status_code == 404
    for path in ("save/", "delete/", "history/1/restore/", "share/"):
        assert client.post(base + path, b"{}", content_type="application/json").status_code == 404
    assert "Hidden" not in client.get("/monitoring/dashboards/").text


def test_a_viewer_looks_and_changes_nothing(client, person):
    row = make()
    client.force_login(person("viewer"))
    page = client.get(f"/monitoring/dashboards/{row.slug}/")
    assert page.status_code == 200
    assert "data-edit" not in page.text
    assert client.post(f"/monitoring/dashboards/{row.slug}/save/", b"{}", "application/json").status_code == 403


# --- What is saved ---------------------------------------------------------------------------------------------------
def test_each_save_is_a_version_and_an_earlier_one_can_stand_again():
    row = make()
    for title in ("Second", "Third"):
        row = services.save_dashboard(by=BY, values={"title": title}, now=AT, dashboard=row, message=f"To {title}")
    row = services.restore_version(by=BY, dashboard=row, number=1, now=AT)
    assert (row.title, row.version) == ("Shop", 4)
    assert list(row.versions.values_list("number", "title", "message")) == [
        (4, "Shop", "Version 1 again"), (3, "Third", "To Third"), (2, "Second", "To Second"), (1, "Shop", ""),
    ]  # fmt: skip


def test_only_so_many_versions_are_kept(monkeypatch):
    monkeypatch.setattr(services, "KEPT", 2)
    row = make()
    for _ in range(3):
        row = services.save_dashboard(by=BY, values={}, now=AT, dashboard=row)
    assert list(DashboardVersion.objects.values_list("number", flat=True)) == [4, 3]


def test_who_edited_an_older_version_overwrites_nothing(client, person):
    row = make()
    client.force_login(person("editor"))
    services.save_dashboard(by=BY, values={"title": "Newer"}, now=AT, dashboard=row)
    body = {"title": "Mine", "version": 1, "document": document_of()}
    answer = client.post(f"/monitoring/dashboards/{row.slug}/save/", orjson.dumps(body), "application/json")
    assert (answer.status_code, "saved version 2 meanwhile" in answer.json()["error"]) == (422, True)
    assert client.post(
        f"/monitoring/dashboards/{row.slug}/save/", orjson.dumps(body | {"version": 2}), "application/json"
    ).json()["version"] == 3  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"[]", b'{"document": {"panels": [{"kind": "iframe"}]}}', b'{"title": ""}'])
def test_what_is_no_dashboard_is_refused_with_a_sentence(client, person, body):
    row = make()
    client.force_login(person("editor"))
    answer = client.post(f"/monitoring/dashboards/{row.slug}/save/", body, "application/json")
    assert (answer.status_code, bool(answer.json()["error"])) == (422, True)


def test_a_folder_with_dashboards_cannot_go_and_open_them_to_all():
    folder = services.save_folder(by=BY, folder=Folder(name="Roles", roles=["operator"]))
    make(folder=folder)
    with pytest.raises(ValidationError, match="not empty"):
        services.delete_folder(by=BY, folder=folder)
    with pytest.raises(ValidationError, match="Roles are"):
        services.save_folder(by=BY, folder=Folder(name="x", roles=["king"]))


def test_titles_make_addresses_that_hide_no_page():
    assert [make(title).slug for title in ("Shop", "Shop", "New", "Предел")] == ["shop", "shop-2", "new-2", "dashboard"]


def test_the_shipped_dashboards_come_once_into_a_folder():
    for _ in range(2):
        for row in setup.read("dashboards"):
            services.ship_dashboard(row, by=BY, now=AT)
    assert list(Dashboard.objects.values_list("slug", "folder__name").order_by("slug")) == [
        (slug, "Shipped") for slug in ("django-application", "host", "portal", "postgresql", "redis", "web-requests")
    ]


# --- What panels answer ----------------------------------------------------------------------------------------------
def asked(panel, *, who=BY, values=None, query=None):
    span = span_of(query or {}, now=timezone.now())
    return answers.answer(document.read_panel(panel), span, values or {}, who=who)


def test_a_panel_shows_what_the_variable_chooses(client, person):
    measure("web-1", "web-2", HOSTILE)
    row = make()
    client.force_login(person("viewer"))
    base = f"/monitoring/dashboards/{row.slug}/"
    assert len(client.get(base + "data/?panel=one").json()["panels"]["one"]["series"]) == 3
    only = client.get(base + "data/", {"panel": "one", "var-host": ["web-2"]}).json()["panels"]["one"]
    assert [series["name"] for series in only["series"]] == ["web-2"]
    odd = client.get(base + "data/", {"panel": "one", "var-host": [HOSTILE]}).json()["panels"]["one"]
    assert [len(series["name"]) for series in odd["series"]] == [plots.LONGEST_NAME]
    page = client.get(base).text
    assert "<img" not in page
    assert "web-1" in page


def test_a_reader_sees_no_series_beyond_their_scope_in_any_kind_of_panel():
    measure("web-1", "web-2")
    narrow = Principal("token", "1", "t", BY.rights, Scope((("instance", "=", "web-1"),)))
    every = {"host": ("$__all",)}
    for kind in ("timeseries", "stat", "gauge", "heatmap", "table"):
        found = asked(stat(kind=kind), who=narrow, values=every)
        assert "web-1" in str(found)
        assert "web-2" not in str(found)
    whole = document.read(document_of(stat(), variables=[HOST]))
    assert answers.options_of(whole, {}, span_of({}, now=timezone.now()), who=narrow)["host"]["options"] == ["web-1"]


def test_values_are_asked_for_by_expression_and_narrowed_by_a_pattern():
    measure("web-1:80", "web-2:80", "db-1:80")
    result = Variable("host", "query", query='query_result(up{job="$job"} > 0)', regex='instance="(?P<value>web[^:]*)')
    values = Variable("any", "query", query="label_values(up, instance)", regex="^db")
    hidden = Variable("bad", "query", query="query_result(up +)")
    span = span_of({}, now=timezone.now())
    found = answers.options_of(Document(variables=(result, values, hidden)), {"job": ("node",)}, span, who=BY)
    assert (found["host"]["options"], found["any"]["options"]) == (["web-1", "web-2"], ["db-1:80"])
    assert "parse error" in found["bad"]["error"]
    with pytest.raises(BadDocument, match="invalid regular expression"):
        document.read_variables([{"name": "x", "kind": "query", "query": "label_values(a)", "regex": "("}])


def test_a_panel_that_cannot_be_answered_says_why_and_the_others_are_answered(client, person):
    measure("web-1")
    panels = [stat("up +", id="bad"), stat("up{instance='$host'}", id="many"), stat("up", id="good")]
    row = make(document=document_of(*panels, variables=[HOST]))
    client.force_login(person("viewer"))
    found = client.get(f"/monitoring/dashboards/{row.slug}/data/?panel=bad&panel=many&panel=good").json()["panels"]
    assert "parse error" in found["bad"]["error"]
    assert "match it with =~" in found["many"]["error"]
    assert found["good"]["series"]


def test_a_panel_costs_no_more_than_its_readers_budget(person):
    measure("web-1", "web-2")
    QueryBudget.objects.update_or_create(
        role="viewer",
        defaults={"series": 1, "samples": 1_000, "points": 1_000, "seconds": 30},
    )
    budgets.forget()
    assert "1" in asked(stat("up"), who=principal(person("viewer")))["error"]
    budgets.forget()


def test_many_series_are_bounded_and_counted_in_every_kind_of_panel():
    measure(*(f"<b>{number}</b>" for number in range(600)))
    assert (len((lines := asked(stat("up")))["series"]), lines["more"]) == (20, 580)
    assert (len((rows := asked(stat("up", kind="table")))["rows"]), rows["more"]) == (200, 400)
    assert (len((heat := asked(stat("up", kind="heatmap")))["rows"]), heat["more"]) == (60, 540)
    whole = document.read(document_of(stat(), variables=[HOST]))
    assert (
        len(answers.options_of(whole, {}, span_of({}, now=timezone.now()), who=BY)["host"]["options"])
        == answers.MOST_OPTIONS
    )
    year = {"from": f"{int((timezone.now() - timedelta(days=365)).timestamp() * 1000)}", "to": "99999999999999"}
    assert asked(stat("up"), query=year)["count"] <= 301


def test_a_table_joins_its_queries_by_labels():
    measure("web-1", "web-2")
    panel = {
        "kind": "table",
        "queries": [{"expression": "up"}, {"expression": 'up{instance="web-1"} * 5', "legend": "five"}],
    }
    found = asked(panel)
    assert [column["title"] for column in found["columns"]] == ["instance", "job", "Value 1", "five"]
    assert found["rows"] == [["web-1", "node", 1.0, 5.0], ["web-2", "node", 1.0, None]]


def test_a_heat_map_takes_the_buckets_below_off_each_bucket():
    now = timezone.now()
    stamp = int(now.timestamp() * 1000) - 20_000
    labels = [{"__name__": "took_bucket", "le": edge} for edge in ("10", "2.5", "+Inf")]
    metrics.backfill(samples=Samples.of(labels, [stamp] * 3, [7.0, 3.0, 9.0]), by=BY, now=now)
    found = asked({"kind": "heatmap", "queries": [{"expression": "took_bucket"}]})
    assert found["names"] == ["2.5", "10", "+Inf"]
    last = [next(value for value in reversed(row) if value == value) for row in found["rows"]]
    assert last == [3.0, 4.0, 2.0]


def test_an_alert_list_shows_what_its_matchers_accept(post):
    for service in ("shop", "search"):
        post(service=service, type=f"fire-{service}")
    assert len(asked({"kind": "alertlist"})["alerts"]) == 2
    only = asked({"kind": "alertlist", "text": 'service="shop"'})["alerts"]
    assert [row["service"] for row in only] == ["shop"]
    assert "no matcher" in asked({"kind": "alertlist", "text": "???"})["error"]


def test_a_draft_is_previewed_before_it_is_saved(client, person):
    measure("web-1")
    client.force_login(person("viewer"))
    body = {"panel": stat(), "variables": [HOST], "values": {"host": ["web-1"]}}
    found = client.post("/monitoring/dashboards/preview/", orjson.dumps(body), "application/json").json()
    assert [series["name"] for series in found["panels"]["one"]["series"]] == ["web-1"]
    odds: tuple[Any, ...] = (
        {"panel": {"kind": "x"}}, {"panel": stat(), "values": [1]}, {"panel": stat(), "variables": 3}, [],
    )  # fmt: skip
    for odd in odds:
        assert client.post("/monitoring/dashboards/preview/", orjson.dumps(odd), "application/json").status_code == 422


def watch_over(expression, slug="busy"):
    """A rule with a limit and an adaptive band on this expression, whose band is 0.5 to 1.5 around web-1."""
    group = RuleGroup.objects.create(name=slug)
    rule = AlertRule.objects.create(
        slug=slug, name=slug, expression=expression, group=group, created_at=AT, updated_at=AT
    )
    RuleLevel.objects.create(rule=rule, severity="warning", comparison=">", threshold=3.0)
    AdaptiveBand.objects.create(slug=slug, rule=rule)
    now = timezone.now()
    stamp = int(now.timestamp() * 1000) - 20_000
    own = {"job": "node", "instance": "web-1", "band": slug}
    labels = [{"__name__": f"anomaly:{edge}_band", **own} for edge in ("lower", "upper")]
    metrics.backfill(samples=Samples.of(labels, [stamp] * 2, [0.5, 1.5]), by=BY, now=now)


def last(values):
    return next((value for value in reversed(values) if value == value and value is not None), None)


def test_what_rules_say_of_an_expression_stands_on_every_panel_that_shows_it(client, person):
    measure("web-1", "web-2")
    watch_over('up{instance=~".*"}')
    own = {"severity": "critical", "value": 9.0, "comparison": ">"}
    panels = [stat(kind="timeseries"), stat(kind="timeseries", id="own", thresholds=[own]), stat("up", id="other")]
    row = make(document=document_of(*panels, variables=[HOST]))
    client.force_login(person("viewer"))
    address = f"/monitoring/dashboards/{row.slug}/data/?panel=one&panel=own&panel=other"
    found = client.get(address).json()["panels"]
    assert found["one"]["levels"] == [{"severity": "warning", "comparison": ">", "value": 3.0}]
    assert [(edge["name"], last(edge["values"])) for edge in found["one"]["lower"]] == [("web-1", 0.5)]
    assert [(edge["name"], last(edge["values"])) for edge in found["one"]["upper"]] == [("web-1", 1.5)]
    assert [level["severity"] for level in found["own"]["levels"]] == ["critical"]
    assert (found["other"]["levels"], "lower" in found["other"]) == ([], False)
    assert found["one"]["expressions"] == ['up{instance=~".*"}']


@pytest.mark.parametrize(
    ("kind", "heading"),
    [
        ("timeseries", ["time", "web-1"]),
        ("stat", ["time", "web-1"]),
        ("gauge", ["time", "web-1"]),
        ("heatmap", ["time", "web-1"]),
        ("table", ["instance", "job", "Value"]),
        ("alertlist", ["severity", "name", "service", "state", "since", "message"]),
    ],
)
def test_a_panel_of_any_kind_is_taken_away_as_a_table(client, person, post, kind, heading):
    measure("web-1")
    post("=cmd", service="shop")
    panel = {"id": "one", "kind": kind} if kind == "alertlist" else stat(kind=kind)
    row = make(document=document_of(panel, variables=[HOST]))
    client.force_login(person("viewer"))
    answer = client.get(f"/monitoring/dashboards/{row.slug}/data/?panel=one&range=15m&format=csv")
    rows = list(csv.reader(answer.text.splitlines()))
    assert (answer["content-disposition"], rows[0]) == ('attachment; filename="one.csv"', heading)
    shown = {"table": "1.0", "alertlist": "'=cmd"}.get(kind)
    assert (rows[-1][-1] == shown) if shown else last([float(each[1]) for each in rows[1:] if each[1]]) == 1.0


def test_a_panel_that_measures_nothing_is_a_table_without_numbers(client, person):
    row = make(document=document_of({"id": "one", "kind": "text", "text": "Read this"}))
    client.force_login(person("viewer"))
    answer = client.get(f"/monitoring/dashboards/{row.slug}/data/?panel=one&range=15m&format=csv")
    assert (answer.status_code, answer.text.split()) == (200, ["time"])


def test_a_panel_is_held_against_the_same_hours_of_last_week(client, person):
    measure("web-1")
    measure("web-1", now=timezone.now() - timedelta(days=7))
    row = make(document=document_of(stat(kind="timeseries"), stat(id="two"), variables=[HOST]))
    client.force_login(person("viewer"))
    address = f"/monitoring/dashboards/{row.slug}/data/?panel=one&panel=two&range=15m&compare="
    found = client.get(f"{address}week").json()["panels"]
    assert [last(series["values"]) for series in found["one"]["before"]] == [1.0]
    assert "before" not in found["two"]
    assert client.get(f"{address}year").status_code == 400


# --- Links -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def ed(person):
    return person("editor", name="ed")


def shared(ed, lasts=timedelta(days=1), **more):
    row = make()
    link, secret = services.share(by=principal(ed), dashboard=row, lasts=lasts, now=timezone.now(), **more)
    return link, f"/monitoring/dashboards/shared/{secret}/"


def test_a_link_shows_one_dashboard_to_anybody_and_only_what_it_may(client, ed):
    measure("web-1", "web-2")
    _, address = shared(ed, matchers=[["instance", "=", "web-1"]])
    page = client.get(address)
    assert (page.status_code, page["Referrer-Policy"], page["X-Robots-Tag"]) == (200, "no-referrer", "noindex")
    assert "label_values" not in page.text
    assert "queries" not in page.text or "up{" not in page.text
    for more in ("", "&var-host=web-2"):
        found = client.get(f"{address}data/?panel=one{more}").json()["panels"]["one"]["series"]
        assert [series["name"] for series in found] == ["web-1"]
    alerting.note_change(by=BY, title="shop 1.4.2", author="mara", now=timezone.now())
    whole = client.get(f"{address}data/?panel=one").json()["panels"]["one"]
    assert "expressions" not in whole  # what is asked is not what is shared
    assert client.get(f"{address}data/?panel=one").json()["changes"] == []
    assert client.get("/monitoring/dashboards/shop/", headers={"accept": "text/html"}).status_code == 302


def test_a_panel_that_fails_tells_a_stranger_nothing_of_its_question(client, ed):
    row = make(document=document_of(stat("secret_metric +")))
    _, secret = services.share(by=principal(ed), dashboard=row, lasts=timedelta(days=1), now=timezone.now())
    found = client.get(f"/monitoring/dashboards/shared/{secret}/data/?panel=one").json()["panels"]["one"]
    assert found["error"] == "This panel cannot be answered at the moment."
    assert "secret" not in client.get(f"/monitoring/dashboards/shared/{secret}/data/?panel=one&format=csv").text


def test_a_link_keeps_its_variables_as_they_were(client, ed):
    measure("web-1", "web-2")
    _, address = shared(ed, values={"host": ("web-2",)})
    found = client.get(f"{address}data/?panel=one&var-host=web-1").json()["panels"]["one"]["series"]
    assert [series["name"] for series in found] == ["web-2"]


def test_who_asks_a_link_too_often_waits_and_is_counted(client, ed, monkeypatch):
    monkeypatch.setattr(dashboard_pages, "_asked", Throttle())
    monkeypatch.setattr(dashboard_pages, "BY_ADDRESS", 1)
    _, address = shared(ed)
    answers = [client.get(f"{address}data/?panel=one") for _ in range(8)]
    assert [answer.status_code for answer in answers[:5]] == [200] * 5
    assert answers[-1].status_code == 429
    assert (int(answers[-1]["Retry-After"]) >= 1, "too often" in answers[-1].json()["error"]) == (True, True)
    assert client.get("/monitoring/dashboards/shared/guessed/").status_code == 429
    assert client.get(address, REMOTE_ADDR="192.0.2.9").status_code == 200
    assert dashboard_pages.SHARED_REFUSED.value(reason="address") > 0


@pytest.mark.parametrize("end", ["revoked", "expired", "maker gone", "maker lost the role", "moved out of sight"])
def test_a_link_ends(client, ed, end):
    link, address = shared(ed)
    assert client.get(address).status_code == 200
    if end == "revoked":
        services.revoke_share(by=BY, link=link, now=AT)
    elif end == "expired":
        ShareLink.objects.update(created_at=AT - timedelta(days=2), expires_at=AT - timedelta(days=1))
    elif end == "maker gone":
        type(ed).objects.update(is_active=False)
    elif end == "maker lost the role":
        ed.groups.clear()
    else:
        secret = services.save_folder(by=BY, folder=Folder(name="Secret", roles=["auditor"]))
        Dashboard.objects.update(folder=secret)
    assert (client.get(address).status_code, client.get(f"{address}data/").status_code) == (404, 404)


def test_a_link_is_kept_as_a_digest_and_its_making_is_audited(client, ed):
    row = make()
    client.force_login(ed)
    page = client.post(f"/monitoring/dashboards/{row.slug}/share/?var-host=web-9", {"lasts": "7d", "matchers": "a=b"})
    secret = page.text.partition("/monitoring/dashboards/shared/")[2].partition("/")[0]
    link = ShareLink.objects.get()
    assert (link.digest, link.values, link.matchers) == (
        services.digest_of(secret), {"host": ["web-9"]}, [["a", "=", "b"]],
    )  # fmt: skip
    entry = AuditEntry.objects.get(verb="dashboards.share")
    assert secret not in str(entry.after)
    assert link.digest not in str(entry.after)
    client.post(f"/monitoring/dashboards/{row.slug}/share/{link.pk}/revoke/")
    assert client.get(f"/monitoring/dashboards/shared/{secret}/").status_code == 404


# --- The list --------------------------------------------------------------------------------------------------------
def test_the_list_is_searched_and_shows_hostile_titles_as_text(client, person):
    make(HOSTILE[:200])
    make("Shop", description="carts and payments")
    client.force_login(person("viewer"))
    page = client.get("/monitoring/dashboards/").text
    assert "<img" not in page
    assert "&lt;img" in page
    found = client.get("/monitoring/dashboards/?q=PAYMENTS shop").text
    assert ("carts and payments" in found, "&lt;img" in found) == (True, False)


def test_an_empty_dashboard_and_a_copy_are_made_on_the_list(client, person):
    client.force_login(person("editor"))
    made = client.post("/monitoring/dashboards/new/", {"title": "Mine"})
    assert made["location"] == "/monitoring/dashboards/mine/?edit=1"
    client.post("/monitoring/dashboards/new/", {"of": "mine"})
    assert Dashboard.objects.get(slug="mine-copy").title == "Mine (copy)"


# --- The API ---------------------------------------------------------------------------------------------------------
def test_a_dashboard_is_kept_beside_code_by_the_api(client, ed):
    client.force_login(ed)
    services.save_folder(by=BY, folder=Folder(name="Web"))
    given = {"title": "Shop", "folder": "Web", "document": document_of(stat(), variables=[HOST])}
    made = client.post(f"{V1}/dashboards/", given, "application/json")
    assert (made.status_code, made.json()["slug"], made.json()["folder"]) == (201, "shop", "Web")
    read = client.get(f"{V1}/dashboards/shop/").json()
    again = client.patch(f"{V1}/dashboards/shop/", {"document": read["document"], "version": 1}, "application/json")
    assert (again.json()["version"], again.json()["document"]) == (2, read["document"])
    stale = client.patch(f"{V1}/dashboards/shop/", {"title": "x", "version": 1}, "application/json")
    assert (stale.status_code, "meanwhile" in str(stale.json())) == (400, True)
    for odd in ({"title": "x", "folder": "None"}, {"title": "x", "document": {"panels": 3}}, {"title": "x", "y": 1}):
        assert client.post(f"{V1}/dashboards/", odd, "application/json").status_code == 400


def test_the_api_shows_no_dashboard_of_a_folder_that_is_closed_to_the_caller(client, ed):
    make("Hidden", services.save_folder(by=BY, folder=Folder(name="Roles", roles=["auditor"])))
    client.force_login(ed)
    assert client.get(f"{V1}/dashboards/hidden/").status_code == 404
    assert "Hidden" not in client.get(f"{V1}/dashboards/").content.decode()
