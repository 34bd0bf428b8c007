"""Who may change what of a job; how jobs come from a prometheus.yml, the admin and the API; where they are listed."""

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.urls import reverse

from apps.accounts.models import AuditEntry, User
from apps.accounts.permissions import Forbidden, Principal, Scope
from apps.accounts.rights import ALL_RIGHTS, ROLES
from apps.core.secrets import MASK, readable
from apps.sources import listing, scrapeconfigs, services
from apps.sources.models import ScrapeJob, ScrapeTarget
from tests.sources.conftest import ADMIN, EDITOR, NOW, job, only

pytestmark = pytest.mark.django_db


# --- Rights and secrets -------------------------------------------------------------------------------------------
def test_secrets_are_kept_encrypted_and_never_shown():
    made = job("a:1", auth="bearer", secrets={"credential": "hush-hush"})
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT secrets FROM sources_scrapejob")
        assert "hush" not in cursor.fetchone()[0]
    assert "hush" not in str(list(AuditEntry.objects.values()))
    assert readable(ScrapeJob.objects.get()) == {"credential": "hush-hush"}
    for given, kept in (({}, "hush-hush"), ({"credential": ""}, "hush-hush"), ({"credential": MASK}, "hush-hush")):
        services.save_job(by=ADMIN, job=made, now=NOW, secrets=given)
        assert readable(ScrapeJob.objects.get())["credential"] == kept
    made.auth = "none"
    services.save_job(by=ADMIN, job=made, now=NOW, secrets={"credential": None})
    assert readable(ScrapeJob.objects.get()) == {}


def test_an_editor_makes_jobs_but_not_into_private_networks():
    assert not job("a:1", by=EDITOR).trusted
    assert job("a:1", name="other").trusted


def test_an_editor_may_not_touch_secrets_files_or_where_secrets_go():
    made = job("a:1", auth="bearer", secrets={"credential": "tok"})
    for change in ({"targets": [{"targets": ["evil:1"]}]}, {"scheme": "https"}, {"http_sd": [{"url": "http://e"}]}):
        again = ScrapeJob.objects.get()
        for name, value in change.items():
            setattr(again, name, value)
        with pytest.raises(Forbidden, match="carries secrets"):
            services.save_job(by=EDITOR, job=again, now=NOW)
    with pytest.raises(Forbidden, match="Secrets"):
        services.save_job(by=EDITOR, job=ScrapeJob.objects.get(), now=NOW, secrets={"credential": "mine"})
    again = ScrapeJob.objects.get()
    again.file_sd = [{"files": ["/etc/x.yml"]}]
    with pytest.raises(Forbidden, match="files of this machine"):
        services.save_job(by=EDITOR, job=again, now=NOW)
    again = ScrapeJob.objects.get()
    again.interval = timedelta(seconds=60)
    services.save_job(by=EDITOR, job=again, now=NOW)
    assert ScrapeJob.objects.get(pk=made.pk).trusted
    with pytest.raises(Forbidden):
        services.save_job(by=Principal("user", "3", "vi", ROLES["viewer"]), job=again, now=NOW)


def test_an_editor_who_changes_the_addresses_closes_the_way_into_private_networks():
    made = job("a:1")
    made.targets = [{"targets": ["10.0.0.1:80"]}]
    assert not services.save_job(by=EDITOR, job=made, now=NOW).trusted


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"targets": "a:1"}, "targets"),
        ({"relabel": [{"action": "x"}]}, "relabel"),
        ({"metric_relabel": [{"action": "replace"}]}, "metric_relabel"),
        ({"file_sd": [{"files": ["relative.yml"]}]}, "file_sd"),
        ({"file_sd": [{"files": ["/etc/passwd"]}]}, "file_sd"),
        ({"file_sd": [{"files": ["/a/../b.yml"]}]}, "file_sd"),
        ({"http_sd": [{"url": "file:///etc"}]}, "http_sd"),
        ({"http_sd": [{"url": "http://a", "refresh_interval": 1}]}, "http_sd"),
        ({"params": {"a": "b"}}, "params"),
        ({"ca": "no PEM"}, "ca"),
        ({"certificate": "no PEM"}, "certificate"),
        ({"auth": "bearer"}, "auth"),
        ({"auth": "header", "auth_name": "a: b"}, "auth_name"),
        ({"timeout": timedelta(seconds=31)}, "timeout"),
        ({"interval": timedelta(0)}, "interval"),
        ({"label_limit": 31}, "label_limit"),
        ({"name": ""}, "name"),
    ],
)
def test_wrong_values_are_refused_by_field(values, field):
    with pytest.raises(ValidationError) as caught:
        job(**({"targets": []} | values))
    assert field in caught.value.message_dict


