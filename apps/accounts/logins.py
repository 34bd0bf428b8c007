"""Log-ins, log-outs and failed log-ins: counted and audited by way of Django's own auth signals."""

from typing import Any

from django.contrib.auth import signals
from django.http import HttpRequest

from apps.accounts.audit import record
from apps.accounts.models import User
from apps.accounts.rights import Principal
from apps.core.telemetry import LOGIN_FAILURES, Counter

SUCCESSES = Counter("portal_logins_total", "Successful log-ins.")


def connect() -> None:
    """Attach the receivers, once per process."""
    signals.user_logged_in.connect(_logged_in, dispatch_uid="accounts.logged_in")
    signals.user_logged_out.connect(_logged_out, dispatch_uid="accounts.logged_out")
    signals.user_login_failed.connect(_failed, dispatch_uid="accounts.login_failed")


def _address(request: HttpRequest | None) -> str:
    return "" if request is None else str(request.META.get("REMOTE_ADDR") or "")


def _logged_in(sender: Any, request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    SUCCESSES.inc()
    record(by=Principal.of_user(user, _address(request)), verb="accounts.login", target=user)


def _logged_out(sender: Any, request: HttpRequest | None, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        record(by=Principal.of_user(user, _address(request)), verb="accounts.logout", target=user)


def _failed(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    LOGIN_FAILURES.inc()
    name = str(credentials.get("username") or "")[:150]
    record(
        by=Principal.anonymous(address=_address(request)),
        verb="accounts.login_failed",
        target=("accounts.user", "", name),
    )
