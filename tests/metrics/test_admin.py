"""The store's admin pages: each opens, the store's own rows cannot be written, what can be is audited."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import AuditEntry, User
from apps.accounts.permissions import Principal
from apps.metrics import census, compaction, query, services
from apps.metrics.admin import CollectorForm
from apps.metrics.models import (
    Batch,
    Block,
    CollectionSwitch,
    CollectorSetting,
    Metric,
    RetentionPolicy,
    RolledWindow,
    Series,
    SeriesBudget,
    TokenCount,
    Tombstone,
)
from apps.metrics.samples import Samples
from apps.promql.source import Matcher

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
    census.take(now=now)


@pytest.mark.usefixtures("_filled")
@pytest.mark.parametrize(
    "model",
    [
        *(Batch, Block, CollectionSwitch, CollectorSetting, Metric, RetentionPolicy, Series, SeriesBudget),
        *(TokenCount, Tombstone),
    ],
)
def test_every_list_and_every_object_opens(boss, model):
    name = model._meta.model_name
    assert boss.get(reverse(f"admin:metrics_{name}_changelist")).status_code == 200
    row = model.objects.first()
    assert boss.get(reverse(f"admin:metrics_{name}_change", args=[row.pk])).status_code == 200
    if model in (Batch, Block, Series, TokenCount, Tombstone):
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


def test_roll_ups_that_are_switched_on_are_made_of_what_is_there_and_the_page_says_up_to_where_samples_are_gone(boss):
    policy = RetentionPolicy.objects.create(category="default", raw=timedelta(days=1), raw_from=1_790_000_000_000)
    url = reverse("admin:metrics_retentionpolicy_change", args=[policy.pk])
    page = boss.get(url).content.decode()
    assert "2026-09-21 14:13 UTC" in page
    assert "none yet" in page
    values = {"raw": "1 00:00:00", "prefixes": "[]"}
    for more, left in (({"description": "all"}, 1), ({"rollup_1h": "30 00:00:00"}, 0)):
        RolledWindow.objects.get_or_create(window=0, defaults={"round": 1, "made_at": timezone.now()})
        values |= more
        assert boss.post(url, values).status_code == 302
        assert RolledWindow.objects.count() == left
    entry = AuditEntry.objects.filter(verb="metrics.retentionpolicy.change").latest("id")
    assert list(entry.after or {}) == ["rollup_1h"]
    policy.refresh_from_db()
    assert policy.raw_from == 1_790_000_000_000


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


@pytest.mark.usefixtures("_filled")
@pytest.mark.parametrize("column", range(1, 10))
def test_metrics_are_sorted_by_what_is_counted_of_their_series(boss, column):
    page = boss.get(reverse("admin:metrics_metric_changelist"), {"o": f"-{column}"})
    assert [row.name for row in page.context["cl"].result_list] == ["x"]
    assert "1 (1)" in page.text


def test_the_series_budget_is_edited_with_an_entry(boss):
    assert boss.get(reverse("admin:metrics_seriesbudget_changelist")).status_code == 200
    values = {"series": 10, "per_token": 5, "per_metric": 7}
    boss.post(reverse("admin:metrics_seriesbudget_change", args=[1]), values)
    assert SeriesBudget.objects.filter(**values).exists()
    assert AuditEntry.objects.get(target_type="metrics.seriesbudget").actor_name == "boss"


@pytest.mark.usefixtures("_filled")
def test_series_are_deleted_only_once_what_would_go_has_been_seen(boss):
    path = reverse("admin:metrics_tombstone_delete_series")
    asked = {"selectors": 'x{a="1"}', "start": "", "end": ""}
    assert boss.post(path, asked | {"confirmed": "yes"}).context["preview"] is not None, "not seen yet"
    page = boss.post(path, asked)
    assert len(page.context["preview"].doomed.ids) == 1
    assert page.context["examples"] == ['{__name__="x",a="1"}']
    seen = {"previewed": page.context["previewed"], "confirmed": "yes"}
    assert boss.post(path, asked | {"selectors": "x"} | seen).status_code == 200, "another question than was seen"
    assert AuditEntry.objects.filter(verb="metrics.delete_series").count() == 0
    assert boss.post(path, asked | seen).status_code == 302
    assert AuditEntry.objects.get(verb="metrics.delete_series").actor_name == "boss"
    assert query.select([Matcher("__name__", "=", "x")], 0, 2**50).size == 0


@pytest.mark.parametrize(
    "wrong",
    [{"selectors": "x{"}, {"selectors": '{a=""}'}, {"selectors": '{a=~"("}'}, {"start": "yesterday"},
     {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}],
)  # fmt: skip
def test_a_wrong_deletion_form_says_so(boss, wrong):
    page = boss.post(reverse("admin:metrics_tombstone_delete_series"), {"selectors": "x"} | wrong)
    assert (page.status_code, page.context["form"].is_valid()) == (200, False)
