"""Texts from outside, made fit to be kept or to stand in something else."""

import re
from typing import Final

_META: Final = re.compile(r"[.+*?()|\[\]{}^$\\]")


def storable(text: str) -> str:
    """Return the text as PostgreSQL can keep it: without NUL and without halves of surrogate pairs."""
    return text.replace("\x00", "").encode(errors="replace").decode()


def csv_cell(value: object) -> object:
    """Return a text that a spreadsheet does not take for a formula; what is no text stays."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def exactly(text: str) -> str:
    """Return a regular expression (RE2) that matches this text and no other."""
    return _META.sub(lambda found: "\\" + found[0], text)
