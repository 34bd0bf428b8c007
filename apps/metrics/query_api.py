"""The portal's own questions about queries, for its page to explore and for editors: what functions there are."""

from typing import Any, Final

from apps.accounts.permissions import Principal, Right
from apps.core.lanes import GET, Answer, Lane, Request
from apps.metrics.envelope import enveloped, refuse, success
from apps.promql.functions import AGGREGATIONS, FUNCTIONS, VECTOR


@enveloped
def functions(by: Principal, request: Request) -> Answer:
    """/api/monitoring/query/functions: every function and aggregation by name, with a sentence."""
    found: list[dict[str, Any]] = [
        {
            "name": one.name,
            "signature": one.signature,
            "returns": one.returns,
            "help": one.help,
            "extension": one.extension,
            "experimental": one.experimental,
            "kind": "function",
        }
        for one in FUNCTIONS.values()
    ]
    found += [
        {
            "name": one.name,
            "signature": one.signature,
            "returns": VECTOR,
            "help": one.help,
            "extension": False,
            "experimental": one.experimental,
            "kind": "aggregation",
        }
        for one in AGGREGATIONS.values()
    ]
    return success(sorted(found, key=lambda one: str(one["name"])))


LANES: Final[dict[str, Lane]] = {
    "/api/monitoring/query/functions": Lane(
        GET, Right.QUERY, functions, refuse, "The functions and aggregations of the language."
    ),
}
