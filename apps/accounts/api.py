"""This room's endpoints: tokens, the audit trail and "who am I". Other rooms take `Needs` from here."""

from collections.abc import Mapping
from typing import Any

from django.db import models, transaction
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, pagination, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts import services
from apps.accounts.doors import Anybody, Needs, SessionAuthentication, TokenAuthentication
from apps.accounts.models import AuditEntry, Calendar, Team, Token, User
from apps.accounts.permissions import Right, principal_of
from apps.accounts.rights import SCOPES, Quota

__all__ = ["Exact", "Needs", "register"]


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


class Exact(serializers.Serializer[Any]):
    """Refuses names that it does not know: a misspelt field is an error, never a silent default."""

    def to_internal_value(self, data: Any) -> Any:
        """Read the values as serializers do, all of them."""
        if isinstance(data, Mapping) and (unknown := sorted(set(data) - set(self.fields))):
            raise serializers.ValidationError({name: ["There is no such field."] for name in unknown})
        return super().to_internal_value(data)


# --- Endpoints -------------------------------------------------------------------------------------------------------
class TokenSerializer(Exact, serializers.ModelSerializer[Token]):
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
            "id", "name", "owner", "prefix", "scopes", "matchers", "series_limit", "samples_per_second",
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
            quota=Quota(values.get("series_limit"), values.get("samples_per_second")),
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


class TeamSerializer(Exact, serializers.ModelSerializer[Team]):
    """People who look after the same things."""

    members = serializers.SlugRelatedField[User](
        slug_field="username", queryset=User.objects.all(), many=True, required=False
    )

    class Meta:
        model = Team
        fields = ("id", "name", "description", "members", "matchers")


class TeamViewSet(viewsets.ModelViewSet[Team]):
    """Teams: read by all, written by administrators."""

    queryset = Team.objects.prefetch_related("members")
    serializer_class = TeamSerializer
    permission_classes = (Needs(Right.READ, Right.ADMINISTER),)

    def get_queryset(self) -> models.QuerySet[Team]:
        """Return every team; whom one narrows sees their own."""
        who, every = principal_of(self.request), super().get_queryset()
        return every if not who.scope.matchers else every.filter(members=int(who.id) if who.kind == "user" else 0)

    def perform_create(self, serializer: Any) -> None:
        self._write(serializer, Team())

    def perform_update(self, serializer: Any) -> None:
        self._write(serializer, serializer.instance)

    def perform_destroy(self, instance: Team) -> None:
        services.delete_object(by=principal_of(self.request), obj=instance)

    def _write(self, serializer: Any, team: Team) -> None:
        values, by = dict(serializer.validated_data), principal_of(self.request)
        members = values.pop("members", None)
        for name, value in values.items():
            setattr(team, name, value)
        with transaction.atomic():
            services.save_object(by=by, obj=team)
            if members is not None:
                services.save_relations(by=by, obj=team, save=lambda: team.members.set(members))
        serializer.instance = team


class CalendarSerializer(Exact, serializers.ModelSerializer[Calendar]):
    """Hours of a week and holidays in a time zone."""

    class Meta:
        model = Calendar
        fields = ("id", "name", "zone", "hours", "holidays", "country")


class CalendarViewSet(viewsets.ModelViewSet[Calendar]):
    """Calendars: read by all, written by editors."""

    queryset = Calendar.objects.all()
    serializer_class = CalendarSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def perform_create(self, serializer: Any) -> None:
        self._write(serializer, Calendar())

    def perform_update(self, serializer: Any) -> None:
        self._write(serializer, serializer.instance)

    def perform_destroy(self, instance: Calendar) -> None:
        services.delete_object(by=principal_of(self.request), obj=instance)

    def _write(self, serializer: Any, calendar: Calendar) -> None:
        for name, value in serializer.validated_data.items():
            setattr(calendar, name, value)
        calendar.clean()
        services.save_object(by=principal_of(self.request), obj=calendar)
        serializer.instance = calendar


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
        """Return what was asked for; who sees only some labels sees no entries, which may be about any."""
        if principal_of(self.request).scope.matchers:
            return super().get_queryset().none()
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
    router.register("teams", TeamViewSet, basename="team")
    router.register("calendars", CalendarViewSet, basename="calendar")
    router.register("audit", AuditViewSet, basename="audit")
    router.register("users/me", MeViewSet, basename="me")
