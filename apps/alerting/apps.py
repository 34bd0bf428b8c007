"""Alerting: decides what is wrong. It knows rules, alerts and incidents, and neither who is told nor how."""

from django.apps import AppConfig


class AlertingConfig(AppConfig):
    """The room on floor 3 that turns numbers into alerts."""

    name = "apps.alerting"
    verbose_name = "Alerting"
