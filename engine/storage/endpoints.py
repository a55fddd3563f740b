"""Where the object stores are: what Arrow's own clients do not look up."""

import configparser
import os
import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from pyarrow import fs

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def with_endpoint(bucket_url: str) -> str:
    """An s3:// URL for Arrow, with the endpoint of the AWS profile in use, if that names one.

    A small file is one request: with Arrow's default it is an upload in parts, of three.
    """
    url, endpoint = f"{bucket_url}?allow_delayed_open=true", _endpoint_of_profile()
    if not endpoint:
        return url
    scheme, _, host = _with_scheme(endpoint, "https").partition("://")
    return f"{url}&scheme={scheme}&endpoint_override={quote(host)}"


def s3_endpoint() -> str:
    """The URL of the S3 store that variables or the AWS profile in use name; empty for AWS itself."""
    named = [os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)]
    endpoint = named[0] if named else _endpoint_of_profile()
    return _with_scheme(endpoint, "https") if endpoint else ""


def google_emulator() -> str:
    """The URL of the emulator of Google Cloud Storage in STORAGE_EMULATOR_HOST; empty without one."""
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    return _with_scheme(emulator, "http") if emulator else ""


def _with_scheme(url: str, default: str) -> str:
    url = url.rstrip("/")
    return url if "://" in url else f"{default}://{url}"


def _endpoint_of_profile() -> str:
    """As AWS's own tools find it: variables go before the profile, and its `services` before its own `endpoint_url`."""
    if any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        # Arrow's client takes these.
        return ""
    profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    section = profile if profile == "default" else f"profile {profile}"
    found = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        found.read(Path(os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser())
    except (configparser.Error, UnicodeDecodeError, RuntimeError):
        # The client itself says what is wrong with its file, or does without one.
        return ""
    services = found.get(f"services {found.get(section, 'services', fallback='')}", "s3", fallback="")
    of_s3 = re.search(r"^\s*endpoint_url\s*=\s*(\S+)", services, re.MULTILINE)
    return of_s3[1] if of_s3 else found.get(section, "endpoint_url", fallback="")


def google_filesystem() -> fs.FileSystem:
    """Google Cloud Storage, or the emulator in STORAGE_EMULATOR_HOST, as for Google's own clients."""
    # With Arrow's default, 15 minutes, a wrong bucket or a missing credential looks like a hang.
    patience = timedelta(seconds=60)
    emulator = google_emulator()
    if not emulator:
        return fs.GcsFileSystem(retry_time_limit=patience)
    scheme, _, host = emulator.partition("://")
    return fs.GcsFileSystem(anonymous=True, scheme=scheme, endpoint_override=host, retry_time_limit=patience)
