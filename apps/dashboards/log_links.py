"""Where the logs of a time and a service are found: the address that other pages link to."""

from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from django.urls import reverse

from apps.accounts.permissions import Scope
from apps.sources.models import LogTemplate

AROUND: Final = timedelta(minutes=15)


def address(*, begin: datetime, end: datetime, service: str, scope: Scope) -> str:
    """Return the address of the records from a quarter of an hour before to one after; of the service, if it logs."""
    pairs = {"from": int((begin - AROUND).timestamp() * 1000), "to": int((end + AROUND).timestamp() * 1000)}
    does_log = bool(service) and LogTemplate.objects.visible_to(scope).filter(service=service).exists()
    return f"{reverse('logs')}?{urlencode(pairs | ({'service': service} if does_log else {}))}"
