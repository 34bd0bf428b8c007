"""`manage.py oncall import`: take over the configuration of another product."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.oncall.importers import importers
from apps.oncall.importing import Report, import_configuration

BY: Final = Principal.system("manage.py oncall", via="command")
SIGNS: Final = {"new": "+", "changed": "~", "left out": "!", "unchanged": " "}


class Command(BaseCommand):
    help = "import: take over an alertmanager.yml, or an export of Grafana OnCall or Opsgenie."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        load = verbs.add_parser("import", help="take it over, in one transaction; twice changes nothing")
        load.add_argument("kind", choices=sorted(importers.all()), help="the product")
        load.add_argument("file", help="- is stdin")
        load.add_argument("--dry-run", action="store_true", help="only say what would change")
        load.add_argument("--all", action="store_true", help="list what stays unchanged, too")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["file"]
        try:
            content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            raise CommandError(f"{name} cannot be read: {error}.", returncode=1) from None
        try:
            report = import_configuration(
                by=BY, kind=options["kind"], content=content, dry_run=options["dry_run"], now=timezone.now()
            )
        except ValidationError as error:
            raise CommandError("Nothing was imported.\n" + "\n".join(error.messages), returncode=1) from None
        self._show(report, everything=options["all"])

    def _show(self, report: Report, *, everything: bool) -> None:
        for change in report.changes:
            if change.action == "unchanged" and not everything:
                continue
            self.stdout.write(f"{SIGNS[change.action]} {change.action} {change.kind} {change.name}")
            for detail in change.details:
                self.stdout.write(f"    {detail}")
        for note in report.notes:
            self.stdout.write(f"! {note}")
        counts = ", ".join(f"{number} {action}" for action, number in report.counts().items() if number)
        self.stdout.write(("Would be: " if report.dry_run else "") + (counts or "The file asks for nothing."))
