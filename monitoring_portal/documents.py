"""All pages of docs/generated/: what the rooms register themselves, and what is about several of them."""

from apps.accounts.permissions import ROLES, SCOPES, Right
from apps.alerting import lifecycle
from apps.core.documents import DOCUMENTS, document
from apps.metrics.collectors import COLLECTORS
from apps.notifications import channels
from apps.oncall import steps
from apps.promql import reference

__all__ = ["DOCUMENTS", "channels", "steps"]


@document("collectors.md", "Collectors")
def collectors() -> str:
    """Every collector of this release."""
    rows = ["| kind | what it measures |", "|---|---|"]
    rows += [f"| `{kind}` | {collector.label} |" for kind, collector in COLLECTORS.all().items()]
    return "\n".join(rows)


@document("roles.md", "Roles and scopes")
def roles() -> str:
    """Which role and which token scope may do what."""
    rights = list(Right)
    parts = []
    for title, table in (("Roles", ROLES), ("Scopes of tokens", SCOPES)):
        rows = [f"| | {' | '.join(rights)} |", "|---" * (len(rights) + 1) + "|"]
        for name, held in table.items():
            rows.append(f"| {name} | {' | '.join('yes' if right in held else '' for right in rights)} |")
        parts += [f"## {title}", "\n".join(rows)]
    return "\n\n".join(parts)


@document("promql-functions.md", "PromQL functions and aggregations")
def functions() -> str:
    """Every function and aggregation of the language."""
    return reference.page()


DOCUMENTS["alert-life.md"] = ("The life of an alert", lifecycle.diagram)
