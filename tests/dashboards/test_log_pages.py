"""The page of logs: its frame, its numbers, what leaves as a file, and where other pages lead to it."""

from datetime import timedelta

import orjson
import pytest
from django.utils import timezone

from apps.accounts.models import AuditEntry
from apps.accounts.rights import Principal
from apps.sources.logs import services
from apps.sources.logs.records import Record
from apps.sources.models import LogTemplate
from tests.house.rows import make

BY = Principal.system("test")


@pytest.fixture
def logged(db):
    now = timezone.now()
    at = int(now.timestamp() * 1000)
    records = [Record(at - 1000 * n, "info", "shop", "h1", f"order {n} is there") for n in range(1, 6)]
    records.append(Record(at - 120_000, "error", "pay", "h2", "=cmd() <b>it broke</b>", '{"user":"7"}'))
    services.ingest(records=records, by=BY, now=now)
    return now


@pytest.fixture
def reader(client, person):
    client.force_login(person("viewer"))
    return client


def test_the_frame_offers_what_there_is_and_keeps_what_is_chosen(reader, logged):
    template = LogTemplate.objects.get(service="pay")
    text = reader.get(f"/monitoring/logs/?service=pay&level=error&template={template.pk}&text=broke").content.decode()
    for words in (
        "<option selected>pay</option>",
        'value="error" checked',
        "&lt;b&gt;it broke&lt;/b&gt;",
        'value="broke"',
    ):
        assert words in text
    assert "There is no level" in reader.get("/monitoring/logs/?level=loud").content.decode()
    assert "No log records yet" not in text


def test_the_chart_counts_what_the_filter_lets_through(reader, logged):
    found = orjson.loads(reader.get("/monitoring/logs/data/?range=15m&panel=logs").content)["panels"]["logs"]
    sums = {row["name"]: sum(row["values"]) for row in found["series"]}
    assert (sums["info"], sums["error"]) == (5, 1)
    found = orjson.loads(reader.get("/monitoring/logs/data/?range=15m&service=pay&level=error,critical").content)
    assert [row["name"] for row in found["panels"]["logs"]["series"]] == ["critical", "error"]
    assert 'service="pay", level=~"error|critical"' in found["panels"]["logs"]["expressions"][0]
    table = reader.get("/monitoring/logs/data/?range=15m&format=csv").content.decode()
    assert table.startswith("time,critical,error,warning,info,debug")
    assert reader.get("/monitoring/logs/data/?range=soon").status_code == 400


def test_records_and_templates_are_listed(reader, logged):
    found = orjson.loads(reader.get("/monitoring/logs/list/?limit=2").content)
    assert [row["message"] for row in found["logs"]] == ["order 1 is there", "order 2 is there"]
    found = orjson.loads(reader.get(f"/monitoring/logs/list/?limit=9&cursor={found['cursor']}").content)
    assert len(found["logs"]) == 4
    assert reader.get("/monitoring/logs/list/?cursor=x").status_code == 400
    found = orjson.loads(reader.get("/monitoring/logs/templates/").content)
    assert [row["pattern"] for row in found["templates"]] == ["order <num> is there", "=cmd() <b>it broke</b>"]


def test_what_leaves_as_a_file_is_written_down(reader, logged):
    table = reader.get("/monitoring/logs/export/?format=csv&service=pay").content.decode()
    assert "'=cmd()" in table
    lines = reader.get("/monitoring/logs/export/?format=ndjson").content.splitlines()
    assert len(lines) == 6
    taken = AuditEntry.objects.filter(verb="sources.export_logs").order_by("pk")
    assert list(taken.values_list("after__records", "after__service")) == [(1, ["pay"]), (6, None)]


def test_who_may_delete_records_is_led_to_where_that_is_done(reader, logged, person):
    assert "delete-logs" not in reader.get("/monitoring/logs/").content.decode()
    reader.force_login(person("administrator"))
    assert "/admin/sources/logdeletion/delete-logs/" in reader.get("/monitoring/logs/").content.decode()


def test_an_alert_leads_to_the_logs_of_its_time_and_service(reader, logged):
    alert = make("alerting.alert", service="pay", fired_at=logged - timedelta(minutes=5))
    text = reader.get(f"/monitoring/alerts/{alert.key}/").content.decode()
    begin = int((alert.fired_at - timedelta(minutes=15)).timestamp() * 1000)
    assert f"/monitoring/logs/?from={begin}&amp;to=" in text
    assert "&amp;service=pay" in text
