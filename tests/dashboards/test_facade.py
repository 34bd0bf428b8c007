"""The seed's API as its clients use it: over HTTP, with a token."""

import threading
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from apps.accounts.models import Token
from apps.accounts.permissions import EVERYTHING, Principal
from apps.accounts.services import issue_token
from apps.core.telemetry import Reading
from apps.dashboards import health
from apps.metrics import intake, query, services
from apps.metrics.samples import Samples
from apps.metrics.throttle import Throttle
from apps.promql.errors import DeadlineExceeded, LimitError, ParseError

pytestmark = pytest.mark.django_db(transaction=True)

SYSTEM = Principal.system("tests")


def client(*scopes):
    made = APIClient()
    if scopes:
        _, secret = issue_token(
            by=SYSTEM, name=f"test {scopes}", scopes=list(scopes), expires_at=None, now=timezone.now()
        )
        made.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return made


@pytest.fixture
def api():
    return client("read", "ingest", "alerts")


def get(api, path, status=200):
    answer = api.get(f"/api/monitoring/{path}")
    assert answer.status_code == status, answer.content
    return answer.json()


def send(api, verb, path, body, status=200):
    answer = getattr(api, verb)(f"/api/monitoring/{path}", body, format="json")
    assert answer.status_code == status, answer.content
    return answer.json()


def request(endpoint="/book", milliseconds=120, code=200, **more):
    return {"endpoint": endpoint, "method": "GET", "responseTime": milliseconds, "statusCode": code, **more}


def test_pushed_requests_come_back_as_rows_and_an_exact_summary(api):
    rows = [request(milliseconds=100), request(milliseconds=300), request("/pay", 800, 500), request("/pay", 200)]
    assert send(api, "post", "metrics", {"type": "performance", "metrics": rows})["accepted"] == 4
    data = get(api, "metrics?type=performance")["data"]
    mine = {(r["endpoint"], r["statusCode"]): r for r in data["metrics"] if r["endpoint"] in {"/book", "/pay"}}
    assert mine["/book", 200]["count"] == 2
    assert mine["/book", 200]["responseTime"] == 200
    assert mine["/pay", 500]["count"] == 1
    assert data["summary"]["totalRequests"] == 4
    assert data["summary"]["averageResponseTime"] == 350
    assert data["summary"]["errorRate"] == 25
    assert data["summary"]["minResponseTime"] == 100
    assert data["summary"]["maxResponseTime"] == 800
    assert data["summary"]["statusCodes"] == {"200": 3, "500": 1}


def test_one_object_is_as_good_as_a_list(api):
    assert send(api, "post", "metrics/", {"type": "performance", "metrics": request()})["accepted"] == 1


def test_counters_without_buckets_have_a_summary_without_percentiles(api):
    labels = {"endpoint": "/book", "method": "GET", "code": "200"}
    readings = [Reading(f"http_request_duration_seconds_{part}", 2.0, labels) for part in ("count", "sum")]
    now = timezone.now()
    services.ingest(samples=Samples.from_readings(readings, at=now), by=SYSTEM, now=now)
    summary = get(api, "metrics?type=performance")["data"]["summary"]
    assert (summary["totalRequests"], summary["averageResponseTime"]) == (2, 1000)
    assert summary["p95ResponseTime"] is summary["minResponseTime"] is None


def test_without_a_request_there_is_no_summary(api):
    assert get(api, "metrics")["data"] == {"metrics": [], "summary": None}


def test_bad_rows_are_refused_by_index_and_the_others_stored(api):
    old = int((timezone.now() + timedelta(hours=1)).timestamp() * 1000)
    body = {"type": "performance", "metrics": [request(), {"endpoint": "/x"}, request(timestamp=old)]}
    answer = send(api, "post", "metrics", body)
    assert answer["accepted"] == 1
    assert [r["index"] for r in answer["rejected"]] == [1, 2]
    assert "responseTime" in answer["rejected"][0]["error"]


