"""Files of rows as people bring them: read as what they say, or refused as a whole with what is wrong."""

import codecs
import csv
import io
import json

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts import exports, imports
from apps.core.text import csv_cell, of_csv_cell

TEXTS = st.text("a é,;\t\r\n\"'=+-@[{", max_size=8)


@given(text=st.text(alphabet="'=+-@\t\r\nab", max_size=8))
def test_a_cell_that_was_defused_is_the_same_text_again(text):
    assert of_csv_cell(str(csv_cell(text))) == text


@given(rows=st.lists(st.tuples(TEXTS.filter(str.strip), TEXTS), min_size=1, max_size=5))
def test_what_the_export_writes_is_what_the_import_reads(rows):
    found = io.StringIO(newline="")
    write = exports.csv_writer(found, ["name", "text"])
    lines = [{"name": name, "text": text} for name, text in rows]
    for line in lines:
        write(line)
    assert [row.values for row in imports.read(found.getvalue().encode()).rows] == lines
    assert [row.values for row in imports.read("".join(exports.json_lines(lines)).encode()).rows] == lines


@pytest.mark.parametrize(
    "content",
    [
        b"name,zone\nOffice,UTC\n",
        b"name;zone\r\nOffice;UTC\r\n",
        b"name\tzone\nOffice\tUTC\n",
        codecs.BOM_UTF8 + b"name;zone\n\n;\nOffice;UTC",
        "name\tzone\nOffice\tUTC\n".encode("utf-16"),
        b'[{"name": "Office", "zone": "UTC"}]',
        codecs.BOM_UTF8 + b' \n[{"name": "Office", "zone": "UTC"}]',
    ],
    ids=["commas", "semicolons", "tabs", "mark and empty lines", "utf-16", "json", "json with mark"],
)
def test_tables_as_programs_save_them_are_read(content):
    table = imports.read(content)
    assert table.columns == ("name", "zone")
    assert [row.values for row in table.rows] == [{"name": "Office", "zone": "UTC"}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "This file is empty."),
        (b"\n ; \n", "This file is empty."),
        (b"name\n", "There is no row in this file."),
        (b"[]", "There is no row in this file."),
        ("name\nBüro\n".encode("latin-1"), "no text in UTF-8"),
        (codecs.BOM_UTF16_LE + b"a", "no text in UTF-8"),
        (b'name\n"Office\n', "This is no CSV"),
        (b"name\n" + b"x" * 200_000, "This is no CSV: field larger"),
        (b"name,name\na,b\n", "Two columns are called name"),
        (b"name,zone\nOffice,UTC,more\n", "Row 2 has 3 cells, the heading 2"),
        (b'{"name": "Office"}', "should be a list of objects"),
        (b'["Office"]', "should be a list of objects"),
        (b"[{", "This is no JSON"),
        (b'[{"name": NaN}]', "NaN is no number"),
        (b'[{"name": ' + b"9" * 5_000 + b"}]", "This is no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"name\n" + b"x\n" * (imports.MOST_ROWS + 1), "More than 5,000 rows"),
        (json.dumps([{f"c{n}": 1 for n in range(300)}]).encode(), "More than 200 columns"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_table_is_refused_with_what_is_wrong(content, sentence):
    with pytest.raises(ValidationError) as refused:
        imports.read(content)
    assert sentence in refused.value.messages[0]


def test_a_report_lists_what_is_refused_first_and_no_more_than_a_page_can_show():
    changes = [imports.Change(f"row {n}", "a", "new") for n in range(400)]
    report = imports.Report([*changes, imports.Change("row 500", "b", "refused"), imports.Change("", "c", "unchanged")])
    assert (len(report.shown), report.shown[0].action, report.more) == (300, "refused", 101)
    assert report.counts() == {"refused": 1, "new": 400, "unchanged": 1}
    assert report.blocked
    assert not imports.Report(changes).blocked
    assert imports.Report([imports.Change("", "c", "unchanged")]).blocked


def test_csv_has_a_bound_of_its_own():
    assert csv.field_size_limit() < 200_000
