"""Whoever a team narrows sees nothing of another team's: on no page, panel, socket, export, feed or API.

Two teams' things stand side by side, alike but for a word. The word of the other team must not be told anywhere.
"""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts import services as accounts
from apps.accounts.models import Team, User
from apps.accounts.permissions import Principal, Right, Scope
from apps.accounts.rights import is_matcher, scope_of_teams
from apps.alerting import evaluation
from apps.alerting import services as alerting
from apps.alerting.models import Alert, AlertRule, Incident, MaintenanceWindow, RuleGroup, RuleLevel, Service
from apps.dashboards import consumers, measured_panels
from apps.dashboards import services as dashboards
from apps.dashboards.panels import PANELS, TABLES
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from apps.notifications import services as notifications
from apps.oncall import escalating, telling
from apps.oncall.models import Route
from apps.sources import checks, heartbeats, measured
from apps.sources import services as sources
from apps.sources.models import BusinessMetric, Check, DataSource, Heartbeat, ScrapeJob, ScrapeTarget
from monitoring_portal import fastlane, setup
from tests.house.routes import walk
from tests.wiring.lanes import ask

pytestmark = pytest.mark.django_db
BY = Principal.system("test", via="command")
OTHER, OWN = "zebra", "heron"
ROLES = ("viewer", "operator", "editor", "auditor")


@pytest.mark.parametrize(
    ("teams", "matchers"),
    [
        ([], ()),
        ([[]], ()),
        ([[("team", "=", "a")]], (("team", "=", "a"),)),
        ([[("team", "=", "a")], []], (("team", "=", "a"),)),
        ([[("team", "=", "a.b")], [("team", "=~", "c|d")]], (("team", "=~", r"(?:c|d)|a\.b"),)),
        ([[("team", "=", "a")], [("env", "=", "b")]], (("team", "=", "a"), ("env", "=", "b"))),
        ([[("team", "!=", "a")], [("team", "!=", "b")]], (("team", "!=", "a"), ("team", "!=", "b"))),
        ([[("team", "=", "a"), ("env", "=", "b")], [("team", "=", "c")]],
         (("team", "=", "a"), ("env", "=", "b"), ("team", "=", "c"))),
    ],
)  # fmt: skip
def test_teams_of_one_label_add_up_and_others_all_hold(teams, matchers):
    assert scope_of_teams(teams) == Scope(matchers)


@pytest.mark.parametrize(
    "odd", [[], ["a", "="], ["a", "=", 1], ["", "=", "a"], ["a", "==", "b"], ["a", "=~", "("], "abc"]
)
def test_what_is_no_matcher_is_not_taken_for_one(odd):
    assert not is_matcher(odd)


@pytest.fixture
def narrowed():
    """Return a function that makes a person of a role in the team that sees its own things alone."""
    team = Team(name="Own", matchers=[["team", "=", OWN]])
    accounts.save_object(by=BY, obj=team)

    def make(role):
        user = User.objects.create_user(f"{role}-{OWN}")
        accounts.set_roles(by=BY, user=user, roles=[role])
        team.members.add(user)
        return user

    return make


def test_a_team_narrows_what_its_members_see_and_leaves_them_reading_and_operating(narrowed):
    who = Principal.of_user(narrowed("editor"))
    assert who.scope == Scope((("team", "=", OWN),))
    assert who.rights == {Right.READ, Right.SUBSCRIBE, Right.QUERY, Right.OPERATE}
    boss = Principal.of_user(narrowed("administrator"))
    assert (boss.scope, Right.ADMINISTER in boss.rights) == (Scope(), True)


def test_roles_and_teams_are_one_query_a_request(narrowed, django_assert_num_queries):
    user = User.objects.get(pk=narrowed("viewer").pk)
    with django_assert_num_queries(1):
        Principal.of_user(user)


