"""Texts from outside, made fit to be kept or to stand in something else."""

import re
from typing import Final

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_META: Final = re.compile(r"[.+*?()|\[\]{}^$\\]")


def storable(text: str) -> str:
    """Return the text as PostgreSQL can keep it: without NUL and without halves of surrogate pairs."""
    return text.replace("\x00", "").encode(errors="replace").decode()


def csv_cell(value: object) -> object:
    """Return a text that a spreadsheet does not take for a formula; what is no text stays.

    >>> csv_cell("=1+1"), csv_cell("'=1+1"), csv_cell("'tis"), csv_cell(-1)
    ("'=1+1", "''=1+1", "'tis", -1)
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def of_csv_cell(text: str) -> str:
    """Return the text that `csv_cell` was given."""
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def exactly(text: str) -> str:
    """Return a regular expression (RE2) that matches this text and no other."""
    return _META.sub(lambda found: "\\" + found[0], text)
