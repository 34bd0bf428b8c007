"""Shipped rules of applications, seen firing and ending by faults of another Django project that the wheel measures."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection

from tests.e2e.test_application import WSGI, Shop, lay_out, until
from tests.faults.watch import Watch, waited_since
from tests.sources.conftest import job

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
THREADS = 8

SETTINGS = """
import os
import celery
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["portal_metrics.instrumentation.PortalMetrics"]
MIDDLEWARE = ["portal_metrics.middleware.RequestMetrics"]
PORTAL_METRICS_FOLDER = ""
DATABASES = {"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["DB_DBNAME"], "USER": os.environ["DB_USER"],
    "PASSWORD": os.environ["DB_PASSWORD"], "HOST": os.environ["DB_HOST"], "PORT": os.environ["DB_PORT"],
    "OPTIONS": {"pool": {"min_size": 1, "max_size": 1}},
}}
"""

URLS = """
from celery import Celery
from django.db import connection
from django.http import HttpResponse
from django.urls import path
from portal_metrics import views

app = Celery("shop", broker="memory://")

@app.task(name="shop.divide")
def divide(number):
    return 1 // number

def fine(request):
    return HttpResponse("fine")

def broken(request):
    raise LookupError("no")

def held(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.01)")
    return HttpResponse("given back")

def task(request, number):
    return HttpResponse(divide.apply([number]).state)

urlpatterns = [path("fine/", fine), path("broken/", broken), path("held/", held), path("task/<int:number>/", task),
               path("metrics", views.metrics)]
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[Shop]:
    folder = lay_out(tmp_path_factory.mktemp("shop"), settings=SETTINGS, urls=URLS, wsgi=WSGI)
    database = connection.get_connection_params()
    told = {f"DB_{key.upper()}": str(database.get(key) or "") for key in ("dbname", "user", "password", "host", "port")}
    made = Shop(folder, {**told, "PYTHONPATH": str(folder / "site"), "PATH": os.environ["PATH"], "TMPDIR": str(folder)})
    bind = f"127.0.0.1:{made.port}"
    process = made.run("shop", "gunicorn", "--threads", str(THREADS), "--bind", bind, "shop.wsgi")
    until(made.answers, "the shop to answer")
    yield made
    made.http.close()
    process.terminate()
    process.wait(20)


def scraped(shop: Shop, watch: Watch) -> Watch:
    job(f"127.0.0.1:{shop.port}", now=watch.now, name="shop", interval=timedelta(seconds=15))
    return watch


def test_a_view_that_fails_makes_an_application_answer_errors(shop: Shop) -> None:
    watch = scraped(shop, Watch("application-errors"))

    def asked(failing: int) -> None:
        codes = [shop.http.get("/broken/" if n < failing else "/fine/").status_code for n in range(12)]
        assert codes.count(500) == failing

    watch.passes(60, lambda: asked(0))
    alert = watch.fires("application-errors", "warning", within=400, each=lambda: asked(2))
    assert alert.labels["job"] == "shop"
    assert waited_since(alert).total_seconds() >= 60
    watch.fires("application-errors", "critical", within=400, each=lambda: asked(8))
    watch.resolves("application-errors", within=400, each=lambda: asked(0))


def test_more_threads_than_connections_use_up_a_pool(shop: Shop) -> None:
    watch = scraped(shop, Watch("pool-saturated"))

    def at_once() -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            assert {one.status_code for one in threads.map(shop.http.get, ["/held/"] * THREADS)} == {200}

    def in_turn() -> None:
        assert [shop.http.get("/held/").status_code for _ in range(THREADS)] == [200] * THREADS

    watch.passes(60, in_turn)
    assert watch.firing() == {}
    alert = watch.fires("pool-saturated", "warning", within=400, each=at_once)
    assert (alert.labels["job"], alert.labels["alias"]) == ("shop", "default")
    watch.resolves("pool-saturated", within=400, each=in_turn)


def test_a_task_that_raises_is_told_until_it_is_mended(shop: Shop) -> None:
    watch = scraped(shop, Watch("task-failures"))

    def ran(failing: int) -> None:
        states = [shop.http.get(f"/task/{0 if n < failing else 1}/").text for n in range(5)]
        assert states.count("FAILURE") == failing

    watch.passes(60, lambda: ran(0))
    alert = watch.fires("task-failures", "warning", within=400, each=lambda: ran(2))
    assert (alert.labels["job"], alert.labels["task"]) == ("shop", "shop.divide")
    watch.fires("task-failures", "error", within=700, each=lambda: ran(5))
    watch.resolves("task-failures", within=720, each=lambda: ran(0))
