"""What probes find at real servers, when a check is down, what is stored of it, and who may change what."""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.core.exceptions import ValidationError

from apps.accounts.permissions import Forbidden
from apps.metrics import query
from apps.sources import checking, checks, probes, rounds
from apps.sources.models import Check, CheckChange
from apps.sources.probes import Reach
from apps.sources.probes.http import fits
from apps.sources.probes.icmp import checksum, is_answer, packet
from apps.sources.standing import Standing
from monitoring_portal.embedded import valkey_program
from tests.sources.conftest import ADMIN, EDITOR, NOW, Target

REACH = Reach(timedelta(seconds=2), trusted=True)


def probe(kind: str, **values: object) -> probes.Found:
    form = probes.probes.get(kind).Config({"redirects": 5, **values} if kind == "http" else values)
    assert form.is_valid(), form.errors
    return probes.run(kind, form.cleaned_data, REACH)[0]


def figures(found: probes.Found) -> dict[str, float]:
    return {reading.name: reading.value for reading in found.readings}


# --- Pure ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("outcomes", "confirm", "health"),
    [
        ("+", 2, "up"), ("-", 2, "failing"), ("--", 2, "down"), ("-", 1, "down"), ("+-", 2, "failing"),
        ("+-+-", 2, "failing"), ("--+", 2, "up"), ("---", 3, "down"), ("+--+-", 2, "failing"),
    ],
)  # fmt: skip
def test_a_check_is_down_after_so_many_failures_in_a_row(outcomes, confirm, health):
    standing = Standing()
    for outcome in outcomes:
        standing = standing.after(failed=outcome == "-", confirm=confirm)
    assert standing.health == health


@pytest.mark.parametrize(
    ("status", "wanted", "fine"),
    [(200, "2xx", True), (404, "2xx", False), (404, "200, 4xx", True), (302, "200-399", True), (500, "200", False)],
)
def test_statuses_are_written_as_codes_classes_and_spans(status, wanted, fine):
    assert fits(status, wanted) is fine


@pytest.mark.parametrize(
    ("text", "found"),
    [("db:5432", ("db", 5432)), ("[::1]:25", ("::1", 25)), ("db", None), ("db:0", None), ("a b:1", None), (":1", None)],
)
def test_a_host_comes_with_its_port(text, found):
    if found is None:
        with pytest.raises(ValueError, match="Give"):
            probes.host_and_port(text)
    else:
        assert probes.host_and_port(text) == found


def test_a_ping_has_a_right_checksum_and_knows_its_answer():
    sent = packet(8, 7, 3)
    assert checksum(sent) == 0
    answer = bytes([0]) + sent[1:]
    assert is_answer(answer, socket.AF_INET, 3)
    assert not is_answer(answer, socket.AF_INET, 4)
    assert not is_answer(sent, socket.AF_INET, 3)
    assert not is_answer(b"", socket.AF_INET, 3)


# --- Real servers --------------------------------------------------------------------------------------------------
def test_a_page_is_judged_by_status_words_and_time(target: Target):
    url = f"http://{target.address}/shop"
    target.body = b"<h1>Shop is open</h1>"
    found = probe("http", url=url, expect="open", reject="error")
    assert found.reason == ""
    assert figures(found)["probe_http_status_code"] == 200
    assert "lacks" in probe("http", url=url, expect="closed").reason
    assert "must not" in probe("http", url=url, reject="Shop").reason
    target.status = 503
    failed = probe("http", url=url)
    assert "status 503" in failed.reason
    assert figures(failed)["probe_http_status_code"] == 503
    assert probe("http", url=url, statuses="503").reason == ""


def test_a_server_that_is_away_or_out_of_bounds_is_a_reason_not_an_error(target: Target):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "could not be reached" in probe("tcp", address=f"127.0.0.1:{port}").reason
    assert "could not be reached" in probe("http", url=f"http://127.0.0.1:{port}/").reason
    form = probes.probes.get("tcp").Config({"address": target.address})
    assert form.is_valid()
    untrusted = probes.run("tcp", form.cleaned_data, Reach(timedelta(seconds=2)))[0]
    assert "not a public address" in untrusted.reason
    assert "metadata" in probe("tcp", address="169.254.169.254:80").reason


