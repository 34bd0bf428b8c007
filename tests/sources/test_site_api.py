"""Front ends by the API: made, changed, given another key, deleted; each sees what is theirs."""

import pytest
from rest_framework.test import APIClient

from apps.accounts import services as accounts
from apps.accounts.models import AuditEntry
from apps.sources import sites
from apps.sources.models import Site
from tests.sources.conftest import ADMIN, NOW

pytestmark = pytest.mark.django_db
SITES = "/api/v1/portal/sites/"


def caller(*scopes: str, matchers: list[tuple[str, str, str]] | None = None) -> APIClient:
    _, secret = accounts.issue_token(
        by=ADMIN, name="t", scopes=list(scopes), matchers=matchers or [], expires_at=None, now=NOW
    )
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


def test_a_front_end_is_made_changed_given_another_key_and_deleted():
    client = caller("admin")
    made = client.post(SITES, {"name": "shop", "origins": ["https://Shop.example/"]}, format="json")
    assert (made.status_code, made.json()["origins"], made.json()["rate"]) == (201, ["https://shop.example"], 50)
    address = f"{SITES}{made.json()['id']}/"
    changed = client.patch(address, {"rate": 7, "enabled": False}, format="json").json()
    assert (changed["rate"], changed["enabled"], changed["key"]) == (7, False, made.json()["key"])
    assert client.post(f"{address}renew-key/").json()["key"] != made.json()["key"]
    assert [row["name"] for row in client.get(SITES).json()["results"]] == ["shop"]
    assert client.delete(address).status_code == 204
    assert not Site.objects.exists()
    written = AuditEntry.objects.filter(target_type="sources.site").order_by("id")
    assert list(written.values_list("verb", flat=True)) == [
        "sources.save_site", "sources.save_site", "sources.renew_site_key", "sources.delete_site",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"name": "shop"}, "name"), ({"name": "a b"}, "name"), ({"origins": []}, "origins"), ({"key": "mine"}, "key"),
        ({"origins": ["shop.example"]}, "origins"), ({"rate": 0}, "rate"),
        ({"origins": ["https://x.example"] * 51}, "origins"),
    ],
)  # fmt: skip
def test_what_is_no_front_end_is_refused_by_field(sent, field):
    sites.save_site(by=ADMIN, site=Site(name="shop", origins=["https://shop.example"]))
    body = {"name": "till", "origins": ["https://till.example"], **sent}
    answer = caller("admin").post(SITES, body, format="json")
    assert answer.status_code == 400
    assert field in str(answer.json())
    assert Site.objects.count() == 1


def test_who_only_reads_sees_no_key_and_whose_scope_is_another_sees_nothing():
    sites.save_site(by=ADMIN, site=Site(name="shop", origins=["https://shop.example"]))
    [row] = caller("read").get(SITES).json()["results"]
    assert (row["name"], row["key"]) == ("shop", None)
    assert caller("read", matchers=[("site", "=", "till")]).get(SITES).json()["results"] == []
    assert len(caller("read", matchers=[("site", "=", "shop")]).get(SITES).json()["results"]) == 1
