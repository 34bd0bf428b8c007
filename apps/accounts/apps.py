"""Accounts: who may do what, and who did what. It knows people, tokens, rights and the audit trail, nothing else."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """The room on floor 1 that everybody asks before acting, and tells after."""

    name = "apps.accounts"
    verbose_name = "People and access"

    def ready(self) -> None:
        """Listen to Django's own log-in signals: the only way it tells (signals inside this room only)."""
        from apps.accounts import logins

        logins.connect()
