"""The admin alone, so that its tests need no other room."""

from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]


def handler403(request: object, exception: Exception) -> HttpResponse:
    """Refuse without the house's page, which leads into other rooms."""
    return HttpResponse(str(exception), status=403)


def handler404(request: object, exception: Exception) -> HttpResponse:
    """Miss without the house's page, likewise."""
    return HttpResponse("Not found.", status=404)
