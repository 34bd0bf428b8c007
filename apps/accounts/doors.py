"""The API's doors: authentication by token or session, permissions by right, throttle, errors as JSON.

Refusals are 401 or 403 with a sentence, never a redirect. REST framework imports this while it imports its own views
(the settings name it), so nothing here may import views at the top.
"""

import logging
import time
from typing import Any, ClassVar

import redis
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DataError, InterfaceError, OperationalError, models
from django.http import Http404
from rest_framework import authentication, exceptions, serializers, throttling
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts import permissions
from apps.accounts.permissions import Principal, Right, principal_of

log = logging.getLogger(__name__)


# --- Who -----------------------------------------------------------------------------------------------------------
class TokenAuthentication(authentication.BaseAuthentication):
    """A token as `Authorization: Bearer` (or Token), Basic password or `X-API-Key`; `request.auth` is its principal."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Principal] | None:
        headers = request.META
        secret = permissions.secret_in(headers.get("HTTP_AUTHORIZATION", ""), headers.get("HTTP_X_API_KEY", ""))
        if secret is None:
            return None
        try:
            principal = permissions.authenticate(secret, address=str(headers.get("REMOTE_ADDR") or ""))
        except permissions.Throttled as wait:
            raise exceptions.Throttled(wait.retry_after) from None
        if principal is None:
            raise exceptions.AuthenticationFailed(permissions.UNKNOWN)
        return AnonymousUser(), principal

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="monitoring"'


class SessionAuthentication(authentication.SessionAuthentication):
    """The logged-in person's cookie; every write carries the CSRF token."""


# --- May -----------------------------------------------------------------------------------------------------------
class _ByRight(BasePermission):
    """Base of what `Needs` makes; a class attribute of None means: nobody."""

    read: ClassVar[Right | None] = None
    write: ClassVar[Right | None] = None

    def has_permission(self, request: Request, view: Any) -> bool:
        right = self.read if request.method in SAFE_METHODS else self.write
        principal = principal_of(request)
        if right is not None and principal.can(right):
            return True
        if principal.kind == "anonymous":
            permissions.REFUSALS.inc(reason="anonymous")
            raise exceptions.NotAuthenticated(permissions.WHO_ARE_YOU)
        permissions.REFUSALS.inc(reason="right")
        need = f": it needs the right to {right.value}" if right is not None else ""
        raise exceptions.PermissionDenied(f"{principal.name} may not do this{need}.")


READING = frozenset({Right.READ, Right.AUDIT})
"""Rights that never allow a write, so that a forgotten second argument of `Needs` opens nothing."""


def Needs(read: Right, write: Right | None = None) -> type[_ByRight]:  # noqa: N802 - reads as the class it returns
    """Return a permission class: `read` for GET and HEAD, `write` for the rest.

    Without `write`, a right to read allows no writes, and any other (say OPERATE) is needed for every method.
    """
    if write is None and read not in READING:
        write = read
    return type("Needs", (_ByRight,), {"read": read, "write": write})


class Nobody(_ByRight):
    """The default: a view that names no right is open to nobody."""


class Readers(_ByRight):
    """Everybody who may see the portal's pages."""

    read = Right.READ


class Anybody(BasePermission):
    """Everybody who said who they are."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if principal_of(request).kind == "anonymous":
            raise exceptions.NotAuthenticated(permissions.WHO_ARE_YOU)
        return True


class PrincipalThrottle(throttling.SimpleRateThrottle):
    """So many requests a minute for each token, person and (anonymous) address, counted in Redis.

    Without Redis nothing is throttled: a monitor that answers beats one that counts. It is asked again after a pause,
    so that one that hangs does not hold up each request for its time-out.
    """

    scope = "principal"
    pause: ClassVar[float] = 5.0
    away_until: ClassVar[float] = float("-inf")

    def get_cache_key(self, request: Request, view: Any) -> str:
        principal = principal_of(request)
        return f"throttle:{principal.kind}:{principal.id or principal.address}"

    def allow_request(self, request: Request, view: Any) -> bool:
        if time.monotonic() < PrincipalThrottle.away_until:
            return True
        try:
            return super().allow_request(request, view)
        except redis.RedisError as error:
            PrincipalThrottle.away_until = time.monotonic() + self.pause
            log.warning("Requests are not throttled while Redis is away: %s", error)
            return True


# --- What went wrong -------------------------------------------------------------------------------------------------
def explain(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer every error as {"error": one sentence}, with "fields" where single values were wrong."""
    headers: dict[str, str] = {}
    body: dict[str, Any]
    match error:
        case Http404():
            code, body = 404, {"error": "There is nothing at this address."}
        case PermissionDenied():
            code, body = 403, {"error": str(error) or "This is not allowed."}
        case ValidationError():
            code, body = 400, _fields(serializers.as_serializer_error(error))
        case exceptions.ValidationError():
            code, body = 400, _fields(error.detail)
        case DataError() | UnicodeEncodeError():
            log.warning(
                "%s was sent what the database cannot keep: %s", getattr(context.get("request"), "path", ""), error
            )
            code, body = 400, {"error": "A text holds a NUL or half a character, or a number is too large to be kept."}
        case OperationalError() | InterfaceError():
            log.error("%s failed, for the database is away: %s", getattr(context.get("request"), "path", ""), error)
            code, body = (
                503,
                {"error": "The database does not answer; nothing was written. Try again in a few seconds."},
            )
            headers["Retry-After"] = "5"
        case RecursionError():
            code, body = 400, {"error": "The request is nested too deeply."}
        case models.ProtectedError():
            code, body = 409, {"error": "Something else still uses this; detach it first."}
        case exceptions.UnsupportedMediaType():
            code, body = 415, {"error": "The body must be JSON, with the header Content-Type: application/json."}
        case exceptions.APIException():
            code, body = error.status_code, {"error": str(error.detail)}
            if header := getattr(error, "auth_header", None):
                headers["WWW-Authenticate"] = header
            if (wait := getattr(error, "wait", None)) is not None:
                headers["Retry-After"] = str(int(wait) + 1)
        case _:
            log.error("%s failed", getattr(context.get("request"), "path", "An API request"), exc_info=error)
            code, body = 500, {"error": "The portal failed to answer; its web log says why."}
    from rest_framework.views import set_rollback  # see the module's docstring

    set_rollback()
    if (request := context.get("request")) is not None:  # a view that answers in another format refuses in JSON too
        request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
    return Response(_sayable(body), status=code, headers=headers)


def _sayable(value: Any) -> Any:
    """Return an error's body as UTF-8 can carry it: it quotes what was sent, half a surrogate pair too."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_sayable(name): _sayable(part) for name, part in value.items()}
        case list():
            return [_sayable(part) for part in value]
    return value


GENERAL = frozenset({"non_field_errors", "__all__", "detail"})


def _fields(detail: Any) -> dict[str, Any]:
    """Return the error body for wrong values: the first sentence, and all of them by field where fields are meant."""
    if not isinstance(detail, dict):
        detail = {"non_field_errors": detail}
    name, first = next(iter(detail.items()), ("", "Wrong values."))
    while isinstance(first, (list, dict)) and first:
        first = next(iter(first.values())) if isinstance(first, dict) else first[0]
    body = {"error": f"{'' if name in GENERAL else f'{name}: '}{first}"}
    return body if detail.keys() <= GENERAL else {**body, "fields": detail}
