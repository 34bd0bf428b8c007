"""Every address of the portal that Django serves; the bare-ASGI ones stand in `fastlane.ROUTES`."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(url="/monitoring/", permanent=False), name="home"),
    path("admin/", admin.site.urls),
    path("api/", include("monitoring_portal.api")),
    path("", include("apps.notifications.urls")),
    path("", include("apps.dashboards.urls")),
]
handler400 = "apps.dashboards.views.bad_request"
handler403 = "apps.dashboards.views.forbidden"
handler404 = "apps.dashboards.views.not_found"
handler500 = "apps.dashboards.views.broken"
