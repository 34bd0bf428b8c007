"""The page of the applications that the wheel measures: which there are, how they do, and for whom."""

from datetime import timedelta
from urllib.parse import quote

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.rights import Principal
from apps.accounts.services import set_roles
from apps.core.telemetry import Reading
from apps.dashboards import application_panels
from apps.metrics import services
from apps.metrics.samples import Samples
from apps.promql.parser import parse

BY = Principal.system("test")
ODD = '<b>"shop"\\\n'


def write(job: str, processes: int) -> None:
    """Ten minutes of an application that answers two requests a second in each process, one of ten of them badly."""
    now = timezone.now()
    readings = []
    for second in range(0, 601, 15):
        at = int((now - timedelta(seconds=600 - second)).timestamp() * 1000)
        for process in range(processes):
            own = {"job": job, "instance": "host", "process": str(process)}
            readings.append(Reading("http_requests_in_flight", 1.0, own, timestamp_ms=at))
            for code, part in (("200", 1.8), ("500", 0.2)):
                route = own | {"endpoint": "/pay/", "method": "GET", "code": code}
                readings.append(Reading("http_requests_total", second * part, route, "counter", timestamp_ms=at))
    services.backfill(samples=Samples.from_readings(readings, at=now), by=BY, now=now)


@pytest.fixture
def viewer(client: Client, db: None) -> Client:
    person = User.objects.create_user("vera")
    set_roles(by=BY, user=person, roles=["viewer"])
    client.force_login(person)
    return client


def test_each_application_is_told_with_its_processes_the_portal_itself_is_not(viewer):
    write("shop", 2)
    write("portal", 1)
    page = viewer.get(reverse("applications")).content.decode()
    row = page.partition('<tr>\n    <td><a href="?job=shop"')[2].partition("</tr>")[0]
    assert [cell.partition("<")[0] for cell in row.split('">')[2:5]] == ["2", "4 req/s", "10 %"]
    assert "?job=portal" not in page
    assert 'data-panel="application-codes"' in page
    assert 'data-panel="application-tasks"' not in page


def test_an_application_that_is_not_known_has_no_charts_and_a_hostile_name_is_text(viewer):
    write(ODD, 1)
    page = viewer.get(reverse("applications"), {"job": "<script>"}).content.decode()
    assert "No application of this name" in page
    assert "<script>" not in page.partition("<main")[2].partition("</main>")[0]
    page = viewer.get(reverse("applications"), {"job": ODD}).content.decode()
    assert "&lt;b&gt;&quot;shop&quot;" in page
    assert f"?job={quote(ODD, safe='')}" in page
    asked = {"application": ODD, "panel": "application-in-flight", "range": "15m"}
    assert b'"in flight"' in viewer.get(reverse("data"), asked).content


def test_its_charts_are_asked_by_name_and_unknown_ones_are_refused(viewer):
    write("shop", 1)
    asked = {"application": "shop", "range": "15m"}
    table = viewer.get(reverse("data"), asked | {"table": "application-endpoints"}).json()
    assert [row[:2] for row in table["rows"]] in ([], [["GET", "/pay/"]])
    assert viewer.get(reverse("data"), {"table": "application-endpoints"}).status_code == 404
    assert viewer.get(reverse("data"), {"panel": "application-codes"}).status_code == 404
    assert viewer.get(reverse("data"), asked | {"panel": "application-nothing"}).status_code == 404


@pytest.mark.parametrize("job", ["shop", ODD, "x" * 200])
def test_every_expression_is_one_whatever_the_application_is_called(job):
    for panel in application_panels.panels_asked(job).values():
        for query in panel.queries:
            parse(query.expression.replace("$window", "60s"))
    for table in application_panels.tables_asked(job).values():
        for column in table.columns:
            parse(column.expression.replace("$range", "60s"))
    assert application_panels.panels_asked("x" * 201) == {}
    assert application_panels.panels_asked("") == {}
