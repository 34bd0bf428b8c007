"""The verbs: tokens, roles, the first administrator."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError

from apps.accounts import services
from apps.accounts.models import AuditEntry, Token, User
from apps.accounts.permissions import authenticate, digest_of
from apps.accounts.rights import ROLES, SCOPES, Forbidden, Principal, Right, Scope
from tests.accounts.conftest import NOW, ROOT, known, newest

pytestmark = pytest.mark.django_db


def issue(**values: Any):
    defaults: dict[str, Any] = {"by": ROOT, "name": "agent", "scopes": ["ingest"], "expires_at": None, "now": NOW}
    return services.issue_token(**defaults | values)


def test_the_secret_of_a_token_is_kept_nowhere():
    token, secret = issue()
    kept = str(Token.objects.values().get()) + str(list(AuditEntry.objects.values()))
    assert secret not in kept
    assert secret.startswith(token.prefix)
    assert len(secret) >= 43
    assert digest_of(secret) not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"expires_at": NOW}, "expires_at"),
        ({"matchers": [["team", "is", "web"]]}, "matchers"),
        ({"matchers": [["", "=", "web"]]}, "matchers"),
        ({"matchers": "team=web"}, "matchers"),
    ],
)
def test_a_useless_token_is_refused_by_field(values, field):
    with pytest.raises(ValidationError) as problem:
        issue(**values)
    assert field in problem.value.message_dict


def test_nobody_hands_out_more_than_they_have():
    clerk = Principal("token", "1", "clerk", SCOPES["admin"])
    with pytest.raises(Forbidden, match="ingest"):
        issue(by=clerk)
    assert issue(by=clerk, scopes=["read"])[0].scopes == ["read"]


def test_nobody_hands_out_a_wider_view_than_they_have():
    clerk = Principal("token", "1", "clerk", SCOPES["admin"], Scope((("team", "=", "web"),)))
    with pytest.raises(Forbidden, match="team=web"):
        issue(by=clerk, scopes=["read"])
    narrower = [["team", "=", "web"], ["env", "=", "prod"]]
    assert issue(by=clerk, scopes=["read"], matchers=narrower)[0].matchers == narrower


def test_without_the_right_to_administer_nothing_is_issued_or_revoked():
    token, _ = issue()
    editor = Principal("user", "1", "eve", ROLES["editor"])
    with pytest.raises(Forbidden):
        issue(by=editor)
    with pytest.raises(Forbidden):
        services.revoke_token(by=editor, token=token, now=NOW)


def test_revoking_twice_leaves_one_entry():
    token, _ = issue()
    services.revoke_token(by=ROOT, token=token, now=NOW)
    services.revoke_token(by=ROOT, token=token, now=NOW + timedelta(hours=1))
    assert Token.objects.get().revoked_at == NOW
    assert AuditEntry.objects.filter(verb="accounts.revoke_token").count() == 1


def bootstrap(value):
    return services.bootstrap_token(value=value, by=ROOT, now=NOW)


def test_the_token_from_the_environment_has_all_scopes_but_admin_and_is_written_once():
    first, second = bootstrap("a-long-enough-secret"), bootstrap("a-long-enough-secret")
    assert first == second
    assert set(first.scopes) == set(SCOPES) - {"admin"}
    assert AuditEntry.objects.count() == 1
    assert known("a-long-enough-secret").can(Right.INGEST)


def test_the_token_from_the_environment_follows_its_variable():
    bootstrap("the-first-secret-value")
    bootstrap("the-second-secret-value")
    assert authenticate("the-first-secret-value") is None
    assert authenticate("the-second-secret-value")
    assert bootstrap("") is None
    assert authenticate("the-second-secret-value") is None
    bootstrap("the-first-secret-value")  # back again: the old row comes back to life
    assert authenticate("the-first-secret-value")
    assert Token.objects.filter(origin="environment").count() == 2


def test_a_guessable_token_from_the_environment_is_a_warning(caplog):
    bootstrap("short")
    assert "can be guessed" in caplog.text


def test_the_environment_cannot_take_over_an_issued_token(caplog):
    token, secret = issue(scopes=["read"])
    assert bootstrap(secret) == token
    assert Token.objects.get().scopes == ["read"]
    assert "stays as it was issued" in caplog.text


def test_the_first_administrator_is_made_once():
    password = services.create_admin(now=NOW)
    admin = User.objects.get(username="admin")
    assert admin.check_password(password)
    assert admin.password.startswith("argon2")
    assert services.create_admin(now=NOW) is None
    assert User.objects.count() == 1


def test_roles_are_groups_and_their_members_survive_an_upgrade():
    assert services.create_roles() == list(ROLES)
    user = User.objects.create_user("bob")
    services.set_roles(by=ROOT, user=user, roles=["administrator"])
    Group.objects.get(name="administrator").permissions.clear()
    assert services.create_roles() == []
    assert User.objects.get().rights == ROLES["administrator"]
    assert Group.objects.get(name="administrator").permissions.exists()


def test_a_second_run_writes_nothing():
    services.create_roles()
    count = AuditEntry.objects.count()
    services.create_roles()
    assert AuditEntry.objects.count() == count


def test_each_role_gets_the_model_permissions_that_its_rights_mean():
    services.create_roles()

    def may(name):
        return set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))

    assert "view_auditentry" in may("auditor")
    assert "view_auditentry" not in may("editor")
    assert "change_token" in may("administrator")
    assert not [code for role in ROLES for code in may(role) if code in ("change_auditentry", "delete_auditentry")]
    assert not [code for code in may("viewer") | may("auditor") if not code.startswith("view_")]


def test_setting_roles_keeps_other_groups_and_says_what_changed():
    user = User.objects.create_user("bob")
    user.groups.add(Group.objects.create(name="night watch"))
    services.set_roles(by=ROOT, user=user, roles=["viewer"])
    services.set_roles(by=ROOT, user=user, roles=["editor", "auditor"])
    assert user.rights == ROLES["editor"] | ROLES["auditor"]
    assert set(user.groups.values_list("name", flat=True)) == {"night watch", "editor", "auditor"}
    entry = newest()
    assert (entry.before, entry.after) == ({"roles": ["viewer"]}, {"roles": ["auditor", "editor"]})


def test_an_unknown_role_is_refused():
    with pytest.raises(ValidationError, match="Unknown role king"):
        services.set_roles(by=ROOT, user=User.objects.create_user("bob"), roles=["king"])


def test_saving_without_a_change_leaves_no_entry():
    user = User.objects.create_user("bob")
    assert not services.save_object(by=ROOT, obj=user)
    user.email = "bob@example.com"
    assert services.save_object(by=ROOT, obj=user)
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.before, entry.after) == (
        "accounts.user.change", {"email": ""}, {"email": "bob@example.com"},
    )  # fmt: skip


def test_a_changed_secret_is_told_without_being_shown():
    user = User.objects.create_user("bob", password="hunter2-hunter2")
    user.set_password("another-password")
    services.save_object(by=ROOT, obj=user)
    assert AuditEntry.objects.get().after == {"masked_changes": ["password"]}


def test_deleting_tells_the_last_state_and_what_went_with_it():
    user = User.objects.create_user("bob", email="b@example.com")
    issue(owner=user)
    services.delete_object(by=ROOT, obj=user)
    entry = newest()
    assert (entry.before or {})["email"] == "b@example.com"
    assert entry.after == {"deleted": {"accounts.Token": 1, "accounts.User": 1}}
    assert entry.target_id