def test_a_team_with_a_wrong_matcher_is_refused(client):
    ada = User.objects.create_user("ada")
    accounts.set_roles(by=BY, user=ada, roles=["administrator"])
    client.force_login(ada)
    for matchers in ([["team", "=~", "("]], [["team"]], {"team": "web"}):
        body = orjson.dumps({"name": "Odd", "matchers": matchers})
        assert client.post("/api/v1/portal/teams/", body, "application/json").status_code == 400
    made = client.post("/api/v1/portal/teams/", orjson.dumps({"name": "Web", "matchers": [["team", "=", "web"]]}),
                       "application/json")  # fmt: skip
    assert (made.status_code, made.json()["matchers"]) == (201, [["team", "=", "web"]])


# --- Nothing of another team's ---------------------------------------------------------------------------------------
def measure(word, now):
    """Series of every page, all of whose labels are the word."""
    own = {"team": word}
    names = ("up", "cpuUsage", "responseTime", "errorRate", "throughput", "memoryUsage", "diskUsage", "dbConnections",
             "http_requests_total", "redis_memory_used_bytes", "celery_queue_length", "pg_settings_max_connections",
             "activeUsers", "feature_used", "portal_push_samples_total", f"{word}_metric")  # fmt: skip
    marks = dict.fromkeys(
        ("instance", "job", "endpoint", "method", "code", "queue", "feature", "token", "protocol", "device"), word
    )
    for ago in (90, 45, 15):
        stamp = int((now - timedelta(seconds=ago)).timestamp()) // 15 * 15_000
        labels = [{"__name__": name, **marks, **own} for name in names]
        metrics.backfill(samples=Samples.of(labels, [stamp] * len(names), [95.0 - ago] * len(names)), by=BY, now=now)


def write(word, now):
    """One of everything that carries labels; the word stands in each name, label and message."""
    own = {"team": word}
    alerting.save_service(by=BY, values={"name": f"{word}-service"}, depends_on=[], now=now)
    alerting.note_change(by=BY, title=f"{word} deployed", service=f"{word}-service", author=f"{word}-author", now=now)
    alert = alerting.post_alert(
        by=BY, type=f"{word}-fire", severity="critical", message=f"{word} burns", service=f"{word}-service", now=now
    )
    Alert.objects.filter(pk=alert.pk).update(labels={**alert.labels, **own})
    alerting.silence(by=BY, matchers=[f'team="{word}"', 'severity="info"'], starts_at=now,
                     ends_at=now + timedelta(hours=1), comment=f"{word} is quiet", now=now)  # fmt: skip
    service = Service.objects.get(name=f"{word}-service")
    service.team = Team.objects.get_or_create(name=word)[0]
    service.save()
    MaintenanceWindow.objects.create(
        name=f"{word} window", service=service, matchers=[], starts_at=now, ends_at=now + timedelta(hours=1),
        created_by="test", created_at=now, updated_at=now,
    )  # fmt: skip
    check = checks.save_check(
        by=BY,
        check=Check(name=f"{word} check", kind="tcp", labels=own),
        values={"address": f"{word}.example:1"},
        now=now,
    )
    beat = heartbeats.save_heartbeat(
        by=BY, beat=Heartbeat(name=f"{word} job", labels=own, period=timedelta(hours=1)), now=now
    )
    job = ScrapeJob(name=f"{word}-job", targets=[{"targets": [f"{word}.example:9100"], "labels": own}])
    sources.save_job(by=BY, job=job, now=now)
    source = DataSource(
        name=f"{word}-db", kind="postgres", address=f"{word}.example:5432", database="d", user="u", labels=own
    )
    measured.save_data_source(by=BY, source=source, now=now)
    metric = BusinessMetric(
        name=f"{word}_beds", help=f"Beds of {word}", source=source, query="SELECT 1 AS value", labels=own
    )
    measured.save_business_metric(by=BY, metric=metric, now=now)
    return {"alert": alert, "check": check, "beat": beat, "job": job, "source": source, "metric": metric}


