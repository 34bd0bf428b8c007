"""The alarm clock: one Celery application whose schedule is the list of registered loops."""

import importlib
import os
import pkgutil

from celery import Celery
from django.apps import apps as installed
from django.conf import settings
from kombu import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "monitoring_portal.settings")

app = Celery("monitoring_portal")
app.set_default()


def import_tasks() -> None:
    """Import every room's `tasks` and `*_tasks` module, so that each process knows all loops."""
    for config in installed.get_app_configs():
        if not config.name.startswith("apps."):
            continue
        for module in pkgutil.iter_modules([config.path]):
            if module.name == "tasks" or module.name.endswith("_tasks"):
                importlib.import_module(f"{config.name}.{module.name}")


def configure() -> Celery:
    """Configure the application from the settings; Django must be set up."""
    from apps.core.tasks import LOOPS, QUEUES

    import_tasks()
    app.conf.update(
        broker_url=settings.CELERY_BROKER_URL,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 3,
            "socket_connect_timeout": 2,
            "health_check_interval": 10,
            # A wake that finds the broker away gives up at once: kombu's own retries held the evaluation for 6 s.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.1,
        },
        task_ignore_result=True,
        task_default_queue="fast",
        task_queues=[Queue(name) for name in QUEUES],
        task_create_missing_queues=False,
        timezone="UTC",
        enable_utc=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        beat_scheduler="celery.beat:Scheduler",
        beat_max_loop_interval=1,
        beat_schedule={
            spec.name: {
                "task": spec.name,
                "schedule": spec.every,
                "options": {"queue": spec.queue, "expires": max(spec.every, 1.0), "ignore_result": True},
            }
            for spec in LOOPS.values()
        },
    )
    return app
