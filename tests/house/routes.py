"""Every address that the portal answers, as (route, methods, view), read from the URL configuration itself."""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver

NOT_THERE = {
    "slug": "not-there",
    "int": "999999999",
    "str": "999999999",
    "path": "999999999",
    "uuid": str(uuid.UUID(int=0)),
}


@dataclass(frozen=True)
class Route:
    """One address: its pattern, the methods it handles where that is knowable, and whether it is API or admin."""

    pattern: str
    methods: tuple[str, ...]
    view: Any

    @property
    def url(self) -> str:
        """An address of this pattern that names objects which do not exist."""
        text = re.sub(r"<(?:(\w+):)?\w+>", lambda m: NOT_THERE[m[1] or "str"], self.pattern)
        text = re.sub(r"\(\?P<\w+>[^)]*\)", "999999999", text)
        return "/" + text.replace("^", "").replace("\\Z", "").replace("$", "").replace("/?", "/").replace("\\", "")

    @property
    def is_api(self) -> bool:
        return self.pattern.startswith("api/")

    @property
    def is_admin(self) -> bool:
        return self.pattern.startswith("admin/")


def methods_of(view: Any) -> tuple[str, ...]:
    """Return the methods of an API view; those of a plain function cannot be known."""
    if actions := getattr(view, "actions", None):
        return tuple(sorted(method.upper() for method in actions if method != "head"))
    if (kind := getattr(view, "cls", None)) is not None:
        names = kind.http_method_names
        return tuple(sorted(n.upper() for n in names if n not in ("head", "options") and hasattr(kind, n)))
    return ()


def walk(patterns: Any = None, prefix: str = "") -> Iterator[Route]:
    """Yield every route of the URL configuration."""
    for entry in get_resolver().url_patterns if patterns is None else patterns:
        here = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from walk(entry.url_patterns, here)
        elif isinstance(entry, URLPattern):
            yield Route(here, methods_of(entry.callback), entry.callback)
