"""`manage.py client FOLDER`: what other Django projects need to be measured, as a wheel without dependencies."""

import base64
import hashlib
import re
import zipfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand

PACKAGE: Final = "portal_metrics"
MODULES: Final = {
    "telemetry": "apps/core/telemetry.py",
    "sending": "apps/core/sending.py",
    "logbook": "apps/core/logbook.py",
    "middleware": "apps/metrics/middleware.py",
    "exposition": "apps/metrics/exposition.py",
    **{
        name: f"apps/metrics/client/{name}.py"
        for name in (
            "instrumentation",
            "logs",
            "otlp_json",
            "outbound",
            "places",
            "reporting",
            "resources",
            "tasks",
            "views",
        )
    },
}
INIT: Final = '"""Counts what a Django project does; see docs/how-to/django.md of the Monitoring Portal."""\n'
METADATA: Final = """\
Metadata-Version: 2.1
Name: portal-metrics
Version: {version}
Summary: Requests, queries, caches, calls and tasks of a Django project, for Prometheus and the Monitoring Portal
Requires-Python: >=3.11
"""
WHEEL: Final = "Wheel-Version: 1.0\nGenerator: manage.py client\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
IMPORT: Final = re.compile(r"\bapps\.(?:core|metrics\.client|metrics)\b")


class Command(BaseCommand):
    """Write the wheel."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(str(build(options["folder"], settings.VERSION)))


def build(folder: Path, version: str) -> Path:
    """Write the wheel into the folder and return its path; the same release gives the same bytes."""
    number = re.sub(r"[^0-9.].*", "", version) or "0"
    info = f"{PACKAGE}-{number}.dist-info"
    files = {f"{PACKAGE}/__init__.py": INIT}
    for name, source in MODULES.items():
        text = (settings.BASE_DIR / source).read_text()
        files[f"{PACKAGE}/{name}.py"] = IMPORT.sub(PACKAGE, text)
    files[f"{PACKAGE}/py.typed"] = ""
    files[f"{info}/METADATA"] = METADATA.format(version=number)
    files[f"{info}/WHEEL"] = WHEEL
    record = [f"{name},sha256={_digest(text)},{len(text.encode())}" for name, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PACKAGE}-{number}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, text in files.items():
            wheel.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