@pytest.fixture
def two_teams():
    now = timezone.now()
    for word in (OWN, OTHER):
        measure(word, now)
    setup.load_defaults(now=now)
    contact = notifications.save_contact(by=BY, now=now, name="All", kind="email", values={"to": ["a@shop.example"]})
    Route.objects.get(is_root=True).contacts.add(contact)
    group = RuleGroup.objects.create(name="hot")
    rule = AlertRule(slug="hot", name="Hot", expression="up", group=group, created_at=now, updated_at=now)
    rule.pending_period = timedelta(0)
    rule.save()
    RuleLevel.objects.create(rule=rule, severity="warning", comparison=">", threshold=1.0)
    made = {word: write(word, now) for word in (OWN, OTHER)}
    dashboards.save_dashboard(by=BY, now=now, values={"title": "Both", "document": {"panels": [
        {"id": kind, "kind": kind, "queries": [{"expression": '{__name__=~".+_metric|up"}'}]}
        for kind in ("timeseries", "stat", "gauge", "table", "heatmap")
    ] + [{"id": "alerts", "kind": "alertlist"}], "variables": [
        {"name": "team", "kind": "query", "query": "label_values(up, team)", "values": []}
    ]}})  # fmt: skip
    evaluation.evaluate(now=now)
    telling.tell(now=now)
    telling.flush(now=now)
    escalating.escalate(now=now)
    # One fault may be of both: each team sees its own part of it.
    mine, theirs = (Incident.objects.get(alerts=made[word]["alert"]) for word in (OWN, OTHER))
    alerting.merge_incidents(by=BY, incident=mine, others=[theirs], now=now)
    for one in made.values():
        one["alert"].refresh_from_db()
    telling.tell(now=now)
    telling.flush(now=now)
    return made


def addresses(made: dict[str, Any]) -> list[str]:
    """Return every address that a person reads, with the other team's own things by their ids."""
    keys = [*PANELS, *measured_panels.PANELS]
    found = [
        f"/monitoring/data/?{'&'.join(f'panel={key}' for key in keys[at : at + 40])}" for at in range(0, len(keys), 40)
    ]
    found += [f"/monitoring/data/?panel={key}&format=csv" for key in ("tile-cpuUsage", "queues", "throughput")]
    found += [f"/monitoring/data/?table={name}" for name in TABLES]
    found += [f"/monitoring/alerts/?tab={tab}" for tab in ("history", "rules", "hygiene", "notifications")]
    found += [
        f"/monitoring/alerts/?tab=notifications&labels=team={OTHER}",
        "/monitoring/alerts/?tab=notifications&test=route-1",
    ]
    found += [f"/monitoring/quiet/?tab={tab}" for tab in ("maintenance", "inhibition")]
    found += [f"/monitoring/checks/?tab={tab}" for tab in ("heartbeats", "certificates")]
    found += ["/monitoring/incidents/?tab=resolved", f"/monitoring/quiet/preview/?matchers=team={OTHER}"]
    both = "&".join(f"panel={kind}" for kind in ("timeseries", "stat", "gauge", "table", "heatmap", "alerts"))
    found += ["/monitoring/dashboards/both/", f"/monitoring/dashboards/both/data/?{both}&var-team={OTHER}"]
    for one in made.values():
        target = ScrapeTarget.objects.get(job=one["job"])
        found += [
            f"/monitoring/alerts/{one['alert'].key}/", f"/monitoring/incidents/{one['alert'].incident_id}/",
            f"/monitoring/targets/{target.pk}/", f"/monitoring/checks/{one['check'].pk}/",
            f"/monitoring/heartbeats/{one['beat'].pk}/", f"/monitoring/data/?panel=alert&alert={one['alert'].key}",
            f"/monitoring/data/?panel=target-samples&target={target.pk}",
            f"/monitoring/data/?panel=check-up&check={one['check'].pk}",
            f"/monitoring/data/?panel=metric-{one['metric'].pk}",
        ]  # fmt: skip
    for route in walk():
        if not route.is_admin and (not route.methods or "GET" in route.methods) and "logout" not in route.pattern:
            found.append(route.url)
    query = 'query={__name__%3D~".%2B"}'
    found += [f"/api/v1/query?{query}", "/api/v1/labels", "/api/v1/label/team/values", "/api/v1/label/__name__/values"]
    return list(dict.fromkeys(found))


