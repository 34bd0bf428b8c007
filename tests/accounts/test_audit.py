"""The audit trail: append-only, masked, written by verbs in their own transaction."""

from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, transaction

from apps.accounts import audit
from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.models import AuditEntry, User
from apps.accounts.rights import Forbidden, Principal, Right
from apps.core.secrets import MASK

ME = Principal("user", "7", "ann", frozenset({Right.READ}), address="192.0.2.1", via="api")


@pytest.fixture
def no_new_verbs(monkeypatch):
    monkeypatch.setattr(audit, "VERBS", dict(audit.VERBS))


def test_an_entry_tells_who_did_what_to_what_from_where(db):
    user = User.objects.create_user("bob")
    entry = record(by=ME, verb="greet", target=user, before={"a": 1}, after={"a": 2})
    entry.refresh_from_db()
    assert (entry.actor_kind, entry.actor_id, entry.actor_name, entry.address, entry.via) == (
        "user", "7", "ann", "192.0.2.1", "api",
    )  # fmt: skip
    assert (entry.target_type, entry.target_id, entry.target_label) == ("accounts.user", str(user.pk), "bob")
    assert (entry.before, entry.after) == ({"a": 1}, {"a": 2})
    assert entry.xid > 0


@pytest.mark.parametrize(
    "attack",
    [
        lambda: AuditEntry.objects.update(verb="nothing happened"),
        lambda: AuditEntry.objects.all().delete(),
        lambda: connection.cursor().execute("TRUNCATE accounts_auditentry"),
    ],
    ids=["update", "delete", "truncate"],
)
def test_entries_can_neither_be_changed_nor_removed(db, attack):
    record(by=ME, verb="x", target=("a", "1", "b"))
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        attack()
    assert AuditEntry.objects.get().verb == "x"


def test_secrets_are_masked_by_name_wherever_they_stand(db):
    after = {"password": "p", "config": {"api_key": "k", "headers": [{"Authorization": "b"}], "url": "u"}, "token": ""}
    entry = record(by=ME, verb="x", target=("a", "1", "b"), after=after)
    assert entry.after == {
        "password": MASK,
        "config": {"api_key": MASK, "headers": [{"Authorization": MASK}], "url": "u"},
        "token": "",
    }


def test_the_state_of_a_row_is_json_safe_and_hides_its_password(db):
    user = User.objects.create_user("bob", password="hunter2-hunter2")
    state = state_of(user, relations=True)
    assert state["password"] == MASK
    assert state["groups"] == []
    assert isinstance(state["date_joined"], str)


def test_values_that_json_lacks_become_text(db):
    entry = record(by=ME, verb="x", target=("a", "1", "b"), after={"d": timedelta(seconds=90), "f": float("nan")})
    entry.refresh_from_db()
    assert entry.after == {"d": "1m30s", "f": "nan"}


def test_changes_hold_only_what_differs():
    assert changes({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": 4}) == ({"b": 2, "c": 3}, {"b": 5, "d": 4})


def test_a_verb_takes_keywords_only_and_by(no_new_verbs):
    with pytest.raises(TypeError, match="keyword only"):
        verb("t.positional")(lambda by: None)
    with pytest.raises(TypeError, match="`by`"):
        verb("t.nobody")(lambda *, now: None)


def test_a_verb_refuses_who_has_not_its_right(no_new_verbs):
    @verb("t.edit", right=Right.EDIT)
    def edit(*, by: Principal) -> str:
        return "done"

    with pytest.raises(Forbidden, match="edit"):
        edit(by=ME)


def test_a_verb_that_fails_leaves_neither_its_work_nor_its_entry(db, no_new_verbs):
    @verb("t.fail")
    def fail(*, by: Principal) -> None:
        User.objects.create_user("half")
        record(by=by, verb="t.fail", target=("a", "1", "b"))
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail(by=ME)
    assert not User.objects.exists()
    assert not AuditEntry.objects.exists()


def test_two_functions_cannot_share_a_name(no_new_verbs):
    def one(*, by: Principal) -> None: ...
    def two(*, by: Principal) -> None: ...

    two.__module__ = "elsewhere"
    verb("t.same")(one)
    with pytest.raises(ValueError, match="both define"):
        verb("t.same")(two)


def test_logins_logouts_and_failures_are_entries(client, db, settings):
    settings.ROOT_URLCONF = "tests.accounts.urls"
    User.objects.create_user("bob", password="hunter2-hunter2")
    assert client.login(username="bob", password="hunter2-hunter2")
    client.logout()
    assert not client.login(username="bob", password="wrong")
    verbs = list(AuditEntry.objects.order_by("id").values_list("verb", "target_label", "actor_kind"))
    assert verbs == [
        ("accounts.login", "bob", "user"),
        ("accounts.logout", "bob", "user"),
        ("accounts.login_failed", "bob", "anonymous"),
    ]
