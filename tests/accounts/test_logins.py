"""Log-ins: places are remembered coarsely, names are locked out by address, and an administrator unlocks them."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts import logins
from apps.accounts.models import AuditEntry, Login, User
from apps.accounts.places import device_of, network_of
from apps.accounts.rights import Forbidden, Principal
from tests.accounts.conftest import ROOT

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
RIGHT = "hunter2-hunter2"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Safari/604.1"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("", ""),
        ("unix:", ""),
    ],
)
def test_a_network_is_kept_instead_of_an_address(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_device_is_named_without_its_version() -> None:
    assert device_of(FIREFOX) == "Firefox on Linux"
    assert device_of(FIREFOX.replace("140.0", "141.0")) == "Firefox on Linux"
    assert device_of(PHONE) == "Safari on iOS"
    assert device_of("") == "unknown"


@pytest.fixture
def bob(db: None) -> User:
    return User.objects.create_user("bob", password=RIGHT)


def log_in(password: str = RIGHT, address: str = "192.0.2.77", agent: str = FIREFOX) -> Any:
    form = {"username": "bob", "password": password}
    return Client().post(reverse("login"), form, REMOTE_ADDR=address, HTTP_USER_AGENT=agent)


def test_a_place_is_remembered_and_only_a_new_one_is_told(bob: User) -> None:
    before = logins.NEW_PLACES.value()
    assert log_in().status_code == 302
    assert log_in(address="192.0.2.78").status_code == 302
    assert logins.NEW_PLACES.value() == before
    place = Login.objects.get()
    assert (place.network, place.device, place.count) == ("192.0.2.0/24", "Firefox on Linux", 2)
    assert log_in(address="198.51.100.1").status_code == 302
    assert logins.NEW_PLACES.value() == before + 1
    entry = AuditEntry.objects.get(verb="accounts.login_new_place")
    assert entry.after == {"network": "198.51.100.0/24", "device": "Firefox on Linux", "new": ["network"]}


def test_a_name_is_locked_out_at_one_address_and_an_administrator_unlocks_it(bob: User, settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 3
    before = logins.LOCKOUTS.value()
    answers = [log_in("wrong") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "locked out" in answers[-1].content.decode()
    assert logins.LOCKOUTS.value() == before + 1
    assert AuditEntry.objects.filter(verb="accounts.locked_out", target_label="bob").exists()
    assert log_in().status_code == 429
    assert log_in(address="198.51.100.1").status_code == 302
    with pytest.raises(Forbidden):
        logins.unlock(by=Principal("user", "1", "ann", frozenset()), username="bob")
    assert logins.unlock(by=ROOT, username="bob") == 1
    assert log_in().status_code == 302
