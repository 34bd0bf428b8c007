"""The one ASGI application: bare callables for the hot paths, Django for pages and API, Channels for live pages."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "monitoring_portal.settings")
django.setup(set_prefix=False)

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from django.core.asgi import get_asgi_application  # noqa: E402
from django.urls import path  # noqa: E402

from apps.dashboards.consumers import LiveConsumer  # noqa: E402
from monitoring_portal import celery  # noqa: E402
from monitoring_portal.fastlane import FastLane  # noqa: E402

celery.configure()

application = ProtocolTypeRouter(
    {
        "http": FastLane(get_asgi_application()),
        "websocket": AuthMiddlewareStack(URLRouter([path("ws/live", LiveConsumer.as_asgi())])),
    }
)
