"""Numbered system checks of the environment: what is wrong, in a sentence that names the variable."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004

from apps.accounts.rights import SHORTEST
from monitoring_portal import environment


@register(Tags.security)
def environment_values(**_: Any) -> list[CheckMessage]:
    """portal.E001: a variable holds a value that cannot be used."""
    return [
        Error(sentence, hint=f"Correct {name} in the environment or in .env.", id="portal.E001")
        for name, sentence in environment.PROBLEMS
    ]


@register(Tags.security)
def open_monitoring_api(**_: Any) -> list[CheckMessage]:
    """portal.W002: the seed's API answers reads to everybody."""
    if settings.MONITORING_AUTH_ENABLED:
        return []
    return [
        Warning(
            "MONITORING_AUTH_ENABLED is false: everybody who reaches the portal may read /api/monitoring/.",
            hint="Set it to true, or keep the portal bound to an address that only you reach.",
            id="portal.W002",
        )
    ]


@register(Tags.security)
def short_token(**_: Any) -> list[CheckMessage]:
    """portal.W003: the token of the environment can be guessed."""
    if not settings.MONITORING_AUTH_TOKEN or len(settings.MONITORING_AUTH_TOKEN) >= SHORTEST:
        return []
    return [
        Warning(
            f"MONITORING_AUTH_TOKEN has fewer than {SHORTEST} characters.",
            hint="Take a long random one, say from `python3 -c 'import secrets; print(secrets.token_urlsafe(32))'`.",
            id="portal.W003",
        )
    ]
