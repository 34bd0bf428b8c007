"""The one door through which the portal speaks HTTP to others.

It resolves the name itself, refuses addresses that must not be reached, and connects to exactly the address it
checked (no DNS rebinding); each redirect goes through the same check. Metadata services, link-local addresses and
the portal's own sockets stay shut always; private networks open only where the operator allowed them.

`send` is one request, over a connection that an earlier one left open some seconds ago where there is one; a `Line`
keeps its connection for one place that is asked again and again, with TLS settings of its own. Both end at a deadline
however slowly the other side drips: each read and write waits for what is left of it.
"""

import contextlib
import functools
import ipaddress
import socket
import ssl
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx
import orjson
from django.conf import settings

Observer = Callable[[str, int, float], None]
Trace = Callable[[str, Mapping[str, Any]], None]


class OutboundError(Exception):
    """A request that brought no answer; `permanent` tells whether trying again can help."""

    permanent = False


class Refused(OutboundError):
    """The address or URL is not allowed; trying again cannot help."""

    permanent = True


class Unreachable(OutboundError):
    """No answer: name, connection, time-out or TLS; trying again may help."""


class TooLarge(OutboundError):
    """The answer, unpacked, has more bytes than the caller takes; nothing of it is returned."""


@dataclass(frozen=True)
class Response:
    """What came back: status code, lower-case header names, body cut at the caller's limit."""

    status: int
    headers: dict[str, str]
    content: bytes
    seconds: float

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        return orjson.loads(self.content)


observers: list[Observer] = []
"""Called with (host, status or 0, seconds) after every request: telemetry hangs here."""

METADATA = {ipaddress.ip_address("169.254.169.254"), ipaddress.ip_address("fd00:ec2::254")}

KEPT = 32
"""Idle connections that `send` keeps."""
KEPT_FOR = 4.0
"""Seconds: less than the 5 after which the first servers (Node.js) hang up on an idle connection by themselves."""

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _is_always_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address in METADATA or address.is_link_local or address.is_multicast or address.is_unspecified


