"""Each test finds an empty database, whoever wrote into it before."""

import pytest
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import transaction

from apps.accounts.permissions import Principal
from apps.metrics import registry, services
from apps.metrics.samples import Samples
from tests.clock import NOW
from tests.conftest import OF_THE_REGISTRY, emptied, nothing_is_left

pytestmark = pytest.mark.django_db(transaction=True)


def ingested_and_rolled_back():
    with transaction.atomic():
        samples = Samples.of([{"__name__": "up"}], [int(NOW.timestamp() * 1000)], [1.0])
        services.ingest(samples=samples, by=Principal.system("test"), now=NOW, window=None)
        transaction.set_rollback(True)


def test_what_the_registry_commits_beside_a_test_is_known_and_goes_after_it():
    ingested_and_rolled_back()
    assert emptied() == OF_THE_REGISTRY
    registry.forget()
    ingested_and_rolled_back()
    nothing_is_left()
    assert emptied() == set()


def test_rows_that_anybody_else_commits_are_the_fault_of_the_test_that_let_it(another_connection):
    with another_connection.cursor() as cursor:
        cursor.execute("INSERT INTO auth_group (name) VALUES ('stranger')")
    with pytest.raises(AssertionError, match="rows of auth_group without"):
        nothing_is_left()
    assert not Group.objects.exists()


def test_what_comes_with_the_code_stays():
    assert emptied() == set()
    assert ContentType.objects.exists()
