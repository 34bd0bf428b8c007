"""The OpenAPI document tells of the lanes, too, and agrees with the table that serves them."""

import re

import pytest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from monitoring_portal import fastlane


@pytest.fixture(scope="module")
def document():
    return SchemaGenerator().get_schema(request=None, public=True)


def test_the_document_is_openapi(document):
    validate_schema(document)


def test_every_lane_and_its_methods_are_told(document):
    for written, lane in fastlane.ROUTES.items():
        told = document["paths"][re.sub(r"<(\w+)(?:\.\.\.)?>", r"{\1}", written)]
        assert set(told) == {method.lower() for method in lane.methods} - {"head"}, written
        assert all(one["summary"] for one in told.values()), written


def test_names_of_operations_are_their_own(document):
    names = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(names) == len(set(names))


def test_a_form_and_an_address_take_the_same(document):
    told = document["paths"]["/api/v1/query_range"]
    form = told["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    assert {one["name"] for one in told["get"]["parameters"]} == set(form["properties"])
    assert form["required"] == ["query", "start", "end", "step"]
