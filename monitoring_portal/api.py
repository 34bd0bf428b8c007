"""Collects the rooms' API routers under /api/v1/portal/, the seed's endpoints and the OpenAPI document."""

from typing import Any

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import DefaultRouter

from apps.accounts import api as accounts
from apps.alerting import api as alerting
from apps.alerting import quiet_api as quiet
from apps.dashboards import api as dashboards
from apps.dashboards import facade
from apps.notifications import api as notifications
from apps.oncall import api as oncall
from apps.sources import api as sources
from apps.sources import check_api as checks
from apps.sources import measured_api as measured

router = DefaultRouter(use_regex_path=False)
router.include_root_view = False
router.include_format_suffixes = False
for room in (accounts, alerting, quiet, notifications, oncall, sources, checks, measured, dashboards):
    room.register(router)

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("v1/portal/", include(router.urls)),
    path("monitoring/", include(facade.urlpatterns)),
]


def without_twins(endpoints: list[Any]) -> list[Any]:
    """Leave the seed's addresses with a trailing slash out of the document: they are the same ones."""
    return [one for one in endpoints if not (one[0].startswith("/api/monitoring/") and one[0].endswith("/"))]
