"""Real receivers on loopback: an HTTP server and an SMTP server that behave as told and keep what they got."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
from aiosmtpd.controller import Controller


@dataclass
class Request:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return orjson.loads(self.content)


@dataclass
class Answer:
    """What the receiver answers; `delay` in seconds before it. Status 0: it hangs up without a word."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    delay: float = 0.0


class _Server(ThreadingHTTPServer):
    """Takes bursts of connections without refusing one."""

    request_queue_size = 128
    daemon_threads = True


class HttpReceiver:
    """Answers each request by `answer(request)`; `requests` in the order of arrival."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Answer] = lambda request: Answer()
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, content)
                with receiver._lock:
                    receiver.requests.append(request)
                answer = receiver.answer(request)
                time.sleep(answer.delay)
                if not answer.status:
                    self.close_connection = True
                    return
                try:
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)
                except OSError:
                    pass  # the sender has hung up, as it should

            do_GET = do_POST  # noqa: N815 - the library's name

            def log_message(self, *args: object) -> None:
                """Keep quiet."""

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class SmtpReceiver:
    """Keeps e-mails as parsed messages; `reply` to DATA and `delay` before it can be set."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.reply = "250 OK"
        self.delay = 0.0
        self.controller = Controller(self, hostname="127.0.0.1", port=_free_port(), ready_timeout=5)
        self.controller.start()
        self.port: int = self.controller.port

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.delay:
            time.sleep(self.delay)  # noqa: ASYNC251 - the whole server hangs, which is meant
        if self.reply.startswith("250"):
            self.mails.append(BytesParser(EmailMessage, policy=default).parsebytes(envelope.content))
            self.recipients.append(list(envelope.rcpt_tos))
        return self.reply

    def close(self) -> None:
        self.controller.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
