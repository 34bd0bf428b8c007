"""The one ASGI application: bare callables for the hot paths, Django for pages and API, Channels for live pages."""

import os
from typing import Any, cast

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "monitoring_portal.settings")
django.setup(set_prefix=False)

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

from apps.dashboards.consumers import LiveConsumer
from monitoring_portal import celery
from monitoring_portal.fastlane import App, FastLane

celery.configure()

application = ProtocolTypeRouter(
    {
        "http": FastLane(cast(App, get_asgi_application())),
        "websocket": AuthMiddlewareStack(URLRouter([path("ws/live", cast(Any, LiveConsumer.as_asgi()))])),
    }
)
