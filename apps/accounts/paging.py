"""Pages of long lists: how many rows there are is counted up to a bound, for nobody turns to page two thousand.

And their search: a word that may stand in a row or in what is related to it is looked for there and there, since a
condition that spans both has the database join a million rows to a million before it drops them (`./portal bench
admin --search`: five seconds against less than one).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.utils.functional import cached_property
from django.utils.text import smart_split, unescape_string_literal

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


MOST_APART: Final = 10_000
"""Related rows that have a word; where it is more common than that, a page of rows is found soon by any plan."""


def searched_apart(
    rows: QuerySet[Any], fields: Sequence[str], relations: Iterable[str], term: str
) -> QuerySet[Any] | None:
    """Return the rows in which each word of the term stands, as Django's search would: in one of their `fields`.

    Those through `relations` are looked for on the other side first. None: a word is too common there for that.
    """
    own = [name for name in fields if not name.startswith(tuple(f"{relation}__" for relation in relations))]
    for bit in smart_split(term):
        word = unescape_string_literal(bit) if bit[0] == bit[-1] and bit[0] in "\"'" and len(bit) > 1 else bit
        either = _any(own, word)
        for relation in relations:
            there = [name.removeprefix(f"{relation}__") for name in fields if name.startswith(f"{relation}__")]
            related = rows.model._meta.get_field(relation).related_model
            keys = list(
                related._default_manager.filter(_any(there, word)).values_list("pk", flat=True)[: MOST_APART + 1]  # noqa: SLF001
            )
            if len(keys) > MOST_APART:
                return None
            either |= Q(**{f"{relation}__in": keys})
        rows = rows.filter(either)
    return rows


def _any(fields: Iterable[str], word: str) -> Q:
    found = Q()
    for name in fields:
        found |= Q(**{f"{name}__icontains": word})
    return found
