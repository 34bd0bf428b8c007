"""`manage.py store`: figures, damage and its repair, compaction now, and samples out to files and in from them."""

import gzip
import io
import json
import shutil
import subprocess
from datetime import timedelta
from itertools import pairwise

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Principal
from apps.metrics import query, services, transfer
from apps.metrics.models import Batch, Block
from apps.metrics.samples import Samples
from apps.promql.series import stale_mask
from apps.promql.source import Matcher
from tests.conftest import emptied

pytestmark = pytest.mark.django_db(transaction=True)
SINCE = 1_700_000_000_000


@pytest.fixture(autouse=True)
def data(settings, tmp_path):
    settings.DATA = tmp_path / "data"
    return settings.DATA


def store(*args):
    out, problems = io.StringIO(), io.StringIO()
    call_command("store", *map(str, args), stdout=out, stderr=problems)
    return out.getvalue()


def send(count=1, name="x"):
    now = timezone.now()
    at = int(now.timestamp() * 1000)
    series = [{"__name__": name, "n": str(index)} for index in range(count)]
    services.ingest(
        samples=Samples.of(series, [at] * count, [float(n) for n in range(count)]), by=Principal.system("test"), now=now
    )


def everything(name="x", end=2**53):
    got = query.select([Matcher("__name__", "=", name)], -1, end)
    rows = zip(got.labels.dicts(), pairwise(got.off), strict=True)
    return {
        tuple(sorted(row.items())): list(zip(got.ts[a:b].tolist(), map(repr, got.v[a:b].tolist()), strict=True))
        for row, (a, b) in rows
    }


def damage(row):
    type(row).objects.filter(pk=row.pk).update(payload=bytes(row.payload)[:-1] + b"?")


# --- figures ----------------------------------------------------------------------------------------------------------


def test_stats_of_an_empty_and_of_a_filled_store():
    assert json.loads(store("stats", "--json"))["bytes_a_sample"] is None
    send()
    assert json.loads(store("stats", "--json"))["log_samples"] == 1
    store("compact")
    found = json.loads(store("stats", "--json"))
    assert (found["log_rows"], found["blocks_level_0"], found["block_samples"], found["samples"]) == (0, 1, 1, 1)
    assert found["bytes_a_sample_on_disk"] > found["bytes_a_sample"] > 0
    assert [(part["category"], part["resolution"]) for part in found["parts"]] == [("default", "raw")]
    assert "default" in store("stats")


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compacted", [False, True])
def test_check_names_every_damaged_row_and_fails(compacted):
    send()
    if compacted:
        store("compact")
    assert "damaged rows" in store("check")
    damage((Block if compacted else Batch).objects.get())
    with pytest.raises(CommandError, match="1 rows are damaged"):
        store("check")


def test_repair_marks_what_is_lost_and_says_that_it_remains():
    send()
    damage(Batch.objects.get())
    with pytest.raises(CommandError, match="1 rows remain damaged; a backup"):
        store("repair", "--yes")
    assert Batch.objects.get().bad_at is not None
    assert (AuditEntry.objects.get(verb="metrics.repair_store").after or {})["checksum"] == 1


@pytest.mark.parametrize(("answer", "left"), [("yes", 0), ("no", 1), ("", 1)])
def test_what_nobody_can_read_is_deleted_after_a_question_with_range_and_count_only(monkeypatch, data, answer, left):
    send(3)
    damage(Batch.objects.get())
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
    out = io.StringIO()
    try:
        call_command("store", "repair", "--yes", "--drop-unreadable", stdout=out, stderr=io.StringIO())
    except CommandError:
        assert left
    assert "Delete 1 rows with 3 samples from " in out.getvalue()
    assert Batch.objects.count() == left
    assert len(list((data / "damaged").glob("batch-*.json"))) == 1 - left
    assert AuditEntry.objects.filter(verb="metrics.drop_damaged").count() == 1 - left


def test_a_mark_on_a_sound_row_and_wrong_bounds_are_mended():
    send(2)
    store("compact")
    Block.objects.update(bad_at=timezone.now(), series_max=0, samples=7)
    with pytest.raises(CommandError, match="2 rows"):
        store("check")
    store("repair", "--yes")
    assert "0" in store("check")
    row = Block.objects.get()
    assert (row.bad_at, row.samples) == (None, 2)
    assert len(everything()) == 2


# --- in ---------------------------------------------------------------------------------------------------------------


FILES = {
    "a.csv": "name,timestamp,value,host\nx,1000,1.5,a\nx,2000,NaN,a\nx,1000,3,b\n",
    "a.jsonl": '{"metric": {"__name__": "x", "host": "a"}, "values": [1.5, NaN], "timestamps": [1000, 2000]}\n'
    '\n{"metric": {"__name__": "x", "host": "b"}, "values": [3], "timestamps": [1000]}\n',
    "a.om": '# TYPE x gauge\nx{host="a"} 1.5 1\nx{host="a"} NaN 2.000\nx{host="b"} 3 1.0 # {id="1"} 2\n# EOF\n',
    "a.prom": '# HELP x A thing.\nx{host="a"} 1.5 1000\nx{host="a",} NaN 2000\nx{host="b"} 3 1000\n',
    "a.dump": '{__name__="x", host="a"} 1.5 1000\n{__name__="x", host="a"} NaN 2000\n{"x", host="b"} 3 1000\n',
}


