"""What people see: the pages under /monitoring, their live connection, the seed's API and the health verdict."""

from django.apps import AppConfig


class DashboardsConfig(AppConfig):
    name = "apps.dashboards"
    label = "dashboards"
    verbose_name = "Dashboards"
