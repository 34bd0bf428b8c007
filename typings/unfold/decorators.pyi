from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from unfold.enums import ActionVariant

_F = TypeVar("_F", bound=Callable[..., Any])

def action(
    function: Any = None,
    *,
    permissions: Iterable[str] | None = None,
    description: str | None = None,
    url_path: str | None = None,
    attrs: Mapping[str, Any] | None = None,
    icon: str | None = None,
    variant: ActionVariant | None = ...,
    dialog: Any = None,
) -> Callable[[_F], _F]: ...
def display(
    function: Any = None,
    *,
    boolean: bool | None = None,
    image: bool | None = None,
    ordering: Any = None,
    description: str | None = None,
    empty_value: str | None = None,
    dropdown: bool | None = None,
    label: bool | str | Mapping[str, str] | None = None,
    header: bool | None = None,
) -> Callable[[_F], _F]: ...
