"""A web server on this machine with files, ranges, and faults by the path that is asked for."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FIRST_TIME = 1_700_000_000


class Web:
    """`files` are served by their path. The first words of a path ask for a fault: /busy-2/a.png answers 503 twice,
    /stall/ never, /drip/ a byte now and then, /cut/ half, /status-403/ with that, /page/ with HTML."""

    def __init__(self, files: dict[str, bytes], *, has_ranges: bool = True, has_etags: bool = True) -> None:
        self.files, self.has_ranges, self.has_etags = files, has_ranges, has_etags
        self.asked: Counter[str] = Counter()
        self.times: dict[str, int] = {}
        self.is_over = threading.Event()
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.web.asked[path] += 1
        fault, _, rest = path[1:].partition("/")
        kind, _, number = fault.partition("-")
        data = self.web.files.get(rest if kind in _FAULTS else path[1:])
        if kind == "busy" and self.web.asked[path] <= int(number):
            self._send(503, b"later")
        elif kind == "status":
            self._send(int(number), b"no")
        elif kind == "page":
            self._send(200, b"<!DOCTYPE html><html>sign in</html>", {"Content-Type": "text/html"})
        elif kind == "stall":
            self.web.is_over.wait(20)
        elif data is None:
            self._send(404, b"nothing here")
        elif kind in ("drip", "cut"):
            self._send(200, b"", {"Content-Length": str(len(data))})
            self._faulty(kind, data)
        else:
            self._whole(path[1:], data)

    def _faulty(self, kind: str, data: bytes) -> None:
        if kind == "cut":
            self.wfile.write(data[: len(data) // 2])
        while kind == "drip" and not self.web.is_over.wait(0.05):
            self.wfile.write(b"x")
            self.wfile.flush()
        self.close_connection = True

    def _whole(self, name: str, data: bytes) -> None:
        moment = self.web.times.get(name, FIRST_TIME)
        marks = {"Last-Modified": formatdate(moment, usegmt=True)}
        if self.web.has_etags:
            marks["ETag"] = f'"{hash(data) & 0xFFFFFF:x}"'
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.web.has_ranges:
            marks["Accept-Ranges"] = "bytes"
        if found and self.web.has_ranges:
            begin, end = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
            marks["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
            self._send(206, data[begin : end + 1], marks)
        else:
            self._send(200, data, marks)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


_FAULTS = frozenset({"busy", "status", "page", "stall", "drip", "cut"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that has seen enough hangs up."""


@contextmanager
def web_server(files: dict[str, bytes], **options: bool) -> Iterator[Web]:
    """Serve these files while the body runs."""
    web = Web(files, **options)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": web}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        web.is_over.set()
        server.shutdown()
        server.server_close()
