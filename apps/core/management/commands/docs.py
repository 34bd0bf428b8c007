"""`manage.py docs`: writes what the documentation takes from the code; `--check` fails where it is out of date."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.documents import DOCUMENTS


class Command(BaseCommand):
    help = "Write docs/generated/ from the code."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")

    def handle(self, *args: Any, check: bool = False, **options: Any) -> None:
        stale = []
        for name, (_, render) in sorted(DOCUMENTS.items()):
            path = Path(settings.BASE_DIR) / "docs" / "generated" / name
            text = render()
            if path.exists() and path.read_text() == text:
                continue
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        if check and stale:
            raise CommandError(f"Out of date in docs/generated/: {', '.join(stale)}. Run `./portal manage docs`.")
        self.stdout.write(f"{len(DOCUMENTS)} documents, {len(stale)} {'stale' if check else 'written'}")
