"""Shipped rows: written once, never again."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from apps.core.defaults import accept, changes, write_once

NOW = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.mark.django_db
def test_a_row_is_written_once_however_it_was_edited_or_deleted_since():
    written: list[Mapping[str, Any]] = []
    rows = [{"name": "a", "value": 1}]

    def ship(rows):
        return write_once("core.Thing", rows, key=lambda row: row["name"], write=written.append, now=NOW)

    assert ship(rows) == ["a"]
    assert ship([{"name": "a", "value": 2}, {"name": "b", "value": 3}]) == ["b"]
    assert [row["value"] for row in written] == [1, 3]


@pytest.mark.django_db
def test_a_row_that_cannot_be_written_is_not_remembered():
    def refuse(row):
        raise LookupError

    with pytest.raises(LookupError):
        write_once("core.Thing", [{"name": "a"}], key=lambda row: row["name"], write=refuse, now=NOW)
    assert write_once("core.Thing", [{"name": "a"}], key=lambda row: row["name"], write=print, now=NOW) == ["a"]


@pytest.mark.django_db
def test_what_a_newer_release_changes_is_offered_as_a_diff_until_it_was_seen():
    def key(row):
        return row["name"]

    old, new = [{"name": "a", "value": 1}], [{"name": "a", "value": 2}, {"name": "b", "value": 1}]
    write_once("core.Thing", old, key=key, write=print, now=NOW)
    assert changes("core.Thing", old, key=key) == {}
    [(name, diff)] = changes("core.Thing", new, key=key).items()
    assert name == "a"
    assert '-  "value": 1' in diff
    assert '+  "value": 2' in diff
    assert accept("core.Thing", new, key=key) == 1
    assert changes("core.Thing", new, key=key) == {}
