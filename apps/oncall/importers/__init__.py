"""Importers: configurations of other products, one file each, read into a blueprint. Pure: bytes in, a value out.

The files are strangers' input: of bounded size, depth and number, and nothing in them is executed or unfolded.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar, Final

import orjson

from apps.core.documents import document
from apps.core.registry import Plugin, Registry
from apps.oncall.blueprint import Blueprint

LARGEST: Final = 4 * 2**20
"""Bytes of an upload."""
UNPACKED: Final = 20 * 2**20
"""Bytes of all files of an archive together."""
MOST_FILES: Final = 5_000
MOST: Final = 2_000
"""Objects of one kind in one import."""

Document = Mapping[str, Any]


class ImportFileError(ValueError):
    """A file that cannot be read as what it should be; the text says where and why."""


class Importer(Plugin):
    """Reads the configuration of one product."""

    file: ClassVar[str] = ""
    """What is uploaded, for people."""

    def read(self, content: bytes) -> Blueprint:
        """Return what the file asks for; ImportFileError where it is no such file."""
        raise NotImplementedError


importers: Registry[Importer] = Registry("apps.oncall.importers", Importer)


def kinds() -> list[tuple[str, str]]:
    """Return (kind, label) of every importer."""
    return importers.kinds()


def bounded(content: bytes) -> bytes:
    """Return the upload unless it is too large."""
    if len(content) > LARGEST:
        raise ImportFileError(f"{len(content):,} bytes are more than the limit of {LARGEST:,}.")
    return content


def documents(content: bytes, names: Sequence[str]) -> dict[str, list[Document]]:
    """Read JSON objects by the kind of thing that they are.

    Either one JSON object whose keys are `names`, or a ZIP in which the name of a file or of its folder is one of them.
    A list may be wrapped as APIs answer it: {"results": […]}, {"data": […]}. Other keys and files are passed over.
    """
    bounded(content)
    found: dict[str, list[Document]] = {name: [] for name in names}
    if content[:2] == b"PK":
        for path, data in _files(content):
            parts = [part.lower() for part in PurePosixPath(path).with_suffix("").parts]
            name = next((part for part in reversed(parts) if part in found), None)
            if name is not None:
                found[name] += _rows(_json(data, path), path)
    else:
        whole = _json(content, "The file")
        if not isinstance(whole, dict):
            raise ImportFileError(f"The file must be one JSON object with some of {', '.join(names)}.")
        for name in names:
            found[name] = _rows(whole[name], name) if name in whole else []
    if not any(found.values()):
        raise ImportFileError(f"Nothing is in it that is known here: it should hold some of {', '.join(names)}.")
    for name, rows in found.items():
        if len(rows) > MOST:
            raise ImportFileError(f"{len(rows)} {name} are more than the limit of {MOST}.")
    return found


def _files(content: bytes) -> list[tuple[str, bytes]]:
    """Unpack JSON files, as many and as large as the bounds allow, whatever the archive says of itself."""
    left, found = UNPACKED, []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".json")]
            if len(entries) > MOST_FILES:
                raise ImportFileError(f"{len(entries)} files are more than the limit of {MOST_FILES}.")
            for entry in entries:
                with archive.open(entry) as file:
                    data = file.read(left + 1)
                left -= len(data)
                if left < 0:
                    raise ImportFileError(f"Unpacked, it is more than the limit of {UNPACKED:,} bytes.")
                found.append((entry.filename, data))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise ImportFileError(f"The ZIP cannot be unpacked: {str(error)[:200]}.") from None
    return found


def _json(data: bytes, where: str) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ImportFileError(f"{where[:200]} is no JSON: {str(error)[:200]}.") from None


def _rows(value: Any, where: str) -> list[Document]:
    for wrapping in ("results", "data"):
        if isinstance(value, dict) and wrapping in value:
            value = value[wrapping]
    rows = value if isinstance(value, list) else [value]
    if not all(isinstance(row, dict) for row in rows):
        raise ImportFileError(f"{where[:200]} must hold JSON objects.")
    return rows


def text(row: Any, *path: str) -> str:
    """Return the text, or number as text, at that place; "" where there is none."""
    for name in path:
        row = row.get(name) if isinstance(row, dict) else None
    return str(row).strip().replace("\x00", "") if isinstance(row, str | int | float) and row is not True else ""


def listed(row: Any, *path: str) -> list[Any]:
    """Return the list at that place; empty where there is none."""
    for name in path:
        row = row.get(name) if isinstance(row, dict) else None
    return row if isinstance(row, list) else []


def number(row: Any, *path: str) -> float | None:
    """Return the number at that place, in bounds in which it can be a time or a count; None where there is none."""
    found = text(row, *path)
    try:
        value = float(found)
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None


def unique(name: str, taken: set[str], most: int = 100) -> str:
    """Return the name, cut and counted on where another has it already, and take it."""
    base = " ".join(name.split()) or "unnamed"
    found, count = base[:most], 2
    while found in taken:
        tail = f" {count}"
        found, count = base[: most - len(tail)] + tail, count + 1
    taken.add(found)
    return found


@document("importers.md", "Importers")
def describe() -> str:
    """Return the table of importers for the docs."""
    rows = ["| kind | product | file |", "|---|---|---|"]
    rows += [f"| `{kind}` | {one.label} | {one.file} |" for kind, one in importers.all().items()]
    return "\n".join(rows)
