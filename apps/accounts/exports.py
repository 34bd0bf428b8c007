"""The rows of a list as a file: what the list and its form show, never what they keep to themselves."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, Final, TextIO

from django.contrib.admin.utils import flatten_fieldsets
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.http import HttpRequest
from django.utils.html import strip_tags

from apps.core.secrets import EncryptedJSONField
from apps.core.text import csv_cell

MOST_ROWS: Final = 100_000
SECRET: Final = {"password", "digest", "secrets"}
"""Columns that no file has, whatever a form says."""
SETTINGS: Final = "config"
"""The column of rows whose settings depend on their kind (`AuditedAdmin.formed_by`); secrets are kept apart from it."""
SETTING: Final = "setting_"
"""Before the name of a setting, in the forms of such rows."""


def columns_of(page: Any, request: HttpRequest) -> list[str]:
    """Return the columns: key, then those of the list, then the stored fields that the form of a row shows.

    Each of them stands on a page that whoever exports may open; a page names others as `exported`.
    """
    if page.exported:
        return [*page.exported]
    stored = {field.name for field in [*page.opts.concrete_fields, *page.opts.many_to_many] if _may_leave(field)}
    shown = [name for name in page.get_list_display(request) if isinstance(name, str) and name != "action_checkbox"]
    # Asked for a row that is not there yet: those for one that is may want to look at it.
    on_form = [name for name in _flat(page.get_fieldsets(request, None)) if name in stored]
    every = {field.name for field in page.opts.get_fields()}
    listed = [name for name in shown if name in stored or name not in every]
    settings = [SETTINGS] if page.formed_by and page.has_change_permission(request) else []
    return list(dict.fromkeys([page.opts.pk.name, *listed, *on_form, *settings]))


def _flat(fieldsets: Any) -> list[str]:
    return [str(name) for name in flatten_fieldsets(fieldsets)]


def _may_leave(field: Any) -> bool:
    return field.name not in SECRET and not isinstance(field, EncryptedJSONField | models.BinaryField)


def values_of(page: Any, row: models.Model, columns: Iterable[str]) -> dict[str, Any]:
    """Return a row's columns as JSON has them: times in ISO 8601, spans in seconds, what is related by its name."""
    return {name: _plain(_value(page, row, name)) for name in columns}


def _value(page: Any, row: models.Model, name: str) -> Any:
    if name == "__str__":
        return str(row)
    try:
        page.opts.get_field(name)
    except FieldDoesNotExist:
        method = getattr(page, name, None)
        found = method(row) if callable(method) else getattr(row, name)
        found = found() if callable(found) else found
        # Badges come as (kind, words); what is marked up has its words between the marks.
        found = found[1] if isinstance(found, tuple) else found
        return strip_tags(found) if isinstance(found, str) and hasattr(found, "__html__") else found
    return getattr(row, name)


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str() | list() | dict():
            return value
        case models.Manager():
            return sorted(map(str, value.all()))
        case timedelta():
            return value.total_seconds()
        case datetime() | date():
            return value.isoformat()
        case _:
            return str(value)


def csv_writer(file: TextIO, columns: list[str]) -> Callable[[dict[str, Any]], None]:
    """Write the heading; return what writes a row."""
    writer = csv.writer(file)
    writer.writerow(columns)

    def write(values: dict[str, Any]) -> None:
        writer.writerow(
            csv_cell(json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value)
            for value in values.values()
        )

    return write


def json_lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Return a JSON list, a row a line."""
    separator = "["
    for row in rows:
        yield f"{separator}\n{json.dumps(row, ensure_ascii=False)}"
        separator = ","
    yield "\n]\n" if separator == "," else "[]\n"
