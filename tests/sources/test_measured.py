"""Data sources and business metrics: servers are measured and asked, and only an administrator says which."""

import re
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ValidationError
from django.db import connection

from apps.accounts.models import AuditEntry
from apps.accounts.rights import Forbidden
from apps.core.secrets import readable
from apps.sources import measured, measuring
from apps.sources.models import BusinessMetric, DataSource
from apps.sources.rounds import claim
from apps.sources.servers import Access, Away, postgres, redis
from tests.sources.conftest import ADMIN, EDITOR, NOW, Round, Target
from tests.sources.servers import valkey

pytestmark = pytest.mark.django_db(transaction=True)


def source(**values: Any) -> DataSource:
    given: dict[str, Any] = {
        "name": "cache",
        "kind": "redis",
        "address": "127.0.0.1:1",
        "timeout": timedelta(seconds=2),
    } | values
    password = given.pop("password", "hidden-word")
    return measured.save_data_source(by=ADMIN, source=DataSource(**given), password=password, now=NOW)


def after(minutes: int) -> Any:
    """Let everything be asked again."""
    now = NOW + timedelta(minutes=minutes)
    for model in (DataSource, BusinessMetric):
        model.objects.update(due_at=now)
    measuring.rounds_of(8).run(now=now)


# --- Servers -------------------------------------------------------------------------------------------------------
def test_a_cache_is_measured_and_its_end_is_seen(tmp_path, rounds: Round):
    with valkey(tmp_path) as port:
        made = source(address=f"127.0.0.1:{port}", labels={"service": "shop"})
        after(1)
        made.refresh_from_db()
        assert (made.health, made.error) == ("up", "")
        assert rounds.values("redis_up") == {"server=cache,service=shop": [1.0]}
        assert rounds.values("redis_keyspace_hits_total")
    after(2)
    made.refresh_from_db()
    assert made.health == "down"
    assert "could not be reached" in made.error
    assert made.last_good_at == NOW + timedelta(minutes=1)
    assert rounds.values("redis_up") == {"server=cache,service=shop": [1.0, 0.0]}
    assert rounds.values("redis_connected_clients")["server=cache,service=shop"][1:] != [0.0]


def test_a_wrong_password_and_a_metadata_address_are_reasons(tmp_path, target: Target):
    with valkey(tmp_path) as port, pytest.raises(Away, match="password"):
        redis.measure(Access(f"127.0.0.1:{port}", password="other"))
    for measure in (redis.measure, postgres.measure):
        with pytest.raises(Away, match="metadata"):
            measure(Access("169.254.169.254:80", "x", "y"))
        with pytest.raises(Away):
            measure(Access(target.address, "x", "y", seconds=1))


def test_passwords_are_kept_unless_another_comes_and_never_shown():
    made = source()
    made.interval = timedelta(seconds=90)
    measured.save_data_source(by=ADMIN, source=made, now=NOW)
    assert readable(DataSource.objects.get()) == {"password": "hidden-word"}
    measured.save_data_source(by=ADMIN, source=made, password=None, now=NOW)
    assert readable(DataSource.objects.get()) == {}
    told = str(list(AuditEntry.objects.values()))
    assert "hidden-word" not in told
    assert "secrets_changed" in told


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": "postgres"}, "database"), ({"kind": "mysql"}, "kind"), ({"address": "a b"}, "address"),
        ({"interval": timedelta(seconds=1)}, "interval"), ({"timeout": timedelta(hours=1)}, "timeout"),
        ({"labels": {"server": "x"}}, "labels"),
    ],
)  # fmt: skip
def test_a_source_that_could_not_be_measured_is_refused_by_field(values, field):
    with pytest.raises(ValidationError) as refused:
        source(**values)
    assert field in refused.value.message_dict


# --- Business metrics, asked of the test database itself -----------------------------------------------------------
QUERY = "SELECT * FROM (VALUES ('north', 39), ('south', 3), ('west', 4)) AS t (clinic, value)"


@pytest.fixture
def own(monkeypatch) -> DataSource:
    """The server of the test database, which listens on a socket: only the way there is another."""
    names = ("host", "port", "dbname", "user", "password")
    there = {name: value for name, value in connection.get_connection_params().items() if name in names}
    made = source(name="main", kind="postgres", database=there["dbname"], user="x", address="127.0.0.1:5432")

    def connect(access: Access) -> Any:
        timeout = f"-c statement_timeout={int(access.seconds * 1000)}"
        return psycopg.connect(**there, autocommit=True, options=timeout)

    monkeypatch.setattr(postgres, "connect", connect)
    return made


