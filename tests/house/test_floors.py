"""Relations between tables obey the floors, which the import linter cannot see: a ForeignKey's target is a string."""

import tomllib
from pathlib import Path

import pytest
from django.apps import apps
from django.db import models

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {"auth", "contenttypes", "sessions", "admin"}


def floors() -> dict[str, int]:
    """Return each room's floor, 0 at the bottom, from the same list that the import linter checks."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return {
        room.strip(): floor
        for floor, layer in enumerate(reversed(layers))
        for room in layer.replace(":", "|").split("|")
    }


def rooms_models() -> list[type[models.Model]]:
    return [model for model in apps.get_models() if model.__module__.startswith("apps.")]


@pytest.mark.parametrize("model", rooms_models(), ids=lambda model: model._meta.label)
def test_a_model_points_into_its_own_room_or_down(model):
    known, here = floors(), model._meta.app_label
    for field in [*model._meta.local_fields, *model._meta.local_many_to_many]:
        if field.remote_field is None:
            continue
        there = field.remote_field.model._meta.app_label
        assert there in OUTSIDE or there == here or known[there] < known[here], (
            f"{model._meta.label}.{field.name} points at {there}, which is not below {here}: "
            "let the upper room hold the relation and extend this one (core.registry.extend)."
        )


def test_every_room_stands_on_a_floor_and_every_floor_has_its_rooms():
    rooms = {path.parent.name for path in (ROOT / "apps").glob("*/__init__.py")}
    assert rooms == set(floors())
