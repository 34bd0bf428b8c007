"""The API of front ends under /api/v1/portal/: who may edit sees the key that stands in their pages."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.permissions import Right, principal_of
from apps.sources import sites
from apps.sources.models import Site


class SiteSerializer(serializers.ModelSerializer[Site]):
    """A front end; `key` is shown to those who may edit."""

    key = serializers.SerializerMethodField()

    class Meta:
        model = Site
        fields = ("id", "name", "key", "enabled", "origins", "rate")
        read_only_fields = fields

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_key(self, site: Site) -> str | None:
        """Return the key of its pages."""
        return site.key if principal_of(self.context["request"]).can(Right.EDIT) else None


class SiteInput(Exact):
    """What may be sent. `rate` are beacons a second that one web process takes."""

    name = serializers.SlugField(max_length=60)
    enabled = serializers.BooleanField(required=False)
    origins = serializers.ListField(child=serializers.CharField(max_length=300), max_length=sites.MOST_ORIGINS)
    rate = serializers.IntegerField(min_value=1, max_value=10_000, required=False)


class SiteViewSet(viewsets.GenericViewSet[Site], mixins.ListModelMixin, mixins.RetrieveModelMixin):
    """Front ends whose pages report how they do."""

    queryset = Site.objects.order_by("name", "pk")
    serializer_class = SiteSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)

    def get_queryset(self) -> QuerySet[Site]:
        """Return what the caller may see."""
        seen = Site.objects.all().visible_to(principal_of(self.request).scope)
        return super().get_queryset().filter(pk__in=seen)

    @extend_schema(request=SiteInput, responses={201: SiteSerializer})
    def create(self, request: Request) -> Response:
        """Make a front end; its key is made, too."""
        form = SiteInput(data=request.data)
        form.is_valid(raise_exception=True)
        return Response(self._saved(Site(), form.validated_data), status=status.HTTP_201_CREATED)

    @extend_schema(request=SiteInput, responses=SiteSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent."""
        site = self.get_object()
        form = SiteInput(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        return Response(self._saved(site, form.validated_data))

    def _saved(self, site: Site, given: dict[str, Any]) -> Any:
        for name, value in given.items():
            setattr(site, name, value)
        return self.get_serializer(sites.save_site(by=principal_of(self.request), site=site)).data

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Delete a front end: its pages report no more, what is stored stays."""
        sites.delete_site(by=principal_of(request), site=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=None, responses=SiteSerializer)
    @action(detail=True, methods=["post"], permission_classes=[Needs(Right.EDIT)], url_path="renew-key")
    def renew_key(self, request: Request, pk: str) -> Response:
        """Give it another key: pages with the old one report no more."""
        return Response(
            self.get_serializer(sites.renew_site_key(by=principal_of(request), site=self.get_object())).data
        )


def register(router: BaseRouter) -> None:
    """Add these endpoints to /api/v1/portal/."""
    router.register("sites", SiteViewSet, basename="site")
