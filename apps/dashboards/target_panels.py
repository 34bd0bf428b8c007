"""The charts of one target: the series that each of its scrapes adds."""

from apps.accounts.permissions import Principal
from apps.dashboards.panels import Panel, Query
from apps.promql.text import quote, quote_name
from apps.sources.models import ScrapeTarget


def panels_of(row: ScrapeTarget) -> tuple[Panel, ...]:
    """Return the charts of a target: is it up, how much it shows, and how long it takes."""
    if row.dropped:
        return ()
    own = ",".join(f"{quote_name(name)}={quote(value)}" for name, value in row.shown_labels())
    return (
        Panel(
            "target-up",
            "Up",
            "count",
            (Query(f"up{{{own}}}", "up"),),
            ("scrape",),
            maximum=1.0,
            empty="It was not scraped in this time.",
        ),
        Panel(
            "target-samples",
            "Samples",
            "count",
            (
                Query(f"scrape_samples_scraped{{{own}}}", "shown"),
                Query(f"scrape_samples_post_metric_relabeling{{{own}}}", "after relabelling"),
                Query(f"scrape_series_added{{{own}}}", "new series"),
            ),
            ("scrape",),
            empty="It was not scraped in this time.",
        ),
        Panel(
            "target-duration",
            "Duration",
            "seconds",
            (Query(f"scrape_duration_seconds{{{own}}}", "one scrape"),),
            ("scrape",),
            empty="It was not scraped in this time.",
        ),
    )


def panels_asked(who: Principal, wanted: str) -> dict[str, Panel]:
    """Return the charts of the target that a page asks numbers for, none where the person may not see it."""
    if not wanted.isdecimal() or len(wanted) > 18:
        return {}
    row = ScrapeTarget.objects.filter(pk=int(wanted), ended=False).visible_to(who.scope).first()
    return {panel.key: panel for panel in panels_of(row)} if row else {}
