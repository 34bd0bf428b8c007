"""What is sent of a part that a page has already: undone by the page, it gives the new state again."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from apps.dashboards.delta import WHOLE, change

ROWS = st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3) | st.none(), max_size=3), max_size=6)
PARTS = ROWS | st.fixed_dictionaries(
    {"rows": ROWS, "total": st.integers(0, 3), "counts": st.dictionaries(st.sampled_from("xy"), st.integers(0, 2))},
    optional={"names": st.lists(st.integers(0, 3), max_size=3)},
)


def patched(old: Any, changes: Any) -> Any:
    """What live.js does with a change."""

    def rows(before, entries):
        return [before[entry] if isinstance(entry, int) else entry for entry in entries]

    if isinstance(old, list):
        return rows(old, changes)
    lists = {k for k, v in old.items() if isinstance(v, list) and all(isinstance(row, dict) for row in v)}
    return old | {k: rows(old[k], v) if k in lists else v for k, v in changes.items()}


@given(PARTS, PARTS)
def test_a_change_undone_by_the_page_gives_the_new_state(old, new):
    found = change(old, new)
    assert found is WHOLE or patched(old, found) == new


def test_of_fifty_alerts_one_that_changes_is_sent_and_the_others_by_their_place():
    rows = [{"key": f"a{number}", "message": "It burns " * 20} for number in range(50)]
    changed = {"key": "a7", "message": "It burns no more"}
    new = {"rows": [changed, *(row for row in rows if row["key"] != "a7")], "total": 50}
    found = change({"rows": rows, "total": 50}, new)
    assert found == {"rows": [changed, *(number for number in range(50) if number != 7)]}
    assert len(orjson.dumps(found)) < len(orjson.dumps(new)) / 40
