"""Everything that registers itself is imported, and nothing is remembered from the test before."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.cache import cache

from apps.accounts import permissions

ROOT = Path(__file__).resolve().parents[2]
for _path in sorted([*(ROOT / "apps").glob("*/services.py"), *(ROOT / "apps").glob("*/services/*.py")]):
    importlib.import_module(str(_path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__"))


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    permissions.forget_tokens()
    cache.clear()
    yield
    permissions.forget_tokens()