@pytest.mark.parametrize("name", FILES)
def test_imports_are_idempotent_and_audited_once_a_run(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name])
    for _ in range(2):
        store("import", path)
    assert everything(end=10_000) == {
        (("__name__", "x"), ("host", "a")): [(1000, "1.5"), (2000, "nan")],
        (("__name__", "x"), ("host", "b")): [(1000, "3.0")],
    }
    entries = AuditEntry.objects.filter(verb="metrics.backfill", target_label=str(path))
    assert [(entry.after or {})["samples"] for entry in entries] == [3, 3]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "name,value\n", "missing: timestamp"),
        ("a.csv", "name,timestamp,value\nx,later,1\n", "1 line could not be read .Line 2"),
        ("a.jsonl", '{"metric": {"__name__": "x"}, "values": [1], "timestamps": []}\n', "Line 1: 1 values, but 0"),
        ("a.jsonl", "{}\n", "Line 1: metric is missing"),
        ("a.om", "x 1 1.0\nx{a=b} 1 1.0\n", "Line 2: labels expected"),
        ("a.prom", "\n\nx 1\n", "Line 3: value and timestamp expected"),
        ("a.what", "x 1 1\n", "--format"),
    ],
)
def test_lines_that_are_none_are_named_with_their_number(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(CommandError, match=problem):
        store("import", tmp_path / name)


def test_a_bad_line_does_not_keep_the_others_out(tmp_path):
    (tmp_path / "a.prom").write_text("x 1 1000\nnonsense\nx 2 2000\n")
    with pytest.raises(CommandError, match="1 line could not be read"):
        store("import", tmp_path / "a.prom")
    assert [value for _, value in next(iter(everything().values()))] == ["1.0", "2.0"]


def test_what_an_import_refuses_is_told_with_its_line(tmp_path):
    ahead = int((timezone.now() + timedelta(hours=1)).timestamp() * 1000)
    (tmp_path / "a.csv").write_text(f"name,timestamp,value\nx,1,1\nx,{ahead},1\n")
    out, problems = io.StringIO(), io.StringIO()
    call_command("store", "import", str(tmp_path / "a.csv"), stdout=out, stderr=problems)
    assert "refused                      1" in out.getvalue()
    assert "Line 3: refused, the sample's time is more than 10 minutes ahead" in problems.getvalue()


@pytest.mark.parametrize("content", [None, b"\xa4\xff\x00"])
def test_a_file_that_cannot_be_read_is_said_so(tmp_path, content):
    path = tmp_path / "samples.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match="cannot be read"):
        store("import", path)


@pytest.mark.parametrize("kind", ["prom", "csv"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, services.StoreFull("The disk is full")])
def test_an_import_that_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch, error, kind):
    lines = [f"x 1 {1000 * n}\n" if kind == "prom" else f"x,{1000 * n},1\n" for n in range(1, 101)]
    path = tmp_path / f"a.{kind}"
    path.write_text("".join(lines if kind == "prom" else ["name,timestamp,value\n", *lines]))
    monkeypatch.setattr(transfer, "CHUNK", 10)
    stored, calls = services.store_past, []

    def third_fails(**given):
        calls.append(len(given["samples"]))
        if len(calls) == 3:
            raise error
        return stored(**given)

    monkeypatch.setattr(services, "store_past", third_fails)
    with pytest.raises(CommandError, match=f"goes on behind line {20 + (kind == 'csv')}"):
        store("import", path)
    del calls[:]
    calls += [0] * 3
    assert "samples                      100" in store("import", path)
    assert calls[3:] == [10] * 8
    assert len(next(iter(everything().values()))) == 100
    ends = [(entry.after or {})["ended"] for entry in AuditEntry.objects.filter(verb="metrics.backfill").order_by("id")]
    assert ends == ["stopped" if error is KeyboardInterrupt else "The disk is full", "done"]
    assert AuditEntry.objects.filter(verb="metrics.begin_import").count() == 1


def test_another_file_of_the_same_name_begins_anew(tmp_path, monkeypatch):
    path = tmp_path / "a.prom"
    monkeypatch.setattr(transfer, "CHUNK", 1)
    path.write_text("x 1 1000\nx 1 2000\n")
    work = transfer.Import(path, "prometheus", tmp_path / "imports")
    with path.open("rb") as file, pytest.raises(KeyboardInterrupt):
        work.run(
            file, by=Principal.system("test"), now=timezone.now, each=lambda: (_ for _ in ()).throw(KeyboardInterrupt)
        )
    assert transfer.Import(path, "prometheus", tmp_path / "imports").resume()
    path.write_text("y 1 1000\ny 1 2000\n")
    assert not transfer.Import(path, "prometheus", tmp_path / "imports").resume()


