"""A file as a list's own export writes it, edited and brought back: told first, then written as a person would by hand.

Each row goes through the admin's form of its model and through its saving: what the form refuses is refused here, in
its words, and whatever verb saves leaves its entries. Rows are found again by a name (`AuditedAdmin.imported`), not by
their number, which means something else in another portal; what is related is found by its name, too. Columns that are
absent stay as they are, and so do secrets, which no file holds.

A report does everything and takes it back. An import does it once more and keeps it if it came to the very same; if
somebody changed something in the meantime, or any row is refused, nothing is written at all.
"""

import codecs
import copy
import csv
import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from datetime import time as clock_time
from typing import Any, Final, NoReturn
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, PermissionDenied, ValidationError
from django.db import DataError, IntegrityError, models, transaction
from django.http import HttpRequest, QueryDict
from django.utils.dateparse import parse_datetime

from apps.accounts import exports, services
from apps.accounts.permissions import principal_of
from apps.core.text import of_csv_cell, storable

MOST_ROWS: Final = 5_000
MOST_COLUMNS: Final = 200
MOST_SECONDS: Final = 30.0
SHOWN: Final = 300
"""Characters of a value in a report."""
SHOWN_ROWS: Final = 300
YES: Final = {"true", "yes", "on", "1"}
NO: Final = {"false", "no", "off", "0", ""}


# --- What a file says -----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it stands, and its values by column."""

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read(content: bytes) -> Table:
    """Return the rows of a CSV (comma, semicolon or tab) or of a JSON list of objects.

    ValidationError says what is wrong with the file as a whole.
    """
    text = _decoded(content)
    table = _of_json(text) if text.lstrip()[:1] in ("[", "{") else _of_csv(text)
    if not table.rows:
        raise ValidationError("There is no row in this file.")
    if len(table.rows) > MOST_ROWS:
        raise ValidationError(f"More than {MOST_ROWS:,} rows: bring them in with several files.")
    if len(table.columns) > MOST_COLUMNS:
        raise ValidationError(f"More than {MOST_COLUMNS} columns: this is no export of a list.")
    return table


def _decoded(content: bytes) -> str:
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValidationError("This is no text in UTF-8: have the spreadsheet save it as “CSV UTF-8”.") from None


def _of_json(text: str) -> Table:
    def no_number(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")

    try:
        found = json.loads(text, parse_constant=no_number)
    except RecursionError:
        raise ValidationError("This JSON is nested too deeply.") from None
    except ValueError as error:
        raise ValidationError(f"This is no JSON: {str(error)[:200]}.") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValidationError("This JSON should be a list of objects, one for each row, as the export writes it.")
    columns = dict.fromkeys(name for one in found for name in one)
    return Table(tuple(columns), tuple(Row(f"entry {place}", one) for place, one in enumerate(found, start=1)))


def _of_csv(text: str) -> Table:
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    try:
        # Line ends within a cell are part of it.
        lines = list(enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), start=1))
    except csv.Error as error:
        raise ValidationError(f"This is no CSV: {error}.") from None
    filled = [(place, cells) for place, cells in lines if any(cell.strip() for cell in cells)]
    if not filled:
        raise ValidationError("This file is empty.")
    columns = tuple(of_csv_cell(cell).strip() for cell in filled[0][1])
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise ValidationError(f"Two columns are called {twice[0][:SHOWN]}: leave one of them out.")
    rows = []
    for place, cells in filled[1:]:
        if len(cells) != len(columns):
            raise ValidationError(
                f"Row {place} has {len(cells)} cells, the heading {len(columns)}: quote texts that hold a separator."
            )
        named = zip(columns, cells, strict=True)
        rows.append(Row(f"row {place}", {name: of_csv_cell(cell) for name, cell in named if name}))
    return Table(tuple(filter(None, columns)), tuple(rows))


