"""Notifications: how a message leaves. The room knows messages, contacts and deliveries, never alerts."""

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    """The room on floor 3 that carries messages out."""

    name = "apps.notifications"
    verbose_name = "Notifications"

    def ready(self) -> None:
        """Register the system checks, say who and what cannot be deleted, and listen to what mail providers tell."""
        from anymail.signals import tracking

        from apps.accounts.models import User
        from apps.core.registry import extend
        from apps.notifications import checks, email_events  # noqa: F401
        from apps.notifications.models import Contact
        from apps.notifications.services import refusal, refusal_of

        extend(Contact, "refusal", refusal)
        extend(User, "refusal", refusal_of)
        tracking.connect(email_events.take, dispatch_uid="notifications.email_events")
