"""The store's admin pages: each opens, the store's own rows cannot be written, what can be is audited."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import AuditEntry, User
from apps.accounts.permissions import Principal
from apps.metrics import compaction, services
from apps.metrics.admin import CollectorForm
from apps.metrics.models import (
    Batch,
    Block,
    CollectionSwitch,
    CollectorSetting,
    Metric,
    RetentionPolicy,
    Series,
    Tombstone,
)
from apps.metrics.samples import Samples

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss", password="only-for-this-test"))
    return client


@pytest.fixture
def _filled():
    now = timezone.now()
    for _ in range(2):
        samples = Samples.of([{"__name__": "x", "a": "1"}], [int(now.timestamp() * 1000)], [1.0])
        services.ingest(samples=samples, by=Principal.system("test"), now=now)
        if not Block.objects.exists():
            compaction.compact_log(now=now)
    Tombstone.objects.create(series=[1], t_min=0, t_max=1, by="test")
    CollectorSetting.objects.create(kind="cpu", every=timedelta(seconds=15))


@pytest.mark.usefixtures("_filled")
@pytest.mark.parametrize(
    "model", [Batch, Block, CollectionSwitch, CollectorSetting, Metric, RetentionPolicy, Series, Tombstone]
)
def test_every_list_and_every_object_opens(boss, model):
    name = model._meta.model_name
    assert boss.get(reverse(f"admin:metrics_{name}_changelist")).status_code == 200
    row = model.objects.first()
    assert boss.get(reverse(f"admin:metrics_{name}_change", args=[row.pk])).status_code == 200
    if model in (Batch, Block, Series, Tombstone):
        assert boss.get(reverse(f"admin:metrics_{name}_add")).status_code == 403
        assert boss.post(reverse(f"admin:metrics_{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403


@pytest.mark.usefixtures("_filled")
def test_the_default_policy_stays_and_others_are_written_with_an_entry(boss):
    default = RetentionPolicy.objects.get(category="default")
    url = reverse("admin:metrics_retentionpolicy_delete", args=[default.pk])
    assert boss.post(url, {"post": "yes"}).status_code == 403
    answer = boss.post(
        reverse("admin:metrics_retentionpolicy_add"), {"category": "short", "raw": "1 00:00:00", "prefixes": '["s_"]'}
    )
    assert answer.status_code == 302, answer.context["errors"]
    assert AuditEntry.objects.filter(target_type="metrics.retentionpolicy", actor_name="boss").exists()


def test_a_policy_shorter_than_a_window_and_prefixes_that_are_no_texts_are_refused(boss):
    for field in ({"raw": "00:10:00"}, {"prefixes": "[1]"}):
        values = {"category": "short", "raw": "1 00:00:00", "prefixes": "[]"} | field
        assert boss.post(reverse("admin:metrics_retentionpolicy_add"), values).status_code == 200
    assert not RetentionPolicy.objects.filter(category="short").exists()


def test_the_switch_is_turned_through_its_verb(boss):
    CollectionSwitch.objects.create(pk=1)
    boss.post(reverse("admin:metrics_collectionswitch_change", args=[1]), {})
    assert not CollectionSwitch.objects.get().on
    assert AuditEntry.objects.get(verb="metrics.switch_collection").actor_name == "boss"


def test_a_collectors_settings_are_checked_by_its_own_form():
    assert CollectorForm({"kind": "cpu", "enabled": True, "every": "15", "config": "{}"}).is_valid()
    form = CollectorForm({"kind": "no-such", "every": "15", "config": "{}"})
    assert not form.is_valid()
    assert "kind" in form.errors
