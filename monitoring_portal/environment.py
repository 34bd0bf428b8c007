"""Reads the environment: typed, from variables, `*_FILE` files or `.env`; wrong values become numbered checks.

A wrong value never stops the import of the settings: the default is used and the problem is kept, so that
`manage.py check` and the start of the portal can name the variable instead of showing a stack trace.
"""

import ipaddress
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import environ

T = TypeVar("T")

PROBLEMS: list[tuple[str, str]] = []
"""(variable, sentence) for each variable whose value could not be used."""

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


def load_file(path: Path) -> None:
    """Add what stands in a `.env` file; real variables win."""
    if path.is_file():
        environ.Env.read_env(str(path), overwrite=False)


def raw(name: str) -> str | None:
    """Return the variable, or the stripped content of the file that `NAME_FILE` names, or None."""
    if (value := os.environ.get(name)) is not None:
        return value
    if (file := os.environ.get(f"{name}_FILE")) is None:
        return None
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        PROBLEMS.append((f"{name}_FILE", f"{name}_FILE names a file that cannot be read: {error}."))
        return None


def read(name: str, default: T, convert: Callable[[str], T], expected: str) -> T:
    """Return the converted variable, or the default where it is unset or wrong (then a problem is kept)."""
    value = raw(name)
    if value is None:
        return default
    try:
        return convert(value.strip())
    except ValueError:
        shown = value if len(value) <= 40 else value[:40] + "…"
        PROBLEMS.append((name, f"{name} is {shown!r}, but must be {expected}; {default!r} is used instead."))
        return default


def _boolean(value: str) -> bool:
    if value.lower() in TRUE:
        return True
    if value.lower() in FALSE:
        return False
    raise ValueError(value)


def _url(schemes: tuple[str, ...]) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value and not value.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(value)
        return value

    return convert


def text(name: str, default: str = "") -> str:
    return read(name, default, str, "text")


def boolean(name: str, default: bool) -> bool:
    return read(name, default, _boolean, "true or false")


def integer(name: str, default: int, least: int, most: int) -> int:
    def convert(value: str) -> int:
        number = int(value)
        if not least <= number <= most:
            raise ValueError(value)
        return number

    return read(name, default, convert, f"a whole number from {least} to {most}")


def choice(name: str, default: str, *words: str) -> str:
    def convert(value: str) -> str:
        if value.upper() not in words:
            raise ValueError(value)
        return value.upper()

    return read(name, default, convert, f"one of {', '.join(words)}")


def url(name: str, default: str, *schemes: str) -> str:
    return read(name, default, _url(schemes), " or ".join(f"{scheme}://…" for scheme in schemes))


def listing(name: str, default: list[str]) -> list[str]:
    return read(
        name, default, lambda v: [part.strip() for part in v.split(",") if part.strip()], "a comma-separated list"
    )


def prefixed(prefix: str) -> dict[str, str]:
    """Return every variable that begins so, by the rest of its name; `*_FILE` names a file as everywhere."""
    names = {name.removesuffix("_FILE") for name in os.environ if name.startswith(prefix)}
    return {name.removeprefix(prefix): value.strip() for name in sorted(names) if (value := raw(name)) is not None}


def networks(name: str) -> list[str]:
    """Return a list of host names and networks in CIDR notation."""

    def convert(value: str) -> list[str]:
        parts = [part.strip() for part in value.split(",") if part.strip()]
        for part in parts:
            if "/" in part or ":" in part or part.replace(".", "").isdigit():
                ipaddress.ip_network(part, strict=False)
        return parts

    return read(name, [], convert, "a comma-separated list of host names and networks such as 10.0.0.0/8")


def address(name: str) -> str:
    """Return `host:port`, or an empty text."""

    def convert(value: str) -> str:
        host, colon, port = value.rpartition(":")
        if value and not (colon and host and port.isdigit() and 0 < int(port) < 65_536):
            raise ValueError(value)
        return value

    return read(name, "", convert, "host:port, such as 127.0.0.1:8125")


def secret_key(data: Path) -> str:
    """Return SECRET_KEY, or the one kept in the data folder (made once, readable by its owner only)."""
    if given := raw("SECRET_KEY"):
        return given
    path = data / "secret-key"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    except OSError as error:
        PROBLEMS.append(("PORTAL_DATA", f"The secret key in {data} cannot be read: {error.strerror}."))
    fresh = secrets.token_urlsafe(50)
    mine = data / f"secret-key.{os.getpid()}"
    try:
        data.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(fresh)
        # A link appears whole or not at all: another process at its first start never reads half a key.
        try:
            path.hardlink_to(mine)
        finally:
            mine.unlink()
    except FileExistsError:
        return path.read_text().strip()
    except OSError as error:
        PROBLEMS.append(
            ("PORTAL_DATA", f"The data folder {data} cannot be written: {error.strerror}. Choose another PORTAL_DATA.")
        )
    return fresh


def version(changelog: Path) -> str:
    """Return the newest version that the changelog names."""
    for line in changelog.read_text().splitlines():
        if line.startswith("## ") and line[3:4].isdigit():
            return line[3:].split()[0]
    return "0"
