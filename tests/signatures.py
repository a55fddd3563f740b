"""Whether the signature of a link holds: by botocore alone, by Google's public key, and a store that asks for it."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

MOST_SECONDS = 604_800
NOW = datetime(2040, 1, 31, 23, 59, 30, tzinfo=UTC)
"""Later than this test runs: botocore asks the real clock whether credentials have ended."""
FILE = "images/0123456789abcdef0123456789abcdef.png"
NAME = FILE.partition("/")[2]
PREFIXES = ["", "/handoff", "/two words/größe/日本", "/a+b=c&d/50%/100%25/~x", "/trailing/"]
EMAIL = "signer@project.iam.gserviceaccount.com"


class Keys(NamedTuple):
    access: str = "key"
    secret: str = "secret"
    token: str = ""


class Signed(NamedTuple):
    """What a link says of its own signature."""

    credential: list[str]
    date: datetime
    seconds: int
    signature: str
    token: str

    @staticmethod
    def of(url: str, prefix: str) -> "Signed":
        """Raises KeyError or ValueError for a link without a signature."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query, strict_parsing=True).items()}
        date = datetime.strptime(query[f"{prefix}-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        credential, seconds = query[f"{prefix}-Credential"].split("/"), int(query[f"{prefix}-Expires"])
        token = query.get(f"{prefix}-Security-Token", "")
        return Signed(credential, date, seconds, query[f"{prefix}-Signature"], token)

    @property
    def ends_at(self) -> datetime:
        return self.date + timedelta(seconds=self.seconds)

    def holds(self, now: datetime) -> bool:
        """Whether a store honours it now, so far as time is concerned."""
        return 0 < self.seconds <= MOST_SECONDS and self.date <= now < self.ends_at


def is_s3_link(url: str, keys: Keys, now: datetime, region: str = "us-east-1") -> bool:
    """Whether S3 answers a GET of this link: its own query signature, computed again."""
    try:
        signed = Signed.of(url, "X-Amz")
    except (KeyError, ValueError):
        return False
    scope = [keys.access, f"{signed.date:%Y%m%d}", region, "s3", "aws4_request"]
    if signed.credential != scope or signed.token != keys.token or not signed.holds(now):
        return False
    head, _, signature = url.rpartition("&X-Amz-Signature=")
    request = AWSRequest("GET", head)
    request.context["timestamp"] = f"{signed.date:%Y%m%dT%H%M%SZ}"
    # The token is in the query already.
    auth = S3SigV4QueryAuth(Credentials(keys.access, keys.secret), "s3", region, signed.seconds)
    return signature == auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)


def is_google_link(url: str, email: str, key: RSAPublicKey, now: datetime) -> bool:
    """Whether Google Cloud Storage answers a GET of this link: a V4 signature of the service account's key."""
    try:
        signed = Signed.of(url, "X-Goog")
    except (KeyError, ValueError):
        return False
    scope = [f"{signed.date:%Y%m%d}", "auto", "storage", "goog4_request"]
    if signed.credential != [email, *scope] or not signed.holds(now):
        return False
    parts = urlsplit(url)
    query = "&".join(sorted(pair for pair in parts.query.split("&") if not pair.startswith("X-Goog-Signature=")))
    request = "\n".join(["GET", parts.path, query, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"])
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["GOOG4-RSA-SHA256", f"{signed.date:%Y%m%dT%H%M%SZ}", "/".join(scope), digest])
    try:
        key.verify(bytes.fromhex(signed.signature), text.encode(), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


@contextmanager
def guarded_store(
    objects: dict[str, bytes], is_valid: Callable[[str, datetime], bool], clock: Callable[[], datetime]
) -> Iterator[str]:
    """A store over HTTP that gives an object (bucket/name) to those whose link is valid now. Yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = f"http://{self.headers['Host']}{self.path}"
            content = objects.get(unquote(urlsplit(url).path)[1:])
            status = 403 if not is_valid(url, clock()) else 404 if content is None else 200
            body = content if status == 200 and content is not None else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
