"""Plug-ins by file: a class in a package is found by being there, and lower rooms can be extended from above.

A plug-in is a concrete subclass of its room's contract with a non-empty `kind`. The registry imports every
module of the package on first use, so adding a plug-in touches its file and nothing else.
"""

import importlib
import pkgutil
import threading
from collections import defaultdict
from typing import Any, ClassVar, Generic, TypeVar

from django import forms


class Plugin:
    """Shared shape of every plug-in: a stable `kind`, a label for people and a form that describes its settings."""

    kind: ClassVar[str] = ""
    label: ClassVar[str] = ""

    class Config(forms.Form):
        """No settings, unless the plug-in says so."""


P = TypeVar("P", bound=Plugin)


class UnknownKind(LookupError):
    """A stored or requested plug-in kind that no file provides."""


class Registry(Generic[P]):
    """The plug-ins of one package, keyed by `kind`.

    `package` is a dotted name; `contract` the class that every plug-in subclasses.
    """

    def __init__(self, package: str, contract: type[P]) -> None:
        self.package = package
        self.contract = contract
        self._found: dict[str, type[P]] = {}
        self._loaded = False
        self._lock = threading.Lock()

    def all(self) -> dict[str, type[P]]:
        """Return every plug-in by kind, in alphabetical order."""
        with self._lock:
            if not self._loaded:
                package = importlib.import_module(self.package)
                for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
                    self._collect(importlib.import_module(f"{self.package}.{module.name}"))
                self._found = dict(sorted(self._found.items()))
                self._loaded = True
        return self._found

    def _collect(self, module: Any) -> None:
        for thing in vars(module).values():
            if not (isinstance(thing, type) and issubclass(thing, self.contract)):
                continue
            if not thing.kind or thing.__module__ != module.__name__:
                continue
            if (other := self._found.get(thing.kind)) is not None and other is not thing:
                raise RuntimeError(f"{thing.__module__} and {other.__module__} both call themselves {thing.kind!r}")
            self._found[thing.kind] = thing

    def get(self, kind: str) -> type[P]:
        """Return the plug-in of that kind; `UnknownKind` names the known ones."""
        try:
            return self.all()[kind]
        except KeyError:
            known = ", ".join(self.all()) or "none"
            raise UnknownKind(f"No plug-in of kind {kind!r} in {self.package}; known: {known}.") from None

    def kinds(self) -> list[tuple[str, str]]:
        """Return (kind, label) pairs. Model choices wrap this in a module-level function (else each one migrates)."""
        return [(kind, plugin.label) for kind, plugin in self.all().items()]


_extensions: dict[tuple[type, str], list[Any]] = defaultdict(list)


def extend(model: type, part: str, thing: Any) -> None:
    """Add `thing` (say an admin inline) to the `part` of a lower room's model, so that nobody imports upwards."""
    if thing not in _extensions[model, part]:
        _extensions[model, part].append(thing)


def extensions(model: type, part: str) -> list[Any]:
    """Return what upper rooms added to that part of the model, in order of their start."""
    return list(_extensions[model, part])
