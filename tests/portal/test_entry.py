"""The entry `./portal`: what it makes of its arguments and of what its installers say."""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType

import pytest

from monitoring_portal.testing import ROOT

UNTRUSTED = "Could not fetch URL https://pypi.org/simple/uv/: There was a problem confirming the ssl certificate"


@pytest.fixture(scope="module")
def entry() -> ModuleType:
    loader = SourceFileLoader("portal_entry", str(ROOT / "portal"))
    spec = spec_from_loader("portal_entry", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def no_traces_beside_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.parametrize("words", ["", "-q", "-m slow", "-q -x --maxfail 2", "tests/core", "-p no:randomly"])
def test_many_tests_run_side_by_side(entry: ModuleType, words: str) -> None:
    assert entry.side_by_side(words.split()) == ["--numprocesses", "auto"]


@pytest.mark.parametrize(
    "words",
    [
        "-n 4",
        "-n4",
        "--numprocesses=3",
        "--dist no",
        "-p no:xdist",
        "--pdb",
        "--collect-only",
        "-k names",
        "tests/core/test_http.py",
        "-q tests/core/test_http.py::test_that",
    ],
)
def test_few_tests_run_alone_and_a_choice_is_the_callers(entry: ModuleType, words: str) -> None:
    assert entry.side_by_side(words.split()) == []


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("a\n\nb\n", "b"),
        ("b\nhint: buy a newer one", "b"),
        ("", "it said nothing"),
        (f"WARNING: Retrying\n{UNTRUSTED}\nERROR: No matching distribution found for uv==1\n", UNTRUSTED),
    ],
)
def test_the_line_that_explains_a_failure_is_told(entry: ModuleType, said: str, line: str) -> None:
    assert entry.telling_line(said) == line


def test_a_program_that_explains_itself_on_its_output_is_heard(
    entry: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(entry.Refused, match=r"It failed \(the reason\)"):
        entry.must([sys.executable, "-c", "print('the reason'); raise SystemExit(1)"], {}, "It failed")
