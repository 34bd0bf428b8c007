"""Collects the rooms' API routers under /api/v1/portal/, the seed's endpoints and the OpenAPI document."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import DefaultRouter

from apps.accounts import api as accounts
from apps.alerting import api as alerting
from apps.dashboards import facade

router = DefaultRouter(use_regex_path=False)
router.include_root_view = False
router.include_format_suffixes = False
for room in (accounts, alerting):
    room.register(router)
try:  # scaffolding until both rooms have their API
    from apps.notifications import api as notifications
    from apps.oncall import api as oncall

    notifications.register(router)
    oncall.register(router)
except ImportError:
    pass

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("v1/portal/", include(router.urls)),
    path("monitoring/", include(facade.urlpatterns)),
]
