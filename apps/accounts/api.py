"""The API's doors: authentication by token or session, permissions by right, throttle, errors as JSON; and its own
endpoints for tokens, the audit trail and "who am I". Refusals are 401 or 403 with a sentence, never a redirect.
"""

import logging
from typing import Any, ClassVar

import redis
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.http import Http404
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import authentication, exceptions, mixins, pagination, serializers, status, throttling, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter
from rest_framework.views import set_rollback

from apps.accounts import permissions, services
from apps.accounts.models import AuditEntry, Token, User
from apps.accounts.permissions import Principal, Right, principal_of
from apps.accounts.rights import SCOPES

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


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI document tells of tokens."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer"}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI document tells of sessions."""

    target_class = SessionAuthentication
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}


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

    Without Redis nothing is throttled: a monitor that answers beats one that counts.
    """

    scope = "principal"

    def get_cache_key(self, request: Request, view: Any) -> str:
        principal = principal_of(request)
        return f"throttle:{principal.kind}:{principal.id or principal.address}"

    def allow_request(self, request: Request, view: Any) -> bool:
        try:
            return super().allow_request(request, view)
        except redis.RedisError as error:
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
        case models.ProtectedError():
            code, body = 409, {"error": "Something else still uses this; detach it first."}
        case exceptions.APIException():
            code, body = error.status_code, {"error": str(error.detail)}
            if header := getattr(error, "auth_header", None):
                headers["WWW-Authenticate"] = header
            if (wait := getattr(error, "wait", None)) is not None:
                headers["Retry-After"] = str(int(wait) + 1)
        case _:
            log.error("%s failed", getattr(context.get("request"), "path", "An API request"), exc_info=error)
            code, body = 500, {"error": "The portal failed to answer; its web log says why."}
    set_rollback()
    return Response(body, status=code, headers=headers)


def _fields(detail: Any) -> dict[str, Any]:
    """Return the error body for wrong values: the first sentence, and all of them by field."""
    if not isinstance(detail, dict):
        detail = {"non_field_errors": detail}
    name, first = next(iter(detail.items()), ("", "Wrong values."))
    while isinstance(first, (list, dict)) and first:
        first = next(iter(first.values())) if isinstance(first, dict) else first[0]
    where = "" if name in ("non_field_errors", "__all__", "detail") else f"{name}: "
    return {"error": f"{where}{first}", "fields": detail}


# --- Endpoints -------------------------------------------------------------------------------------------------------
class TokenSerializer(serializers.ModelSerializer[Token]):
    """A token as it is shown: everything but its secret."""

    owner = serializers.SlugRelatedField[User](
        slug_field="username", queryset=User.objects.all(), required=False, allow_null=True
    )
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=sorted(SCOPES)), allow_empty=False)
    matchers = serializers.ListField(
        child=serializers.ListField(child=serializers.CharField(), min_length=3, max_length=3), required=False
    )

    class Meta:
        model = Token
        fields = (
            "id", "name", "owner", "prefix", "scopes", "matchers",
            "expires_at", "last_used_at", "created_at", "revoked_at", "origin",
        )  # fmt: skip
        read_only_fields = ("prefix", "last_used_at", "created_at", "revoked_at", "origin")


class IssuedTokenSerializer(TokenSerializer):
    """A new token: the only answer that ever holds its secret."""

    secret = serializers.CharField(read_only=True)

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "secret")  # type: ignore[assignment]


class TokenViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Token]):
    """Tokens: list, issue, revoke."""

    queryset = Token.objects.select_related("owner")
    serializer_class = TokenSerializer
    permission_classes = (Needs(Right.ADMINISTER),)

    @extend_schema(request=TokenSerializer, responses={201: IssuedTokenSerializer})
    def create(self, request: Request) -> Response:
        """Issue a token; `secret` is in this answer and nowhere else."""
        form = self.get_serializer(data=request.data)
        form.is_valid(raise_exception=True)
        values = form.validated_data
        token, secret = services.issue_token(
            by=principal_of(request),
            name=values["name"],
            scopes=values["scopes"],
            expires_at=values.get("expires_at"),
            owner=values.get("owner"),
            matchers=[tuple(matcher) for matcher in values.get("matchers", [])],
            now=timezone.now(),
        )
        answer = {**self.get_serializer(token).data, "secret": secret}
        return Response(answer, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})

    @extend_schema(request=None, responses=TokenSerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:
        """End a token; its row stays for the record."""
        token = services.revoke_token(by=principal_of(request), token=self.get_object(), now=timezone.now())
        return Response(self.get_serializer(token).data)


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    """One entry of the audit trail."""

    class Meta:
        model = AuditEntry
        fields = (
            "id", "at", "actor_kind", "actor_id", "actor_name", "verb", "target_type", "target_id", "target_label",
            "before", "after", "address", "via",
        )  # fmt: skip


class NewestFirst(pagination.CursorPagination):
    """Pages of a table that only grows, without counting it."""

    ordering = "-id"
    page_size = 100
    page_size_query_param = "limit"
    max_page_size = 1000


FILTERS = ("verb", "actor_kind", "actor_name", "target_type", "target_id", "via")


@extend_schema(parameters=[OpenApiParameter(name, str) for name in FILTERS])
class AuditViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[AuditEntry]):
    """The audit trail, newest first; filters are exact."""

    queryset = AuditEntry.objects.all()
    serializer_class = AuditEntrySerializer
    permission_classes = (Needs(Right.AUDIT),)
    pagination_class = NewestFirst

    def get_queryset(self) -> models.QuerySet[AuditEntry]:
        asked = {name: self.request.query_params[name] for name in FILTERS if name in self.request.query_params}
        return super().get_queryset().filter(**asked)


class PrincipalSerializer(serializers.Serializer[Any]):
    """Who the caller is and what they may do."""

    kind = serializers.CharField()
    id = serializers.CharField()
    name = serializers.CharField()
    rights = serializers.ListField(child=serializers.CharField())
    matchers = serializers.ListField(child=serializers.ListField(child=serializers.CharField()))


class MeViewSet(viewsets.ViewSet):
    """Who am I."""

    permission_classes = (Anybody,)

    @extend_schema(responses=PrincipalSerializer)
    def list(self, request: Request) -> Response:
        """Return the caller: kind, name, rights and label matchers."""
        me = principal_of(request)
        return Response(
            {
                "kind": me.kind,
                "id": me.id,
                "name": me.name,
                "rights": sorted(me.rights),
                "matchers": [list(matcher) for matcher in me.scope.matchers],
            }
        )


def register(router: BaseRouter) -> None:
    """Add this room's endpoints to /api/v1/portal/."""
    router.register("tokens", TokenViewSet, basename="token")
    router.register("audit", AuditViewSet, basename="audit")
    router.register("users/me", MeViewSet, basename="me")