# --- What became of it ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Difference:
    """One column of a row, before and after; a secret shows in neither."""

    column: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """What an import does to one row: new, changed, unchanged, or refused, for the reasons in `remarks`."""

    place: str
    name: str
    action: str
    differences: tuple[Difference, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What an import did, or would do."""

    changes: list[Change] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Columns that neither list nor form has."""
    unread: list[str] = field(default_factory=list)
    """Columns that the portal itself keeps."""
    content: bytes = b""
    is_stale: bool = False

    def counts(self) -> dict[str, int]:
        """How many rows of each action, those of which there are any."""
        found = {
            action: sum(change.action == action for change in self.changes)
            for action in ("refused", "new", "changed", "unchanged")
        }
        return {action: number for action, number in found.items() if number}

    @property
    def blocked(self) -> bool:
        """Whether there is nothing that could be imported: a row is refused, or all are as they were."""
        return "refused" in self.counts() or not self.counts().keys() & {"new", "changed"}

    @property
    def shown(self) -> list[Change]:
        """The first rows with something to say, those that are refused before the others."""
        told = [change for change in self.changes if change.action != "unchanged"]
        return sorted(told, key=lambda change: change.action != "refused")[:SHOWN_ROWS]

    @property
    def more(self) -> int:
        """How many rows with something to say are not among `shown`."""
        return max(0, sum(change.action != "unchanged" for change in self.changes) - SHOWN_ROWS)

    @property
    def digest(self) -> str:
        """The same for the same file that would do the same."""
        told = json.dumps([asdict(change) for change in self.changes])
        return hashlib.sha256(self.content + told.encode(errors="replace")).hexdigest()


class _Moved(Exception):
    """What an import came to is not what was seen."""


def report(*, page: Any, request: HttpRequest, content: bytes) -> Report:
    """Return what an import of the file would do; nothing is written."""
    table = read(content)
    with transaction.atomic():
        found = _Import(page, request, table).run()
        transaction.set_rollback(True)
    found.content = content
    return found


def write(*, page: Any, request: HttpRequest, content: bytes, seen: str) -> Report:
    """Import the file if that does what the report with the digest `seen` said; else write nothing (`is_stale`)."""
    table, found = read(content), Report()

    def run() -> Mapping[str, int]:
        nonlocal found
        found = _Import(page, request, table).run()
        found.content = content
        if found.digest != seen or found.blocked:
            raise _Moved
        return found.counts()

    try:
        services.import_rows(by=principal_of(request), model=page.model, write=run)
    except _Moved:
        found.is_stale = True
    return found


# --- How it is done -------------------------------------------------------------------------------------------------
class _Given(forms.Widget):
    """Takes what a row has, not what a browser posted."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        return data.get(name)

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return name not in data


class _Heard:
    """In the place of the messages of a request: what a page says while it saves a row."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def add(self, level: int, message: Any, extra_tags: str = "") -> None:
        self.said.append(str(message))


class _Refused(Exception):
    """A row that cannot be imported, and why."""

    def __init__(self, *reasons: str) -> None:
        super().__init__(*reasons)
        self.reasons = reasons


class _Import:
    """One file on its way into one list."""

    def __init__(self, page: Any, request: HttpRequest, table: Table) -> None:
        self.page, self.request, self.table = page, request, table
        self.key: str = page.imported
        self.taken: set[str] = {self.key, page.formed_by} - {""}
        self.names: dict[str, str] = {}
        self.keys: dict[tuple[Any, str], Any] = {}
        self.locked: set[Any] = set()
        self.until = time.monotonic() + MOST_SECONDS

    def run(self) -> Report:
        """Try each row; those that are refused once more after the others, on which they may depend."""
        if self.key not in self.table.columns:
            raise ValidationError(f"There is no column {self.key}: it says which row is meant.")
        found: dict[str, Change] = {}
        pending = list(self.table.rows)
        while pending:
            refused, wrote = [], False
            for row in pending:
                change = found[row.place] = self._tried(row)
                refused += [row] if change.action == "refused" else []
                wrote = wrote or change.action in ("new", "changed")
            pending = refused if wrote else []
        kept = set(exports.columns_of(self.page, self.request))
        left = [name for name in self.table.columns if name not in self.taken]
        return Report(
            changes=[found[row.place] for row in self.table.rows],
            unknown=[storable(name)[:SHOWN] for name in left if name not in kept],
            unread=[name for name in left if name in kept],
        )

    def _tried(self, row: Row) -> Change:
        name = storable(_spelled(row.values.get(self.key))).strip()
        if time.monotonic() > self.until:
            raise ValidationError(
                f"This takes more than {MOST_SECONDS:.0f} seconds, and {row.place} was the next: use smaller files."
            )
        try:
            with transaction.atomic():  # whatever a refused row did is taken back, and the others go on
                return self._row(row, name)
        except _Refused as refused:
            reasons = refused.reasons
        except ValidationError as error:
            reasons = tuple(_sentences(error))
        except PermissionDenied as error:
            reasons = (str(error) or "You may not do this.",)
        except IntegrityError:
            reasons = ("The database refuses it: something of it that can be there only once is there already.",)
        except DataError:
            reasons = ("The database does not take one of its values.",)
        except RecursionError:
            reasons = ("A value is nested too deeply.",)
        self.locked.clear()  # its lock went with it
        return Change(row.place, name, "refused", remarks=tuple(reason[: 3 * SHOWN] for reason in reasons))

    def _row(self, row: Row, name: str) -> Change:
        for column, value in row.values.items():
            if not _is_text(value):
                raise _Refused(f"{storable(column)[:SHOWN]}: this holds characters that cannot be stored, such as NUL.")
        if not name:
            raise _Refused(f"{self.key}: this is empty, and says which row is meant.")
        if self.names.setdefault(name, row.place) != row.place:
            raise _Refused(f"{self.key}: {self.names[name]} is about {name} already.")
        there = self.page.get_queryset(self.request).filter(**{self.key: name})[:2]
        if len(there) > 1:
            raise _Refused(f"{self.key}: several rows here are called that; change them on their own pages.")
        stored = there[0] if there else None
        asked, heard = self._asked(row, stored)
        made = self.page.get_form(asked, stored, change=stored is not None)
        blank = made(instance=stored) if stored is not None else made()
        shown = {
            each: one for each, one in blank.fields.items() if not (one.disabled or isinstance(one, forms.FileField))
        }
        columns, raw = self._given(row, shown, stored)
        was = {each: _flat(one, blank.get_initial_for_field(one, each)) for each, one in shown.items()}
        changed = [each for each in raw if not _is_same(shown[each], was[each], raw[each])]
        if stored is not None and not changed:
            return Change(row.place, name, "unchanged")
        if stored is not None and stored.pk not in self.locked:
            # Whoever would change it now waits until this is over; what is unchanged nobody waits for.
            self.locked.add(stored.pk)
            list(self.page.model._default_manager.filter(pk=stored.pk).select_for_update(no_key=True).values("pk"))  # noqa: SLF001
            return self._row(row, name)
        hidden: frozenset[str] = getattr(made, "write_only", frozenset())
        told = changed if stored is not None else [each for each in raw if raw[each] not in ("", [], None)]
        differences = tuple(self._difference(each, columns[each], stored, each in hidden) for each in told)
        bound = made(was | raw, {}, instance=stored) if stored is not None else made(was | raw, {})
        for one in bound.fields.values():
            one.widget = _Given()
        if not bound.is_valid():
            raise _Refused(*_faults(bound.errors))
        saved = self.page.save_form(asked, bound, change=stored is not None)
        self.page.save_model(asked, saved, bound, stored is not None)
        self.page.save_related(asked, bound, [], stored is not None)
        action = "new" if stored is None else "changed"
        return Change(row.place, name, action, differences, tuple(heard.said))

    def _asked(self, row: Row, stored: Any) -> tuple[HttpRequest, _Heard]:
        """Return the request as the row's own page would get it."""
        asked, heard, kind = copy.copy(self.request), _Heard(), self.page.formed_by
        asked._messages = heard  # type: ignore[attr-defined] # noqa: SLF001 - where django keeps them
        if stored is not None and not self.page.has_change_permission(asked, stored):
            raise _Refused("You may not change this row.")
        if stored is None and not self.page.has_add_permission(asked):
            raise _Refused("There is no such row here, and the portal itself adds them: it can only be changed.")
        asked.GET = QueryDict("")
        if not kind:
            return asked, heard
        said = _spelled(row.values.get(kind))
        if stored is not None and kind in row.values and said != getattr(stored, kind):
            raise _Refused(f"{kind}: it is {getattr(stored, kind)} here and stays so; give the other one its own name.")
        known = [value for value, _ in self.page.opts.get_field(kind).flatchoices]
        if stored is None and said not in known:
            raise _Refused(f"{kind}: a new row needs one of {', '.join(known)}.")
        asked.GET = QueryDict(urlencode({kind: said}))
        return asked, heard

    def _given(self, row: Row, shown: Mapping[str, Any], stored: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the row says by the form's fields: (column, value), and as the form reads it."""
        columns: dict[str, Any] = {}
        for column, value in row.values.items():
            if self.page.formed_by and column == exports.SETTINGS:
                self.taken.add(column)
                columns |= {
                    exports.SETTING + name: (f"{column}.{name}", one) for name, one in _settings(value, shown).items()
                }
            elif column in shown:
                self.taken.add(column)
                columns[column] = (column, value)
        raw, faults = {}, []
        for name, (column, value) in columns.items():
            try:
                raw[name] = self._raw(shown[name], _stored_as(self.page, name), value)
            except ValidationError as error:
                faults += [f"{column}: {text}" for text in error.messages]
        if faults:
            raise _Refused(*faults)
        return columns, raw

    def _raw(self, one: forms.Field, kept: Any, value: Any) -> Any:
        """Return a value as the form's field takes it; it may stand in the row as in an export or as one types it."""
        if isinstance(one, forms.ModelMultipleChoiceField | forms.MultipleChoiceField):
            names = _names(value)
            is_related = isinstance(one, forms.ModelMultipleChoiceField)
            return [self._key_of(one, name) for name in names] if is_related else names
        if isinstance(one, forms.ModelChoiceField):
            return "" if value in (None, "") else self._key_of(one, _spelled(value))
        if isinstance(one, forms.BooleanField):
            return _truth(value)
        if isinstance(kept, models.JSONField) and isinstance(value, str):
            value = _json_or_text(value)
        elif isinstance(kept, models.DurationField):
            value = _span_or_text(value)
        elif isinstance(kept, models.DateTimeField) and isinstance(value, str):
            value = _moment_or_text(value)
        if isinstance(value, datetime) and not one.widget.supports_microseconds:
            value = value.replace(microsecond=0)
        return _flat(one, value)

    def _key_of(self, one: Any, name: str) -> Any:
        """Return the key of what is related and goes by that name; a form tells what may be chosen."""
        model = one.queryset.model
        if (model, name) not in self.keys:
            found = one.queryset.filter(**{_named_by(model): name}).values_list("pk", flat=True)[:2]
            if len(found) != 1:
                what = model._meta.verbose_name
                few = f"Several are called {name[:SHOWN]!r}" if found else f"There is no {what} {name[:SHOWN]!r} here"
                raise ValidationError(f"{few}.")
            self.keys[model, name] = found[0]
        return self.keys[model, name]

    def _difference(self, name: str, given: tuple[str, Any], stored: Any, is_hidden: bool) -> Difference:
        column, value = given
        kept = _stored_as(self.page, name)
        if is_hidden or (kept is None and not name.startswith(exports.SETTING)):
            return Difference(column, "", "given anew, and not shown")
        if stored is None:
            return Difference(column, "", _spelled(value))
        if kept is None:
            before = getattr(stored, exports.SETTINGS).get(name.removeprefix(exports.SETTING), "")
        else:
            before = exports.values_of(self.page, stored, [name])[name]
        return Difference(column, _spelled(before), _spelled(value))


def _stored_as(page: Any, name: str) -> Any:
    """Return the model's field behind a field of the form, None if it has none."""
    try:
        return page.opts.get_field(name)
    except FieldDoesNotExist:
        return None


def _named_by(model: type[models.Model]) -> str:
    """Return the field that has the name by which an export writes what is related."""
    if model is get_user_model():
        return str(get_user_model().USERNAME_FIELD)
    page: Any = admin.site._registry.get(model)  # noqa: SLF001
    return getattr(page, "imported", "") or "name"


def _settings(value: Any, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in the one column that has them all; each must be one of the form's."""
    found = _json_or_text(value) if isinstance(value, str) and value.strip() else value or {}
    if not isinstance(found, dict):
        raise _Refused(f'{exports.SETTINGS}: this should be settings as JSON, such as {{"url": "https://…"}}.')
    known = [name.removeprefix(exports.SETTING) for name in shown if name.startswith(exports.SETTING)]
    if unknown := [name for name in found if name not in known]:
        raise _Refused(f"{exports.SETTINGS}: there is no setting {unknown[0][:SHOWN]!r}; there are {', '.join(known)}.")
    return found


def _flat(one: forms.Field, value: Any) -> Any:
    """Return a value as a browser would post it for the field: its parts where it has some, lists for choices."""
    value = one.prepare_value(value)
    if isinstance(one, forms.MultiValueField):
        return value if isinstance(value, list) else one.widget.decompress(value)
    if isinstance(one, forms.ModelMultipleChoiceField | forms.MultipleChoiceField):
        return list(value or ())
    if isinstance(value, list):
        return "\n".join(map(_spelled, value))
    if isinstance(value, dict):
        raise ValidationError("This should be a text or a number, not an object.")
    if value is None:
        return ""
    return value if isinstance(value, bool | datetime | clock_time) else str(value)


def _is_same(one: forms.Field, was: Any, now: Any) -> bool:
    """Tell whether both mean the same to the form."""
    return bool(was == now or _meaning(one, was) == _meaning(one, now))


def _meaning(one: forms.Field, raw: Any) -> Any:
    try:
        found = one.clean(raw)
    except ValidationError:
        return ("wrong", raw)
    match found:
        case str():
            return found.replace("\r\n", "\n")
        case models.Model():
            return found.pk
        case models.QuerySet():
            return set(found.values_list("pk", flat=True))
        case _:
            return found


def _names(value: Any) -> list[str]:
    """Return names that stand as a list, or as text: JSON, one a line, or with commas between them."""
    if isinstance(value, str):
        found = _json_or_text(value)
        value = found if isinstance(found, list) else value.splitlines() if "\n" in value else value.split(",")
    if not isinstance(value, list | None):
        raise ValidationError("This should be a list of names.")
    return [name for each in value or () if (name := _spelled(each).strip())]


def _truth(value: Any) -> bool:
    word = _spelled(value).strip().lower()
    if word not in YES | NO:
        raise ValidationError("This should be true or false.")
    return word in YES


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _span_or_text(value: Any) -> Any:
    """Spans are seconds in an export; what a person typed is the form's to judge."""
    try:
        return timedelta(seconds=float(value)) if value not in (None, "") else ""
    except (TypeError, ValueError, OverflowError):
        return value


def _moment_or_text(text: str) -> Any:
    try:
        return parse_datetime(text) or text
    except ValueError:
        return text


def _spelled(value: Any) -> str:
    """Return a value in a report, or where a text is wanted."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def _is_text(value: Any) -> bool:
    """Tell whether PostgreSQL can keep the texts in a value: no NUL, no half of a surrogate pair."""
    match value:
        case str():
            return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
        case list():
            return all(map(_is_text, value))
        case dict():
            return all(_is_text(name) and _is_text(one) for name, one in value.items())
        case _:
            return True


def _sentences(error: ValidationError) -> Iterator[str]:
    """Return what is wrong, the column before each."""
    if not hasattr(error, "error_dict"):
        yield from error.messages
        return
    for name, texts in error.message_dict.items():
        yield from (text if name == "__all__" else f"{name}: {text}" for text in texts)


def _faults(errors: Mapping[str, Any]) -> list[str]:
    """Return what a form refuses, by the columns of the file."""
    found = []
    for name, texts in errors.items():
        column = name.replace(exports.SETTING, f"{exports.SETTINGS}.", 1) if name.startswith(exports.SETTING) else name
        found += [text if name == "__all__" else f"{column}: {text}" for text in texts]
    return found
