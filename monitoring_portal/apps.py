"""The wiring as Django sees it: no tables, only what has to happen once everything is loaded."""

from django.apps import AppConfig


class WiringConfig(AppConfig):
    name = "monitoring_portal"
    verbose_name = "Monitoring Portal"

    def ready(self) -> None:
        from monitoring_portal import environment_checks  # noqa: F401  registers the checks
