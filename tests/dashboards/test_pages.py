"""The pages: who may open them, what stands on them, and that their cost does not grow with what they show."""

import csv
import re
from datetime import timedelta

import pytest
from django.contrib.staticfiles import finders
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Principal, Scope
from apps.alerting.models import Alert, AlertRule, RuleGroup
from apps.dashboards import plots, snapshots
from apps.dashboards.panels import PANELS
from apps.dashboards.timespan import span_of
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from apps.promql import engine
from apps.promql.errors import DeadlineExceeded, LimitError

pytestmark = pytest.mark.django_db

PAGES = (
    "/monitoring/",
    "/monitoring/performance/",
    "/monitoring/system/",
    "/monitoring/alerts/",
    "/monitoring/alerts/?tab=history",
    "/monitoring/alerts/?tab=rules",
    "/monitoring/alerts/?tab=notifications",
    "/monitoring/senders/",
    "/monitoring/security/",
    "/monitoring/explore/",
    "/monitoring/data/?panel=tile-cpuUsage",
)
SETUP = Principal.system("test", via="command")
PASSWORD = "correct horse battery"
READERS = ("viewer", "operator", "editor", "administrator", "auditor")


@pytest.fixture
def written(db):
    """Return a function that stores samples: written("up", (60, 1.0), job="node"), seconds ago and value."""

    def write(name, *points, **labels):
        now = timezone.now()
        times = [int((now - timedelta(seconds=ago)).timestamp()) // 15 * 15_000 for ago, _ in points]
        samples = Samples.of([{"__name__": name, **labels}] * len(points), times, [value for _, value in points])
        metrics.backfill(samples=samples, by=SETUP, now=now)

    return write


@pytest.mark.parametrize("address", PAGES)
def test_nobody_sees_a_page_without_logging_in(client, address):
    answer = client.get(address, headers={"accept": "text/html"})
    assert answer.status_code == 302
    assert answer["location"].startswith("/accounts/login/?next=")


@pytest.mark.parametrize("address", PAGES)
def test_a_person_without_a_role_is_refused(client, person, address):
    client.force_login(person())
    assert client.get(address, headers={"accept": "text/html"}).status_code == 403


@pytest.mark.parametrize("address", PAGES)
def test_every_role_reads_every_page(client, person, address):
    for role in READERS:
        client.force_login(person(role))
        assert client.get(address).status_code == 200


def test_the_login_takes_a_password_and_goes_on_where_it_was_wanted(client, person):
    person("viewer", password=PASSWORD)
    wanted = {"username": "viewer", "password": PASSWORD, "next": "/monitoring/system/"}
    answer = client.post("/accounts/login/", wanted)
    assert (answer.status_code, answer["location"]) == (302, "/monitoring/system/")


def test_a_wrong_password_is_said_and_another_site_is_never_gone_to(client, person):
    person("viewer", password=PASSWORD)
    wrong = client.post("/accounts/login/", {"username": "viewer", "password": "guess"})
    assert "correct username and password" in wrong.content.decode()
    away = {"username": "viewer", "password": PASSWORD, "next": "https://elsewhere.example/"}
    assert client.post("/accounts/login/", away)["location"] == "/monitoring/"


def test_what_users_write_is_never_html(client, person, post):
    alert = post(message="<script>alert(1)</script>", type="<b>bold</b>")
    client.force_login(person("viewer"))
    for address in ("/monitoring/", "/monitoring/alerts/", f"/monitoring/alerts/{alert.key}/"):
        text = client.get(address).content.decode()
        assert "<script>alert" not in text
        assert "<b>bold" not in text


def test_pages_carry_no_inline_script_or_style(client, person, post):
    alert = post()
    client.force_login(person("administrator"))
    for address in (*PAGES[:-1], f"/monitoring/alerts/{alert.key}/"):
        answer = client.get(address)
        text = answer.content.decode()
        inline = [
            tag for tag in re.findall(r"<script[^>]*>", text) if "src=" not in tag and "application/json" not in tag
        ]
        assert not inline
        assert not re.search(r"<style|\sstyle=|\son\w+=", text)
        assert "unsafe" not in answer["content-security-policy"]


@pytest.mark.parametrize("address", PAGES)
def test_a_page_costs_the_same_number_of_queries_whatever_it_shows(client, person, post, address):
    client.force_login(person("auditor"))
    client.get(address)

    def cost():
        with CaptureQueriesContext(
            connection,
        ) as seen:
            assert client.get(address).status_code == 200
        return len(seen)

    post("first")
    before = cost()
    for number in range(6):
        post(f"more {number}", severity=("warning", "info")[number % 2])
    assert cost() == before


def test_the_overview_says_what_is_wrong_and_who_is_on_it(client, person, post):
    alert = post("The till is empty", type="till")
    client.force_login(person("operator"))
    text = client.get("/monitoring/").content.decode()
    assert "1 critical alert: till" in text
    assert "Nobody has acknowledged it yet." in text
    client.post(reverse("acknowledge", args=[alert.key]))
    assert "operator is on it." in client.get("/monitoring/").content.decode()


def test_acknowledging_and_resolving_are_recorded_with_the_person(client, person, post):
    alert = post()
    client.force_login(person("operator", name="mara"))
    client.post(reverse("acknowledge", args=[alert.key]))
    client.post(reverse("resolve", args=[alert.key]))
    alert.refresh_from_db()
    assert (alert.acknowledged_by, alert.resolved_by, alert.state) == ("mara", "mara", "resolved")
    verbs = AuditEntry.objects.filter(actor_name="mara").values_list("verb", flat=True)
    assert {"alerting.acknowledge", "alerting.resolve"} <= set(verbs)


@pytest.mark.parametrize("action", ["acknowledge", "resolve"])
@pytest.mark.parametrize("role", ["viewer", "auditor"])
def test_who_may_only_read_can_change_nothing(client, person, post, role, action):
    alert = post()
    client.force_login(person(role))
    assert client.post(reverse(action, args=[alert.key])).status_code == 403
    assert Alert.objects.get().acknowledged_at is None
    page = client.get(f"/monitoring/alerts/{alert.key}/").content.decode()
    assert re.search(rf'data-action="{action}" hidden', page)


def test_acknowledging_what_is_over_is_said_and_changes_nothing(client, person, post):
    alert = post()
    client.force_login(person("operator"))
    client.post(reverse("resolve", args=[alert.key]))
    answer = client.post(reverse("acknowledge", args=[alert.key]), follow=True)
    assert "can be acknowledged" in answer.content.decode()


def test_a_get_changes_nothing(client, person, post):
    alert = post()
    client.force_login(person("administrator"))
    assert client.get(reverse("resolve", args=[alert.key])).status_code == 405


def test_an_alert_page_tells_its_story(client, person, post):
    alert = post("The till is empty")
    client.force_login(person("operator", name="mara"))
    client.post(reverse("acknowledge", args=[alert.key]))
    text = client.get(f"/monitoring/alerts/{alert.key}/").content.decode()
    assert "Acknowledged by mara" in text
    assert "Firing, mara is on it" in text


def standing(*rows):
    """Active alerts as pages have them: (severity, name, who is on it)."""
    named = [dict(zip(("severity", "name", "acknowledged_by"), row, strict=True)) | {"since": None} for row in rows]
    worst = max((row["severity"] for row in named), key=lambda severity: plots.RANKS[severity])
    return {"rows": named, "total": len(named), "worst": worst}, [row for row in named if row["severity"] == worst]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("error", "A", "")], "Nobody has acknowledged it yet."),
        ([("error", "A", "mara")], "mara is on it."),
        ([("error", "A", ""), ("warning", "B", "jonas")], "Nobody is on A yet. The other one is acknowledged."),
        ([("error", "A", "mara"), ("warning", "B", "")], "A: mara is on it. The other one is not acknowledged."),
        ([("error", "A", ""), ("error", "B", "mara")], "Nobody is on A yet."),
        ([("error", "A", "mara"), ("error", "B", "jonas")], "A, B: jonas and mara are on it."),
        ([("error", n, "") for n in "ABCD"] + [("info", n, "x") for n in "EF"],
         "Nobody is on A, B and 2 more yet. The other 2 are acknowledged."),
        ([("error", "A", "x"), ("info", "B", ""), ("info", "C", "x")],
         "A: x is on it. 1 of the other 2 is not acknowledged."),
    ],
)  # fmt: skip
def test_the_overview_says_who_is_on_the_worst_first(rows, words):
    assert snapshots.taken(*standing(*rows)) == words