@pytest.mark.parametrize(
    "odd",
    [{"value": 10**400}, {"timestamp": 10**400}, {"timestamp": 1e300}, {"name": "a\0b"}, {"labels": {"a": "\0"}}],
)
def test_one_unkeepable_value_is_refused_alone(api, odd):
    rows = [{"name": "bookings", "value": 1}, {"name": "bookings", "value": 1} | odd]
    answer = send(api, "post", "metrics", {"type": "business", "metrics": rows})
    assert (answer["accepted"], [item["index"] for item in answer["rejected"]]) == (1, [1])


def test_other_types_come_back_as_series_with_a_summary(api):
    rows = [{"name": "bookings", "value": value, "labels": {"clinic": "north"}} for value in (3,)]
    assert send(api, "post", "metrics", {"type": "business", "metrics": rows})["success"]
    answer = get(api, "metrics?type=business")
    [series] = answer["data"]["series"]
    assert (series["name"], series["labels"]["clinic"], series["points"][-1][1]) == ("bookings", "north", 3)
    assert answer["data"]["summary"]["bookings"] == {"current": 3, "avg": 3, "min": 3, "max": 3}
    assert answer["timeRange"]["start"] < answer["timeRange"]["end"]


@pytest.mark.parametrize(
    "path",
    [
        "metrics?type=nonsense",
        "metrics?timeRange=9,5",
        "alerts?status=odd",
        "alerts?limit=1001",
        "alerts?limit=x",
        "alerts?limit=²",
    ],
)
def test_odd_questions_are_400_with_an_error(api, path):
    assert get(api, path, 400)["error"]


@pytest.mark.parametrize(
    "body",
    [[], "x", {}, {"type": "alerts", "metrics": [{}]}, {"type": "performance"}, {"type": "system", "metrics": []}],
)
def test_odd_pushes_are_400_with_an_error(api, body):
    assert send(api, "post", "metrics", body, 400)["error"]


def test_system_figures_have_the_seeds_shape(api):
    answer = get(api, "metrics?type=system")
    assert answer["success"]
    assert set(answer["data"]) == {"metrics", "summary"}


POSTED = {"type": "custom-alert", "severity": "WARNING", "message": "Custom alert message", "metadata": {"a": 1}}


def test_an_alert_is_posted_repeated_listed_and_resolved(api):
    first = send(api, "post", "alerts", POSTED)["alert"]
    assert first["id"].startswith("alert_")
    assert (first["severity"], first["count"], first["resolved"], first["metadata"]) == ("WARNING", 1, False, {"a": 1})
    again = send(api, "post", "alerts", POSTED)["alert"]
    assert (again["id"], again["count"]) == (first["id"], 2)
    assert [alert["id"] for alert in get(api, "alerts?status=active")["alerts"]] == [first["id"]]
    done = send(api, "put", "alerts", {"alertId": first["id"], "resolvedBy": "anna"})["alert"]
    assert (done["resolved"], done["resolvedBy"]) == (True, "anna")
    assert send(api, "put", "alerts", {"alertId": first["id"], "resolvedBy": "ben"})["alert"] == done
    assert get(api, "alerts")["alerts"] == []
    assert [alert["id"] for alert in get(api, "alerts?status=history&limit=5")["alerts"]] == [first["id"]]
    assert send(api, "post", "alerts", POSTED)["alert"]["id"] != first["id"]


def test_the_statistics_count_by_severity_and_type(api):
    send(api, "post", "alerts", POSTED)
    found = get(api, "alerts?status=stats")["alerts"]
    assert (found["total"], found["active"], found["resolved"]) == (1, 1, 0)
    assert found["bySeverity"]["WARNING"] == 1
    assert get(api, "metrics?type=alerts")["data"]["stats"]["active"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"severity": "BAD"},
        {"message": ""},
        {"type": 5},
        {"metadata": []},
        {"metadata": {"a": "x" * 64_000}},
        {"endsAt": "x"},
    ],
)
def test_an_odd_alert_is_refused(api, change):
    assert send(api, "post", "alerts", POSTED | change, 400)["error"]


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"alertId": "a\\u0000", "resolvedBy": "x"}', '{"alertId": "\\ud800", "resolvedBy": "x"}']
)
def test_what_cannot_be_read_or_kept_is_400_and_said(api, body):
    answer = api.put("/api/monitoring/alerts", body, content_type="application/json")
    assert (answer.status_code, "error" in answer.json()) == (400, True)


