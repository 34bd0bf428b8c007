"""Documents that come from the code: a room registers a file name, a title and a function that renders it."""

from collections.abc import Callable

DOCUMENTS: dict[str, tuple[str, Callable[[], str]]] = {}


def document(name: str, title: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Register the function whose text becomes docs/generated/`name`, under a heading and a note of its origin."""

    def register(body: Callable[[], str]) -> Callable[[], str]:
        def render() -> str:
            return (
                f"# {title}\n\n_Written by `./portal manage docs`; edit the code, not this file._\n\n{body().strip()}\n"
            )

        DOCUMENTS[name] = (title, render)
        return body

    return register
