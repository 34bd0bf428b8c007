"""A real SMTP server and a real HTTP receiver on loopback that remember what reached them."""

import email
import json
import threading
from collections.abc import Callable
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic, sleep
from typing import Any

from aiosmtpd.controller import Controller


def until(condition: Callable[[], Any], patience: float, what: str) -> Any:
    """Return the first true value of `condition`, looking ten times a second."""
    deadline = monotonic() + patience
    while not (found := condition()):
        assert monotonic() < deadline, f"waited {patience} s in vain for {what}"
        sleep(0.1)
    return found


class Mailbox:
    """An SMTP server whose every message is kept."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.controller = Controller(self, hostname="127.0.0.1", port=0)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.messages.append(email.message_from_bytes(envelope.content, policy=default))
        return "250 kept"

    def start(self) -> None:
        # aiosmtpd probes its own port and wants to know it beforehand.
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.controller.port = free.getsockname()[1]
        self.controller.start()

    @property
    def port(self) -> int:
        return self.controller.port

    def about(self, text: str) -> list[str]:
        """Return the subjects of the messages that hold the text in subject or body."""
        return [str(m["subject"]) for m in self.messages if text in str(m["subject"]) or text in m.as_string()]

    def stop(self) -> None:
        self.controller.stop()


class Hooks:
    """An HTTP receiver whose every request is kept as (headers, JSON body)."""

    def __init__(self) -> None:
        kept = self.kept = []  # type: list[tuple[dict[str, str], Any]]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kept.append(({k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def start(self) -> None:
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook"

    def about(self, text: str) -> list[str]:
        """Return the status of each message that holds the text."""
        return [str(body.get("status")) for _, body in self.kept if text in json.dumps(body)]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