@pytest.mark.parametrize(
    ("path", "kind"), [("/api/monitoring/alerts", "application/json"), ("/monitoring/", "text/plain")]
)
def test_a_foreign_host_is_told_so_without_a_page(api, path, kind):
    answer = api.get(path, headers={"host": "evil.example"})
    assert (answer.status_code, answer["Content-Type"].split(";")[0]) == (400, kind)


def test_an_unknown_alert_is_404(api):
    assert "alert_none" in send(api, "put", "alerts", {"alertId": "alert_none", "resolvedBy": "x"}, 404)["error"]


def test_refusals_are_json_and_never_a_redirect():
    for path in ("metrics", "alerts", "health?detailed=true"):
        assert get(client(), path, 401)["error"]
    assert get(client("ingest"), "metrics", 403)["error"]
    assert send(client("read"), "post", "alerts", POSTED, 403)["error"]
    assert send(client("read"), "post", "metrics", {"type": "performance", "metrics": request()}, 403)["error"]


def test_without_authentication_only_reads_are_open(settings):
    settings.MONITORING_AUTH_ENABLED = False
    assert get(client(), "alerts")["success"]
    assert send(client(), "post", "alerts", POSTED, 401)["error"]


def test_health_is_open_and_its_details_are_not(api):
    plain = get(client(), "health")
    assert set(plain) == {"status", "timestamp", "uptime", "version"}
    answer = api.get("/api/monitoring/health?detailed=true")
    detailed = answer.json()
    assert answer["Cache-Control"] == "no-store"
    assert set(detailed["checks"]) == {
        "database", "store", "redis", "workers", "beat", "collectors", "contacts", "oncall", "schedules",
        "memory", "cpu", "disk",
    }  # fmt: skip
    assert set(detailed["checks"]["database"]) == {"status", "message", "responseTime", "lastCheck"}
    assert set(detailed["metrics"]) == {"activeAlerts", "memoryUsage", "cpuUsage", "responseTime"}


@pytest.mark.parametrize("query", ["type=love", "timeRange=a,b", "timeRange=2,1", "timeRange=1_0,2_0", "timeRange=٣,٤"])
def test_a_refusal_is_one_sentence_and_nothing_else(api, query):
    assert list(get(api, f"metrics?{query}", 400)) == ["error"]


