"""On-call: decides who is told, when, until someone acknowledges. Without it nobody is paged; nothing else breaks."""

from django.apps import AppConfig


class OncallConfig(AppConfig):
    """The room on floor 4 between what is wrong and how a message leaves."""

    name = "apps.oncall"
    verbose_name = "On call"

    def ready(self) -> None:
        """Take the seed's `notifications[]` of a rule, say what is in use, give templates past alerts."""
        from apps.accounts.models import Calendar
        from apps.alerting.models import AlertRule
        from apps.core.registry import extend
        from apps.notifications.models import Contact, MessageTemplate
        from apps.oncall import examples, schedules
        from apps.oncall.models import Policy, Schedule
        from apps.oncall.preview import notifications
        from apps.oncall.services import refusal_of_calendar, refusal_of_policy, take_notifications, users_of

        extend(AlertRule, "notifications", take_notifications)
        extend(AlertRule, "preview", notifications)
        extend(Contact, "in_use", users_of)
        extend(Calendar, "refusal", refusal_of_calendar)
        extend(Policy, "refusal", refusal_of_policy)
        extend(Schedule, "refusal", schedules.refusal)
        extend(MessageTemplate, "examples", examples)
