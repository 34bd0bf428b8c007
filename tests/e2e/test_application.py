"""Another Django project, measured by the wheel in five lines: real forked workers, pushed and scraped, real faults."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page, expect
from psycopg.conninfo import conninfo_to_dict

from apps.metrics.management.commands.client import build
from monitoring_portal.testing import Portal
from tests.e2e.conftest import TOKEN
from tests.e2e.test_story import Administrator

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SETTINGS = """
import os
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["django.contrib.contenttypes"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["DB_NAME"], "USER": os.environ["DB_USER"],
    "HOST": os.environ["DB_HOST"], "PORT": os.environ["DB_PORT"],
    "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}},
}}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

INSTALLED_APPS += ["portal_metrics.instrumentation.PortalMetrics"]
MIDDLEWARE = ["portal_metrics.middleware.RequestMetrics", *MIDDLEWARE]
PORTAL_METRICS_URL = os.environ.get("PUSH_TO", "")
PORTAL_METRICS_TOKEN = os.environ["APP_TOKEN"]
PORTAL_METRICS_SERVICE = os.environ["SERVICE"]
PORTAL_METRICS_EVERY = 1
"""

URLS = """
import os, time
import httpx, requests
from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse
from django.urls import path
from portal_metrics import views


def rows(request, number):
    with connection.cursor() as cursor:
        for _ in range(number):
            cursor.execute("SELECT 1")
    cache.get_or_set("rows", number)
    return HttpResponse(str(os.getpid()))

def broken(request):
    raise LookupError("no")

def slow(request):
    time.sleep(float(request.GET["seconds"]))
    return HttpResponse("late")

def pay(request):
    try:
        return HttpResponse(requests.get(os.environ["PAY_URL"], timeout=5).text)
    except requests.RequestException as error:
        return HttpResponse(str(error), status=200)

async def later(request):
    async with httpx.AsyncClient() as client:
        await client.get(os.environ["MAP_URL"])
    return HttpResponse("later")

urlpatterns = [path("rows/<int:number>/", rows), path("broken/", broken), path("slow/", slow), path("pay/", pay),
               path("later/", later), path("metrics", views.metrics)]
"""

WSGI = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""

CELERY = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
from celery import Celery
app = Celery("shop", broker=os.environ["BROKER"], broker_connection_retry_on_startup=True)
import django
django.setup()

@app.task(name="shop.count")
def count(number):
    from django.db import connection
    connection.cursor().execute("SELECT 2")
    return 1 // number
"""


class Place(ThreadingHTTPServer):
    """A service that the shop calls; it can be told to fail."""

    daemon_threads = True
    is_failing = False


class _Handler(BaseHTTPRequestHandler):
    server: Place

    def do_GET(self) -> None:
        self.send_response(503 if self.server.is_failing else 200)
        self.end_headers()
        self.wfile.write(b"paid")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Shop:
    """The project, served by gunicorn with two workers that were forked from a process which had loaded it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.processes: list[subprocess.Popen[bytes]] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    def run(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def serve(self, name: str) -> subprocess.Popen[bytes]:
        bind = f"127.0.0.1:{self.port}"
        found = self.run(name, "gunicorn", "--preload", "--workers", "2", "--threads", "2", "--bind", bind, "shop.wsgi")
        until(self.answers, f"{name} to answer")
        return found

    def answers(self) -> bool:
        try:
            return self.http.get("/nothing/").status_code == 404
        except httpx.TransportError:
            return False

    def workers(self) -> set[int]:
        """The processes that answered some requests with three queries each."""
        return {int(self.http.get("/rows/3/", headers={"Connection": "close"}).text) for _ in range(30)}

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


def until(condition: Callable[[], Any], what: str, patience: float = 45) -> Any:
    """Wait for it, and return what it came to."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"Waited in vain for {what}."
        time.sleep(0.2)
    return found


@contextmanager
def serving(server: Place) -> Iterator[str]:
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.05))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def payments() -> Iterator[Place]:
    server = Place(("127.0.0.1", 0), _Handler)
    with serving(server):
        yield server


