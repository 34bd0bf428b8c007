"""What counting costs a request: a view of 5 ms with queries and cache reads, plain and measured, turn by turn.

`./portal bench web`, or `python -m benchmarks.web`. One Django project in one process, in memory; a turn is a request
without and one with the middleware and the instrumentation, in an order that changes, so that a machine whose speed
wanders moves both alike. Goal: 3 % of the request (docs/how-to/django.md).
"""

import argparse
import gc
import os
import random
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

GOAL: Final = 0.03
REQUEST: Final = 0.005
"""Seconds of processor that the view spends."""
QUERIES: Final = 10
READS: Final = 5


def spin(seconds: float) -> None:
    """Use the processor for so long."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def project() -> tuple[Callable[[], None], Callable[[], None]]:
    """Return (a plain request, a measured one), through Django's handler and its usual middleware."""
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    import django
    from django.conf import settings

    usual = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
    settings.configure(
        MIDDLEWARE=usual,
        INSTALLED_APPS=["django.contrib.contenttypes"],
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        DEBUG_PROPAGATE_EXCEPTIONS=True,
        STATIC_URL="/static/",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    )
    django.setup()
    from django.core.cache import caches
    from django.db import connection
    from django.http import HttpResponse
    from django.test import RequestFactory
    from django.test.client import ClientHandler
    from django.urls import path

    from apps.metrics.client import instrumentation

    reads: list[Any] = [caches["default"]]

    def view(request: Any, number: int) -> HttpResponse:
        with connection.cursor() as cursor:
            for row in range(QUERIES):
                cursor.execute("SELECT %s", [row])
                cursor.fetchall()
        for read in range(READS):
            reads[0].get(f"key-{read % 3}")
        spin(REQUEST)
        return HttpResponse("fine")

    globals()["urlpatterns"] = [path("shop/<int:number>/", view)]
    make = RequestFactory()

    def handler(middleware: list[str]) -> Callable[[], None]:
        settings.MIDDLEWARE = middleware
        serve = ClientHandler(enforce_csrf_checks=False)
        serve.load_middleware()

        def ask() -> None:
            answer = serve(make.get("/shop/7/").environ)
            assert answer.status_code == 200

        return ask

    plain = handler(usual)
    measured = handler(["apps.metrics.middleware.RequestMetrics", *usual])
    plain()
    instrumentation.watch_caches()
    watched = caches.create_connection("default")
    own: Any = caches["default"]
    wrapper = instrumentation.Timed("default", "sqlite")  # taken out and put in, turn by turn

    def without() -> None:
        reads[0] = own
        connection.execute_wrappers.clear()
        plain()

    def with_it() -> None:
        reads[0] = watched
        connection.execute_wrappers[:] = [wrapper]
        measured()

    return without, with_it


def main() -> None:
    """Measure and say it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1500)
    turns = parser.parse_args().turns
    without, with_it = project()
    took: dict[str, list[float]] = {"plain": [], "measured": []}
    pairs = [("plain", without), ("measured", with_it)]
    gc.disable()
    for turn in range(turns + 50):
        random.Random(turn).shuffle(pairs)
        for name, ask in pairs:
            started = time.process_time()
            ask()
            if turn >= 50:
                took[name].append(time.process_time() - started)
        if turn % 100 == 0:
            gc.collect()
    plain, measured = (statistics.median(took[name]) for name in ("plain", "measured"))
    costs = [after - before for before, after in zip(took["plain"], took["measured"], strict=True)]
    more = statistics.median(costs)
    share = more / plain
    what = f"a request of {QUERIES} queries and {READS} cache reads"
    print(f"{what}: {plain * 1000:.3f} ms, measured {measured * 1000:.3f} ms")
    print(f"counting costs {more * 1e6:.0f} µs, {100 * share:.2f} % (goal: at most {100 * GOAL:.0f} %)")
    raise SystemExit(share > GOAL)


if __name__ == "__main__":
    main()
