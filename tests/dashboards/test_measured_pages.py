"""The pages of the business and of databases: what stands there, and for whom."""

import sqlite3
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.rights import Principal
from apps.accounts.services import set_roles
from apps.core.telemetry import Reading
from apps.dashboards import measured_panels
from apps.metrics import services
from apps.metrics.collectors.sqlite import SQLite
from apps.metrics.samples import Samples
from apps.promql.parser import parse
from apps.sources.models import BusinessMetric
from tests.house.rows import make

pytestmark = pytest.mark.django_db
BY = Principal.system("test")


@pytest.fixture
def metric() -> BusinessMetric:
    shown = [["beds", {"ward": "a", "job": "business"}]]
    found: BusinessMetric = make("sources.businessmetric", name="beds", help="Beds.", enabled=True, shown=shown,
                                 error="<b>the table is gone</b>")  # fmt: skip
    return found


def viewer(client: Client) -> Client:
    person = User.objects.create_user("vera")
    set_roles(by=BY, user=person, roles=["viewer"])
    client.force_login(person)
    return client


def test_a_failing_metric_says_why_and_a_viewer_gets_no_way_to_change_it(client, metric):
    page = viewer(client).get(reverse("business")).content.decode()
    assert "&lt;b&gt;the table is gone" in page
    assert f'data-panel="metric-{metric.pk}"' in page
    assert "/admin/sources/" not in page


def test_the_figures_of_a_metric_come_by_its_labels(client, metric):
    now = timezone.now()
    times = [int((now - timedelta(minutes=age)).timestamp() * 1000) for age in range(5)]
    readings = [Reading("beds", 7.0, {"ward": "a", "job": "business"}, timestamp_ms=at) for at in times]
    services.ingest(samples=Samples.from_readings(readings, now), by=BY, now=now)
    answer = viewer(client).get(reverse("data"), {"panel": f"metric-{metric.pk}", "range": "15m"})
    assert answer.status_code == 200
    assert b'"a"' in answer.content
    assert b"7.0" in answer.content
    assert client.get(reverse("data"), {"panel": "metric-99999999999999999999"}).status_code == 404
    assert client.get(reverse("data"), {"panel": f"metric-{metric.pk + 1}"}).status_code == 404


def test_a_server_that_is_down_stands_first(client):
    make("sources.datasource", name="fine", health="up", enabled=True)
    make("sources.datasource", name="gone", health="down", error="It is away.", enabled=True)
    page = viewer(client).get(reverse("databases")).content.decode()
    assert page.index("It is away.") < page.index("fine")


def test_the_figures_of_sqlite_files_stand_on_the_page_of_databases(client, tmp_path):
    sqlite3.connect(tmp_path / "shop.db").execute("CREATE TABLE t (x)")
    now = timezone.now()
    found = list(SQLite({"paths": str(tmp_path / "shop.db")}).collect())
    services.ingest(samples=Samples.from_readings(found, now - timedelta(minutes=1)), by=BY, now=now)
    page = viewer(client).get(reverse("databases")).content.decode()
    for key in ("databases-sqlite-size", "databases-sqlite-log", "databases-sqlite-free"):
        assert f'data-panel="{key}"' in page
        assert b"shop.db" in client.get(reverse("data"), {"panel": key, "range": "15m"}).content


def test_a_counter_is_shown_as_its_increase(metric):
    metric.type = "counter"
    [query] = measured_panels.panel_of(metric).queries
    assert "increase(beds" in query.expression
    parse(query.expression.replace("$window", "60s"))