def lay_out(made: Path, **modules: str) -> Path:
    """Write the project `shop` with the wheel beside it, and nothing of the portal on its path."""
    wheel = build(made / "dist", settings.VERSION)
    base = sys._base_executable  # type: ignore[attr-defined]
    pip = [base, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", made / "site", wheel]
    subprocess.run(pip, check=True, cwd=made)
    (made / "shop").mkdir()
    for name, text in {"__init__": "", **modules}.items():
        (made / "shop" / f"{name}.py").write_text(text)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("shop"), settings=SETTINGS, urls=URLS, wsgi=WSGI, worker=CELERY)


@pytest.fixture(scope="module")
def shops(portal: Portal, folder: Path, payments: Place) -> Iterator[Callable[..., Shop]]:
    database = conninfo_to_dict(portal.database_url)
    told = {f"DB_{name}": str(database.get(key) or "") for name, key in
            (("NAME", "dbname"), ("USER", "user"), ("HOST", "host"), ("PORT", "port"))}  # fmt: skip
    url = f"http://127.0.0.1:{payments.server_port}/"
    broker = portal.redis_url.partition("?")[0].replace("unix:", "redis+socket:")
    made: list[Shop] = []

    def make(service: str, **more: str) -> Shop:
        environment = {
            **told, "PYTHONPATH": str(folder / "site"), "PATH": os.environ["PATH"], "APP_TOKEN": TOKEN,
            "SERVICE": service, "PAY_URL": url, "MAP_URL": url.replace("127.0.0.1", "localhost"),
            "TMPDIR": str(folder), "BROKER": broker + "?virtual_host=9", **more,
        }  # fmt: skip
        made.append(Shop(folder, environment))
        return made[-1]

    yield make
    for shop in made:
        shop.http.close()
        for process in shop.processes:
            process.terminate()
        for process in shop.processes:
            process.wait(20)


@pytest.fixture(scope="module")
def ask(portal: Portal) -> Callable[[str], dict[str, float]]:
    """Ask the portal's API: values by their labels, written out."""
    client = httpx.Client(base_url=portal.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)

    def query(text: str) -> dict[str, float]:
        answer = client.get("/api/v1/query", params={"query": text}).json()
        assert answer["status"] == "success", answer
        return {
            ",".join(value for _, value in sorted(row["metric"].items())): float(row["value"][1])
            for row in answer["data"]["result"]
        }

    return query