def test_a_secret_that_breaks_a_header_is_refused():
    with pytest.raises(ValidationError):
        job("a:1", auth="bearer", secrets={"credential": "a\r\nX-Evil: 1"})


# --- prometheus.yml ----------------------------------------------------------------------------------------------
CONFIG = """
global: {scrape_interval: 20s, external_labels: {dc: x}}
scrape_configs:
- job_name: node
  scheme: https
  basic_auth: {username: me, password: pass}
  tls_config: {insecure_skip_verify: true}
  body_size_limit: 2MB
  label_limit: 50
  static_configs:
  - {targets: ['a:9100', 'b:9100'], labels: {zone: x}}
  relabel_configs:
  - {source_labels: [__address__], regex: '([^:]+):.*', target_label: host}
  metric_relabel_configs:
  - {source_labels: [__name__], regex: 'go_.*', action: drop}
- job_name: found
  scrape_interval: 5s
  authorization: {credentials_file: /run/token}
  file_sd_configs: [{files: [targets/*.yml]}]
  http_sd_configs: [{url: 'http://inventory/t', refresh_interval: 30s, basic_auth: {username: u}}]
  kubernetes_sd_configs: [{role: pod}]
"""


def take_over(text=CONFIG, **options):
    dry_run = options.pop("dry_run", False)
    return services.import_jobs(by=ADMIN, read=scrapeconfigs.read(text, **options), now=NOW, dry_run=dry_run)


def test_a_prometheus_yml_becomes_jobs_and_what_is_left_out_is_named():
    done = take_over(folder="/etc/prometheus")
    assert [change[:2] for change in done.changes] == [("new", "node"), ("new", "found")]
    node, found = ScrapeJob.objects.get(name="node"), ScrapeJob.objects.get(name="found")
    assert (node.interval, node.timeout, node.scheme) == (timedelta(seconds=20), timedelta(seconds=10), "https")
    assert (node.auth, node.auth_name, readable(node)) == ("basic", "me", {"credential": "pass"})
    assert (node.insecure, node.body_limit, node.label_limit) == (True, 2 * 1024**2, 30)
    assert {row.labels["host"] for row in node.found.all()} == {"a", "b"}
    assert found.timeout == timedelta(seconds=5)
    assert found.file_sd == [{"files": ["/etc/prometheus/targets/*.yml"], "refresh_interval": 300.0}]
    assert found.http_sd == [{"url": "http://inventory/t", "refresh_interval": 30.0}]
    told = "\n".join(done.notes)
    for words in ("external_labels", "label_limit is 50", "credentials_file", "kubernetes_sd_configs", "basic_auth of"):
        assert words in told


def test_an_import_twice_changes_nothing_and_a_dry_run_writes_nothing():
    assert take_over(dry_run=True).dry_run
    assert not ScrapeJob.objects.exists()
    take_over()
    assert {change[0] for change in take_over().changes} == {"unchanged"}
    changed = take_over(CONFIG.replace("password: pass", "password: new").replace("5s", "6s"))
    assert [change[0] for change in changed.changes] == ["changed", "changed"]
    assert changed.changes[0][2] == ("secrets",)


def test_secrets_in_files_are_taken_over_where_they_may_be_read():
    done = take_over(folder="/etc", read_file=lambda name: f"text of {name}\n")
    assert readable(ScrapeJob.objects.get(name="found")) == {"credential": "text of /run/token"}
    assert not any("credentials" in note for note in done.notes)