@pytest.fixture
def banner() -> Iterator[str]:
    """A server that says hello and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line:
                    line.sendall(b"220 mail ready\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_port_is_judged_by_its_first_words(banner):
    assert probe("tcp", address=banner, expect="^220 ").reason == ""
    assert "said" in probe("tcp", address=banner, expect="^SSH").reason


def self_signed(path: Path, ends: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(ends - timedelta(days=90)).not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("shop.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + private)


def test_an_expired_certificate_fails_the_check_and_is_shown_all_the_same(target: Target, tmp_path):
    ends = datetime(2026, 1, 2, tzinfo=UTC)
    self_signed(tmp_path / "cert.pem", ends)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem")
    target.socket = context.wrap_socket(target.socket, server_side=True)
    for kind, values in (
        ("http", {"url": f"https://{target.address}/"}),
        ("tcp", {"address": target.address, "tls": True}),
    ):
        found = probe(kind, **values)
        assert "certificate" in found.reason.lower()
        assert found.certificate is not None
        assert (found.certificate.subject, found.certificate.not_after) == ("shop.example", ends)


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    """A Redis protocol server on a port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [valkey_program(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "sesame"],
        stdout=subprocess.DEVNULL,
    )
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.02)
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait()


def test_redis_answers_ping_and_says_its_role(valkey):
    assert "NOAUTH" in probe("redis", address=valkey).reason
    found = probe("redis", address=valkey, password="sesame", role="master")
    assert (found.reason, found.readings[0].labels) == ("", {"role": "master"})
    assert "not a slave" in probe("redis", address=valkey, password="sesame", role="slave").reason


def test_a_broker_without_workers_and_with_a_long_queue_fails(valkey):
    host, port = valkey.split(":")
    with redis.Redis(host, int(port), password="sesame") as client:
        client.lpush("celery", *"abc")
        values = {"broker": valkey, "password": "sesame", "queues": "celery, mail"}
        found = probe("celery", **values)
        client.delete("celery")
    assert found.reason == "0 of 1 workers answered."
    lengths = {one.labels.get("queue"): one.value for one in found.readings if one.labels}
    assert lengths == {"celery": 3.0, "mail": 0.0}


@pytest.mark.slow
def test_workers_of_another_application_answer_until_they_are_killed(valkey, tmp_path):
    host, port = valkey.split(":")
    (tmp_path / "shop.py").write_text(
        f"import celery\napp = celery.Celery('shop', broker='redis://:sesame@{host}:{port}/0')\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "shop", "worker", "-P", "solo", "-l", "ERROR"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "C_FORCE_ROOT": "1"},  # nothing of the portal's own settings
    )
    values = {"broker": valkey, "password": "sesame"}
    try:
        ends = time.monotonic() + 60
        while (reason := probe("celery", **values).reason) and time.monotonic() < ends:
            pass
        assert reason == ""
    finally:
        worker.kill()
        worker.wait()
    assert probe("celery", **values).reason == "0 of 1 workers answered."


