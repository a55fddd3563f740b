"""An HTTP proxy in front of an object store that fails as object stores and networks do.

Each request's fate is drawn from the seed, the request and how often it was made before, so that it depends on nothing
else that happens at the same time; a request that failed once may succeed when it is made again.
"""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["slow_down", "cut", "reset", "hang", "denied"]
SLOW_DOWN = (503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
DENIED = (403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
# What belongs to one connection only.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}


@dataclass
class Plan:
    """What fails: this share of the requests whose path begins with a prefix, each by one of these kinds.

    slow_down  503 before anything is done
    cut        the connection ends half-way through the body of a GET that announced all of it
    reset      it ends before the answer
    hang       the answer comes after `hang_seconds`
    denied     403

    A request that fails does so `in_a_row` times. After `at_most` faults the store works.
    In a prefix `*` is any bucket.
    """

    prefixes: tuple[str, ...] = ("/",)
    kinds: tuple[Fault, ...] = ("slow_down", "cut", "reset", "hang")
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")
    share: float = 0.0
    seed: int = 0
    hang_seconds: float = 1.0
    in_a_row: int = 1
    at_most: int | None = None
    requests: int = field(default=0, init=False)
    injected: Counter[str] = field(default_factory=Counter, init=False)
    _seen: Counter[str] = field(default_factory=Counter, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def fate(self, method: str, path: str, range_: str) -> Fault | None:
        """What becomes of a request."""
        with self._lock:
            self.requests += 1
            in_any_bucket = "/*/" + path.removeprefix("/").partition("/")[2]
            places = (path, in_any_bucket)
            if method not in self.methods or not any(place.startswith(self.prefixes) for place in places):
                return None
            if self.at_most is not None and self.injected.total() >= self.at_most:
                return None
            request = f"{method} {path} {range_}"
            draw = random.Random(f"{self.seed} {request} {self._seen[request] // self.in_a_row}")
            self._seen[request] += 1
            kinds = [kind for kind in self.kinds if kind != "cut" or method == "GET"]
            if not kinds or draw.random() >= self.share:
                return None
            kind = draw.choice(kinds)
            self.injected[kind] += 1
            return kind


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def handle_any(self) -> None:
        content = self._body()
        kind = self.server.plan.fate(self.command, self.path, self.headers.get("Range", ""))
        if kind == "reset":
            self._reset()
        elif kind in ("slow_down", "denied"):
            status, answer = SLOW_DOWN if kind == "slow_down" else DENIED
            self._answer(status, {"Content-Type": "application/xml"}, answer)
        else:
            if kind == "hang":
                time.sleep(self.server.plan.hang_seconds)
            self._answer(*self._ask(content), is_cut=kind == "cut")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return content

    def _ask(self, content: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        headers |= {"Content-Length": str(len(content))}
        upstream = http.client.HTTPConnection(*self.server.upstream, timeout=60)
        try:
            upstream.request(self.command, self.path, body=content, headers=headers)
            answer = upstream.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP}
            return answer.status, kept, answer.read()
        finally:
            upstream.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, *, is_cut: bool = False) -> None:
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        if is_cut:
            # What was written must arrive before the end does, which a reset would not wait for.
            self.wfile.flush()
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: tuple[str, int], plan: Plan) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.plan = upstream, plan

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news here."""


@contextmanager
def faulty_proxy(endpoint: str, plan: Plan) -> Iterator[str]:
    """The URL of a proxy before the endpoint."""
    address = urlsplit(endpoint)
    server = _Server((str(address.hostname), int(address.port or 80)), plan)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
