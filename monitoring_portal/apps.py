"""The wiring as Django sees it: no tables, only what has to happen once everything is loaded."""

from django.apps import AppConfig


class WiringConfig(AppConfig):
    name = "monitoring_portal"
    verbose_name = "Monitoring Portal"

    def ready(self) -> None:
        from apps.core.models import Shipped
        from apps.core.registry import extend
        from monitoring_portal import environment_checks  # noqa: F401  registers the checks

        extend(Shipped, "changed", _changed_defaults)


def _changed_defaults() -> dict[str, str]:
    """What this release would ship otherwise; loaded when somebody asks, for it reads all that is shipped."""
    from monitoring_portal.setup import changed_defaults

    return changed_defaults()
