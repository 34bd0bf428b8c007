"""`manage.py defaults`: what this release would ship otherwise than was shipped; your own rows are never touched."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apps.core.defaults import accept
from monitoring_portal.setup import SHIPMENTS, changed_defaults, read


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seen", action="store_true", help="do not offer these differences again")

    def handle(self, *args: Any, seen: bool = False, **options: Any) -> None:
        changed = changed_defaults()
        for name, diff in changed.items():
            self.stdout.write(f"{name}\n{diff}\n")
        if not changed:
            self.stdout.write("The shipped defaults are as they were when they were written.")
        elif seen:
            for shipment in SHIPMENTS:
                accept(shipment.model, read(shipment.file), key=shipment.key)
            self.stdout.write(f"{len(changed)} differences are noted as seen.")
        else:
            self.stdout.write("Take over in the admin what you want of it, then `manage.py defaults --seen`.")