def test_an_unknown_alert_and_an_unknown_tab_are_not_found(client, person):
    client.force_login(person("viewer"))
    assert client.get("/monitoring/alerts/alert_none/").status_code == 404
    assert client.get("/monitoring/alerts/?tab=nothing").status_code == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("panel=cpu&range=15m", 200),
        ("panel=nothing", 404),
        ("table=nothing", 404),
        ("table=endpoints", 200),
        ("panel=cpu&range=2h", 400),
        ("panel=alert&alert=alert_none", 200),
    ],
)
def test_the_data_of_panels(client, person, query, status):
    client.force_login(person("viewer"))
    answer = client.get(f"/monitoring/data/?{query}")
    assert answer.status_code == status
    assert answer["content-type"] == "application/json"
    assert status == 200 or answer.json()["error"].endswith(".")


@pytest.mark.parametrize(
    ("error", "status"), [(DeadlineExceeded("It ran too long."), 503), (LimitError("It reads too much."), 422)]
)
def test_a_table_that_costs_too_much_is_refused_with_a_sentence(client, person, monkeypatch, error, status):
    client.force_login(person("viewer"))
    monkeypatch.setattr(engine, "evaluate_many", lambda exprs, *args, **options: [error for _ in exprs])
    answer = client.get("/monitoring/data/?table=endpoints")
    assert (answer.status_code, answer.json()) == (status, {"error": str(error)})


def test_one_answer_carries_many_panels_on_the_same_grid(client, person):
    client.force_login(person("viewer"))
    panels = client.get("/monitoring/data/?panel=cpu&panel=memory&range=6h").json()["panels"]
    assert panels["cpu"]["step"] == panels["memory"]["step"] == 120
    assert panels["cpu"]["count"] == 181


