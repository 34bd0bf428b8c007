"""What two rooms need and no domain word describes: plug-in registry, clock, outbound door, live push, counters."""

from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "apps.core"
    label = "core"
    verbose_name = "Core"