SERIES = "/api/v1/series?match[]={__name__=~'.%2B'}"


def lanes() -> list[str]:
    """Return every address that is answered before Django, filled with what asks for the most."""
    found = [SERIES, "/api/v1/query?query={__name__=~'.%2B'}", "/api/v1/label/team/values", "/api/v1/rules?type=alert"]
    found += ["/api/v1/label/__name__/values", "/api/v1/label/instance/values", "/api/v1/query?query=ALERTS"]
    for path, lane in fastlane.ROUTES.items():
        if "GET" in lane.methods and not path.startswith(("/rum", "/ping", "/api/push")):
            found.append(path.replace("<name>", "team").replace("<group...>", "nightly").replace("<id>", "x"))
    return found


def body_of(answer: Any) -> bytes:
    return b"" if answer.streaming else bytes(answer.content)


def told(answer: Any) -> bool:
    # What somebody asked for is said back to them: that is nothing they did not know.
    said = body_of(answer)
    for asked in (f"team={OTHER}", f"team%3D{OTHER}", f"var-team={OTHER}", f'"team": ["{OTHER}"]'):
        said = said.replace(asked.encode(), b"")
    return OTHER.encode() in said


@pytest.mark.slow
def test_no_address_tells_of_another_team(two_teams, narrowed):
    """One scene for all roles, for writing it costs more than walking it."""
    paths = addresses(two_teams)
    for role in ROLES:
        client = Client()
        client.force_login(narrowed(role))
        answers = {path: client.get(path) for path in paths}
        assert (role, [path for path, answer in answers.items() if told(answer)]) == (role, [])
        assert (role, [path for path, answer in answers.items() if answer.status_code >= 500]) == (role, [])
        own = [path for path, answer in answers.items() if OWN.encode() in body_of(answer)]
        assert len(own) > 20  # the walk does see what is theirs
        for path in lanes():
            said = asked(client, path)
            assert (role, path, OTHER.encode() in said.body, said.status < 500) == (role, path, False, True)
        assert OWN.encode() in asked(client, SERIES).body
    hostile_socket(two_teams, Principal.of_user(User.objects.get(username=f"auditor-{OWN}")))
    client.force_login(User.objects.get(username=f"auditor-{OWN}"))
    hostile_admin(client)
    client.force_login(User.objects.get(username=f"operator-{OWN}"))
    hostile_hand(two_teams, client)


def asked(client, address):
    """Ask what is answered before Django as the person who is logged in."""
    path, _, query = address.partition("?")
    cookie = (b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode())
    return ask(path, [cookie], dict(parse_qsl(query)))


def rows_of(client, path):
    answer = client.get(f"/api/v1/portal/{path}").json()
    return answer["results"] if isinstance(answer, dict) else answer


def linked(client, page, kind):
    """The things of a kind that a page links, by their ids."""
    return {int(one) for one in re.findall(rf'href="/monitoring/{kind}/(\d+)/"', client.get(page).content.decode())}


def last_values(series, values_of):
    return sorted(next(v for v in reversed(values_of(one)) if v is not None) for one in series)


