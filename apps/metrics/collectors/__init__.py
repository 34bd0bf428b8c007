"""The contract of collectors: one file each reads one thing of this machine or of the portal's own servers.

A collector reads (`collect`) and parses (functions of captured text or rows) in two steps; when it runs, how long it
may take, what its failure means and how readings are written is the runner's business (`apps.metrics.collection`).
"""

import errno
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

from apps.core.registry import Plugin, Registry
from apps.core.telemetry import Reading

HOST: Final = "node"
"""The job under which node_exporter is scraped by custom, so that public rules and dashboards find these series."""
OWN: Final = "portal"
"""The job of what the portal measures about its own servers."""
PROC: Final = Path("/proc")
SYS: Final = Path("/sys")


class NoData(Exception):
    """There is nothing to measure here (no such hardware, kernel feature or server): not a failure."""


class Collector(Plugin, ABC):
    """Measures one thing. An instance lives as long as its worker process and is called by one thread at a time."""

    every: ClassVar[timedelta] = timedelta(seconds=15)
    job: ClassVar[str] = HOST
    deadline: ClassVar[float] = 5.0
    """Seconds after which the runner goes on without it and calls the round failed."""
    platforms: ClassVar[tuple[str, ...]] = ("linux", "darwin")
    """Values of `sys.platform` on which it can run."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        """`config`: the cleaned values of its `Config` form."""
        self.config: Mapping[str, Any] = config or {}

    @classmethod
    def is_supported(cls) -> bool:
        """Whether this platform has what it reads."""
        return sys.platform in cls.platforms

    @abstractmethod
    def collect(self) -> Iterable[Reading]:
        """Measure now. Raises `NoData` where there is nothing, anything else where measuring failed."""

    def close(self) -> None:
        """Let go of what is kept between rounds."""


def read(path: Path) -> str:
    """Return the text of a file of /proc or /sys; `NoData` where this kernel has none."""
    try:
        return path.read_text(errors="surrogateescape").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except FileNotFoundError:
        raise NoData(f"{path} does not exist on this kernel.") from None
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENODATA, errno.ENODEV}:
            raise NoData(f"The kernel has {path} switched off ({error.strerror}).") from None
        raise


def as_number(text: str) -> float | None:
    """Return the number in `text`, or None: columns of /proc hold words and dashes at times."""
    try:
        return float(text)
    except ValueError:
        return None


def cleaned(kind: type[Collector], config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings as the collector's form cleans them; what is missing has the form's initial value."""
    fields = kind.Config.base_fields
    form = kind.Config({name: config.get(name, field.initial) for name, field in fields.items()})
    if not form.is_valid():
        wrong = "; ".join(f"{name}: {' '.join(map(str, errors))}" for name, errors in form.errors.items())
        raise ValueError(f"The settings do not fit ({wrong}).")
    return form.cleaned_data


COLLECTORS: Final = Registry("apps.metrics.collectors", Collector)  # type: ignore[type-abstract]
