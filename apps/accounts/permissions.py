"""Who is asking: turns a request, a token or a session into a `Principal`, and guards pages by right.

The values themselves (Right, Scope, Principal, …) live in `rights` and are handed on from here.
"""

import base64
import binascii
import functools
import hashlib
import hmac
import inspect
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils import timezone

from apps.accounts.models import COARSE, Token
from apps.accounts.rights import (
    ALL_RIGHTS,
    EVERYTHING,
    ROLES,
    SCOPES,
    Forbidden,
    Matcher,
    Principal,
    Quota,
    Right,
    Scope,
    Via,
    require,
)
from apps.core.telemetry import Counter

__all__ = [
    "ALL_RIGHTS",
    "EVERYTHING",
    "ROLES",
    "SCOPES",
    "Forbidden",
    "Matcher",
    "Principal",
    "Quota",
    "Right",
    "Scope",
    "Throttled",
    "Via",
    "authenticate",
    "digest_of",
    "forget_tokens",
    "page",
    "principal_of",
    "recheck_tokens",
    "require",
    "secret_in",
]

REFUSALS = Counter(
    "portal_auth_refusals_total", "Requests that were refused for want of a valid token, login or right.", ("reason",)
)

CACHED: Final = 10.0
"""Seconds for which a token's answer is reused: a revoked one works at most this long in another process."""
REMEMBERED: Final = 4096
"""Tokens and addresses that one process remembers at most."""
FAILURES: Final = 20
"""Wrong tokens from one address within `WINDOW` seconds after which only tokens that have worked are looked at."""
WINDOW: Final = 60.0


class Throttled(Exception):
    """Too many wrong tokens from one address; `retry_after` in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"Too many wrong tokens from this address; try again in {retry_after:.0f} s.")
        self.retry_after = retry_after


@dataclass(slots=True)
class _Known:
    """A token that has worked in this process."""

    principal: Principal
    checked: float
    expires: float


_lock = threading.Lock()
_known: "OrderedDict[str, _Known]" = OrderedDict()
_failures: "OrderedDict[str, tuple[float, int]]" = OrderedDict()


WHO_ARE_YOU: Final = "Authentication is needed: send a token as `Authorization: Bearer …` or `X-API-Key`, or log in."
UNKNOWN: Final = "The token is unknown, expired or revoked; an administrator can issue another."


def secret_in(authorization: str, api_key: str) -> str | None:
    """Return the token's secret in the headers `Authorization` (Bearer, Token, Basic) and `X-API-Key`, or None.

    Basic carries the secret as password, any user name: for tools that know nothing else.
    """
    kind, _, rest = authorization.strip().partition(" ")
    match kind.lower():
        case "bearer" | "token":
            return rest.strip()
        case "basic":
            try:
                return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return ""
    return api_key.strip() or None


def digest_of(secret: str) -> str:
    """Return the SHA-256 (hex) under which a token is kept. Issued secrets have 256 random bits: no salt is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def recheck_tokens() -> None:
    """Ask the database again for every token: what it allows may have changed, in this process or with this commit."""
    with _lock:
        for known in _known.values():
            known.checked = float("-inf")


def forget_tokens() -> None:
    """Forget every token and every failure: for tests."""
    with _lock:
        _known.clear()
        _failures.clear()


def authenticate(secret: str, *, address: str = "", via: Via = "api") -> Principal | None:
    """Return the principal of a token's secret, or None where there is no usable token of it.

    An answer is reused for `CACHED` seconds, in which a token that was revoked by another process still works; expiry
    is exact. After `FAILURES` wrong secrets from an address within a minute, secrets that never worked are refused
    unseen (`Throttled`), so guessing is slow while a valid agent behind the same address goes on.
    """
    digest = digest_of(secret)
    clock = time.monotonic()
    with _lock:
        known = _known.get(digest)
    if known is not None and clock < known.checked + CACHED and clock < known.expires:
        known.principal = found = known.principal.at(address=address, via=via)
        return found
    if known is None and (wait := _throttled(address, clock)) > 0:
        REFUSALS.inc(reason="throttled")
        raise Throttled(wait)
    principal, expires = _look_up(digest, clock)
    with _lock:
        if principal is None:
            _known.pop(digest, None)
            _count_failure(address, clock)
        else:
            _known[digest] = _Known(principal, clock, expires)
            _known.move_to_end(digest)
            while len(_known) > REMEMBERED:
                _known.popitem(last=False)
    if principal is None:
        REFUSALS.inc(reason="token")
        return None
    return principal.at(address=address, via=via)