def test_workers_that_push_are_counted_exactly_on_its_page_too(shops, portal, ask, chromium: Browser):
    shop = shops("shop", PUSH_TO=portal.url)
    master = shop.serve("pushing")
    workers = shop.workers()
    assert len(workers) == 2
    for path in ("/broken/", "/broken/", "/pay/", "/later/"):
        shop.http.get(path)
    own = 'job="shop"'
    rows = f'http_requests_total{{{own},endpoint="/rows/<int:number>/"}}'
    until(lambda: ask(f"sum({rows})").get("") == 30, "all requests")
    until(lambda: ask(f'sum(http_requests_total{{{own},code="500"}})').get("") == 2, "the failed requests")
    until(lambda: ask(f'sum(http_requests_total{{{own},endpoint="/later/"}})').get("") == 1, "the last request")
    assert ask(f"sum by (endpoint) (django_db_queries_total{{{own}}})") == {"/rows/<int:number>/": 90}
    assert ask(f"sum by (alias, vendor) (django_db_query_duration_seconds_count{{{own}}})") == {
        "default,postgresql": 90
    }
    assert ask(f"sum by (host, code) (http_client_request_duration_seconds_count{{{own}}})") == {
        "200,127.0.0.1": 1, "200,localhost": 1,
    }  # fmt: skip
    assert ask(f"sum by (exception) (http_exceptions_total{{{own}}})") == {"LookupError": 2}
    assert ask(f"max by (alias) (django_db_pool_connections_max{{{own}}})") == {"default": 2}
    assert ask(f"sum(django_cache_hits_total{{{own}}}) + sum(django_cache_misses_total{{{own}}})") == {"": 32}
    assert set(ask(f"count by (process) (http_requests_in_flight{{{own}}})")) == {"0", "1"}

    # The page shows what the API says.
    page = chromium.new_context(locale="en-US", base_url=portal.url).new_page()
    page.goto("/accounts/login/?next=/monitoring/applications/%3Fjob%3Dshop")
    page.get_by_label("User").fill("admin")
    page.get_by_label("Password").fill(portal.password)
    page.get_by_role("button", name=re.compile("log in|sign in", re.I)).click()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="shop", exact=True))
    expect(row.get_by_role("cell").nth(1)).to_have_text("2")
    table = page.get_by_role("region", name="Table of the slowest endpoints")

    def is_drawn() -> bool:
        page.reload()
        expect(table).not_to_contain_text("Loading")
        return table.get_by_text("/broken/").is_visible()

    until(is_drawn, "the table of endpoints")
    line = table.get_by_role("row").filter(has_text="/rows/<int:number>/")
    expect(line.get_by_role("cell").nth(5)).to_have_text("0 %")
    expect(table.get_by_role("row").filter(has_text="/broken/").get_by_role("cell").nth(5)).to_have_text("100 %")
    until(lambda: agree(charted(page), asked_anew(portal, page)), "the page to show what the API says")
    assert set(charted(page)) == {"200", "404", "500"}
    page.context.close()

    # A worker that is killed is followed by one that takes its number: no series more, and nothing counted twice.
    os.kill(workers.pop(), signal.SIGKILL)
    until(lambda: shop.workers() > workers, "another worker")
    until(lambda: ask(f"count(count by (process) (process_start_time_seconds{{{own}}}))").get("") == 2, "its figures")
    assert ask(f"sum(increase({rows}[10m]))")[""] < 200

    # Those that end by themselves end their series at once, not after the five minutes that one is looked back for.
    master.terminate()
    master.wait(20)
    until(lambda: not ask(f"http_requests_in_flight{{{own}}}"), "the end of its series")
    assert "Traceback" not in shop.log("pushing").replace("Traceback (most recent call last):\n", "", 2)


CHART = "fetch('/monitoring/data/?application=shop&range=1h&panel=application-codes').then((a) => a.json())"
Series = dict[str, list[float]]


def charted(page: Page) -> Series:
    """What the page's chart of requests by status draws: the figures that are not nothing."""
    answer = page.evaluate(CHART)["panels"]["application-codes"]
    return {one["name"]: [value for value in one["values"] if value is not None] for one in answer["series"]}


def agree(drawn: Series, told: Series) -> bool:
    """Whether both are the same in the ten digits that a chart is sent."""
    return drawn.keys() == told.keys() and all(
        drawn[name] == pytest.approx(told[name], rel=1e-9, abs=0) for name in told
    )


def asked_anew(portal: Portal, page: Page) -> Series:
    """What Prometheus' API answers to the same question."""
    answer = page.evaluate(CHART)["panels"]["application-codes"]
    start, step = answer["start"], answer["step"]
    span = {"start": start, "end": start + step * (answer["count"] - 1), "step": step}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    params = {"query": answer["expressions"][0], **span}
    told = httpx.get(f"{portal.url}/api/v1/query_range", params=params, headers=headers, timeout=20).json()
    return {row["metric"]["code"]: [float(value) for _, value in row["values"]] for row in told["data"]["result"]}


