"""Do the workers of a Celery application answer, and does work pile up in its queues."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import redis
from django import forms

from apps.core.telemetry import Reading
from apps.sources.probes import Failed, Found, HostPort, Probe, host_and_port


class Celery(Probe):
    """Workers of another Celery application (broker: Redis) answer, and its queues are not too long."""

    kind = "celery"
    label = "Celery workers"
    secrets = ("password",)

    class Config(forms.Form):
        broker = HostPort(port=6379, help_text="The Redis server that is the broker, such as cache.example.org:6379.")
        database = forms.IntegerField(required=False, min_value=0, max_value=10_000, initial=0)
        user = forms.CharField(required=False, max_length=200)
        password = forms.CharField(required=False, max_length=1_000, help_text="Kept encrypted.")
        workers = forms.IntegerField(
            required=False, min_value=1, max_value=10_000, initial=1, help_text="Fails when fewer workers answer."
        )
        queues = forms.CharField(
            required=False, max_length=1_000, initial="celery", help_text="Names with commas between them."
        )
        longest = forms.IntegerField(
            required=False, min_value=0, help_text="Fails when more tasks than that wait in one of the queues."
        )

    @classmethod
    def address_of(cls, values: Mapping[str, Any]) -> str:
        return str(values["broker"])

    def run(self) -> Found:
        host, port = host_and_port(self.values["broker"], 6379)
        literal = self.reach.address(host, port)
        lengths = self.lengths(literal, port)
        answered = self.workers(literal, port)
        wanted = self.values.get("workers") or 1
        readings = [Reading("probe_celery_workers", float(answered), help="Workers that answered.")]
        for queue, length in lengths.items():
            labels = {"queue": queue}
            readings.append(Reading("probe_celery_queue_length", float(length), labels, help="Tasks that wait."))
        if answered < wanted:
            raise Failed(f"{answered} of {wanted} workers answered.", tuple(readings))
        longest = self.values.get("longest")
        for queue, length in lengths.items():
            if longest is not None and length > longest:
                raise Failed(f"{length} tasks wait in the queue {queue}, more than {longest}.", tuple(readings))
        return Found(readings=tuple(readings))

    def lengths(self, literal: str, port: int) -> dict[str, int]:
        """Return how many tasks wait in each queue."""
        client = redis.Redis(
            literal, port, self.values.get("database") or 0, username=self.values.get("user") or None,
            password=self.values.get("password") or None, socket_timeout=self.reach.seconds,
            socket_connect_timeout=self.reach.seconds,
        )  # fmt: skip
        try:
            return {queue: int(client.llen(queue)) for queue in queues_of(self.values)}
        except redis.RedisError as error:
            raise Failed(f"The broker refused: {str(error)[:200]}.") from None
        finally:
            client.close()

    def workers(self, literal: str, port: int) -> int:
        """Return how many workers answer a ping within half of the time."""
        from celery import Celery as Application

        user, password = self.values.get("user") or "", self.values.get("password") or ""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
        place = f"[{literal}]" if ":" in literal else literal
        broker = f"redis://{login}{place}:{port}/{self.values.get('database') or 0}"
        application = Application("probe", broker=broker, set_as_current=False)
        application.conf.broker_connection_timeout = self.reach.seconds
        application.conf.broker_transport_options = {"socket_timeout": self.reach.seconds, "max_retries": 0}
        try:
            return len(application.control.ping(timeout=self.reach.seconds / 2) or ())
        finally:
            application.close()


def queues_of(values: Mapping[str, Any]) -> list[str]:
    """Return the names of the queues."""
    return [name.strip() for name in (values.get("queues") or "celery").split(",") if name.strip()]
