"""Doors of the demo's own PostgreSQL and Valkey, which listen on no port: for one user with a password.

A data source is reached by host and port, so the demo opens two on this machine, and lets through what measuring
needs and no more.
Neither server asks anybody who reaches its socket for a password: who comes in here must never speak to it freely.
"""

import hmac
import select
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ENCRYPTION: Final = {80_877_103, 80_877_104}
"""Codes of a request for TLS or GSS (PostgreSQL's protocol, message formats): the answer is no."""
VERSION: Final = 196_608
"""Protocol 3.0."""
LONGEST: Final = 10_000
SECONDS: Final = 60.0


class Gate(socketserver.ThreadingTCPServer):
    """Listens on a port of this machine and hands what passes on to a socket."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self, port: int, upstream: Path, *, user: str, password: str, keeper: Callable[["Gate", socket.socket], None]
    ) -> None:
        """Take the port, or any other where it is taken."""
        self.upstream, self.user, self.password, self.keeper = upstream, user, password, keeper
        try:
            super().__init__(("127.0.0.1", port), _Visit)
        except OSError:
            super().__init__(("127.0.0.1", 0), _Visit)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    def opened(self) -> "Gate":
        """Let visitors in from now on."""
        threading.Thread(target=self.serve_forever, name=f"gate of {self.upstream.name}", daemon=True).start()
        return self

    def inner(self) -> socket.socket:
        """Connect to the server itself."""
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(SECONDS)
        line.connect(str(self.upstream))
        return line

    def knows(self, password: str) -> bool:
        """Whether it is the right one."""
        return hmac.compare_digest(password.encode(), self.password.encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody hung up: no news."""


class _Visit(socketserver.BaseRequestHandler):
    server: Gate

    def handle(self) -> None:
        self.request.settimeout(SECONDS)
        self.server.keeper(self.server, self.request)


def _exactly(line: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = line.recv(count - len(found))
        if not part:
            raise ConnectionError("hung up")
        found += part
    return found


# --- PostgreSQL ------------------------------------------------------------------------------------------------------
def postgres(gate: Gate, line: socket.socket) -> None:
    """Ask for the password of the one user, then pass everything on: PostgreSQL knows what that user may."""
    while True:
        (length,) = struct.unpack("!i", _exactly(line, 4))
        if not 8 <= length <= LONGEST:
            return
        rest = _exactly(line, length - 4)
        (code,) = struct.unpack("!i", rest[:4])
        if code not in ENCRYPTION:
            break
        line.sendall(b"N")
    words = rest[4:].split(b"\0")
    said = dict(zip(words[::2], words[1::2], strict=False))
    if code >> 16 != VERSION >> 16 or said.get(b"user") != gate.user.encode() or b"replication" in said:
        line.sendall(_refusal(f"only {gate.user} may come in here"))
        return
    line.sendall(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword; it stays on this machine
    kind, length = struct.unpack("!ci", _exactly(line, 5))
    if kind != b"p" or not 4 <= length <= LONGEST:
        return
    if not gate.knows(_exactly(line, length - 4).rstrip(b"\0").decode(errors="replace")):
        line.sendall(_refusal("wrong password"))
        return
    with gate.inner() as inner:
        inner.sendall(struct.pack("!i", len(rest) + 4) + rest)
        _pass_on(line, inner)


def _refusal(words: str) -> bytes:
    fields = b"SFATAL\0VFATAL\0C28000\0M" + words.encode() + b"\0\0"
    return b"E" + struct.pack("!i", len(fields) + 4) + fields


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """Both ways, until one of them ends."""
    while ready := select.select([one, other], [], [], SECONDS)[0]:
        for line in ready:
            if not (part := line.recv(65_536)):
                return
            (other if line is one else one).sendall(part)


# --- Valkey ----------------------------------------------------------------------------------------------------------
def valkey(gate: Gate, line: socket.socket) -> None:
    """Answer HELLO, AUTH and CLIENT itself and pass on INFO and PING after them; everything else is refused."""
    is_known = False
    with gate.inner() as inner, line.makefile("rb") as asked, inner.makefile("rb") as answered:
        while words := _command(asked):
            name, (user, password) = words[0].upper(), _said(words)
            if user:
                is_known = user == gate.user.encode() and gate.knows(password.decode(errors="replace"))
            if not is_known:
                line.sendall(b"-WRONGPASS wrong user or password\r\n" if user else b"-NOAUTH log in first\r\n")
            elif name == b"HELLO":
                line.sendall(b"%1\r\n$5\r\nproto\r\n:3\r\n" if words[1:2] == [b"3"] else b"-NOPROTO\r\n")
            elif name in (b"AUTH", b"CLIENT"):
                line.sendall(b"+OK\r\n")
            elif name in (b"INFO", b"PING") and len(words) == 1:
                inner.sendall(b"*1\r\n$4\r\n" + name + b"\r\n")
                line.sendall(_answer(answered))  # a line or a bulk string, the same in both protocols
            else:
                line.sendall(b"-NOPERM only INFO and PING are let through here\r\n")


def _said(words: list[bytes]) -> tuple[bytes, bytes]:
    """Return user and password of AUTH, or of HELLO 3 AUTH; empty where it is neither."""
    after = words[1:] if words[0].upper() == b"AUTH" else words[3:] if words[2:3] == [b"AUTH"] else []
    return (after[0], after[1]) if len(after) >= 2 else (b"", b"")


def _command(asked: Any) -> list[bytes]:
    """Return the words of the next command (an array of bulk strings), none at the end or where it is none."""
    head = asked.readline(LONGEST)
    if not head.startswith(b"*") or not 1 <= int(head[1:]) <= 10:
        return []
    words = []
    for _ in range(int(head[1:])):
        size = asked.readline(LONGEST)
        if not size.startswith(b"$") or not 0 <= int(size[1:]) <= LONGEST:
            return []
        words.append(asked.read(int(size[1:]) + 2)[:-2])
    return words


def _answer(answered: Any) -> bytes:
    """Return one answer whole: a line, or a bulk string with its length."""
    head: bytes = answered.readline()
    return head + (answered.read(int(head[1:]) + 2) if head.startswith(b"$") else b"")
