"""Lists of millions look for a word on each side of a relation by itself, and find what Django's own search finds."""

from typing import Any

import pytest
from django.contrib import admin
from django.test import Client

from apps.accounts import paging
from apps.accounts.models import User
from apps.alerting.models import Transition
from tests.house.rows import make

pytestmark = pytest.mark.django_db


def found(client: Client, words: str) -> list[int]:
    answer = client.get("/admin/alerting/transition/", {"q": words})
    return sorted(row.pk for row in answer.context["cl"].result_list)


@pytest.mark.parametrize("most", [10_000, 0], ids=["apart", "at once"])
def test_a_word_is_found_in_a_row_and_in_what_is_related_to_it(client, monkeypatch, most):
    monkeypatch.setattr(paging, "MOST_APART", most)
    client.force_login(User.objects.create_superuser("root"))
    disk, load = (make("alerting.alert", message=text) for text in ("Disk full", "Load high"))
    rows = [make("alerting.transition", alert=one, by=by).pk for one in (disk, load) for by in ("ann", "disk loop")]
    assert found(client, "disk") == [rows[0], rows[1], rows[3]]
    assert found(client, "DISK ann") == [rows[0]]
    assert found(client, '"disk loop" high') == [rows[3]]
    assert found(client, '"') == found(client, "nowhere") == []
    assert found(client, "  ") == sorted(rows)


def test_what_is_searched_apart_is_a_relation_that_the_search_goes_through():
    pages: list[Any] = [page for page in admin.site._registry.values() if getattr(page, "searched_apart", ())]
    assert Transition in {page.model for page in pages}
    for page in pages:
        for relation in page.searched_apart:
            assert page.opts.get_field(relation).many_to_one
            assert any(name.startswith(f"{relation}__") for name in page.search_fields)
        assert not [name for name in page.search_fields if name[0] in "^=@"]