@pytest.fixture
def name_server() -> Iterator[str]:
    """A name server that knows shop.example, and nothing else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    asked, client = server.recvfrom(512)
                except OSError:
                    return
                answer = dns.message.make_response(dns.message.from_wire(asked))
                name = answer.question[0].name
                if name.to_text() == "shop.example.":
                    answer.answer.append(dns.rrset.from_text(name, 300, "IN", "A", "192.0.2.7"))
                else:
                    answer.set_rcode(dns.rcode.NXDOMAIN)
                server.sendto(answer.to_wire(), client)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_name_is_judged_by_its_records(name_server):
    found = probe("dns", name="shop.example", server=name_server, expect=r"^192\.0\.2\.")
    assert (found.reason, figures(found)["probe_dns_ttl_seconds"]) == ("", 300.0)
    assert "as expected" in probe("dns", name="shop.example", server=name_server, expect="^10").reason
    assert probe("dns", name="other.example", server=name_server).reason == "There is no such name."


def test_this_machine_answers_a_ping_where_pings_are_allowed():
    found = probe("icmp", host="127.0.0.1", count=2)
    if "does not let" in found.reason:
        pytest.skip(found.reason)
    assert (found.reason, figures(found)["probe_icmp_loss_ratio"]) == ("", 0.0)


def test_a_server_of_another_protocol_is_named_as_such(banner, target: Target):
    assert "does not speak" in probe("redis", address=banner).reason
    assert probe("postgres", address=banner, database="x", user="y").reason
    assert probe("celery", broker=banner).reason
    assert probe("dns", name="example.org", server=banner).reason


# --- What is stored ------------------------------------------------------------------------------------------------
pytestmark = pytest.mark.django_db


def made(address: str, *, by=ADMIN, kind: str = "tcp", values=None, **more: object) -> Check:
    check = Check(name=str(more.pop("name", "shop")), kind=kind, **more)
    return checks.save_check(by=by, check=check, values=values or {"address": address}, now=NOW)


def asked(minutes: int) -> Check:
    now = NOW + timedelta(minutes=minutes)
    Check.objects.update(due_at=now)
    checking.rounds_of(1).run(now=now)
    return Check.objects.get()


def test_up_failing_down_and_up_again_are_stored_and_told_in_the_history(target: Target):
    check = made(target.address, labels={"service": "shop"}, interval=timedelta(seconds=30))
    assert asked(1).health == "up"
    target.shutdown()
    target.server_close()
    assert asked(2).health == "failing"
    down = asked(3)
    assert (down.health, down.failures) == ("down", 2)
    assert "could not be reached" in down.error
    shown = {value.name: value.value for value in query.latest((), at=NOW + timedelta(minutes=3))}
    assert (shown["probe_success"], shown["check_up"]) == (0.0, 0.0)
    assert [change.health for change in CheckChange.objects.filter(check_row=check)] == ["down", "up"]


def test_a_check_that_was_changed_while_it_was_asked_keeps_nothing_of_the_old_answer(target: Target):
    made(target.address)
    held = rounds.claim(Check, now=NOW, limit=5, lease=checking.LEASE)[0]
    checks.save_check(by=ADMIN, check=Check.objects.get(), values={"address": "127.0.0.1:9"}, now=NOW)
    checking.visit(held, now=NOW)
    assert Check.objects.get().health == "unknown"


def test_a_claimed_check_is_nobody_elses_until_its_claim_runs_out(target: Target):
    made(target.address)
    assert len(rounds.claim(Check, now=NOW, limit=5, lease=checking.LEASE)) == 1
    assert rounds.claim(Check, now=NOW, limit=5, lease=checking.LEASE) == []


def test_an_editor_makes_checks_but_not_into_private_networks_nor_with_secrets():
    assert not made("a.example:1", by=EDITOR).trusted
    assert made("b.example:1", by=ADMIN, name="other").trusted
    secret = {"address": "c.example:6379", "password": "hush-hush"}
    with pytest.raises(Forbidden, match="Secrets"):
        made("", by=EDITOR, name="third", kind="redis", values=secret)
    check = made("", kind="redis", name="third", values=secret)
    assert "hush" not in str(Check.objects.values("config", "labels"))
    with pytest.raises(Forbidden, match="carries secrets"):
        checks.save_check(by=EDITOR, check=check, values={"address": "evil.example:6379"}, now=NOW)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"labels": {"job": "x"}}, "labels"), ({"labels": {"a b": "x"}}, "labels"), ({"labels": {"a": ""}}, "labels"),
        ({"interval": timedelta(seconds=1)}, "interval"), ({"timeout": timedelta(minutes=2)}, "timeout"),
        ({"kind": "nothing"}, "kind"), ({"values": {"address": "no port"}}, "address"), ({"values": {"x": 1}}, "x"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(change, field):
    with pytest.raises(ValidationError) as refused:
        made("a.example:1", **change)
    assert field in refused.value.message_dict


def test_a_check_that_is_switched_off_is_asked_no_more_and_its_series_end(target: Target):
    made(target.address)
    assert asked(1).shown
    check = Check.objects.get()
    check.enabled = False
    checks.save_check(by=ADMIN, check=check, values={}, now=NOW + timedelta(minutes=2))
    check = Check.objects.get()
    assert (check.health, check.shown) == ("unknown", [])
    assert rounds.claim(Check, now=NOW + timedelta(hours=1), limit=5, lease=checking.LEASE) == []
    with pytest.raises(ValidationError, match="switched off"):
        checks.check_now(by=ADMIN, check=check, now=NOW)
