"""Shipped rules of the portal, its people and its host, seen firing and ending by faults that are made to happen."""

import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path, reverse

from apps.accounts import services as accounts
from apps.accounts.models import User
from apps.metrics.collectors import cpu, meminfo
from apps.sources.models import ScrapeTarget
from tests.faults.disk import NoDisk, SmallDisk
from tests.faults.watch import Watch, waited_since
from tests.sources.conftest import ADMIN, Target, job

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Safari/604.1"
RIGHT = "hunter2-hunter2"


# --- People ----------------------------------------------------------------------------------------------------------
def log_in(name: str, password: str, address: str = "192.0.2.77", agent: str = FIREFOX) -> int:
    form = {"username": name, "password": password}
    return Client().post(reverse("login"), form, REMOTE_ADDR=address, HTTP_USER_AGENT=agent).status_code


@pytest.fixture
def bob() -> User:
    return User.objects.create_user("bob", password=RIGHT)


def test_guessed_passwords_are_a_burst_and_lock_the_name_out(bob: User) -> None:
    watch = Watch("failed-login-burst", "account-locked-out")
    watch.round()
    for _ in range(9):
        log_in("bob", "wrong")
    watch.round()
    assert watch.firing() == {}, "nine are everyday"
    for number in range(6):
        log_in("bob", "wrong", address=f"192.0.2.{number}")
    watch.fires("failed-login-burst", "warning", within=30)
    assert "account-locked-out" not in watch.firing()
    assert [log_in("bob", "wrong") for _ in range(2)][-1] == 429
    watch.fires("account-locked-out", "warning", within=30)
    watch.resolves("failed-login-burst", within=360, pace=60)
    watch.resolves("account-locked-out", within=960, pace=60)


def test_a_log_in_from_a_new_place_is_told_and_passes(bob: User) -> None:
    watch = Watch("new-place-login")
    assert log_in("bob", RIGHT) == 302
    watch.passes(30)
    assert watch.firing() == {}, "the first log-in of a person is no news"
    assert log_in("bob", RIGHT, "198.51.100.1", PHONE) == 302
    watch.fires("new-place-login", "info", within=30)
    watch.resolves("new-place-login", within=960, pace=60)


def called(secret: str, times: int) -> set[int]:
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    return {client.get("/api/v1/portal/tokens/").status_code for _ in range(times)}


def test_a_token_that_asks_for_what_it_may_not_and_one_that_nobody_issued_are_told() -> None:
    watch = Watch("permission-denials", "token-misuse")
    _, secret = accounts.issue_token(by=ADMIN, name="r", scopes=["read"], expires_at=None, now=watch.now)
    watch.round()
    assert called(secret, 60) == {403}
    watch.fires("permission-denials", "warning", within=30)
    assert "token-misuse" not in watch.firing()
    assert 401 in called("nobody-issued-this-token", 30)
    watch.fires("token-misuse", "warning", within=30)
    watch.resolves("permission-denials", within=660, pace=60)
    watch.resolves("token-misuse", within=60)


# --- Requests --------------------------------------------------------------------------------------------------------
def slow(request: HttpRequest) -> HttpResponse:
    time.sleep(5.1)
    return HttpResponse("at last")


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("broken on purpose")


def fine(request: HttpRequest) -> HttpResponse:
    return HttpResponse("fine")


def handler500(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=500)


urlpatterns = [path("slow", slow), path("broken", broken), path("fine", fine)]


@pytest.fixture
def application() -> Iterator[Client]:
    only = ["apps.metrics.middleware.RequestMetrics"]
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=only, ALLOWED_HOSTS="*"):
        yield Client(raise_request_exception=False)


def test_a_slow_view_makes_responses_slow_and_ends_with_it(application: Client) -> None:
    watch = Watch("slow-response")
    watch.round()
    threads = [threading.Thread(target=application.get, args=("/slow",)) for _ in range(7)]
    for thread in threads:
        thread.start()
        time.sleep(0.15)
    answered = iter(threads)  # they end one after the other: one slow answer in each round
    alert = watch.fires("slow-response", "warning", within=110, each=lambda: next(answered).join())
    assert alert.value is not None
    assert 5000 < alert.value < 10_000
    assert waited_since(alert).total_seconds() >= 60
    for thread in answered:
        thread.join()
    watch.resolves("slow-response", within=90, each=lambda: application.get("/fine"))


