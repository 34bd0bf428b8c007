"""`manage.py docs`: writes what the documentation takes from the code; `--check` fails where it is out of date."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from monitoring_portal.documents import DOCUMENTS


class Command(BaseCommand):
    help = "Write docs/generated/ from the code."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")

    def handle(self, *args: Any, check: bool = False, **options: Any) -> None:
        folder = Path(settings.BASE_DIR) / "docs" / "generated"
        pages = {folder / name: render() for name, (_, render) in DOCUMENTS.items()}
        stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
        if check and stale:
            names = ", ".join(path.name for path in stale)
            raise CommandError(f"Out of date in docs/generated/: {names}. Run `./portal manage docs`.")
        for path in stale:
            path.write_text(pages[path])
        self.stdout.write(f"{len(pages)} documents, {len(stale)} written")
