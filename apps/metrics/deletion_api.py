"""Prometheus' admin API, as far as the store knows it: samples are deleted by selectors, and leave the bytes.

`delete_series` hides at once. `clean_tombstones` takes what is hidden out of the stored rows, which the portal does by
itself within minutes: it waits for that, and says so when something is left (a damaged row, a merge that runs).
"""

from typing import Final

from django.core.exceptions import ValidationError
from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.core.lanes import Answer, Lane, Parameter, Request
from apps.metrics import burial, services
from apps.metrics.envelope import ApiError, enveloped, refuse, selectors_of, time_of

METHODS: Final = frozenset({"POST", "PUT"})


@enveloped
def delete_series(by: Principal, request: Request) -> Answer:
    """/api/v1/admin/tsdb/delete_series: delete samples of the series that any `match[]` accepts."""
    if not request.every("match[]"):
        raise ApiError("bad_data", "no match[] parameter provided")
    start, end, selectors = time_of(request, "start", None), time_of(request, "end", None), selectors_of(request)
    try:
        services.delete_series(by=by, selectors=selectors, start=start, end=end, now=timezone.now())
    except ValidationError as error:
        raise ApiError("bad_data", " ".join(error.messages)) from None
    return Answer(204)


@enveloped
def clean_tombstones(by: Principal, request: Request) -> Answer:
    """/api/v1/admin/tsdb/clean_tombstones: rewrite the stored rows that hold something deleted."""
    if left := burial.bury(now=timezone.now()):
        raise ApiError(
            "unavailable",
            f"{left} deletions are hidden but not yet out of every stored row; it goes on by itself each minute "
            "(`manage.py store check` lists damaged rows, which cannot be rewritten)",
        )
    return Answer(204)


LANES: Final[dict[str, Lane]] = {
    "/api/v1/admin/tsdb/delete_series": Lane(
        METHODS,
        Right.ADMINISTER,
        delete_series,
        refuse,
        "Deletes samples of series.",
        (
            Parameter("match[]", "A selector; several are united.", required=True, many=True, example="up"),
            Parameter("start", "From: seconds since 1970, or RFC 3339; all that is older, too, if absent."),
            Parameter("end", "To, itself included; all that is newer, too, if absent."),
        ),
    ),
    "/api/v1/admin/tsdb/clean_tombstones": Lane(
        METHODS, Right.ADMINISTER, clean_tombstones, refuse, "Takes what was deleted out of the stored rows, now."
    ),
}
