"""The outbound door: what it reaches, what it refuses, and that it says so in one sentence."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from apps.core import http

STOPPED = threading.Event()
CALLERS: list[tuple[str, int]] = []
"""The other end of each connection by which somebody asked."""


class Answers(BaseHTTPRequestHandler):
    """A receiver with a few habits, chosen by path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        CALLERS.append(self.client_address)
        match self.path:
            case "/kept":
                self.send_response(200)
                self.send_header("Set-Cookie", "whose=yours; Path=/")
                told = (self.headers["Cookie"] or "no cookie").encode()
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)
                return
        self.close_connection = True
        match self.path:
            case "/moved":
                self.send_response(302)
                self.send_header("Location", "http://169.254.169.254/latest/")
                self.end_headers()
            case "/large":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"x" * 100_000)
            case "/hangs":
                STOPPED.wait(10)
            case _:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(self.headers["User-Agent"].encode())

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    STOPPED.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_loopback_is_refused_with_what_to_do(receiver):
    with pytest.raises(http.Refused, match="add the host or its network to OUTBOUND_ALLOW"):
        http.send("GET", receiver)


def test_an_allowed_network_is_reached_and_the_portal_names_itself(receiver, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.0/8"]
    assert http.send("GET", receiver).text.startswith("MonitoringPortal/")


def test_a_redirect_to_the_metadata_service_is_refused_even_where_everything_is_allowed(receiver, settings):
    settings.OUTBOUND_ALLOW = ["0.0.0.0/0"]
    with pytest.raises(http.Refused, match="metadata"):
        http.send("GET", f"{receiver}/moved", follow=3)


def test_redirects_are_not_followed_unless_asked(receiver, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.0/8"]
    assert http.send("GET", f"{receiver}/moved").status == 302


def test_the_next_request_to_a_place_takes_the_same_connection_and_no_cookie(receiver, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.0/8"]
    assert [http.send("GET", f"{receiver}/kept").text for _ in range(3)] == ["no cookie"] * 3
    assert len(set(CALLERS[-3:])) == 1


def test_a_kept_connection_does_not_outlive_the_permission(receiver, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.0/8"]
    http.send("GET", f"{receiver}/kept")
    settings.OUTBOUND_ALLOW = []
    with pytest.raises(http.Refused, match="not a public address"):
        http.send("GET", f"{receiver}/kept")


def test_a_large_body_is_cut(receiver, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.0/8"]
    assert len(http.send("GET", f"{receiver}/large", max_bytes=1000).content) == 1000


def test_a_hanging_receiver_is_unreachable_and_not_permanent(receiver, settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.0/8"]
    with pytest.raises(http.Unreachable, match="in time") as caught:
        http.send("GET", f"{receiver}/hangs", timeout=0.2)
    assert not caught.value.permanent


def test_a_closed_port_is_unreachable(settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.0/8"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(http.Unreachable):
        http.send("GET", f"http://127.0.0.1:{port}/")


def test_the_portals_own_port_stays_shut(settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.0/8"]
    settings.OWN_PORTS = {3000}
    with pytest.raises(http.Refused, match="portal itself"):
        http.send("GET", "http://127.0.0.1:3000/")


@pytest.mark.parametrize(
    ("literal", "allowed"),
    [
        ("8.8.8.8", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:a9fe:a9fe::", False),
        ("2002:7f00:1::", False),
        ("fe80::1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("100.64.0.1", False),
        ("2001:4860:4860::8888", True),
    ],
)
def test_addresses_by_table(literal, allowed):
    if allowed:
        http.check_address("host", 80, literal, allow_private=False)
    else:
        with pytest.raises(http.Refused):
            http.check_address("host", 80, literal, allow_private=False)


@pytest.mark.parametrize("literal", ["10.0.0.1", "192.168.3.4", "fd00::5"])
def test_private_networks_open_for_targets_that_an_administrator_saved(literal):
    http.check_address("host", 80, literal, allow_private=True)


@pytest.mark.parametrize("literal", ["127.0.0.1", "169.254.1.1", "::1"])
def test_loopback_and_link_local_do_not(literal):
    with pytest.raises(http.Refused):
        http.check_address("host", 80, literal, allow_private=True)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://x", "http://", "http://[::1", "nonsense"])
def test_odd_urls_are_refused(url):
    with pytest.raises(http.Refused):
        http.send("GET", url)


def test_errors_name_the_host_but_no_secret_of_the_url():
    with pytest.raises(http.Refused) as caught:
        http.send("GET", "http://127.0.0.1:1/hook/s3cret?token=s3cret")
    assert "s3cret" not in str(caught.value)