LAUGHS = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1", "no YAML in line"),
        ("3", "a mapping with scrape_configs"),
        ("scrape_configs: [{}]", "number 1 has no job_name"),
        ("scrape_configs: [{job_name: a}, {job_name: a}]", "Two jobs"),
        ("scrape_configs: [{job_name: a, scrape_interval: soon}]", "no duration"),
        ("scrape_configs: [{job_name: a, body_size_limit: much}]", "no size"),
        ("scrape_configs: [{job_name: a, static_configs: 3}]", "The job a"),
        (LAUGHS, "unfolds"),
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_refused_with_its_place(text, why):
    with pytest.raises(scrapeconfigs.BadConfig, match=why):
        scrapeconfigs.read(text)


def test_jobs_that_cannot_be_taken_refuse_the_whole_import():
    text = "scrape_configs: [{job_name: a}, {job_name: b, relabel_configs: [{action: no}]}]"
    with pytest.raises(ValidationError, match="b: relabel"):
        take_over(text)
    assert not ScrapeJob.objects.exists()


def test_the_command_imports_and_lists(tmp_path, capsys):
    file = tmp_path / "prometheus.yml"
    file.write_text(CONFIG)
    call_command("scrape", "import", str(file), "--dry-run")
    assert "Would be: 2 jobs." in capsys.readouterr().out
    call_command("scrape", "import", str(file))
    call_command("scrape", "targets")
    assert "unknown\tnode\ta:9100" in capsys.readouterr().out
    with pytest.raises(CommandError, match="no target"):
        call_command("scrape", "look", "nowhere")


# --- API, admin, pages -------------------------------------------------------------------------------------------
V1 = "/api/v1/portal"


@pytest.fixture
def root(client):
    client.force_login(User.objects.create_superuser("root"))
    return client


def test_the_api_makes_changes_and_deletes_jobs(root):
    sent = {"name": "web", "targets": [{"targets": ["a:1"]}], "auth": "bearer", "secrets": {"credential": "tok"}}
    answer = root.post(f"{V1}/scrape-jobs/", sent, content_type="application/json")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["secrets"] == ["credential"]
    assert "tok" not in answer.text
    answer = root.patch(f"{V1}/scrape-jobs/{made['id']}/", {"interval": 0}, content_type="application/json")
    assert answer.status_code == 400
    answer = root.patch(f"{V1}/scrape-jobs/{made['id']}/", {"interval": 60.0}, content_type="application/json")
    assert answer.json()["interval"] == 60.0
    listed = root.get(f"{V1}/targets/?job=web").json()["results"]
    assert [row["url"] for row in listed] == ["http://a:1/metrics"]
    assert root.delete(f"{V1}/scrape-jobs/{made['id']}/").status_code == 204
    assert root.get(f"{V1}/targets/").json()["results"] == []


def test_the_admin_saves_a_job_as_people_write_it(root):
    url = reverse("admin:sources_scrapejob_add")
    assert root.get(url).status_code == 200
    form = {
        "name": "web", "enabled": "on", "targets": "- targets: [a:1]\n  labels: {zone: x}", "file_sd": "",
        "http_sd": "", "relabel": "", "metric_relabel": "", "params": "", "interval": "00:00:30",
        "timeout": "00:00:10", "scheme": "http", "metrics_path": "/metrics", "auth": "bearer", "auth_name": "",
        "credential": "tok", "client_key": "", "ca": "", "certificate": "", "server_name": "",
        "sample_limit": "10000", "body_limit": "10000000", "label_limit": "30", "label_name_limit": "200",
        "label_value_limit": "1024",
    }  # fmt: skip
    answer = root.post(url, form | {"relabel": "- action: explode"})
    assert "is no action" in answer.text
    assert root.post(url, form).status_code == 302
    made = ScrapeJob.objects.get()
    assert made.targets == [{"targets": ["a:1"], "labels": {"zone": "x"}}]
    assert readable(made) == {"credential": "tok"}
    page = root.get(reverse("admin:sources_scrapejob_change", args=[made.pk]))
    assert "tok" not in page.text.replace("token", "")
    assert "targets:" in page.text
    assert root.get(reverse("admin:sources_scrapejob_changelist")).status_code == 200
    assert root.get(reverse("admin:sources_scrapetarget_change", args=[only().pk])).status_code == 200
    root.post(reverse("admin:sources_scrapejob_delete", args=[made.pk]), {"post": "yes"})
    assert not ScrapeJob.objects.exists()
    assert only().ended