def test_names_and_addresses_on_the_security_page_are_for_auditors(client, person):
    client.post("/accounts/login/", {"username": "<b>eve</b>", "password": "guess"})
    for role, is_shown in (("viewer", False), ("operator", False), ("auditor", True), ("administrator", True)):
        client.force_login(person(role))
        text = client.get("/monitoring/security/").content.decode()
        assert ("&lt;b&gt;eve&lt;/b&gt;" in text) is is_shown
        assert "<b>eve" not in text


def test_a_panel_is_held_against_the_same_steps_a_week_earlier(client, person, written):
    written("cpuUsage", (0, 40.0), (7 * 24 * 3600, 20.0))
    client.force_login(person("viewer"))
    found = client.get("/monitoring/data/?panel=tile-cpuUsage&range=15m&compare=week").json()["panels"]["tile-cpuUsage"]
    assert [row["values"][-1] for row in (*found["series"], *found["before"])] == [40.0, 20.0]
    assert client.get("/monitoring/data/?panel=cpu&compare=year").status_code == 400


def test_a_panel_as_csv_names_its_series_and_no_cell_is_a_formula(client, person, written):
    written("celery_queue_length", (0, 3.0), queue='=cmd|"/c"!A1')
    client.force_login(person("viewer"))
    answer = client.get("/monitoring/data/?panel=queues&range=15m&format=csv")
    rows = list(csv.reader(answer.text.splitlines()))
    assert answer["content-disposition"] == 'attachment; filename="queues.csv"'
    assert (rows[0], len(rows), rows[-1][1]) == (["time", """'=cmd|"/c"!A1"""], 62, "3.0")
    assert client.get("/monitoring/data/?panel=queues&panel=cpu&format=csv").status_code == 400


def test_who_sees_only_some_labels_takes_away_only_their_series(written):
    written("celery_queue_length", (0, 3.0), queue="fast")
    span = span_of({"range": "15m"}, now=timezone.now())
    for queue, heading in (("fast", ["time", "fast"]), ("slow", ["time"])):
        answer = plots.plot(PANELS["queues"], span, plots.UNWATCHED, scope=Scope((("queue", "=", queue),)))
        assert plots.table_of(answer)[0] == heading


def test_alerts_of_a_panels_own_rule_are_shaded(client, person, post):
    now, group = timezone.now(), RuleGroup.objects.create(name="house")
    rule = AlertRule(slug="busy", name="Busy", expression="cpuUsage", group=group, created_at=now, updated_at=now)
    rule.save()
    Alert.objects.filter(pk=post().pk).update(rule=rule)
    client.force_login(person("viewer"))
    panels = client.get("/monitoring/data/?panel=tile-cpuUsage&panel=queues").json()["panels"]
    assert panels["queues"]["alerts"] == []
    assert [(row["severity"], row["to"]) for row in panels["tile-cpuUsage"]["alerts"]] == [("critical", None)]


def test_without_a_working_contact_every_page_says_so(client, person):
    client.force_login(person("viewer"))
    for address in PAGES[:-1]:
        assert "banner is-critical" in client.get(address).content.decode()


def test_every_static_file_that_a_template_or_a_script_names_is_there(settings):
    named = set()
    for path in (settings.ROOT / "templates").rglob("*.html"):
        named |= set(re.findall(r"{% static '([^']+)' %}", path.read_text()))
    for path in (settings.ROOT / "static/portal").glob("*.js"):
        named |= {f"portal/{name}" for name in re.findall(r'from "\./([\w.]+)"', path.read_text())}
    assert named
    assert not [name for name in named if finders.find(name) is None]


def test_every_icon_that_is_drawn_exists(settings):
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', (settings.ROOT / "static/portal/icons.svg").read_text()))
    wanted = set()
    for path in (settings.ROOT / "templates").rglob("*.html"):
        wanted |= set(re.findall(r"{% icon '([\w-]+)'", path.read_text()))
    for path in (settings.ROOT / "static/portal").glob("*.js"):
        wanted |= set(re.findall(r'icon\("([\w-]+)"', path.read_text()))
    assert wanted <= drawn
    assert {"ok", "info", "warning", "error", "critical"} <= drawn


def test_errors_are_json_for_programs_and_pages_for_people(client, person):
    client.force_login(person("viewer"))
    assert client.get("/api/nothing/").json() == {"error": "There is nothing at this address."}
    assert "There is nothing here" in client.get("/nothing/").content.decode()


def test_a_form_that_is_not_this_browsers_is_refused_with_a_page_that_says_what_to_do():
    stranger = Client(enforce_csrf_checks=True)
    answer = stranger.post("/accounts/login/", {"username": "a", "password": "b"}, headers={"accept": "text/html"})
    assert answer.status_code == 403
    assert "load the page again" in answer.text
    assert "Monitoring Portal" in answer.text
    answer = stranger.post("/accounts/login/", {}, headers={"accept": "application/json"})
    assert answer.json()["error"].startswith("The form cannot be taken.")
