"""Authentication for the bare-ASGI fast lane, which runs outside Django's handler.

Works on the ASGI scope alone; tokens, cache, throttle and refusal texts are those of the API. Call from a thread
(it may ask the database), which gives its connection back when it has served.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final, cast

from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest

from apps.accounts import permissions
from apps.accounts.permissions import Principal, Right, Throttled

ASGIScope = Mapping[str, Any]
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served: HTTP status, a sentence, and seconds to wait (429 only)."""

    status: int
    sentence: str
    retry_after: int = 0


def header(scope: ASGIScope, name: bytes) -> str:
    """Return the first header of that (lower-case) name, or an empty string."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def address_of(scope: ASGIScope) -> str:
    """Return the caller's address as the server saw it (behind a trusted proxy: as the proxy told)."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def anonymous(scope: ASGIScope) -> Principal:
    """Return the caller of a lane that is open to all, without asking who it is."""
    return Principal.anonymous(address=address_of(scope), via="api")


def identify(scope: ASGIScope, right: Right, told: str = "") -> tuple[Principal, Refusal | None]:
    """Return who calls, and a refusal unless they have the right.

    `told` is a token that the request carries elsewhere than in its headers. A token counts for every method, a log-in
    session only for safe ones: there is no CSRF check out here.
    """
    nobody = anonymous(scope)
    try:
        secret = permissions.secret_in(header(scope, b"authorization"), header(scope, b"x-api-key")) or told or None
        if secret is not None:
            found = permissions.authenticate(secret, address=nobody.address)
            if found is None:
                return nobody, Refusal(401, permissions.UNKNOWN)
        else:
            found = _of_session(scope) if scope.get("method", "GET") in SAFE else None
    except Throttled as wait:
        return nobody, Refusal(429, str(wait), int(wait.retry_after + 0.999))
    if found is None or found.kind == "anonymous":
        permissions.REFUSALS.inc(reason="anonymous")
        return nobody, Refusal(401, permissions.WHO_ARE_YOU)
    if not found.can(right):
        permissions.REFUSALS.inc(reason="right")
        return found, Refusal(403, f"{found.name} may not do this: it needs the right to {right.value}.")
    return found, None


def _of_session(scope: ASGIScope) -> Principal | None:
    """Return the logged-in person of the session cookie, if there is one."""
    try:
        cookies = SimpleCookie(header(scope, b"cookie"))
    except CookieError:
        return None
    if (morsel := cookies.get(settings.SESSION_COOKIE_NAME)) is None:
        return None
    store = import_module(settings.SESSION_ENGINE).SessionStore(morsel.value)
    # get_user reads request.session and nothing else of a request.
    user = auth.get_user(cast(HttpRequest, SimpleNamespace(session=store)))
    return Principal.of_user(cast(Any, user), address_of(scope), "api")
