"""Images at http(s) URLs: with limits on size and time, and tries that wait longer and longer."""

import random
import time

import requests
import urllib3

from engine.errors import one_line
from engine.packing.entries import MAX_BYTES
from engine.pool.formats import format_of
from engine.storage.web_files import MOST_REDIRECTS, TRANSIENT_STATUS, plain_reason, session

TRIES = 4
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
CONNECT_SECONDS = 10.0
PART_BYTES = 1 << 16


class PackError(Exception):
    """Why an image is not packed. `kind` groups failures."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _TransientError(PackError):
    """A fault that may be none in the next try, after so many seconds if the server says so."""

    def __init__(self, kind: str, text: str, wait_s: float = 0.0) -> None:
        super().__init__(kind, text)
        self.wait_s = wait_s


def is_web(source: str) -> bool:
    """Whether a source is the URL of a web server."""
    return source.startswith(("http://", "https://"))


def fetch(url: str, timeout: float) -> bytes:
    """What is at a URL, of up to MAX_BYTES; it must arrive within `timeout` seconds in one of the tries.

    Raises PackError.
    """
    wait_s = FIRST_WAIT_S
    for tries_left in reversed(range(TRIES)):
        try:
            return _fetched(url, timeout)
        except _TransientError as fault:
            if not tries_left:
                raise PackError(fault.kind, f"{fault} (in each of {TRIES} tries)") from fault
            time.sleep(min(max(wait_s * random.uniform(0.5, 1.5), fault.wait_s), LONGEST_WAIT_S))
        wait_s *= 2
    raise AssertionError


def _fetched(url: str, timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    try:
        with session().get(url, stream=True, timeout=(min(CONNECT_SECONDS, timeout), timeout)) as answer:
            _require_good(answer)
            return _content(answer, deadline, timeout)
    except requests.TooManyRedirects as error:
        raise PackError("HttpError", f"more than {MOST_REDIRECTS} redirects") from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError) as error:
        raise PackError("BadUrl", one_line(error)) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _TransientError("TimedOut", f"not there within {timeout:g} s") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _TransientError("NoAnswer", plain_reason(error)) from error


def _require_good(answer: requests.Response) -> None:
    status = answer.status_code
    text = f"HTTP status {status}"
    if status in TRANSIENT_STATUS:
        asked = answer.headers.get("Retry-After", "")
        raise _TransientError("HttpError", text, float(asked) if asked.isdecimal() else 0.0)
    if status in (404, 410):
        raise PackError("Missing", text)
    if status != 200:
        raise PackError("HttpError", text)
    length = answer.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > MAX_BYTES:
        raise PackError("TooManyBytes", f"{int(length):,} bytes, more than {MAX_BYTES:,}")


def _content(answer: requests.Response, deadline: float, timeout: float) -> bytes:
    parts, total = [], 0
    # Less than the server announced is an error of urllib3's. A part is what has come: a server that sends a byte now
    # and then is not waited for longer than the others.
    while part := answer.raw.read1(PART_BYTES, decode_content=True):
        parts.append(part)
        total += len(part)
        if total > MAX_BYTES:
            raise PackError("TooManyBytes", f"more than {MAX_BYTES:,} bytes")
        if time.monotonic() > deadline:
            raise _TransientError("TimedOut", f"not there within {timeout:g} s; {total:,} bytes came")
    data = b"".join(parts)
    kind = answer.headers.get("Content-Type", "")
    if not format_of(data) and (b"<html" in data[:512].lower() or kind.startswith("text/html")):
        raise PackError("NotAnImage", "the server answers with a page (HTML), not with an image")
    return data