def metric(own: DataSource, **values: Any) -> BusinessMetric:
    given: dict[str, Any] = {"name": "bookings_today", "query": QUERY, "source": own, "help": "Bookings."} | values
    return measured.save_business_metric(by=ADMIN, metric=BusinessMetric(**given), now=NOW)


def test_a_query_becomes_series_without_small_groups(own, rounds: Round):
    made = metric(own, labels={"service": "clinic"})
    after(1)
    made.refresh_from_db()
    assert (made.error, made.rows, made.omitted) == ("", 3, 2)
    assert rounds.values("bookings_today") == {"clinic=north,service=clinic": [39.0]}
    assert rounds.values("business_metric_groups_omitted") == {"metric=bookings_today,service=clinic": [2.0]}
    made.small = "sum"
    measured.save_business_metric(by=ADMIN, metric=made, now=NOW)
    after(2)
    assert rounds.values("bookings_today")["clinic=other,service=clinic"] == [7.0]


def test_a_query_that_fails_says_why_keeps_its_last_good_time_and_ends_its_series(own, rounds: Round):
    made = metric(own)
    after(1)
    made.query = "SELECT nothing AS value"
    measured.save_business_metric(by=ADMIN, metric=made, now=NOW)
    after(2)
    made.refresh_from_db()
    assert "column" in made.error
    assert made.last_good_at == NOW + timedelta(minutes=1)
    assert str(rounds.values("bookings_today")["clinic=north"]) == "[39.0, nan]"
    assert rounds.values("business_metric_up")["metric=bookings_today"] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("DELETE FROM sources_check", "syntax error|DELETE"),
        ("SELECT 1 AS value; DROP TABLE sources_check", "syntax error|multiple commands"),
        ("WITH gone AS (DELETE FROM sources_check RETURNING 1) SELECT count(*) AS value FROM gone", "WITH|read-only"),
        ("SELECT nextval('sources_check_id_seq') AS value", "read-only"),
        ("SELECT set_config('transaction_read_only', 'off', false) AS a, 9 AS value", "read-only|must be set before"),
        ("SELECT pg_sleep(30)::text AS a, 9 AS value", "statement timeout"),
        ("SELECT n AS a, 9 AS value FROM generate_series(1, 1000) n", "more than 100 rows"),
        ("COMMIT", "syntax error"),
    ],
)
def test_a_query_can_neither_write_nor_run_for_ever_nor_flood(own, query, said):
    made = metric(own, query=query, timeout=timedelta(seconds=1))
    found, problem = measured.try_metric(by=ADMIN, metric=made)
    assert found is None
    assert re.search(said, problem), problem


def test_a_try_shows_what_would_be_stored_and_stores_nothing(own, rounds: Round):
    found, problem = measured.try_metric(by=ADMIN, metric=metric(own))
    assert problem == ""
    assert found is not None
    assert [group.value for group in found.groups] == [39.0]
    assert rounds.values("bookings_today") == {}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "a b"}, "name"), ({"name": "business_metric_up"}, "name"), ({"query": "  "}, "query"),
        ({"small": "mean"}, "size_column"), ({"labels": {"job": "x"}}, "labels"),
        ({"interval": timedelta(seconds=1)}, "interval"),
    ],
)  # fmt: skip
def test_a_metric_that_could_not_be_asked_is_refused_by_field(own, values, field):
    with pytest.raises(ValidationError) as refused:
        metric(own, **values)
    assert field in refused.value.message_dict


def test_what_is_asked_is_an_administrators_to_say(own):
    made = metric(own)
    for call in (
        lambda: measured.save_data_source(by=EDITOR, source=own, now=NOW),
        lambda: measured.save_business_metric(by=EDITOR, metric=made, now=NOW),
        lambda: measured.try_metric(by=EDITOR, metric=made),
        lambda: measured.delete_business_metric(by=EDITOR, metric=made, now=NOW),
    ):
        with pytest.raises(Forbidden):
            call()
    with pytest.raises(ValidationError, match="bookings_today"):
        measured.delete_data_source(by=ADMIN, source=own, now=NOW)


def test_a_claim_is_one_process_and_a_change_meanwhile_wins(own, rounds: Round):
    made = metric(own)
    mine = claim(BusinessMetric, now=NOW, limit=5, lease=measuring.LEASE)
    assert [row.pk for row in mine] == [made.pk]
    assert claim(BusinessMetric, now=NOW, limit=5, lease=measuring.LEASE) == []
    measured.save_business_metric(by=ADMIN, metric=made, now=NOW)
    measuring.visit(mine[0], now=NOW)
    assert rounds.values("bookings_today") == {}
