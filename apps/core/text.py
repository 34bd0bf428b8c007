"""Texts from outside, made fit to be kept."""


def storable(text: str) -> str:
    """Return the text as PostgreSQL can keep it: without NUL and without halves of surrogate pairs."""
    return text.replace("\x00", "").encode(errors="replace").decode()


def csv_cell(value: object) -> object:
    """Return a text that a spreadsheet does not take for a formula; what is no text stays."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
