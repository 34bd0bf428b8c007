"""What the house style says of names and shapes, checked where a reviewer would tire."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
from django.apps import apps

from apps.accounts.audit import VERBS
from apps.core.registry import Plugin

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "base", "misc", "managers", "mixins"}
CODE = sorted(path for top in ("apps", "monitoring_portal") for path in (ROOT / top).rglob("*.py"))
SERVICES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
    for pattern in ("*/services.py", "*/services/*.py")
    for path in (ROOT / "apps").glob(pattern)
)
"""Every module of verbs, dotted; a room with many has a package of them."""

NO_VERBS = {
    "metrics.ingest": "measurements, not decisions: an entry a request would drown the trail",
    "alerting.resolve_all": "a part of the verbs that resolve, which leave the entries",
    "metrics.ingest_deltas": "as ingest",
    "metrics.ingest_placed": "as ingest",
    "metrics.record_events": "as ingest",
    "metrics.store_past": "a part of an import, whose begin and end are entries",
    "alerting.send_to": "hands on to verbs of the rooms above",
}
"""Functions of services that take `by` and leave no entry, nor call what does, each with its reason."""


def source_of(module: str) -> str:
    return (ROOT / f"{module.replace('.', '/')}.py").read_text()


def public_functions(module: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(source_of(module))
    return {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}


GIVEN = {ROOT / "monitoring_portal/postgresql/base.py"}
"""Names that a framework asks for: Django looks for a database backend in its module `base`."""


def test_no_module_has_a_name_that_means_nothing():
    assert {path for path in CODE if path.stem in FORBIDDEN or path.parent.name in FORBIDDEN} == GIVEN


@pytest.mark.parametrize("path", [p for p in CODE if p.name != "__init__.py" and "migrations" not in p.parts], ids=str)
def test_a_module_says_in_a_sentence_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def calls(function: ast.FunctionDef) -> set[str]:
    """Return the names of what a function calls."""
    found = {call.func for call in ast.walk(function) if isinstance(call, ast.Call)}
    return {f.id if isinstance(f, ast.Name) else f.attr for f in found if isinstance(f, (ast.Name, ast.Attribute))}


@pytest.mark.parametrize("module", SERVICES)
def test_what_takes_by_is_an_audited_verb_or_calls_one(module):
    importlib.import_module(module.removesuffix(".__init__"))
    verbs = {(verb.call.__module__, verb.call.__name__) for verb in VERBS.values()}
    writers = {name for _, name in verbs} | {"record"}
    for name, function in public_functions(module).items():
        arguments = [*function.args.args, *function.args.kwonlyargs]
        acts = any(a.arg == "by" and a.annotation and ast.unparse(a.annotation) == "Principal" for a in arguments)
        if not acts or (module, name) in verbs or writers & calls(function):
            continue
        assert f"{module.split('.')[1]}.{name}" in NO_VERBS, f"{module}.{name} leaves no entry: make it a verb"


def test_the_exceptions_exist():
    for name in NO_VERBS:
        room, function = name.split(".")
        assert any(function in public_functions(module) for module in SERVICES if module.startswith(f"apps.{room}."))


@pytest.mark.parametrize("module", SERVICES)
def test_services_never_read_the_clock(module):
    assert not re.search(r"timezone\.now\(|datetime\.now\(|time\.time\(", source_of(module))


def fields_of_kinds():
    return [
        field
        for model in apps.get_models()
        if model.__module__.startswith("apps.")
        for field in model._meta.local_fields
        if field.choices and field.name == "kind"
    ]


@pytest.mark.parametrize("field", fields_of_kinds(), ids=str)
def test_kinds_are_functions_so_that_a_new_plugin_needs_no_migration(field):
    assert callable(field.deconstruct()[3].get("choices")), f"{field}: name a module-level function as its choices"


def plugins() -> list[type[Plugin]]:
    for package in ("apps.metrics.collectors", "apps.notifications.channels", "apps.oncall.steps"):
        folder = ROOT / package.replace(".", "/")
        for path in sorted(folder.glob("*.py")):
            importlib.import_module(package if path.stem == "__init__" else f"{package}.{path.stem}")

    def below(kind: type[Plugin]) -> list[type[Plugin]]:
        return [c for child in kind.__subclasses__() for c in [child, *below(child)]]

    return sorted(
        {c for c in below(Plugin) if c.kind and not inspect.isabstract(c) and c.__module__.startswith("apps.")},
        key=lambda c: (c.__module__, c.kind),
    )


@pytest.mark.parametrize("plugin", plugins(), ids=lambda plugin: f"{plugin.__module__}:{plugin.kind}")
def test_a_plugin_stands_alone_in_a_file_with_a_test(plugin):
    mine = [other for other in plugins() if other.__module__ == plugin.__module__]
    assert mine == [plugin], "one plug-in, one file"
    _, room, _, module = plugin.__module__.split(".")
    tests = (ROOT / "tests" / room).rglob("test_*.py")
    assert any(path.stem == f"test_{module}" or _mentions(path, plugin, module) for path in tests), (
        f"No test under tests/{room} names the plug-in {plugin.kind}"
    )


def _mentions(path: Path, plugin: type[Plugin], module: str) -> bool:
    text = path.read_text()
    return (
        bool(re.search(rf"\b(import {module}\b|{plugin.__name__}\b|\.{module}\b)", text)) or f'"{plugin.kind}"' in text
    )


@pytest.mark.parametrize("plugin", plugins(), ids=lambda plugin: f"{plugin.__module__}:{plugin.kind}")
def test_a_plugin_has_a_row_in_the_docs(plugin):
    pages = "\n".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    assert re.search(rf"`{re.escape(plugin.kind)}`", pages), f"docs/ never names `{plugin.kind}`"


def test_docs_keep_the_pictures_that_they_show_and_no_other():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {name for page in pages for name in re.findall(r"screenshots/([\w-]+\.png)", page.read_text())}
    assert {path.name for path in (ROOT / "docs/screenshots").iterdir()} == shown
