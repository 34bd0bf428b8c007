"""Adaptive bands are written here: made, changed, deleted, and taught that something was no anomaly."""

import math
import re
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from django.core.exceptions import ValidationError
from django.db.models import F

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.permissions import EVERYTHING, Principal, Right
from apps.alerting import adaptive
from apps.alerting.bands import KEPT, WEEK_HOURS, Widened
from apps.alerting.models import AdaptiveBand, Alert, AlertRule, BandSeries, directions
from apps.alerting.plans import band_terms
from apps.alerting.services.rules import check_expression
from apps.core import live
from apps.metrics import query
from apps.promql.errors import PromQLError
from apps.promql.text import label_set

WIDEST: Final = 100.0
LOOKED_AT: Final = timedelta(hours=24)
"""How much of an alert that was no anomaly is looked at."""


@verb("alerting.save_band", right=Right.EDIT)
def save_band(*, by: Principal, band: AdaptiveBand, now: datetime) -> AdaptiveBand:
    """Write a new or changed band; one that watches something else, or by another clock, learns anew."""
    check_band(band)
    stored = AdaptiveBand.objects.select_related("rule").filter(pk=band.pk).first() if band.pk else None
    if stored is not None and (stored.watched, stored.calendar_id) != (band.watched, band.calendar_id):
        band.learned_until, band.error = None, ""
        BandSeries.objects.filter(band=band).delete()
    band.revision = 1 if stored is None else stored.revision + 1
    before = None if stored is None else state_of(stored)
    band.save()
    after = state_of(band)
    if before is not None:
        before, after = changes(before, after)
    record(by=by, verb="alerting.save_band", target=band, before=before, after=after)
    live.publish("alerts")
    return band


@verb("alerting.delete_band", right=Right.EDIT)
def delete_band(*, by: Principal, band: AdaptiveBand, now: datetime) -> None:
    """Delete a band with what it knows; the series it wrote stay until their retention ends."""
    before, target = state_of(band), (band._meta.label_lower, str(band.pk), str(band))
    band.delete()
    record(by=by, verb="alerting.delete_band", target=target, before=before)
    live.publish("alerts")


def make_adaptive(*, by: Principal, rule: AlertRule, on: bool, now: datetime) -> None:
    """Give a rule a band of its own, or take it away: the tick box on the rule's page."""
    found = AdaptiveBand.objects.filter(rule=rule).first()
    if on and found is None:
        taken = AdaptiveBand.objects.filter(slug=rule.slug).exists()
        save_band(by=by, band=AdaptiveBand(slug=f"{rule.slug[:94]}-rule" if taken else rule.slug, rule=rule), now=now)
    elif not on and found is not None:
        delete_band(by=by, band=found, now=now)


def check_band(band: AdaptiveBand) -> None:
    """Raise ValidationError, by field, where a band could not do what it says."""
    problems: dict[str, str] = {}
    if not re.fullmatch(r"[-a-zA-Z0-9_]{1,100}", band.slug):
        problems["slug"] = "1 to 100 letters, digits, hyphens and underscores."
    elif AdaptiveBand.objects.exclude(pk=band.pk).filter(slug=band.slug).exists():
        problems["slug"] = f"There is a band {band.slug} already."
    if band.rule_id is not None:
        if band.expression or band.group_id is not None:
            problems["rule"] = "A band of a rule takes the rule's expression and group: leave these empty."
        elif AdaptiveBand.objects.exclude(pk=band.pk).filter(rule=band.rule_id).exists():
            problems["rule"] = "This rule has a band already."
    else:
        if band.group_id is None:
            problems["group"] = "Choose a rule, or a group and an expression."
        if problem := check_expression(band.expression):
            problems["expression"] = problem
    if band.direction not in dict(directions()):
        problems["direction"] = f"{band.direction!r} is none of {', '.join(dict(directions()))}."
    if not 0 < band.width <= WIDEST:
        problems["width"] = f"More than 0 and at most {WIDEST:g}."
    for name in ("least", "least_share"):
        if not (math.isfinite(getattr(band, name)) and getattr(band, name) >= 0):
            problems[name] = "A number, 0 or more."
    if not timedelta(hours=1) <= band.warm_up <= timedelta(hours=KEPT):
        problems["warm_up"] = "Between an hour and five weeks."
    if problems:
        raise ValidationError(problems)


@verb("alerting.not_an_anomaly", right=Right.OPERATE)
def not_an_anomaly(*, by: Principal, alert: Alert, now: datetime) -> dict[int, float]:
    """Widen the band of the alert's series, for the hours of the week in which it was outside, until it fits in.

    Returns the new factors by hour of the week (Monday 0:00 is 0). What the band knows of other series and other hours
    stays as it is; the alert ends by itself at the next tick.
    """
    band = AdaptiveBand.objects.select_related("calendar").filter(rule=alert.rule_id, rule__isnull=False).first()
    if band is None:
        raise ValidationError(f"{alert.key} is of no adaptive rule: there is no band to widen.")
    series = BandSeries.objects.select_for_update().filter(band=band, fingerprint=bytes(alert.fingerprint)).first()
    if series is None:
        raise ValidationError(f"The band {band.slug} knows nothing of this series.")
    end = alert.resolved_at or now
    begin = max(alert.pending_at or alert.seen_at, end - LOOKED_AT)
    worst = _worst_scores(band, series, begin, end)
    if not worst:
        raise ValidationError(f"No score of {alert.key} above 1 is stored: its band is as wide already.")
    widened = Widened({int(slot): float(factor) for slot, factor in series.widened.items()})
    before = dict(series.widened)
    for slot, score in sorted(worst.items()):
        widened = widened.by(slot, score)
    series.widened = {str(slot): factor for slot, factor in sorted(widened.factors.items())}
    series.save(update_fields=["widened"])
    AdaptiveBand.objects.filter(pk=band.pk).update(revision=F("revision") + 1)
    record(
        by=by,
        verb="alerting.not_an_anomaly",
        target=alert,
        before={"band": band.slug, "widened": before},
        after={"band": band.slug, "widened": series.widened, "labels": series.labels},
    )
    live.publish("alerts")
    return {slot % WEEK_HOURS: widened.at(slot) for slot in worst}


def _worst_scores(band: AdaptiveBand, series: BandSeries, begin: datetime, end: datetime) -> dict[int, float]:
    """The highest score above 1 of the series in each hour of the week."""
    wanted = {**series.labels, adaptive.LABEL: band.slug}
    matchers = label_set(wanted)
    step = max(timedelta(seconds=15), (end - begin) / 1000)
    try:
        found = query.query_range(
            f"{{__name__={chr(34)}{adaptive.SCORE}{chr(34)}, {matchers[1:]}",
            start=begin,
            end=max(end, begin),
            step=step,
            scope=EVERYTHING,
        )
    except PromQLError as error:
        raise ValidationError(f"Its scores cannot be read: {error}") from None
    worst: dict[int, float] = {}
    slots = band_terms(band).slots(found.ts // 3_600_000)
    for labels, values, there in zip(found.labels.dicts(), found.v, found.ok, strict=True):
        labels.pop("__name__", None)
        if labels != wanted:
            continue
        for slot, value in zip(slots[there].tolist(), values[there].tolist(), strict=True):
            if not np.isnan(value) and value > 1:
                worst[slot] = max(worst.get(slot, 0.0), value)
    return worst