@pytest.mark.slow
def test_pages_tell_each_role_what_the_api_tells_the_same_person(two_teams, narrowed):
    """Key figures of every page: the API's with the person's own scope; whom a team narrows finds one of each."""
    people = {role: narrowed(role) for role in ROLES}
    for role in (*ROLES, "administrator"):
        people[f"{role} of all"] = User.objects.create_user(f"{role}-all")
        accounts.set_roles(by=BY, user=people[f"{role} of all"], roles=[role])
    for role, user in people.items():
        client = Client()
        client.force_login(user)
        page = client.get("/monitoring/").content.decode()
        state = orjson.loads(page.partition('id="state" type="application/json">')[2].partition("</script>")[0])
        alerts = {row["key"] for row in rows_of(client, "alerts/")}
        assert (role, {row["key"] for row in state["alerts"]["rows"]}) == (role, alerts)
        assert (role, state["alerts"]["total"], state["health"]["headline"] != "") == (role, len(alerts), True)
        for kind, path in (
            ("incidents", "incidents/?state=open"), ("targets", "targets/"), ("checks", "checks/"),
        ):  # fmt: skip
            shown = linked(client, f"/monitoring/{kind}/", kind)
            assert (role, kind, shown) == (role, kind, {row["id"] for row in rows_of(client, path)})
        beats = linked(client, "/monitoring/checks/?tab=heartbeats", "heartbeats")
        assert (role, beats) == (role, {row["id"] for row in rows_of(client, "heartbeats/")})
        for page, path, name in (
            ("/monitoring/services/", "services/", "name"), ("/monitoring/quiet/", "silences/", "comment"),
            ("/monitoring/quiet/?tab=maintenance", "maintenance-windows/", "name"),
            ("/monitoring/databases/", "data-sources/", "name"),
            ("/monitoring/business/", "business-metrics/", "name"),
        ):  # fmt: skip
            text = client.get(page).content.decode()
            told = [row[name] for row in rows_of(client, path)]
            assert told, (role, page)
            assert (role, page, [one for one in told if one not in text]) == (role, page, [])
            assert len(told) == (2 if "of all" in role else 1), (role, page)
        for key, expression in (("tile-cpuUsage", "cpuUsage"), ("queues", "celery_queue_length")):
            drawn = client.get(f"/monitoring/data/?range=15m&panel={key}").json()["panels"][key]
            end = drawn["start"] + drawn["step"] * (drawn["count"] - 1)
            question = f"query={expression}&start={drawn['start']}&end={end}&step={drawn['step']}"
            told = asked(client, f"/api/v1/query_range?{question}").data["result"]
            assert last_values(drawn["series"], lambda one: one["values"]) == last_values(
                told, lambda one: [float(value) for _, value in one["values"]]
            ), (role, key)


def hostile_socket(made, who):
    changed: dict[str, set[str | None]] = {topic: {None} for topic in consumers.TOPICS}
    views = ["overview", "alerts", "incidents", "quiet", "targets", "checks", "oncall", "business", "databases"]
    for view in [*views, f"alert:{made[OTHER]['alert'].key}"]:
        assert OTHER.encode() not in orjson.dumps(consumers.parts(view, who, changed, is_due=True)), view


def hostile_admin(client):
    for path in ("", "alerting/alert/", "alerting/alertrule/", "sources/check/", "accounts/auditentry/"):
        answer = client.get(f"/admin/{path}")
        assert answer.status_code in (200, 403)
        assert OTHER not in answer.content.decode()
    assert client.get("/admin/alerting/alert/").status_code == 403


def hostile_hand(made, client):
    other = made[OTHER]
    alert, target = other["alert"], ScrapeTarget.objects.get(job=other["job"])
    for path in (
        f"alerts/{alert.key}/acknowledge/", f"alerts/{alert.key}/resolve/", f"alerts/{alert.key}/not-an-anomaly/",
        f"targets/{target.pk}/scrape/", f"checks/{other['check'].pk}/ask/",
    ):  # fmt: skip
        assert client.post(f"/monitoring/{path}").status_code == 404, path
    assert Alert.objects.get(pk=alert.pk).acknowledged_at is None
