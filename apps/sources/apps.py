"""Sources: what the portal goes and asks, target by target. The room knows samples and never what they are for."""

from django.apps import AppConfig


class SourcesConfig(AppConfig):
    """The room on floor 3 that scrapes."""

    name = "apps.sources"
    verbose_name = "Sources"

    def ready(self) -> None:
        """Show the targets where Prometheus' API lists what is collected."""
        from apps.core.registry import extend
        from apps.metrics.models import CollectorSetting
        from apps.sources import listing

        extend(CollectorSetting, "targets", listing.pools)
