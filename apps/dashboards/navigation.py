"""What the menu of every page lists, in groups: pages as data. A new page is one line here.

On a phone the first four that are marked stand in the bar at the bottom; all of them stand in its sheet "More".
"""

from dataclasses import dataclass

from apps.accounts.permissions import Principal, Right


@dataclass(frozen=True)
class Entry:
    """A page in the menu: the name of its address, its words and icon, and the pages below it that light it up."""

    address: str
    title: str
    icon: str
    below: tuple[str, ...] = ()
    right: Right = Right.READ
    in_bar: bool = False


@dataclass(frozen=True)
class Group:
    """Pages that answer the same kind of question."""

    title: str
    entries: tuple[Entry, ...]


GROUPS = (
    Group(
        "Watch",
        (
            Entry("overview", "Overview", "overview", in_bar=True),
            Entry("performance", "Performance", "performance", in_bar=True),
            Entry("applications", "Applications", "applications"),
            Entry("system", "System", "system"),
            Entry("frontend", "Front end", "frontend"),
            Entry("databases", "Databases", "database"),
            Entry("business", "Business", "chart"),
            Entry("dashboards", "Dashboards", "dashboards", ("dashboard", "dashboard_edit", "dashboard_history")),
            Entry("security", "Security", "security"),
        ),
    ),
    Group(
        "Respond",
        (
            Entry("alerts", "Alerts", "alerts", ("alert", "proposal"), in_bar=True),
            Entry("incidents", "Incidents", "incidents", ("incident",), in_bar=True),
            Entry("oncall", "On call", "oncall"),
            Entry("quiet", "Quiet", "quiet", ("silence",)),
            Entry("services", "Services", "services"),
        ),
    ),
    Group(
        "Sources",
        (
            Entry("checks", "Checks", "check", ("check", "heartbeat")),
            Entry("targets", "Targets", "targets", ("target",)),
            Entry("senders", "Senders", "send"),
        ),
    ),
    Group("Ask", (Entry("explore", "Explore", "explore", right=Right.QUERY), Entry("logs", "Logs", "logs"))),
)


def menu_of(who: Principal) -> list[Group]:
    """Return the groups with the pages that somebody may open; a group without any is left out."""
    seen = (Group(group.title, tuple(e for e in group.entries if who.can(e.right))) for group in GROUPS)
    return [group for group in seen if group.entries]
