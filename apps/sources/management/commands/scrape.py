"""`manage.py scrape`: import the scrape_configs of a prometheus.yml, list the targets, look at one of them."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.sources import scrapeconfigs, scraping, services
from apps.sources.models import ScrapeTarget

BY: Final = Principal.system("manage.py scrape", via="command")
SIGNS: Final = {"new": "+", "changed": "~", "unchanged": " "}


class Command(BaseCommand):
    help = "import: take over scrape_configs; targets: how they are; look: ask one target and store nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        load = verbs.add_parser(
            "import", help="take over the scrape_configs of a prometheus.yml; twice changes nothing"
        )
        load.add_argument("file", help="a prometheus.yml; - is stdin")
        load.add_argument("--dry-run", action="store_true", help="only say what would change")
        load.add_argument(
            "--read-files", action="store_true", help="take over passwords and certificates from the files it names"
        )
        verbs.add_parser("targets", help="list the targets")
        look = verbs.add_parser("look", help="ask a target once and show what it shows")
        look.add_argument("target", help="its number, address or instance")

    def handle(self, *args: Any, **options: Any) -> None:
        getattr(self, f"_{options['verb']}")(options)

    def _import(self, options: dict[str, Any]) -> None:
        name = options["file"]
        try:
            text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
            folder = None if name == "-" else str(Path(name).resolve().parent)
            reader = (lambda path: Path(path).read_text(encoding="utf-8")) if options["read_files"] else None
            read = scrapeconfigs.read(text, folder=folder, read_file=reader)
            done = services.import_jobs(by=BY, read=read, now=timezone.now(), dry_run=options["dry_run"])
        except (OSError, UnicodeDecodeError, scrapeconfigs.BadConfig) as error:
            raise CommandError(f"{name} cannot be read: {error}", returncode=1) from None
        except ValidationError as error:
            raise CommandError("Nothing was imported.\n" + "\n".join(error.messages), returncode=1) from None
        for action, job, settings in done.changes:
            self.stdout.write(f"{SIGNS[action]} {action} {job}" + (f": {', '.join(settings)}" if settings else ""))
        for note in done.notes:
            self.stdout.write(f"! {note}")
        self.stdout.write(f"{'Would be: ' if done.dry_run else ''}{len(done.changes)} jobs.")

    def _targets(self, options: dict[str, Any]) -> None:
        for row in ScrapeTarget.objects.filter(ended=False).with_job():
            state = "dropped" if row.dropped else row.health
            self.stdout.write(f"{row.pk}\t{state}\t{row.job}\t{row.instance}\t{row.url}\t{row.error}")

    def _look(self, options: dict[str, Any]) -> None:
        wanted = options["target"]
        rows = ScrapeTarget.objects.active().with_job()
        found = [row for row in rows if wanted in (str(row.pk), row.url, row.instance)]
        if not found:
            raise CommandError(f"There is no target {wanted}.", returncode=1)
        seen = scraping.look(found[0], now=timezone.now())
        for series, value in seen.samples:
            self.stdout.write(f"{series} {value:g}")
        for problem in seen.round.problems:
            self.stdout.write(f"! {problem}")
        self.stdout.write(f"{seen.round.kept} of {seen.round.scraped} samples in {seen.seconds:.3f} s.")
        if seen.round.error:
            raise CommandError(seen.round.error, returncode=1)
