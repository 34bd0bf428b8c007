"""The page that Prometheus and the portal scrape of another Django project."""

from hmac import compare_digest

from django.http import HttpRequest, HttpResponse

from apps.metrics.client import reporting
from apps.metrics.exposition import CONTENT_TYPE, write


def metrics(request: HttpRequest) -> HttpResponse:
    """Show what all processes of the service counted; with PORTAL_METRICS_TOKEN set, to its bearer alone."""
    token = reporting.setting("TOKEN")
    if token and not compare_digest(request.headers.get("Authorization", "").encode(), f"Bearer {token}".encode()):
        return HttpResponse("This page wants its token.\n", status=401, headers={"WWW-Authenticate": "Bearer"})
    return HttpResponse(write(reporting.shown()), content_type=CONTENT_TYPE)
