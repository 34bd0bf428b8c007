"""Pages of long lists: how many rows there are is counted up to a bound, for nobody turns to page two thousand."""

from typing import Any, Final

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.utils.functional import cached_property

MOST_COUNTED: Final = 100_000
"""A list says "100,000" of more: counting millions of audit entries would cost a second on every look at them."""


class BoundedPaginator(Paginator[Any]):
    """Counts no further than `MOST_COUNTED`."""

    @cached_property
    def count(self) -> int:
        """Return how many rows there are, `MOST_COUNTED` at most."""
        rows = self.object_list
        # Django leaves columns that were only annotated out of a count, but not out of the count of a slice; the lists
        # that have such columns (rules, metrics, jobs) are those that people write.
        if isinstance(rows, QuerySet) and not rows.query.annotations:
            return rows.order_by()[:MOST_COUNTED].count()
        return super().count
