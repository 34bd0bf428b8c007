"""What changed between two states of a part of a page, so that only that is sent. Pure; `patched` of live.js undoes it.

A list of objects is written as positions of the former list and what is new: [{…}, 0, 1]. Of an object only the fields
that changed are written, lists of objects in them likewise.
"""

from typing import Any, Final


class Whole:
    """The type of WHOLE."""


WHOLE: Final = Whole()
"""The two have too little in common: the new state has to be sent as it is."""


def change(old: Any, new: Any) -> Any:
    """Return what turns `old` into `new`, or WHOLE. Both are plain JSON values."""
    if isinstance(old, list) and isinstance(new, list):
        return _positions(old, new) if _are_objects(old) and _are_objects(new) else WHOLE
    if not isinstance(old, dict) or not isinstance(new, dict) or old.keys() - new.keys():
        return WHOLE
    found = {}
    for name, value in new.items():
        before = old.get(name)
        if name in old and before == value:
            continue
        if isinstance(before, list) and _are_objects(before):
            if not isinstance(value, list) or not _are_objects(value):
                return WHOLE
            found[name] = _positions(before, value)
        else:
            found[name] = value
    return found


def _are_objects(rows: list[Any]) -> bool:
    return all(isinstance(row, dict) for row in rows)


def _positions(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[Any]:
    """Each row's place in the old list, or the row where it is not in there."""
    found: list[Any] = []
    for row in new:
        try:
            found.append(old.index(row))
        except ValueError:
            found.append(row)
    return found
