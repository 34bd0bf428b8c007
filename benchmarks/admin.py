"""The lists of the admin with 10,000 rows each, the audit trail and the deliveries with a million.

`./portal bench admin`, or `python -m benchmarks.admin [--rows N] [--long N]`. One process asks each list through
Django's handler, against a PostgreSQL of its own with the portal's settings: the best of three looks with a hundred
rows, which fill a page, and with all of them. A list whose cost grows with its table shows in the last column.

`--search` fills what can grow to millions instead, and looks for a word that no row has: the dearest search there is.
"""

import argparse
import os
import time
from typing import Any, Final

from benchmarks.store import server

PAGE: Final = 100
LOOKS: Final = 3
LONG: Final = ("accounts.auditentry", "notifications.delivery", "alerting.transition")
GROWING: Final = (*LONG, "alerting.alert", "alerting.incident", "metrics.series", "oncall.notice", "sources.ping")
NOWHERE: Final = "zqxjkv"


def look(client: Any, url: str) -> float:
    """Return the milliseconds of the best of some looks."""
    best = float("inf")
    for _ in range(LOOKS):
        begun = time.perf_counter()
        answer = client.get(url)
        best = min(best, time.perf_counter() - begun)
        assert answer.status_code == 200, url
    return 1000 * best


def main() -> None:
    """Fill, look and say it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--long", type=int, default=1_000_000)
    parser.add_argument("--search", action="store_true")
    given = parser.parse_args()
    with server():
        os.environ["LOG_LEVEL"] = "warning"
        import django

        django.setup()
        from django.conf import settings

        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
        settings.ALLOWED_HOSTS = ["testserver"]
        plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
        settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        from django.contrib import admin
        from django.db import connection
        from django.test import Client
        from django.urls import reverse

        from apps.accounts.models import User
        from tests.house.rows import many

        client = Client()
        client.force_login(User.objects.create_superuser("root"))
        if given.search:
            print(f"{'list':34} {'a look':>14} {'a search':>14}  with {given.long:,} rows", flush=True)
        else:
            print(f"{'list':34} {PAGE:>9,} rows {given.rows:>12,} rows      ratio", flush=True)
        for page in sorted(admin.site._registry.values(), key=lambda page: page.opts.label_lower):  # noqa: SLF001
            name, url = page.opts.label_lower, reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_changelist")
            rows = given.long if name in LONG else given.rows
            if given.search and name in GROWING:
                many(page.model, given.long)
                with connection.cursor() as cursor:
                    cursor.execute(f'ANALYZE "{page.opts.db_table}"')
                search = look(client, f"{url}?q={NOWHERE}")
                print(f"{name:34} {look(client, url):11.0f} ms {search:11.0f} ms", flush=True)
            if given.search:
                continue
            many(page.model, PAGE)
            few = look(client, url)
            many(page.model, rows - PAGE)
            with connection.cursor() as cursor:
                cursor.execute(f'ANALYZE "{page.opts.db_table}"')
            more = look(client, url)
            note = f"  with {rows:,}" if rows != given.rows else ""
            print(f"{name:34} {few:11.0f} ms {more:14.0f} ms {more / few:9.2f}x{note}", flush=True)


if __name__ == "__main__":
    main()
