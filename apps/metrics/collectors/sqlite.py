"""SQLite files of applications on this machine: their size, free pages and write-ahead log, without opening them.

What is read is the header of the file (https://www.sqlite.org/fileformat.html, 1.3), so no lock is taken and no
application waits. What applications ask of SQLite they tell themselves (docs/how-to/django.md).
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from django import forms
from django.core.exceptions import ValidationError

from apps.core.telemetry import Reading
from apps.metrics.collectors import OWN, Collector, NoData

MAGIC = b"SQLite format 3\0"
HEADER = 100
MOST = 50


class Files(forms.CharField):
    """Absolute paths, one in a line."""

    def clean(self, value: object) -> str:
        paths = str(super().clean(value)).split("\n")
        found = [path.strip() for path in paths if path.strip()]
        if len(found) > MOST:
            raise ValidationError(f"Name {MOST} files at most.")
        for path in found:
            if not path.startswith("/") or "\0" in path:
                raise ValidationError(f"{path[:100]} is no absolute path.")
        return "\n".join(dict.fromkeys(found))


class SQLite(Collector):
    """Gauges by file; one that is gone or is no database is down, and the others go on."""

    kind = "sqlite"
    label = "SQLite files"
    job = OWN
    every = timedelta(seconds=60)

    class Config(forms.Form):
        paths = Files(
            required=False,
            initial="",
            widget=forms.Textarea(attrs={"rows": 3}),
            help_text="Databases on this machine, one absolute path in a line.",
        )

    def collect(self) -> Iterator[Reading]:
        files = str(self.config.get("paths") or "").split("\n")
        if files == [""]:
            raise NoData("No file is named in the settings of this collector.")
        for path in files:
            yield from measured(Path(path))


def measured(path: Path) -> Iterator[Reading]:
    """What one file says."""
    labels = {"file": str(path)}
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            found = parse(file.read(HEADER), size)
    except OSError:
        found = None
    yield Reading(
        "sqlite_up", float(found is not None), labels, help="Whether the file is a database that can be read."
    )
    if found is None:
        return
    log = path.with_name(path.name + "-wal")
    values = {
        "sqlite_file_bytes": (size, "Bytes of the database's file."),
        "sqlite_wal_bytes": (log.stat().st_size if log.exists() else 0, "Bytes of its write-ahead log."),
        "sqlite_page_bytes": (found[0], "Bytes of a page."),
        "sqlite_pages": (found[1], "Pages of the file."),
        "sqlite_free_pages": (found[2], "Pages that hold nothing; VACUUM gives them back."),
    }
    for name, (value, help_text) in values.items():
        yield Reading(name, float(value), labels, help=help_text)


def parse(header: bytes, size: int) -> tuple[int, int, int] | None:
    """Return (bytes of a page, pages, free pages) of the header of a file of so many bytes; None if it is no database.

    >>> parse(b"hello", 5) is None
    True
    """
    if size == 0:
        return 0, 0, 0  # nothing was written yet
    if len(header) < HEADER or not header.startswith(MAGIC):
        return None
    page = int.from_bytes(header[16:18], "big")
    page = 65_536 if page == 1 else page
    if page < 512 or page & (page - 1):
        return None
    # Old versions leave the number of pages at another version of the file: then its size tells it.
    is_known = header[24:28] == header[92:96] and header[28:32] != bytes(4)
    pages = int.from_bytes(header[28:32], "big") if is_known else size // page
    return page, pages, int.from_bytes(header[36:40], "big")
