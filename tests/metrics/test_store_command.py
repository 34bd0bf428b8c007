"""`manage.py store`: figures, damage, compaction now, and samples from files."""

import io
import json
from datetime import timedelta
from itertools import pairwise

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Principal
from apps.metrics import query, services
from apps.metrics.models import Batch, Block
from apps.metrics.samples import Samples
from apps.promql.source import Matcher

pytestmark = pytest.mark.django_db(transaction=True)


def store(*args):
    out = io.StringIO()
    call_command("store", *args, stdout=out)
    return out.getvalue()


def send():
    now = timezone.now()
    samples = Samples.of([{"__name__": "x"}], [int(now.timestamp() * 1000)], [1.0])
    services.ingest(samples=samples, by=Principal.system("test"), now=now)


def test_stats_of_an_empty_and_of_a_filled_store():
    assert json.loads(store("stats", "--json"))["bytes_a_sample"] is None
    send()
    assert json.loads(store("stats", "--json"))["log_samples"] == 1
    store("compact")
    found = json.loads(store("stats", "--json"))
    assert (found["log_rows"], found["blocks_level_0"], found["block_samples"]) == (0, 1, 1)


@pytest.mark.parametrize("compacted", [False, True])
def test_check_names_every_damaged_row_and_fails(compacted):
    send()
    if compacted:
        store("compact")
    assert "damaged rows" in store("check")
    model = Block if compacted else Batch
    row = model.objects.get()
    model.objects.update(payload=bytes(row.payload)[:-1] + b"?")
    with pytest.raises(CommandError, match="1 rows are damaged"):
        store("check")


FILES = {
    "a.csv": "name,timestamp,value,host\nx,1000,1.5,a\nx,2000,NaN,a\nx,1000,3,b\n",
    "a.jsonl": '{"metric": {"__name__": "x", "host": "a"}, "values": [1.5, NaN], "timestamps": [1000, 2000]}\n'
    '\n{"metric": {"__name__": "x", "host": "b"}, "values": [3], "timestamps": [1000]}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_imports_are_idempotent_and_audited(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name])
    for _ in range(2):
        store("import", str(path))
    got = query.select([Matcher("__name__", "=", "x")], 0, 10_000)
    values = [got.v[a:b].tolist() for a, b in pairwise(got.off)]
    rows = dict(zip(got.labels.texts("host"), values, strict=True))
    assert rows["b"] == [3.0]
    assert rows["a"][0] == 1.5
    assert rows["a"][1] != rows["a"][1]
    assert AuditEntry.objects.filter(verb="metrics.backfill", target_label=str(path)).count() == 2


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "name,value\n", "missing: timestamp"),
        ("a.csv", "name,timestamp,value\nx,later,1\n", "Line 2"),
        ("a.jsonl", '{"metric": {"__name__": "x"}, "values": [1], "timestamps": []}\n', "Line 1"),
        ("a.jsonl", "{}\n", "Line 1"),
    ],
)
def test_files_that_are_none_are_refused_with_the_line(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(CommandError, match=problem):
        store("import", str(tmp_path / name))


def test_what_an_import_refuses_is_told(tmp_path, capsys):
    ahead = int((timezone.now() + timedelta(hours=1)).timestamp() * 1000)
    (tmp_path / "a.csv").write_text(f"name,timestamp,value\nx,{ahead},1\nx,1,1\n")
    assert "refused                      1" in store("import", str(tmp_path / "a.csv"))
    assert "ahead of the portal's clock" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"\xa4\xff\x00"])
def test_a_file_that_cannot_be_read_is_said_so(tmp_path, content):
    path = tmp_path / "samples.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match="cannot be read"):
        store("import", str(path))
