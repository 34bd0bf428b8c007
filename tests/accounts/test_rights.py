"""Rights, roles, scopes and principals as values."""

import itertools

import pytest

from apps.accounts.rights import (
    ALL_RIGHTS,
    ROLES,
    SCOPES,
    Forbidden,
    Principal,
    Right,
    require,
    rights_of_roles,
    rights_of_scopes,
)


def test_roles_grow_from_viewer_to_administrator():
    ladder = [ROLES[name] for name in ("viewer", "operator", "editor", "administrator")]
    assert all(lower < higher for lower, higher in itertools.pairwise(ladder))


def test_an_auditor_writes_nothing():
    assert ROLES["auditor"] == {Right.READ, Right.SUBSCRIBE, Right.QUERY, Right.AUDIT}


def test_only_the_scope_admin_administers():
    assert [name for name, rights in SCOPES.items() if Right.ADMINISTER in rights] == ["admin"]


@pytest.mark.parametrize(
    ("names", "rights"),
    [
        ([], set()),
        (["viewer", "auditor"], {Right.READ, Right.SUBSCRIBE, Right.QUERY, Right.AUDIT}),
        (["the cleaners"], set()),
    ],
)
def test_several_roles_add_up_and_other_groups_bring_nothing(names, rights):
    assert rights_of_roles(names) == rights


def test_unknown_scopes_bring_nothing():
    assert rights_of_scopes(["root", "read"]) == {Right.READ, Right.SUBSCRIBE}


def test_the_portal_itself_may_everything_and_a_stranger_nothing():
    assert Principal.system("x").rights == ALL_RIGHTS
    assert not Principal.anonymous().rights


def test_a_refusal_names_who_and_which_right():
    with pytest.raises(Forbidden, match=r"anonymous .* the right to edit"):
        require(Principal.anonymous(), Right.EDIT)