def test_a_form_is_told_to_come_as_json(api):
    answer = api.post("/api/monitoring/alerts", "type=disk", content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["error"]


@pytest.mark.parametrize("start", [0, 1_000_000_000_000])
def test_no_row_lies_outside_the_range(api, start):
    send(api, "post", "metrics", {"type": "performance", "metrics": request()})
    answer = get(api, f"metrics?type=performance&timeRange={start},")
    assert {start < row["timestamp"] <= answer["timeRange"]["end"] for row in answer["data"]["metrics"]} == {True}
    assert answer["step"] == 15_000


def test_a_range_that_ends_in_the_future_ends_with_what_there_is(api):
    send(api, "post", "metrics", {"type": "business", "metrics": [{"name": "bookings", "value": 3}]})
    late = int((timezone.now() + timedelta(days=400)).timestamp() * 1000)
    answer = get(api, f"metrics?type=business&timeRange={late - 500 * 86_400_000},{late}")
    [series] = answer["data"]["series"]
    assert series["points"][-1][0] <= int((timezone.now() + services.AHEAD).timestamp() * 1000)
    assert get(api, f"metrics?type=system&timeRange={late - 60_000},{late}")["data"]["metrics"] == []


def figure(expression):
    return query.only_value(query.instant(expression, at=timezone.now() + timedelta(seconds=1), scope=EVERYTHING))


def test_events_are_counted_and_summed_by_their_properties(api):
    events = [
        {"event": "booking_made"},
        {"event": "payment", "value": 120.5, "properties": {"branch": "north", "first": True}, "id": "p-1"},
        {"event": "payment", "value": 80, "properties": {"branch": "north", "first": True}, "id": 2},
    ]
    assert send(api, "post", "events", events) == {"success": True, "accepted": 3, "rejected": []}
    assert send(api, "post", "events/", {"event": "booking_made"})["accepted"] == 1
    found = {series["name"]: series for series in get(api, "metrics?type=business")["data"]["series"]}
    assert found["payment"]["labels"] == {"category": "business", "job": "push", "branch": "north", "first": "true"}
    assert figure("sum_over_time(payment[1m])") == 200.5
    assert figure("count_over_time(booking_made[1m])") == 2


def test_an_event_that_is_sent_again_with_its_id_counts_once(api):
    event = {"event": "payment", "value": 5, "id": "p-1"}
    other = {"event": "refund", "value": 5, "id": "p-1"}
    for _ in range(2):
        assert send(api, "post", "events", [event, event, other])["accepted"] == 3
    assert figure("sum_over_time(payment[1m])") == 5


def test_events_of_other_times_are_taken_as_far_as_samples_are_and_refused_by_name_beyond(api):
    now = int(timezone.now().timestamp() * 1000)
    minutes = {-8: True, -60: False, -525_600: False, 9: True, 20: False, 525_600: False}
    for minute, is_taken in minutes.items():
        event = {"event": "booking_made", "timestamp": now + minute * 60_000, "properties": {"at": str(minute)}}
        send(api, "post", "events", {"event": "booking_made", "properties": {"at": str(minute)}})
        answer = send(api, "post", "events", [event])
        assert (answer["accepted"], len(answer["rejected"])) == ((1, 0) if is_taken else (0, 1)), minute
        assert all(one["error"] for one in answer["rejected"])


@pytest.mark.parametrize(
    ("text", "is_name"),
    [
        ("<script>alert(1)</script>", True), ("' OR 1=1 --", True), ("{}", True), ("ünïcode", True),
        ("\u202egnihtemos", False), ("x" * 1_000, False), ("a\nb", False),
    ],
)  # fmt: skip
def test_hostile_texts_are_kept_as_texts_or_refused_and_never_break_an_event(api, text, is_name):
    answer = send(api, "post", "events", [{"event": text}, {"event": "fine", "properties": {"said": text}}])
    assert ({one["index"] for one in answer["rejected"]} >= {0}) is not is_name
    assert answer["accepted"] + len(answer["rejected"]) == 2
    assert send(api, "post", "events", [{"event": "fine"}])["accepted"] == 1
    assert figure("count(fine)") >= 1


def test_events_that_are_none_are_refused_one_by_one(api):
    wrong = [
        5, {}, {"event": ""}, {"event": "a", "value": "1"}, {"event": "a", "id": []}, {"event": "a", "id": "x" * 201},
        {"event": "a", "properties": []}, {"event": "a", "properties": {"b": None}}, {"event": "a", "timestamp": "now"},
        {"event": "a", "timestamp": 1e13}, {"event": "a", "properties": {"__name__": "b"}}, {"event": "a\0"},
    ]  # fmt: skip
    answer = send(api, "post", "events", [*wrong, {"event": "a", "id": "late", "timestamp": 4_000_000_000_000}])
    assert [refusal["index"] for refusal in answer["rejected"]] == list(range(len(wrong) + 1))
    assert send(api, "post", "events", {"event": "a", "id": "late"})["accepted"] == 1, "a refused one took no id"
    for body in ([], "x", 5, [{"event": "a"}] * 10_001):
        assert "error" in send(api, "post", "events", body, 400)


def test_a_token_that_sees_little_is_told_figures_of_that_only(api):
    send(api, "post", "alerts", {"type": "disk", "severity": "WARNING", "message": "full"})
    assert get(api, "health?detailed=true")["metrics"]["activeAlerts"] == 1
    narrow = APIClient()
    _, secret = issue_token(
        by=SYSTEM, name="n", scopes=["read"], expires_at=None, matchers=[("team", "=", "a")], now=timezone.now()
    )
    narrow.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    assert get(narrow, "health?detailed=true")["metrics"] == {
        "activeAlerts": 0, "memoryUsage": None, "cpuUsage": None, "responseTime": None,
    }  # fmt: skip


def test_a_full_disk_is_503_and_says_when_to_come_back(api, monkeypatch):
    monkeypatch.setattr(services, "FREE_BYTES", 10**18)
    monkeypatch.setattr(services, "_space", (float("-inf"), None))
    for body in (
        {"type": "performance", "metrics": request()},
        {"type": "business", "metrics": {"name": "x", "value": 1}},
    ):
        answer = api.post("/api/monitoring/metrics", body, format="json")
        assert answer.status_code == 503
        assert "are free on the disk" in answer.json()["error"]
        assert int(answer["Retry-After"]) >= 60


@pytest.mark.parametrize(
    ("error", "status", "waits"),
    [
        (DeadlineExceeded("The query ran too long."), 503, True),
        (query.Outrun("The store is being rewritten."), 503, True),
        (LimitError("The query reads too much."), 422, False),
        (ParseError("This is no PromQL."), 422, False),
    ],
)
def test_what_the_engine_refuses_is_said_with_its_status(api, monkeypatch, error, status, waits):
    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(query, "query_range", refuse)
    answer = api.get("/api/monitoring/metrics?type=business")
    assert answer.status_code == status
    assert answer.json() == {"error": str(error)}
    assert answer.has_header("Retry-After") == waits


@pytest.mark.parametrize("start", [0, 1_000_000_000_000])
def test_a_range_from_long_ago_still_shows_what_there_is(api, start):
    send(api, "post", "metrics", {"type": "business", "metrics": [{"name": "bookings", "value": 3}]})
    send(api, "post", "metrics", {"type": "performance", "metrics": request()})
    [series] = get(api, f"metrics?type=business&timeRange={start},")["data"]["series"]
    assert series["points"][-1][1] == 3
    assert get(api, f"metrics?type=performance&timeRange={start},")["data"]["summary"]["totalRequests"] == 1


def test_a_database_that_hangs_does_not_hang_the_health(monkeypatch):
    monkeypatch.setattr(health, "PATIENCE", 0.05)
    gone = threading.Event()
    monkeypatch.setattr(health, "health", lambda **_: gone.wait(5))
    answer = get(client(), "health", 503)
    gone.set()
    assert answer["status"] == "unhealthy"


def test_pushes_are_counted_by_token_and_what_was_refused_by_reason(api):
    token = Token.objects.get()

    def counted(counter, **more):
        return counter.value(protocol="json", token=str(token), **more)

    before = counted(intake.SAMPLES), counted(intake.REFUSED, reason="invalid_row")
    send(api, "post", "metrics", {"type": "business", "metrics": [{"name": "a", "value": 1}, {"name": "b"}]}, 200)
    send(api, "post", "metrics", [], 400)
    assert (counted(intake.SAMPLES), counted(intake.REFUSED, reason="invalid_row")) == (before[0] + 1, before[1] + 1)
    assert counted(intake.REQUESTS, code="400") >= 1
    assert counted(intake.REFUSED, reason="malformed") >= 1


def test_a_token_that_pushes_too_fast_is_429_with_a_time_to_try_again(api, monkeypatch):
    monkeypatch.setattr(intake, "THROTTLE", Throttle())
    Token.objects.update(samples_per_second=1)
    rows = [{"name": "a", "value": 1, "labels": {"n": str(n)}} for n in range(20)]
    send(api, "post", "metrics", {"type": "business", "metrics": rows}, 200)
    answer = api.post("/api/monitoring/metrics", {"type": "business", "metrics": rows}, format="json")
    assert (answer.status_code, int(answer["Retry-After"]) > 5) == (429, True)
    assert "1 samples a second" in answer.json()["error"]