# --- out --------------------------------------------------------------------------------------------------------------

ODD = {"__name__": "x", "quote": 'a"b\\c\nd', "ünï": "ж", "empty": ""}


def fill(samples=300):
    labels = [ODD, {"__name__": "x", "n": "2"}, {"__name__": "other"}]
    values = [0.1, float("nan"), float("inf"), -float("inf"), -0.0, 5e-324]
    now = timezone.now()
    at = int(now.timestamp() * 1000) - samples * 1001
    series = [one for one in labels for _ in range(samples)]
    ts = [at + 1001 * n for n in range(samples)] * 3
    v = [values[n % 6] for n in range(3 * samples)]
    services.backfill(samples=Samples.of(series, ts, v), by=Principal.system("test"), now=now)


@pytest.mark.parametrize("kind", ["jsonl", "openmetrics"])
@pytest.mark.parametrize("most", [50, 10**6])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_is_exported_can_be_imported_to_the_bit(tmp_path, monkeypatch, kind, most, suffix):
    monkeypatch.setattr(transfer.portions, "__kwdefaults__", {**(transfer.portions.__kwdefaults__ or {}), "most": most})
    fill()
    before = everything()
    path = tmp_path / f"out.{'jsonl' if kind == 'jsonl' else 'om'}{suffix}"
    store("export", path, "--match", "x", "--format", kind)
    text = gzip.decompress(path.read_bytes()) if suffix else path.read_bytes()
    assert b"other" not in text
    assert text.endswith(b"# EOF\n") is (kind == "openmetrics")
    emptied()
    from apps.metrics import catalog, registry, storage, young
    from monitoring_portal.setup import load_defaults

    for memory in (registry, catalog, storage, young):
        memory.forget()
    load_defaults(now=timezone.now())
    store("import", path)
    assert everything() == before


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus' promtool")
def test_prometheus_reads_an_export_and_its_own_dump_comes_back_the_same(tmp_path):
    values = ["1.5", "NaN", "+Inf", "-Inf", "0.1", "5e-324", "-0.0"]
    lines = [
        f'x{{n="{n}",quote="a\\"b\\\\c"}} {v} {SINCE + 15_000 * at}\n' for n in (1, 2) for at, v in enumerate(values)
    ]
    (tmp_path / "a.prom").write_text("".join(lines))
    store("import", tmp_path / "a.prom")
    before = everything()
    assert len(before) == 2
    store("export", tmp_path / "a.om", "--format", "openmetrics")
    blocks = tmp_path / "blocks"
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", tmp_path / "a.om", blocks]
    subprocess.run(made, check=True, capture_output=True)
    for folder in ("wal", "chunks_head"):
        (blocks / folder).mkdir()
    dumped = subprocess.run(["promtool", "tsdb", "dump", blocks], check=True, capture_output=True).stdout
    (tmp_path / "b.txt").write_bytes(dumped.replace(b'"x"', b'"y"'))
    store("import", tmp_path / "b.txt")
    after = {
        tuple((key, "x" if key == "__name__" else value) for key, value in row): v for row, v in everything("y").items()
    }
    assert after == before


def test_staleness_markers_come_back_from_json_lines_and_are_no_samples_of_openmetrics(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"metric":{"__name__":"x"},"values":[1.0,"StaleNaN",NaN],"timestamps":[1000,2000,3000]}\n')
    store("import", path)
    got = query.select([Matcher("__name__", "=", "x")], 0, 4000)
    assert stale_mask(got.v).tolist() == [False, True, False]
    store("export", tmp_path / "b.jsonl")
    assert json.loads((tmp_path / "b.jsonl").read_text())["values"] == [1.0, "StaleNaN", "NaN"]
    store("export", tmp_path / "b.om", "--format", "openmetrics")
    assert (tmp_path / "b.om").read_text() == "x 1.0 1.000\nx NaN 3.000\n# EOF\n"


def test_an_export_is_cut_by_time_and_selector(tmp_path):
    (tmp_path / "a.prom").write_text("".join(f'x{{n="{n % 2}"}} {n} {SINCE + n * 1000}\n' for n in range(10)))
    store("import", tmp_path / "a.prom")
    out = tmp_path / "b.jsonl"
    store("export", out, "--match", 'x{n="1"}', "--start", SINCE // 1000 + 3, "--end", SINCE // 1000 + 7)
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row == {
        "metric": {"__name__": "x", "n": "1"},
        "values": [3.0, 5.0, 7.0],
        "timestamps": [SINCE + n for n in (3000, 5000, 7000)],
    }


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--match", "rate(x[5m])"), "selector"),
        (("--start", "yesterday"), "valid timestamp"),
        (("--match", "x{"), "1:3"),
    ],
)
def test_an_export_that_cannot_be_is_refused(tmp_path, words, problem):
    with pytest.raises(CommandError, match=problem):
        store("export", tmp_path / "a", *words)
