"""Notifications: how a message leaves. The room knows messages, contacts and deliveries, never alerts."""

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    """The room on floor 3 that carries messages out."""

    name = "apps.notifications"
    verbose_name = "Notifications"

    def ready(self) -> None:
        """Register the system checks."""
        from apps.notifications import checks  # noqa: F401