def test_a_view_that_fails_makes_an_error_rate(application: Client) -> None:
    watch = Watch("high-error-rate")

    def asked(failing: int) -> None:
        for number in range(12):
            application.get("/broken" if number < failing else "/fine")

    watch.passes(60, lambda: asked(0))
    alert = watch.fires("high-error-rate", "warning", within=400, each=lambda: asked(1))
    assert waited_since(alert).total_seconds() >= 300
    watch.fires("high-error-rate", "critical", within=400, each=lambda: asked(6))
    watch.resolves("high-error-rate", within=90, each=lambda: asked(0))


# --- The host --------------------------------------------------------------------------------------------------------
def test_a_processor_that_is_busy_and_a_memory_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own files, as a busy machine has them: to use up this one's memory would harm its neighbours."""
    monkeypatch.setattr(meminfo, "PROC", tmp_path)
    monkeypatch.setattr(cpu, "PROC", tmp_path)
    ticks, spent = count(1), SimpleNamespace(busy=0, idle=0)

    def machine(busy: int, available: int) -> None:
        next(ticks)
        spent.busy, spent.idle = spent.busy + 15 * busy, spent.idle + 15 * (100 - busy)
        (tmp_path / "stat").write_text(f"cpu  0 0 0 0\ncpu0 {spent.busy} 0 0 {spent.idle} 0 0 0 0 0 0\n")
        (tmp_path / "meminfo").write_text(f"MemTotal: 1000 kB\nMemAvailable: {available} kB\n")

    machine(10, 600)
    watch = Watch("high-cpu-usage", "high-memory-usage", collectors=("cpu", "meminfo"))
    watch.passes(90, lambda: machine(10, 600))
    assert watch.firing() == {}
    watch.fires("high-cpu-usage", "warning", within=420, each=lambda: machine(85, 150))
    assert watch.firing()["high-memory-usage"] == "warning"
    watch.fires("high-cpu-usage", "critical", within=420, each=lambda: machine(99, 50))
    assert watch.firing()["high-memory-usage"] == "critical"
    watch.resolves("high-cpu-usage", within=120, each=lambda: machine(10, 600))
    watch.resolves("high-memory-usage", within=30, each=lambda: machine(10, 600))


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    try:
        with SmallDisk(tmp_path / "small", 60_000_000) as disk:
            watch = Watch("disk-nearly-full", collectors=("filesystem",))
            watch.configure("filesystem", exclude_mounts=f"^(?!{disk.folder}$)")
            watch.passes(75)
            assert watch.firing() == {}
            disk.fill(leave=5_000_000)
            watch.fires("disk-nearly-full", "warning", within=90)
            disk.fill(leave=1_000_000)
            watch.fires("disk-nearly-full", "critical", within=90)
            disk.free_it()
            watch.resolves("disk-nearly-full", within=30)
    except NoDisk as reason:
        pytest.skip(str(reason))


def test_a_collector_whose_disk_is_gone_fails_until_it_is_back(settings: Any) -> None:
    watch = Watch("collector-failing", collectors=("data_disk", "loadavg"))
    watch.round()
    whole, settings.DATA = settings.DATA, "/no/such/folder"
    alert = watch.fires("collector-failing", "warning", within=180)
    assert alert.labels["collector"] == "data_disk"
    settings.DATA = whole
    watch.resolves("collector-failing", within=30)


# --- What is scraped -------------------------------------------------------------------------------------------------
def test_a_target_that_hangs_up_is_down_until_it_answers() -> None:
    target = Target()
    thread = threading.Thread(target=target.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        watch = Watch("target-down")
        job(target.address, now=watch.now)
        watch.passes(60)
        assert ScrapeTarget.objects.get().health == "up"
        target.answer = lambda handler: handler.connection.close()
        alert = watch.fires("target-down", "critical", within=120)
        assert (alert.labels["job"], alert.labels["instance"]) == ("web", target.address)
        target.answer = None
        watch.resolves("target-down", within=60)
    finally:
        target.stop.set()
        target.shutdown()
        target.server_close()
        thread.join()
