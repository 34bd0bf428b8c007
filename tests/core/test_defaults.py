"""Shipped rows: written once, never again."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from apps.core.defaults import write_once

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
