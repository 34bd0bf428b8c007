"""What a query may cost depends on who asks."""

from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.rights import ROLES, Principal
from apps.metrics import budgets
from apps.metrics.models import OF_TOKENS, QueryBudget
from monitoring_portal.setup import load_defaults, read

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_known():
    budgets.forget()
    yield
    budgets.forget()


def person(*roles: str) -> Principal:
    return Principal("user", "1", "ann", roles=frozenset(roles))


def test_each_role_and_tokens_have_a_budget_from_the_first_start():
    load_defaults(now=NOW)
    assert set(QueryBudget.objects.values_list("role", flat=True)) == {*ROLES, OF_TOKENS}
    shipped = {row["role"]: row for row in read("query_budgets")}
    limits = budgets.limits_for(person("viewer"))
    assert {name: getattr(limits, name) for name in budgets.BUDGETS} == {
        name: shipped["viewer"][name] for name in budgets.BUDGETS
    }
    assert limits.samples < budgets.limits_for(person("editor")).samples


def test_of_several_roles_the_largest_of_each_number_counts():
    QueryBudget.objects.create(role="viewer", series=10, samples=999, points=5, seconds=7)
    QueryBudget.objects.create(role="auditor", series=20, samples=100, points=3, seconds=9)
    limits = budgets.limits_for(person("viewer", "auditor"))
    assert (limits.series, limits.samples, limits.points, limits.seconds) == (20, 999, 5, 9.0)
    assert limits.held == budgets.UNBUDGETED.held


def test_a_token_has_the_budget_of_tokens_whatever_its_owner_may():
    QueryBudget.objects.create(role=OF_TOKENS, series=10, samples=999, points=5, seconds=7)
    assert budgets.limits_for(Principal("token", "1", "t")).samples == 999


@pytest.mark.parametrize("who", [Principal.system("test"), Principal.anonymous(), person(), person("viewer")])
def test_whoever_has_no_row_is_limited_all_the_same(who):
    assert budgets.limits_for(who) == budgets.UNBUDGETED
    assert budgets.UNBUDGETED.seconds == 30


def test_budgets_are_read_once_in_a_while(django_assert_num_queries):
    with django_assert_num_queries(1):
        for _ in range(3):
            budgets.limits_for(person("viewer"))


def test_an_edit_in_the_admin_counts_at_once_in_this_process(client, django_capture_on_commit_callbacks):
    row = QueryBudget.objects.create(role="viewer", series=10, samples=999, points=5, seconds=7)
    budgets.limits_for(person("viewer"))
    client.force_login(User.objects.create_superuser("root"))
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(
            reverse("admin:metrics_querybudget_change", args=[row.pk]),
            {"role": "viewer", "series": 10, "samples": 1234, "points": 5, "seconds": 7},
        )
    assert answer.status_code == 302
    assert budgets.limits_for(person("viewer")).samples == 1234


@pytest.mark.parametrize("wrong", [{"role": ""}, {"series": 0}, {"seconds": 0}, {"seconds": 601}])
def test_a_budget_that_allows_nothing_or_no_end_cannot_be(wrong):
    with pytest.raises(IntegrityError), transaction.atomic():
        QueryBudget.objects.create(**{"role": "viewer", "series": 1, "samples": 1, "points": 1, "seconds": 1} | wrong)


def test_a_person_brings_their_roles_and_a_superuser_is_an_administrator(django_user_model):
    from django.contrib.auth.models import Group

    ann = django_user_model.objects.create_user("ann")
    ann.groups.add(Group.objects.create(name="viewer"), Group.objects.create(name="choir"))
    assert Principal.of_user(ann).roles == {"viewer"}
    assert Principal.of_user(ann).rights == ROLES["viewer"]
    assert Principal.of_user(django_user_model.objects.create_superuser("root")).roles == {"administrator"}