def _networks(entries: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    networks = []
    for entry in entries:
        with contextlib.suppress(ValueError):
            networks.append(ipaddress.ip_network(entry, strict=False))
    return networks


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that a gateway would contact for this one: mapped, 6to4 or NAT64 (RFC 6052)."""
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def check_address(host: str, port: int, literal: str, *, allow_private: bool, allow_loopback: bool = False) -> None:
    """Raise `Refused` unless the portal may connect to that address (`literal`) of that host."""
    address = ipaddress.ip_address(literal.split("%", maxsplit=1)[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = _carried(address) or address
    if _is_always_refused(address):
        raise Refused(f"{host} resolves to {address}, a metadata or link-local address that is never contacted.")
    if (str(address), port) in settings.OWN_ENDPOINTS or (address.is_loopback and port in settings.OWN_PORTS):
        raise Refused(f"{host}:{port} is the portal itself; it does not send requests to its own sockets.")
    if address.is_global:
        return
    allowed = settings.OUTBOUND_ALLOW
    if host in allowed or any(address in network for network in _networks(allowed)):
        return
    if address.is_loopback:
        if allow_loopback:
            return
    elif allow_private and address.is_private:
        return
    raise Refused(
        f"{host} resolves to {address}, which is not a public address. "
        f"To allow it, add the host or its network to OUTBOUND_ALLOW (now: {', '.join(allowed) or 'empty'})."
    )


class _Deadline(threading.local):
    """When the exchange of this thread must be over, on the clock of `time.perf_counter`."""

    at = float("inf")

    def left(self, timeout: float | None, late: type[Exception]) -> float:
        """Return how long one step may take; raise `late` where no time is left."""
        left = self.at - time.perf_counter()
        if left <= 0:
            raise late("the time is over")
        return left if timeout is None else min(left, timeout)


_deadline = _Deadline()


class _Stream(httpcore.NetworkStream):
    """A connection whose steps end with the deadline of the thread that uses it."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _deadline.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _deadline.left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _deadline.left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def addresses(host: str, port: int, *, allow_private: bool = False, allow_loopback: bool = False) -> list[str]:
    """Resolve the name and return the addresses that may be reached, in the resolver's order.

    Raises `Refused` where none of them may, `Unreachable` where the name has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise Unreachable(f"The name {host} does not resolve ({error}).") from error
    allowed = []
    refusal: Refused | None = None
    for literal in dict.fromkeys(str(address[0]) for *_, address in found):
        try:
            check_address(host, port, literal, allow_private=allow_private, allow_loopback=allow_loopback)
            allowed.append(literal)
        except Refused as error:
            refusal = error
    if not allowed:
        raise refusal or Unreachable(f"The name {host} has no address.")
    return allowed


def connect(
    host: str, port: int, *, timeout: float, allow_private: bool = False, allow_loopback: bool = False
) -> socket.socket:
    """Return a TCP connection to the first address that may be reached and answers; the caller closes it.

    `timeout` (seconds) bounds all tries together and stays that of the socket. Raises Refused, Unreachable.
    """
    ends = time.perf_counter() + timeout
    failure: OSError | None = None
    for literal in addresses(host, port, allow_private=allow_private, allow_loopback=allow_loopback):
        left = ends - time.perf_counter()
        if left <= 0:
            break
        try:
            return socket.create_connection((literal, port), left)
        except OSError as error:
            failure = error
    if failure is None or isinstance(failure, TimeoutError):
        raise Unreachable(f"{host}:{port} did not answer within {timeout:g} s.") from failure
    raise Unreachable(f"{host}:{port} could not be reached: {failure.strerror or failure}.") from failure


class _PinnedBackend(httpcore.SyncBackend):
    """Resolves once, checks every address and connects to the first allowed one."""

    def __init__(self, *, allow_private: bool, allow_loopback: bool = False) -> None:
        self.allow_private = allow_private
        self.allow_loopback = allow_loopback

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        try:
            literals = addresses(host, port, allow_private=self.allow_private, allow_loopback=self.allow_loopback)
        except Unreachable as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception | None = None
        for literal in literals:
            try:
                left = _deadline.left(timeout, httpcore.ConnectTimeout)
                return _Stream(super().connect_tcp(literal, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"The name {host} has no address.")

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        raise Refused("Unix sockets are not reachable from here.")


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the process's TLS context: reading the certificates costs 20 ms and more, too much for each request."""
    return ssl.create_default_context()


@functools.lru_cache(maxsize=8)
def _client(allow_private: bool, allowed: tuple[str, ...]) -> httpx.Client:
    """Return the process's client for what may be reached so: connections are kept, the next request to a place saves
    name, handshake and check. What may be reached is part of the key: a connection that was allowed once is not used
    after it is no longer. Cookies are not kept: two contacts at one host are strangers.
    """
    transport = httpx.HTTPTransport(retries=0, verify=_tls())
    # httpx has no public way to give its transport a network backend.
    transport._pool = httpcore.ConnectionPool(  # noqa: SLF001
        ssl_context=_tls(),
        network_backend=_PinnedBackend(allow_private=allow_private),
        # What hangs holds its connection: a limit would make others wait for it.
        max_connections=None,
        max_keepalive_connections=KEPT,
        keepalive_expiry=KEPT_FOR,
    )
    strangers = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.Client(transport=transport, cookies=strangers, follow_redirects=False, trust_env=False)


def send(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    content: bytes | None = None,
    timeout: float = 10.0,
    allow_private: bool = False,
    follow: int = 0,
    max_bytes: int = 1_000_000,
) -> Response:
    """Send one request and return its answer, whatever its status.

    `timeout` (seconds) bounds each connect, read and write and, times three, the whole. `follow` redirects are
    followed, each checked anew. Raises `Refused` or `Unreachable`; messages never contain headers, bodies or the
    query string, so that no secret lands in a log.
    """
    own = {"user-agent": f"MonitoringPortal/{settings.VERSION}", **{k.lower(): v for k, v in (headers or {}).items()}}
    if json is not None:
        content = orjson.dumps(json)
        own.setdefault("content-type", "application/json")
    host = _host_of(url)
    started = time.perf_counter()
    status = 0
    _deadline.at = started + 3 * timeout
    try:
        client = _client(allow_private, tuple(settings.OUTBOUND_ALLOW))
        for hop in range(follow + 1):
            answer = _exchange(client, method, url, own, content, timeout, started + 3 * timeout, max_bytes)
            status = answer.status
            location = answer.headers.get("location")
            if not (300 <= status < 400 and location) or hop == follow:
                return answer
            url = urljoin(url, location)
            if _host_of(url) != host:
                own = {k: v for k, v in own.items() if k not in {"authorization", "cookie", "x-api-key"}}
                host = _host_of(url)
            if status in {301, 302, 303} and method != "HEAD":
                method, content = "GET", None
        raise AssertionError("unreachable")  # pragma: no cover
    finally:
        _deadline.at = float("inf")
        for observe in observers:
            observe(host, status, time.perf_counter() - started)


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Refused(f"The URL is malformed: {error}.") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise Refused("The URL must begin with http:// or https:// and name a host.")
    return host


def _exchange(
    client: httpx.Client,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes | None,
    timeout: float,
    deadline: float,
    max_bytes: int,
) -> Response:
    started = time.perf_counter()
    host = _host_of(url)
    body = bytearray()
    try:
        with client.stream(method, url, headers=dict(headers), content=content, timeout=timeout) as answer:
            for chunk in answer.iter_bytes():
                body += chunk[: max_bytes - len(body)]
                if len(body) >= max_bytes:
                    break
                if time.perf_counter() > deadline:
                    raise Unreachable(f"{host} answered too slowly: nothing complete within the time-out.")
            return Response(
                status=answer.status_code,
                headers={k.lower(): v for k, v in answer.headers.items()},
                content=bytes(body),
                seconds=time.perf_counter() - started,
            )
    except (httpx.TimeoutException, httpcore.TimeoutException):
        raise Unreachable(f"{host} did not answer in time.") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise Refused(f"The URL of {host} is malformed: {error}.") from None
    except (httpx.HTTPError, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise Unreachable(f"{host} could not be reached: {error or type(error).__name__}.") from None


@dataclass(frozen=True)
class Tls:
    """How a line trusts and shows itself: certificates and keys in PEM, empty for the system's and none."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""
    insecure: bool = False


@functools.lru_cache(maxsize=64)
def context_of(tls: Tls) -> ssl.SSLContext:
    """Return the TLS context of these settings. Raises ValueError with a sentence where they cannot be used."""
    if tls == Tls(server_name=tls.server_name):
        return _tls()
    try:
        context = ssl.create_default_context(cadata=tls.ca or None)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"The CA certificates cannot be read: {_reason(error)}.") from None
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate or tls.key:
        try:
            # OpenSSL reads a certificate from a file only; this one is gone as soon as it is read.
            with tempfile.NamedTemporaryFile("w", prefix="portal-", suffix=".pem") as file:
                file.write(f"{tls.certificate}\n{tls.key}\n")
                file.flush()
                context.load_cert_chain(file.name, password=lambda: "")
        except (ssl.SSLError, ValueError, OSError) as error:
            raise ValueError(f"The client certificate and its key cannot be used: {_reason(error)}.") from None
    return context


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error)


class Line:
    """A connection kept for one place: the next request saves name, handshake and check. One thread at a time."""

    def __init__(
        self, *, allow_private: bool = False, allow_loopback: bool = False, tls: Tls = Tls(), keep: float = 300.0
    ) -> None:
        """`keep`: seconds after which an idle connection is made anew, and the name looked up again."""
        self._names = {"sni_hostname": tls.server_name} if tls.server_name else {}
        self._pool = httpcore.ConnectionPool(
            ssl_context=context_of(tls),
            network_backend=_PinnedBackend(allow_private=allow_private, allow_loopback=allow_loopback),
            max_connections=1,
            keepalive_expiry=keep,
        )

    def close(self) -> None:
        """Hang up."""
        self._pool.close()

    def ask(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        max_bytes: int,
        follow: int = 0,
        method: str = "GET",
        content: bytes | None = None,
        trace: Trace | None = None,
    ) -> Response:
        """Ask once and return the answer, unpacked where it came in gzip, whatever its status.

        `timeout` (seconds) bounds the whole, redirects included. Headers that carry a secret stay with the host that
        they were meant for. `trace` is called with httpcore's events as they happen. Raises Refused, Unreachable and
        TooLarge.
        """
        own = {"user-agent": f"MonitoringPortal/{settings.VERSION}", **headers}
        first = host = _origin_of(url)
        started = time.perf_counter()
        status = 0
        _deadline.at = started + timeout
        try:
            for hop in range(follow + 1):
                answer = self._exchange(method, url, own, content, timeout, max_bytes, trace)
                status = answer.status
                location = answer.headers.get("location")
                if not (300 <= status < 400 and location) or hop == follow:
                    return answer
                url = urljoin(url, location)
                host = _origin_of(url)
                if host != first:
                    own = {name: value for name, value in own.items() if name in OPEN_HEADERS}
                if status in {301, 302, 303} and method != "HEAD":
                    method, content = "GET", None
            raise AssertionError("unreachable")  # pragma: no cover
        finally:
            _deadline.at = float("inf")
            for observe in observers:
                observe(_host_of(url), status, time.perf_counter() - started)

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        timeout: float,
        max_bytes: int,
        trace: Trace | None,
    ) -> Response:
        host = _host_of(url)
        started = time.perf_counter()
        steps = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
        extensions = {"timeout": steps, **self._names, **({"trace": trace} if trace else {})}
        try:
            with self._pool.stream(
                method, url, headers=list(headers.items()), content=content, extensions=extensions
            ) as answer:
                told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
                content = _unpacked(answer.iter_stream(), told.get("content-encoding", ""), max_bytes)
                return Response(answer.status, told, content, time.perf_counter() - started)
        except httpcore.TimeoutException:
            raise Unreachable(f"{host} did not answer within {timeout:g} s.") from None
        except (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError) as error:
            raise Refused(f"The request to {host} is malformed: {error}.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise Unreachable(f"{host} could not be reached: {_brief(error)}.") from None


OPEN_HEADERS = frozenset({"user-agent", "accept", "accept-encoding"})
"""Headers of a `Line` that go along to another host; all others may be or name a secret."""


def _brief(error: Exception) -> str:
    return str(error) or type(error).__name__


def _origin_of(url: str) -> tuple[str, str, int | None]:
    host, parts = _host_of(url), urlsplit(url)
    return parts.scheme, host, parts.port


def _unpacked(chunks: Iterable[bytes], packing: str, max_bytes: int) -> bytes:
    """Return the body, unpacked. Raises TooLarge as soon as it is, Unreachable where it cannot be unpacked."""
    packing = packing.strip().lower()
    if packing not in ("", "identity", "gzip", "x-gzip"):
        raise Unreachable(f"The answer is packed by {packing[:40]!r}, which was not asked for.")
    parts: list[bytes] = []
    left = max_bytes
    unpacking = None if packing in ("", "identity") else zlib.decompressobj(_GZIP)
    for chunk in chunks:
        rest = chunk
        while rest:
            part, rest, unpacking = _part(rest, unpacking, left)
            left -= len(part)
            if left < 0:
                raise TooLarge(f"The answer is larger than {max_bytes} bytes.")
            parts.append(part)
    if unpacking is not None and not unpacking.eof:
        raise Unreachable("The answer ended before its gzip did.")
    return b"".join(parts)


_GZIP = 31


def _part(packed: bytes, unpacking: Any, left: int) -> tuple[bytes, bytes, Any]:
    """(at most left + 1 bytes of the body, what was packed behind its end, what unpacks the next chunk)."""
    if unpacking is None:
        return packed, b"", None
    try:
        if unpacking.eof:
            unpacking = zlib.decompressobj(_GZIP)  # gzip may have several members, one behind the other
        part = unpacking.decompress(packed, left + 1)
    except zlib.error:
        raise Unreachable("The answer says that it is gzip and cannot be unpacked.") from None
    return part, unpacking.unused_data if unpacking.eof else b"", unpacking
