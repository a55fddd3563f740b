"""Files of web servers as a file system of Arrow: read, never listed, never written."""

import errno
import hashlib
import io
import re
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, NoReturn

import pyarrow as pa
import requests
import urllib3
from pyarrow import fs

from engine.errors import one_line

CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
LOOK_THREADS = 16
MOST_REDIRECTS = 5
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_local = threading.local()


def session() -> requests.Session:
    """The session of this thread: without credentials of ~/.netrc, and without compression."""
    if not hasattr(_local, "session"):
        made = requests.Session()
        made.max_redirects = MOST_REDIRECTS
        made.auth = lambda request: request
        made.headers.update({"User-Agent": f"vaal/{version('vaal')}", "Accept-Encoding": "identity"})
        _local.session = made
    found: requests.Session = _local.session
    return found


def plain_reason(error: Exception) -> str:
    """Why a request failed: the innermost reason, without the names of objects."""
    found = re.search(r"\(Caused by \w+\((.*)\)\)$", one_line(error))
    text = found[1] if found else one_line(error)
    return re.sub(r"<[^>]* at 0x[0-9a-f]+>:? ?|HTTPS?Connection(Pool)?\([^)]*\): ", "", text).strip(" \"'")[:200]


class WebFiles(fs.FileSystemHandler):  # type: ignore[misc]
    """The servers of a scheme. A path begins with the host. Raises OSError, of the class that retries go by."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WebFiles) and other._scheme == self._scheme

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return "web"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        if len(paths) == 1:
            return [self._info(paths[0])]
        with ThreadPoolExecutor(LOOK_THREADS) as threads:
            return list(threads.map(self._info, paths))

    def get_file_info_selector(self, _selector: fs.FileSelector) -> NoReturn:
        raise OSError(errno.ENOTSUP, "a web server has no list of its files; name them, as x-{000..099}.tar")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        with _reported():
            answer = session().get(self._url(path), stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))
            _require_good(answer, (200,))
        return pa.PythonFile(_Whole(answer), mode="r")

    def open_input_file(self, path: str) -> pa.PythonFile:
        info = self._info(path)
        if info.type != fs.FileType.File:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return pa.PythonFile(_Ranges(self._url(path), info.size), mode="r")

    def create_dir(self, *_: Any) -> NoReturn:
        raise OSError(errno.EROFS, "a web server cannot be written; give a local path, s3://, gs:// or az://")

    delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = create_dir
    move = copy_file = open_output_stream = open_append_stream = create_dir

    def _url(self, path: str) -> str:
        return f"{self._scheme}://{path}"

    def _info(self, path: str) -> fs.FileInfo:
        with _reported():
            answer = session().head(self._url(path), timeout=(CONNECT_SECONDS, READ_SECONDS), allow_redirects=True)
            if answer.status_code in (404, 410):
                return fs.FileInfo(path, fs.FileType.NotFound)
            _require_good(answer, (200,))
        length = answer.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise OSError(errno.EPROTO, "the server does not say how large the file is")
        return fs.FileInfo(path, fs.FileType.File, size=int(length), mtime_ns=_mark(answer))


def _mark(answer: requests.Response) -> int:
    """The time of a file in nanoseconds; of a server that keeps none a number that its ETag decides."""
    try:
        moment = parsedate_to_datetime(answer.headers["Last-Modified"])
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * 10**9
    except (KeyError, ValueError):
        tag = answer.headers.get("ETag", "").encode()
        return int.from_bytes(hashlib.blake2b(tag, digest_size=7).digest(), "big")


@contextmanager
def _reported() -> Iterator[None]:
    """Turns errors of the client into those of a file system."""
    try:
        yield
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise TimeoutError(errno.ETIMEDOUT, "the server does not answer") from error
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, urllib3.exceptions.HTTPError) as error:
        raise ConnectionError(errno.ECONNRESET, plain_reason(error)) from error
    except requests.RequestException as error:
        raise OSError(errno.EPROTO, plain_reason(error)) from error


def _require_good(answer: requests.Response, wanted: Iterable[int]) -> None:
    status = answer.status_code
    if status in wanted:
        return
    answer.close()
    text = f"HTTP status {status}"
    if status in (404, 410):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")
    if status in (401, 403):
        raise PermissionError(errno.EACCES, f"{text}: access is refused")
    if status in TRANSIENT_STATUS:
        raise ConnectionError(errno.ECONNABORTED, text)
    if status == 200:
        why = "the server serves whole files only, no ranges of bytes; copy the pool to a disk or an object store"
        raise OSError(errno.ENOTSUP, why)
    raise OSError(errno.EPROTO, text)


class _Whole(io.RawIOBase):
    """The content of an answer, front to back."""

    def __init__(self, answer: requests.Response) -> None:
        super().__init__()
        self._answer = answer

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with _reported():
            data: bytes = self._answer.raw.read(None if size is None or size < 0 else size)
        return data

    def close(self) -> None:
        self._answer.close()
        super().close()


class _Ranges(io.RawIOBase):
    """A file that is asked for range by range."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._size, self._at = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if self._at >= end:
            return b""
        asked = {"Range": f"bytes={self._at}-{end - 1}"}
        with _reported():
            timeout = (CONNECT_SECONDS, READ_SECONDS)
            with session().get(self._url, headers=asked, stream=True, timeout=timeout) as answer:
                _require_good(answer, (206,))
                data = answer.content
        if len(data) > end - self._at:
            raise OSError(errno.EPROTO, "the server sent more bytes than were asked for")
        self._at += len(data)
        return data
