"""Where an alert goes: its rule's own target, else the routes it matches, with their timers and first receivers."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Final

from django.db.models import Q

from apps.alerting.matching import MatcherError, parse_matcher
from apps.alerting.models import Alert
from apps.notifications.models import Contact
from apps.oncall import escalation, grouping, plans
from apps.oncall.addressing import fallback, receivers
from apps.oncall.grouping import RouteSpec, Timers
from apps.oncall.models import NotificationGroup, Policy, Route, RuleTarget

log = logging.getLogger(__name__)

DEFAULT: Final = Timers(timedelta(seconds=30), timedelta(minutes=5), timedelta(hours=4))
"""The timers where no route says otherwise."""


class Routing:
    """The routes as they are now, read once for a batch; so are the groups that its alerts join."""

    def __init__(self) -> None:
        self.forget_groups()

    def forget_groups(self) -> None:
        """Read groups again: what was written with the last of them has been taken back."""
        self.groups: dict[str, NotificationGroup] = {}
        self.burning: dict[int, int] = {}
        """Group → an active alert that joined it in this batch."""

    @cached_property
    def root_timers(self) -> Timers:
        """The timers of the root route: those of what is told by no route."""
        root = Route.objects.filter(is_root=True).first()
        return timers(root) if root else DEFAULT

    @cached_property
    def routes(self) -> dict[int, Route]:
        return {route.pk: route for route in Route.objects.filter(enabled=True).in_order()}

    @cached_property
    def specs(self) -> list[RouteSpec]:
        """A route that cannot be read is passed over and named: the others, at last the root, take its alerts."""
        specs = []
        for pk, route in self.routes.items():
            try:
                matchers = tuple(parse_matcher(text) for text in route.matchers)
            except (MatcherError, TypeError) as error:
                log.error("The route %s is passed over, mend its matchers: %s", route.name, error)
                continue
            specs.append(RouteSpec(pk, matchers, route.continue_matching))
        return specs

    @cached_property
    def targets(self) -> dict[int, RuleTarget]:
        """By rule; a target that names nobody leaves the alerts to the routes."""
        targets = RuleTarget.objects.filter(Q(policy__isnull=False) | Q(contacts__isnull=False)).distinct()
        return {target.rule_id: target for target in targets.select_related("rule")}

    def of(self, alert: Alert) -> list[Route | RuleTarget | None]:
        """Return where the alert goes: its rule's own target, else the routes it matches; None is the fall-back."""
        return self.places(alert.rule_id, alert.routing_labels)

    def places(self, rule: int | None, labels: Mapping[str, str]) -> list[Route | RuleTarget | None]:
        """Return where an alert of that rule with these labels goes."""
        if rule is not None and (target := self.targets.get(rule)) is not None:
            return [target]
        return [self.routes[pk] for pk in grouping.matching(self.specs, labels)] or [None]

    def timers_of(self, place: Route | RuleTarget | None) -> Timers:
        """Return the timers of where an alert goes."""
        if isinstance(place, Route):
            return timers(place)
        return DEFAULT if place is None else self.root_timers


def timers(row: Route | NotificationGroup) -> Timers:
    """Return the timers that a route has, or a group keeps of it."""
    return Timers(row.group_wait, row.group_interval, row.repeat_interval)


def first_told(source: Route | RuleTarget | None) -> dict[int, Contact]:
    """Return whom a group's own message goes to: the receivers, or the fall-back contact if nobody else ever is."""
    found = receivers(source)
    if found or policy_tells(source.policy if source else None):
        return found
    return fallback()


def policy_tells(policy: Policy | None) -> bool:
    """Whether the policy itself will tell somebody, sooner or later."""
    if policy is None:
        return False
    enabled = frozenset(Contact.objects.enabled().values_list("pk", flat=True))
    has_fallback = bool(fallback())
    plan = [step for step in plans.frozen(policy)["steps"] if has_fallback or not step["config"].get("fallback")]
    return escalation.tells_somebody(plan, contacts=enabled, has_route_contacts=False)
