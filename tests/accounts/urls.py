"""The admin and this room's API alone, so that its tests need no other room."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from rest_framework.routers import DefaultRouter

from apps.accounts import api
from apps.accounts.permissions import Right, page, principal_of


@page(Right.OPERATE)
def sync_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(principal_of(request).name)


@page(Right.OPERATE)
async def async_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(principal_of(request).name)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return HttpResponse(str(exception), status=403)


handler403 = forbidden
router = DefaultRouter(use_regex_path=False)
router.include_root_view = False
api.register(router)
urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/portal/", include(router.urls)),
    path("login/", sync_page, name="login"),
    path("sync/", sync_page),
    path("async/", async_page),
]
