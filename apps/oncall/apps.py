"""On-call: decides who is told, when, until someone acknowledges. Without it nobody is paged; nothing else breaks."""

from django.apps import AppConfig


class OncallConfig(AppConfig):
    """The room on floor 4 between what is wrong and how a message leaves."""

    name = "apps.oncall"
    verbose_name = "On-call"
