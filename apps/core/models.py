"""The one table of the clock, and the memory of what was shipped."""

from django.db import models
from django.db.models import F, Q


class Loop(models.Model):
    """A recurring job: clock, lease, health check and lag in one row.

    `claimed_until` is a lease by the database's clock; whoever holds it runs, a dead holder's lease simply ends.
    """

    name = models.CharField(max_length=80, primary_key=True)
    every = models.DurationField(help_text="How often it is meant to run.")
    claimed_until = models.DateTimeField(null=True, blank=True)
    claim = models.UUIDField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    duration = models.DurationField(null=True, blank=True)
    asked = models.BooleanField(
        default=False, help_text="Somebody wanted it while it ran: what it had passed already is looked at once more."
    )
    runs = models.BigIntegerField(default=0)
    failures = models.BigIntegerField(default=0)
    error = models.TextField(blank=True, default="")

    class Meta:
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(condition=Q(every__gt="0 seconds"), name="loop_every_is_positive"),
            models.CheckConstraint(
                condition=Q(finished_at__isnull=True) | Q(started_at__isnull=False), name="loop_finished_was_started"
            ),
        )

    def __str__(self) -> str:
        return self.name


class Shipped(models.Model):
    """A default row that was written once: so that an edited one is never overwritten and a deleted one stays away."""

    model = models.CharField(max_length=80)
    key = models.CharField(max_length=200)
    row = models.JSONField(
        default=dict, help_text="The row as shipped, by which a later release shows what it changed."
    )
    shipped_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "shipped"
        constraints = (models.UniqueConstraint(F("model"), F("key"), name="shipped_once"),)

    def __str__(self) -> str:
        return f"{self.model} {self.key}"