def test_the_admin_imports_after_a_preview(root):
    url = "/admin/sources/scrapejob/import/"
    answer = root.post(url, {"text": CONFIG})
    assert "nothing is written yet" in answer.text
    assert "kubernetes_sd_configs" in answer.text
    assert not ScrapeJob.objects.exists()
    assert root.post(url, {"text": CONFIG, "confirmed": "yes"}).status_code == 302
    assert ScrapeJob.objects.count() == 2


def test_the_pages_show_targets_and_why_they_are_down(root):
    job("10.0.0.1:80", "b:1", relabel=[{"source_labels": ["__address__"], "regex": "b.*", "action": "drop"}])
    row = ScrapeTarget.objects.get(dropped=False)
    ScrapeTarget.objects.filter(pk=row.pk).update(
        health="down", error="It is <down>.", last_at=NOW, problems=["line 1: no"], refused=1
    )
    page = root.get("/monitoring/targets/").text
    assert "1 down" in page
    assert "It is &lt;down&gt;." in page
    assert "dropped" in root.get("/monitoring/targets/?health=dropped").text
    page = root.get(f"/monitoring/targets/{row.pk}/").text
    assert "line 1: no" in page
    assert "__address__" in page
    panels = root.get(f"/monitoring/data/?panel=target-samples&target={row.pk}&range=1h").json()["panels"]
    assert panels["target-samples"]["series"] == []
    assert root.get(f"/monitoring/data/?panel=target-samples&target={row.pk + 99}&range=1h").status_code == 404
    answer = root.post(f"/monitoring/targets/{row.pk}/scrape/")
    assert answer.status_code == 302
    assert AuditEntry.objects.filter(verb="sources.scrape_now").exists()


def test_prometheus_api_lists_targets_of_the_jobs_within_the_callers_scope(root):
    job("a:1", "b:1", relabel=[{"source_labels": ["__address__"], "regex": "b.*", "action": "drop"}])
    names, active, dropped = listing.pools(ADMIN)
    assert names == ["web"]
    assert [(one["scrapeUrl"], one["health"], one["scrapePool"]) for one in active] == [
        ("http://a:1/metrics", "unknown", "web")
    ]
    assert [one["discoveredLabels"]["__address__"] for one in dropped] == ["b:1"]
    narrowed = Principal("user", "9", "ned", ALL_RIGHTS, Scope((("job", "=", "db"),)))
    assert listing.pools(narrowed) == ([], [], [])


@pytest.mark.django_db(transaction=True)
def test_a_look_shows_what_is_read_and_refused_and_stores_nothing(root, target):
    target.body = b'# TYPE a gauge\na 1\nb{x="1"} two\n'
    job(target.address)
    row = only()
    seen = root.get(f"{V1}/targets/{row.pk}/look/").json()
    assert seen["samples"] == 1
    assert seen["first"] == [{"series": f'a{{instance="{target.address}", job="web"}}', "value": "1"}]
    assert "'two' is no number" in seen["problems"][0]
    page = root.get(f"/monitoring/targets/{row.pk}/?look=1").text
    assert "What it shows now" in page
    assert "is no number" in page
    row.refresh_from_db()
    assert row.last_at is None
    from apps.metrics.models import Batch

    assert not Batch.objects.exists()


def test_a_secret_that_no_key_opens_hides_no_target(root, settings):
    job("a:1", auth="bearer", secrets={"credential": "tok"})
    settings.SECRET_FIELD_KEYS = ["another key"]
    row = only()
    for url in ("/monitoring/targets/", f"/monitoring/targets/{row.pk}/", f"{V1}/targets/", f"{V1}/scrape-jobs/",
                reverse("admin:sources_scrapetarget_changelist"), reverse("admin:sources_scrapejob_changelist"),
                reverse("admin:sources_scrapejob_change", args=[row.job_id])):  # fmt: skip
        assert root.get(url).status_code == 200, url
    assert listing.pools(ADMIN)[0] == ["web"]
