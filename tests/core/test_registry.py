"""Plug-ins are found by being there."""

import importlib
import sys
import textwrap

import pytest

from apps.core.registry import Plugin, Registry, UnknownKind, extend, extensions


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "plugs"
    root.mkdir()
    (root / "__init__.py").write_text("from apps.core.registry import Plugin\nclass Plug(Plugin): pass\n")
    for name in ("beta", "alpha"):
        (root / f"{name}.py").write_text(
            textwrap.dedent(f"""
            from plugs import Plug
            class {name.title()}(Plug):
                kind = "{name}"
                label = "{name.title()}!"
            """)
        )
    monkeypatch.syspath_prepend(tmp_path)
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] == "plugs"]:
        del sys.modules[name]


def test_every_file_of_the_package_is_a_plug_in(package):
    plugs = importlib.import_module("plugs")

    assert Registry("plugs", plugs.Plug).kinds() == [("alpha", "Alpha!"), ("beta", "Beta!")]


def test_an_unknown_kind_names_the_known_ones(package):
    plugs = importlib.import_module("plugs")

    with pytest.raises(UnknownKind, match="known: alpha, beta"):
        Registry("plugs", plugs.Plug).get("gamma")


def test_two_plug_ins_of_one_kind_are_an_error(package):
    plugs = importlib.import_module("plugs")

    (package / "copy.py").write_text("from plugs import Plug\nclass Copy(Plug):\n    kind = 'alpha'\n")
    with pytest.raises(RuntimeError, match="both call themselves 'alpha'"):
        Registry("plugs", plugs.Plug).all()


def test_an_upper_room_extends_a_lower_rooms_model_once():
    class Model:
        pass

    extend(Model, "inlines", Plugin)
    extend(Model, "inlines", Plugin)
    assert extensions(Model, "inlines") == [Plugin]
