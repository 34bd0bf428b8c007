"""Another Django project is measured by the wheel: five lines, and nothing of the portal on its path."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from django.conf import settings

from apps.metrics.management.commands.client import build

PROJECT = """
import os, sys
import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
INSTALLED_APPS = ["django.contrib.contenttypes"]

INSTALLED_APPS += ["portal_metrics.instrumentation.PortalMetrics"]
MIDDLEWARE = ["portal_metrics.middleware.RequestMetrics", *MIDDLEWARE]
settings.configure(
    MIDDLEWARE=MIDDLEWARE, INSTALLED_APPS=INSTALLED_APPS, ROOT_URLCONF="project", ALLOWED_HOSTS=["*"],
    PORTAL_METRICS_TOKEN="a-token", PORTAL_METRICS_FOLDER=sys.argv[1],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "other": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "other"},
    },
)

from django.core.cache import cache, caches
from django.db import OperationalError, connection


def shop(request, number):
    with connection.cursor() as cursor:
        for _ in range(number):
            cursor.execute("SELECT 1")
        if number == 9:
            try:
                cursor.execute("SELECT nothing")
            except OperationalError:
                pass
    if cache.get("seen", "no") == "no":
        cache.set("seen", None)
    caches["other"].get_or_set("x", 3)
    caches["other"].get_many(["x", "y"])
    return HttpResponse("fine")


async def later(request):
    from asgiref.sync import sync_to_async
    return await sync_to_async(shop)(request, 2)

urlpatterns = [path("shop/<int:number>/", shop), path("later/", later)]

from portal_metrics import views
urlpatterns += [path("metrics", views.metrics)]

if __name__ == "__main__":
    sys.modules["project"] = sys.modules["__main__"]
    django.setup()
    from django.test import Client
    client = Client()
    for number in (3, 3, 9):
        assert client.get(f"/shop/{number}/").status_code == 200
    assert client.get("/later/").status_code == 200
    connection.cursor().execute("SELECT 2")
    assert client.get("/metrics").status_code == 401
    answer = client.get("/metrics", headers={"Authorization": "Bearer a-token"})
    sys.stdout.write(answer.content.decode())
    assert not [name for name in sys.modules if name.split(".")[0] in ("apps", "monitoring_portal")]
"""


@pytest.mark.slow
def test_a_project_with_the_wheel_shows_requests_queries_and_caches(tmp_path: Path) -> None:
    wheel = build(tmp_path / "dist", settings.VERSION)
    assert wheel.read_bytes() == build(tmp_path / "again", settings.VERSION).read_bytes()
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as file:
        assert file.testzip() is None
    base = sys._base_executable  # type: ignore[attr-defined]
    pip = [base, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", place, wheel]
    subprocess.run(pip, check=True, cwd=tmp_path)
    (tmp_path / "project.py").write_text(PROJECT)
    done = subprocess.run(
        [sys.executable, "-W", "error", tmp_path / "project.py", tmp_path / "place"], cwd=tmp_path, check=False,
        env={"PYTHONPATH": str(place)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = set(done.stdout.replace(',process="0"', "").splitlines())
    shop = 'endpoint="/shop/<int:number>/"'
    assert {
        f'http_requests_total{{code="200",{shop},method="GET"}} 3',
        f'django_db_queries_total{{alias="default",{shop}}} 16',
        'django_db_queries_total{alias="default",endpoint="/later/"} 2',
        'django_db_queries_total{alias="default",endpoint="outside"} 1',
        f'django_db_queries_per_request_bucket{{{shop},le="5.0"}} 2',
        f"django_db_queries_per_request_sum{{{shop}}} 16",
        'django_db_errors_total{alias="default",exception="OperationalError"} 1',
        'django_db_query_duration_seconds_count{alias="default",vendor="sqlite"} 19',
        'django_db_connections_opened_total{alias="default"} 1',
        'django_cache_operations_total{alias="default",operation="get"} 4',
        'django_cache_operations_total{alias="default",operation="set"} 1',
        'django_cache_operations_total{alias="other",operation="add"} 1',
        'django_cache_hits_total{alias="default"} 3',
        'django_cache_misses_total{alias="default"} 1',
        'django_cache_hits_total{alias="other"} 8',
        'django_cache_misses_total{alias="other"} 5',
    } <= lines, done.stdout
