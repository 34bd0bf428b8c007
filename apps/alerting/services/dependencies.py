"""Services and what they depend on are written here; circles are refused."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import connection

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.permissions import Principal, Right
from apps.alerting import topology
from apps.alerting.models import Service
from apps.alerting.quiet import depends_on as stored_graph
from apps.alerting.services.silences import changed_quiet
from apps.core.text import storable

FIELDS: Final = ("name", "description", "team", "fails_at")
MOST: Final = 200
"""Services that one depends on itself."""
LOCK: Final = 0x746F706F
"""Two changes at once could close a circle that neither sees ("topo")."""


@verb("alerting.save_service", right=Right.EDIT)
def save_service(
    *,
    by: Principal,
    values: Mapping[str, Any],
    depends_on: Iterable[Service] | None = None,
    service: Service | None = None,
    now: datetime,
) -> Service:
    """Make or change a service; what is left out stays. ValidationError by field, naming the circle it would make."""
    if unknown := sorted(set(values) - set(FIELDS)):
        raise ValidationError({unknown[0]: f"A service has no such field; it has {', '.join(FIELDS)}, depends_on."})
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    stored = None if service is None or service.pk is None else Service.objects.get(pk=service.pk)
    before = None if stored is None else state_of(stored, relations=True)
    row = service or Service()
    for name, value in values.items():
        setattr(row, name, value)
    row.name = storable(row.name).strip()
    row.full_clean(validate_constraints=False)
    if depends_on is not None:
        parents = list(depends_on)
        check_service(row, parents)
        row.save()
        row.depends_on.set(parents)
    else:
        row.save()
    after = state_of(row, relations=True)
    if before is not None:
        before, after = changes(before, after)
    record(by=by, verb="alerting.save_service", target=row, before=before, after=after)
    changed_quiet(f"service {row.name}", now)
    return row


@verb("alerting.delete_service", right=Right.EDIT)
def delete_service(*, by: Principal, service: Service, now: datetime) -> None:
    """Delete a service, its place in the graph and its maintenance windows; its alerts stay."""
    target = (service._meta.label_lower, str(service.pk), str(service))
    before = state_of(service, relations=True)
    service.delete()
    record(by=by, verb="alerting.delete_service", target=target, before=before)
    changed_quiet(f"service {service.name}", now)


def check_service(row: Service, parents: list[Service]) -> None:
    """Raise ValidationError where the service would depend on itself through these; `row` need not be saved."""
    if len(parents) > MOST:
        raise ValidationError({"depends_on": f"At most {MOST} services."})
    was = Service.objects.filter(pk=row.pk).values_list("name", flat=True).first() if row.pk else None

    def named(name: str) -> str:
        return row.name if name == was else name

    graph = {named(name): {named(parent) for parent in behind} for name, behind in stored_graph().items()}
    graph[row.name] = {named(parent.name) for parent in parents}
    if found := topology.circle(graph):
        shown = " → ".join(found[:10])
        raise ValidationError({"depends_on": f"That would be a circle: {shown}. What fails first could not be told."})
