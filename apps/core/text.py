"""Texts from outside, made fit to be kept."""


def storable(text: str) -> str:
    """Return the text as PostgreSQL can keep it: without NUL and without halves of surrogate pairs."""
    return text.replace("\x00", "").encode(errors="replace").decode()
