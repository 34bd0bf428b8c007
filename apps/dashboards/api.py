"""The API of dashboards under /api/v1/portal/: documents in and out, so that they can live beside code."""

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from apps.accounts.api import Exact, Needs
from apps.accounts.permissions import Right, principal_of
from apps.dashboards import services
from apps.dashboards.models import Dashboard, Folder


class DashboardSerializer(serializers.ModelSerializer[Dashboard]):
    """A dashboard; `document` is what `docs/how-to/dashboards.md` describes."""

    folder = serializers.CharField(source="folder.name", default=None)

    class Meta:
        model = Dashboard
        fields = ("slug", "title", "description", "folder", "version", "updated_at", "updated_by", "document")
        read_only_fields = fields


class DashboardInput(Exact):
    """What may be sent. `version`: the one that was read; where somebody saved meanwhile, nothing is written."""

    title = serializers.CharField(max_length=200)
    slug = serializers.SlugField(max_length=100, required=False)
    description = serializers.CharField(max_length=500, required=False, allow_blank=True)
    folder = serializers.CharField(max_length=100, required=False, allow_null=True)
    document = serializers.DictField(required=False)
    message = serializers.CharField(max_length=300, required=False, allow_blank=True)
    version = serializers.IntegerField(min_value=1, required=False)


class DashboardViewSet(viewsets.GenericViewSet[Dashboard], mixins.ListModelMixin, mixins.RetrieveModelMixin):
    """Dashboards that the caller may see."""

    queryset = Dashboard.objects.select_related("folder").order_by("title", "pk")
    serializer_class = DashboardSerializer
    permission_classes = (Needs(Right.READ, Right.EDIT),)
    lookup_field = "slug"

    def get_queryset(self) -> QuerySet[Dashboard]:
        """Return what lies in no folder, or in one that the caller may see."""
        visible = Dashboard.objects.all().visible_to(principal_of(self.request))
        return super().get_queryset().filter(pk__in=visible)

    @extend_schema(request=DashboardInput, responses={201: DashboardSerializer})
    def create(self, request: Request) -> Response:
        """Make a dashboard."""
        form = DashboardInput(data=request.data)
        form.is_valid(raise_exception=True)
        return Response(self._saved(None, form.validated_data), status=status.HTTP_201_CREATED)

    @extend_schema(request=DashboardInput, responses=DashboardSerializer)
    def partial_update(self, request: Request, slug: str) -> Response:
        """Save what is sent as a new version."""
        row = self.get_object()
        form = DashboardInput(data=request.data, partial=True)
        form.is_valid(raise_exception=True)
        return Response(self._saved(row, form.validated_data))

    def _saved(self, row: Dashboard | None, given: dict[str, Any]) -> Any:
        values, by = dict(given), principal_of(self.request)
        message, version = values.pop("message", ""), values.pop("version", None)
        if values.get("folder") is not None:
            folder = Folder.objects.filter(name=values["folder"]).visible_to(by).first()
            if folder is None:
                raise ValidationError({"folder": "There is no such folder."})
            values["folder"] = folder
        saved = services.save_dashboard(
            by=by, values=values, now=timezone.now(), dashboard=row, version=version, message=message
        )
        return self.get_serializer(saved).data

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, slug: str) -> Response:
        """Delete a dashboard with its versions and links."""
        services.delete_dashboard(by=principal_of(request), dashboard=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)


def register(router: BaseRouter) -> None:
    """Add the room's addresses."""
    router.register("dashboards", DashboardViewSet, basename="dashboard")
