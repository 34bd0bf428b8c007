"""Web requests counted by pattern, in both of Django's modes; exceptions by class; the fast lane's function."""

import asyncio
import inspect
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path, re_path

from apps.core import telemetry
from apps.metrics import middleware


class Broken(Exception):
    """What a view raises in these tests."""


def fine(request, **captured):
    return HttpResponse("fine", status=201)


def streams(request):
    return StreamingHttpResponse(iter([b"a", b"b"]))


def breaks(request):
    raise Broken


def missing(request):
    raise Http404


def forbidden(request):
    raise PermissionDenied


async def asynchronous(request):
    await asyncio.sleep(0)
    return HttpResponse("fine")


async def asynchronous_breaks(request):
    raise Broken


def plain(status: int):
    return lambda request, exception=None: HttpResponse(status=status)


handler400, handler403, handler404, handler500 = map(plain, (400, 403, 404, 500))
urlpatterns = [
    path("things/<int:pk>/", fine),
    re_path(r"^old/(?P<year>\d{4})/$", fine),
    path("streams", streams),
    path("breaks", breaks),
    path("missing", missing),
    path("forbidden", forbidden),
    path("async", asynchronous),
    path("async-breaks", asynchronous_breaks),
]


@pytest.fixture(autouse=True)
def only_our_middleware():
    telemetry.reset()
    with override_settings(
        ROOT_URLCONF=__name__, MIDDLEWARE=["apps.metrics.middleware.RequestMetrics"], ALLOWED_HOSTS="*"
    ):
        yield


def counted(name: str = "http_requests_total") -> dict[tuple[str, ...], float]:
    return {tuple(r.labels.values()): r.value for r in telemetry.snapshot() if r.name == name}


@pytest.mark.parametrize(
    ("url", "endpoint", "code"),
    [
        ("/things/5/", "/things/<int:pk>/", "201"),
        ("/things/6/?token=secret", "/things/<int:pk>/", "201"),
        ("/old/2026/", r"/old/(?P<year>\d{4})/", "201"),
        ("/streams", "/streams", "200"),
        ("/breaks", "/breaks", "500"),
        ("/missing", "/missing", "404"),
        ("/forbidden", "/forbidden", "403"),
        ("/wp-login.php", "unmatched", "404"),
        ("/static/app.js", "static", "404"),
        ("/async", "/async", "200"),
    ],
)
def test_a_request_counts_under_its_pattern_and_status(url, endpoint, code):
    Client(raise_request_exception=False).get(url)
    assert counted() == {(endpoint, "GET", code): 1.0}


def test_the_asynchronous_stack_counts_the_same():
    async def visit() -> None:
        client = AsyncClient(raise_request_exception=False)
        for url in ("/async", "/async-breaks", "/things/5/"):
            await client.get(url)

    asyncio.run(visit())
    assert counted() == {
        ("/async", "GET", "200"): 1.0,
        ("/async-breaks", "GET", "500"): 1.0,
        ("/things/<int:pk>/", "GET", "201"): 1.0,
    }
    assert counted("http_exceptions_total") == {("/async-breaks", f"{__name__}.Broken"): 1.0}


def test_a_thousand_paths_are_one_series():
    client = Client()
    for number in range(50):
        client.get(f"/things/{number}/")
        client.get(f"/nothing/{number}")
    assert counted() == {("/things/<int:pk>/", "GET", "201"): 50.0, ("unmatched", "GET", "404"): 50.0}


def test_an_invented_method_is_not_a_label():
    Client().generic("BREW", "/things/1/")
    assert list(counted()) == [("/things/<int:pk>/", "other", "201")]


def test_histogram_count_sum_and_extremes_belong_to_the_request():
    Client().get("/things/1/")
    key = ("/things/<int:pk>/", "GET", "201")
    total = counted("http_request_duration_seconds_sum")[key]
    assert counted("http_request_duration_seconds_count") == {key: 1.0}
    assert (
        counted("http_request_duration_seconds_min")[key] == counted("http_request_duration_seconds_max")[key] == total
    )


def test_nothing_is_in_flight_afterwards():
    Client(raise_request_exception=False).get("/breaks")
    assert counted("http_requests_in_flight") == {(): 0.0}


def test_exceptions_count_by_class_and_pattern_with_first_and_last_sight(monkeypatch):
    times = itertools.count(1000.0)
    clock = SimpleNamespace(time=lambda: next(times), perf_counter=time.perf_counter)
    monkeypatch.setattr("apps.metrics.middleware.time", clock)
    client = Client(raise_request_exception=False)
    client.get("/breaks")
    client.get("/breaks")
    key = ("/breaks", f"{__name__}.Broken")
    assert counted("http_exceptions_total") == {key: 2.0}
    first = counted("http_exception_first_seen_timestamp_seconds")[key]
    assert counted("http_exception_last_seen_timestamp_seconds")[key] > first


def test_ways_to_answer_4xx_are_no_exceptions():
    Client().get("/missing")
    Client().get("/forbidden")
    assert counted("http_exceptions_total") == {}


def test_a_client_that_leaves_counts_as_499(rf):
    async def never(request):
        await asyncio.Event().wait()

    async def leave() -> None:
        request = rf.get("/async")
        request.resolver_match = None
        answer = middleware.RequestMetrics(never)(request)
        assert inspect.iscoroutine(answer)
        task = asyncio.create_task(answer)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert counted() == {("unmatched", "GET", "499"): 1.0}
    assert counted("http_requests_in_flight") == {(): 0.0}


ELSEWHERE = """
import django
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.urls import path

settings.configure(
    MIDDLEWARE=["apps.metrics.middleware.RequestMetrics"], ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], SECRET_KEY="x"
)
django.setup()
from apps.core import telemetry
from apps.metrics import exposition

urlpatterns = [path("hello/<str:name>", lambda request, name: HttpResponse(name))]
Client().get("/hello/you")
print(exposition.write(telemetry.snapshot()).decode())
"""


def test_another_django_project_can_use_it_without_any_other_part_of_the_portal():
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "DJANGO_SETTINGS_MODULE": ""}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert 'http_requests_total{code="200",endpoint="/hello/<str:name>",method="GET"} 1\n' in done.stdout


def test_the_fast_lane_counts_an_endpoint_once_whatever_its_slashes():
    for path_text in ("/metrics", "/metrics/", "/metrics////"):
        middleware.observe(path_text, "GET", 200, 0.001)
    middleware.observe("/", "GET", 200, 0.001)
    assert counted() == {("/metrics", "GET", "200"): 3.0, ("/", "GET", "200"): 1.0}