def _look_up(digest: str, clock: float) -> tuple[Principal | None, float]:
    """Ask the database; return the principal and the monotonic second at which the token expires."""
    now = timezone.now()
    token = Token.objects.usable(now).select_related("owner").filter(digest=digest).first()
    if token is None or not hmac.compare_digest(token.digest, digest):
        return None, 0.0
    if token.last_used_at is None or token.last_used_at < now - COARSE:
        Token.objects.filter(pk=token.pk).note_use(now)
    expires = float("inf") if token.expires_at is None else clock + (token.expires_at - now).total_seconds()
    who = Principal("token", str(token.pk), str(token), token.rights, token.scope, via="api", quota=token.quota)
    return who, expires


def _throttled(address: str, clock: float) -> float:
    """Return for how many seconds unknown secrets from that address are refused (0: not at all)."""
    with _lock:
        since, count = _failures.get(address, (clock, 0))
    return max(0.0, since + WINDOW - clock) if count >= FAILURES else 0.0


def _count_failure(address: str, clock: float) -> None:
    since, count = _failures.pop(address, (clock, 0))
    _failures[address] = (since, count + 1) if clock < since + WINDOW else (clock, 1)
    while len(_failures) > REMEMBERED:
        _failures.popitem(last=False)


def via_of(path: str) -> Via:
    """Return the door that a path belongs to."""
    return "admin" if path.startswith("/admin/") else "api" if path.startswith("/api/") else "page"


def principal_of(request: Any) -> Principal:
    """Return who sent this Django or DRF request: the token it carried (DRF), else the logged-in person."""
    if isinstance(by_token := getattr(request, "auth", None), Principal):
        return by_token
    user = getattr(request, "user", None)
    # A page of the admin asks six hundred times; the answer changes with a login on the way, or with roles read again.
    asked, standing, found = getattr(request, "portal_principal", (None, None, None))
    if isinstance(found, Principal) and asked is user and standing is getattr(user, "_standing", None):
        return found
    address, via = str(request.META.get("REMOTE_ADDR") or ""), via_of(request.path)
    who = Principal.anonymous(address=address, via=via) if user is None else Principal.of_user(user, address, via)
    request.portal_principal = user, getattr(user, "_standing", None), who
    return who


View = Callable[..., Any]


def page(right: Right) -> Callable[[View], View]:
    """Guard a page: anonymous callers go to the login (HTML) or get 401 (JSON), others need the right or get 403.

    Works for functions, sync or async; inside an async view `principal_of(request)` costs no query any more.
    """

    def decorate(view: View) -> View:
        if inspect.iscoroutinefunction(view):

            @functools.wraps(view)
            async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                refusal = await sync_to_async(_refusal)(request, right)
                return refusal if refusal is not None else await view(request, *args, **kwargs)

            guarded: View = guarded_async
        else:

            @functools.wraps(view)
            def guarded_sync(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                refusal = _refusal(request, right)
                return refusal if refusal is not None else view(request, *args, **kwargs)

            guarded = guarded_sync
        guarded.portal_right = right  # type: ignore[attr-defined]
        return guarded

    return decorate


def _refusal(request: HttpRequest, right: Right) -> HttpResponseBase | None:
    """Return the answer for somebody who is not logged in, None for somebody who may; raise for one who may not."""
    principal = principal_of(request)
    if principal.can(right):
        return None
    if principal.kind != "anonymous":
        REFUSALS.inc(reason="right")
        raise PermissionDenied(f"{principal.name} may not see this page: it needs the right to {right.value}.")
    REFUSALS.inc(reason="anonymous")
    if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
        return JsonResponse({"error": "Log in first."}, status=401)
    return redirect_to_login(_asked_for(request))


def _asked_for(request: HttpRequest) -> str:
    """Return where a log-in leads: the page that was asked for, or the one whose button was pressed."""
    if request.method in ("GET", "HEAD"):
        return request.get_full_path()
    came_from = urlsplit(request.headers.get("referer", ""))
    is_own = came_from.netloc == request.get_host() and came_from.path.startswith("/")
    return came_from._replace(scheme="", netloc="", fragment="").geturl() if is_own else "/"
