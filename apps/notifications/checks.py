"""Numbered system checks of the room: what the environment says against what its contacts say."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register  # noqa: A004
from django.db import DatabaseError, connection

from apps.notifications.models import Contact


@register(Tags.database)
def contacts_match_environment(*, databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """notifications.W001: a variable that cannot be used, or differs from the contact that was made of it."""
    from apps.notifications.services import environment_warnings

    if not databases:
        return []
    try:
        if Contact._meta.db_table not in connection.introspection.table_names():
            return []
        return [Warning(sentence, id="notifications.W001") for sentence in environment_warnings()]
    except DatabaseError:
        return []  # the database's own checks say what is wrong with it
