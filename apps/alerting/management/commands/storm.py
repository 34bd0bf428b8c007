"""`manage.py storm`: what the shipped storm would become here: which incidents, with which probable cause."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.alerting import services, storm
from apps.alerting.models import Alert, Incident, Service


class Command(BaseCommand):
    """Plays the storm in a transaction that is rolled back, or, with --keep, for everybody to see: people are paged."""

    help = "Play the shipped storm of alerts and show the incidents that it becomes; nothing is kept without --keep."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("faults", nargs="*", default=["database"], help="database, images, or both at once")
        parser.add_argument("--keep", action="store_true", help="keep services and alerts: whoever is on call is paged")

    def handle(self, *args: Any, **options: Any) -> None:
        found = storm.read((settings.BASE_DIR / "fixtures" / "storm.yaml").read_text())
        with transaction.atomic():
            for line in play(found, options["faults"]):
                self.stdout.write(line)
            if not options["keep"]:
                transaction.set_rollback(True)


def play(found: storm.Storm, faults: list[str]) -> list[str]:
    """Make the services, post the alerts on a clock of their own, and return what became of them in lines."""
    by, now = Principal.system("storm", via="command"), timezone.now()
    made = {service.name: service for service in Service.objects.filter(name__in=found.services)}
    for name in found.services:
        if name not in made:
            made[name] = services.save_service(by=by, values={"name": name}, depends_on=[], now=now)
    for name, parents in found.services.items():
        services.save_service(
            by=by, values={}, depends_on=[made[parent] for parent in parents], service=made[name], now=now
        )
    alerts = [
        services.post_alert(
            by=by, type=one.name, severity=one.severity, message=one.message, service=one.service, now=now + one.after
        ).pk
        for one in found.of(*faults)
    ]
    incidents = Incident.objects.filter(alerts__in=alerts).distinct().order_by("pk").select_related("cause")
    lines = [f"{len(alerts)} alerts became {len(incidents)} incident{'' if len(incidents) == 1 else 's'}:"]
    for incident in incidents:
        count = Alert.objects.filter(incident=incident).count()
        cause = f"{incident.cause.service}: {incident.cause}" if incident.cause else "unknown"
        lines.append(f"  {count} alerts, probable cause {cause}; {'; '.join(incident.reasons)}")
    return lines
