"""Log-ins, log-outs, failed ones and lock-outs: counted and audited by way of the signals of Django and django-axes."""

from datetime import timedelta
from typing import Any, Final

from axes.backends import AxesStandaloneBackend
from axes.signals import user_locked_out
from axes.utils import reset
from django.contrib.auth import signals
from django.db.models import F
from django.http import HttpRequest
from django.utils import timezone

from apps.accounts.audit import record, verb
from apps.accounts.models import Login, User
from apps.accounts.places import device_of, network_of
from apps.accounts.rights import Principal, Right
from apps.core.telemetry import LOGIN_FAILURES, Counter

SUCCESSES = Counter("portal_logins_total", "Successful log-ins.")
LOCKOUTS = Counter("portal_lockouts_total", "Log-ins that were refused because their name is locked out.")
NEW_PLACES = Counter("portal_new_place_logins_total", "Log-ins from a network or device new to the person.")
FORGOTTEN_AFTER: Final = timedelta(days=180)
"""How long a place is known that is not used any more."""


class LockOut(AxesStandaloneBackend):  # type: ignore[misc]
    """Refuses names that are locked out; without a request (a command, a test) there is no address to lock."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> None:
        if request is not None:
            super().authenticate(request, username=username, password=password, **kwargs)


def connect() -> None:
    """Attach the receivers, once per process."""
    signals.user_logged_in.connect(_logged_in, dispatch_uid="accounts.logged_in")
    signals.user_logged_out.connect(_logged_out, dispatch_uid="accounts.logged_out")
    signals.user_login_failed.connect(_failed, dispatch_uid="accounts.login_failed")
    user_locked_out.connect(_locked_out, dispatch_uid="accounts.locked_out")


def _address(request: HttpRequest | None) -> str:
    return "" if request is None else str(request.META.get("REMOTE_ADDR") or "")


def _logged_in(sender: Any, request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    SUCCESSES.inc()
    record(by=Principal.of_user(user, _address(request)), verb="accounts.login", target=user)
    if request is not None:
        _note_place(request, user)


def _note_place(request: HttpRequest, user: User) -> None:
    """Remember from where; a network or a device that the person never used before is counted and audited.

    The very first log-in of a person is from nowhere new.
    """
    now = timezone.now()
    place = {"network": network_of(_address(request)), "device": device_of(request.headers.get("User-Agent", ""))}
    if Login.objects.filter(user=user, **place).update(last_seen_at=now, count=F("count") + 1):
        return
    Login.objects.filter(user=user, last_seen_at__lt=now - FORGOTTEN_AFTER).delete()
    known: list[dict[str, str]] = [
        {"network": network, "device": device}
        for network, device in Login.objects.filter(user=user).values_list("network", "device")
    ]
    Login.objects.get_or_create(user=user, **place, defaults={"first_seen_at": now, "last_seen_at": now})
    new = sorted(name for name in place if all(each[name] != place[name] for each in known))
    if known and new:
        NEW_PLACES.inc()
        by = Principal.of_user(user, _address(request))
        record(by=by, verb="accounts.login_new_place", target=user, after={**place, "new": new})


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


def _locked_out(sender: Any, request: HttpRequest | None, username: str = "", **kwargs: Any) -> None:
    LOCKOUTS.inc()
    record(
        by=Principal.anonymous(address=_address(request)),
        verb="accounts.locked_out",
        target=("accounts.user", "", str(username or "")[:150]),
    )


@verb("accounts.unlock", right=Right.ADMINISTER)
def unlock(*, by: Principal, username: str) -> int:
    """Let a name log in again wherever it is locked out; return at how many addresses it had failed."""
    count = int(reset(username=username))
    record(by=by, verb="accounts.unlock", target=("accounts.user", "", username[:150]), after={"addresses": count})
    return count