def test_a_scrape_of_one_worker_shows_all_of_them(shops, portal, ask):
    shop = shops("scraped", PORTAL_METRICS_FOLDER="")
    shop.serve("scraped")
    assert len(shop.workers()) == 2
    shown = []
    for _ in range(8):
        answer = shop.http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}", "Connection": "close"})
        lines = [line for line in answer.text.splitlines() if line.startswith("http_requests_total{")]
        shown.append(sum(float(line.rpartition(" ")[2]) for line in lines if "/rows/" in line))
    assert shop.http.get("/metrics").status_code == 401
    assert shown == sorted(shown), "a counter never goes back, whoever answers"
    until(lambda: _sum(shop) == 30, "all processes in one answer", 15)

    admin = Administrator(portal)
    job = {
        "name": "scraped", "targets": [{"targets": [f"127.0.0.1:{shop.port}"]}], "metrics_path": "/metrics",
        "auth": "bearer", "secrets": {"credential": TOKEN}, "interval": 1, "timeout": 1,
    }  # fmt: skip
    admin.send("POST", "scrape-jobs/", job)
    own = 'job="scraped",endpoint="/rows/<int:number>/"'
    until(lambda: ask(f"sum(http_requests_total{{{own}}})").get("") == 30, "the scrape")
    assert set(ask('count by (process) (http_requests_in_flight{job="scraped"})')) == {"0", "1"}


def _sum(shop: Shop) -> float:
    answer = shop.http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}", "Connection": "close"})
    lines = [line for line in answer.text.splitlines() if line.startswith("http_requests_total{") and "/rows/" in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_tasks_are_counted_in_the_children_of_a_worker(shops, portal, ask):
    shop = shops("tasks", PUSH_TO=portal.url)
    shop.run("worker", "celery", "-A", "shop.worker", "worker", "--concurrency", "2", "--loglevel", "WARNING")
    code = "from shop.worker import count; [count.delay(number) for number in (1, 1, 0, 1)]"
    subprocess.run([sys.executable, "-c", code], cwd=shop.folder, env=shop.environment, check=True, timeout=60)
    until(lambda: ask('sum by (state) (celery_tasks_total{job="tasks"})') == {"success": 3, "failure": 1}, "all tasks")
    assert ask('sum by (exception) (celery_task_failures_total{job="tasks"})') == {"ZeroDivisionError": 1}
    assert ask('sum by (endpoint) (django_db_queries_total{job="tasks"})') == {"task shop.count": 4}
    assert until(lambda: ask('max by (queue) (celery_worker_queue_length{job="tasks"})'), "a queue") == {"celery": 0}


def test_a_slow_endpoint_and_a_failing_host_fire_and_resolve(shops, portal, ask, payments):
    admin = Administrator(portal)
    for slug in ("slow-endpoint", "outbound-host-failing"):
        [rule] = [row for row in admin.rows("rules/?page_size=200") if row["slug"] == slug]
        short = {
            "expression": rule["expression"].replace("[5m]", "[10s]"),
            "pending_period": 1,
            "group": "applications",
            "although_tests_fail": True,
        }
        admin.send("PATCH", f"rules/{slug}/", short)
    [group] = [row for row in admin.rows("rule-groups/?page_size=200") if row["name"] == "applications"]
    admin.send("PATCH", f"rule-groups/{group['id']}/", {"interval": 1})
    shop = shops("troubled", PUSH_TO=portal.url)
    shop.serve("troubled")
    state = {"seconds": "2.2", "run": "yes"}
    payments.is_failing = True

    def drive(path: str) -> None:
        with httpx.Client(base_url=shop.http.base_url, timeout=20) as client:
            while state["run"]:
                client.get(path, params={"seconds": state["seconds"]})
                time.sleep(0.3)

    threads = [threading.Thread(target=drive, args=(path,)) for path in ("/slow/", "/slow/", "/pay/")]
    for thread in threads:
        thread.start()

    def firing() -> set[str]:
        found = ask('ALERTS{job="troubled",alertstate="firing",alertname=~"Slow endpoint|Called host fails"}')
        return {name for name in ("Slow endpoint", "Called host fails") if any(name in key for key in found)}

    try:
        until(lambda: len(firing()) == 2, "both alerts", 60)
        state["seconds"], payments.is_failing = "0.01", False
        until(lambda: not firing(), "their end", 60)
    finally:
        state["run"], payments.is_failing = "", False
        for thread in threads:
            thread.join()
