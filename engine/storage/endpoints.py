"""Where the stores are: what Arrow's own clients do not look up, and clients of others."""

import configparser
import hashlib
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pyarrow import fs

from engine.errors import ConfigError
from engine.storage.web_files import WebFiles

SCHEMES = ("s3", "gs", "gcs")
"""Of object stores whose links can be signed."""
AZURE, HUB, WEB = ("az", "abfs", "abfss"), "hf", ("http", "https")
READ = "a local path, s3://, gs://, az://, hf:// or https://"
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def fault_of_place(scheme: str, host: str, *, is_masked: bool) -> str:
    """Why a URL with this scheme and host, bucket or container is not read; empty if it is.

    Args:
        is_masked: the URL has a password or a signature.
    """
    if scheme not in (*SCHEMES, *AZURE, HUB, *WEB):
        return f"{scheme}:// is not read; use {READ}"
    if scheme in AZURE and "@" in host and ":" not in host:
        container, _, account = host.partition("@")
        fix = f"write az://{container}/..., and export AZURE_STORAGE_ACCOUNT_NAME={account.partition('.')[0]}"
        return f"names an account; {fix}"
    is_port = scheme in WEB and re.fullmatch(r"[^:]+:\d+", host)
    if is_masked or (":" in host and not is_port):
        fix = "give links that need none" if scheme in WEB else "set AWS_* variables instead"
        return f"has a password or options; {fix}"
    return ""


def filesystem_at(bucket_url: str) -> fs.FileSystem:
    """The file system of a bucket, container or host. Raises what its client raises, and ConfigError."""
    scheme = bucket_url.partition("://")[0]
    if scheme in WEB:
        return fs.PyFileSystem(WebFiles(scheme))
    if scheme in ("gs", "gcs"):
        return google_filesystem()
    if scheme in AZURE:
        return azure_filesystem()
    return hub_filesystem() if scheme == HUB else fs.FileSystem.from_uri(with_endpoint(bucket_url))[0]


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


def azure_filesystem() -> fs.FileSystem:
    """Azure Blob Storage: the account of AZURE_STORAGE_ACCOUNT_NAME, or of a connection string, as that of an emulator.

    Without a key or a SAS token in the environment Azure's default credentials are used. Raises ConfigError without an
    account.
    """
    parts = dict(
        part.partition("=")[::2] for part in os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";") if part
    )
    account = _variable("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT") or parts.get("AccountName", "")
    if not account:
        raise ConfigError("az://: which account? export AZURE_STORAGE_ACCOUNT_NAME=NAME, and its key or a login")
    options: dict[str, Any] = {
        "account_key": _variable("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY") or parts.get("AccountKey"),
        "sas_token": _variable("AZURE_STORAGE_SAS_TOKEN") or parts.get("SharedAccessSignature"),
    }
    if endpoint := parts.get("BlobEndpoint"):
        scheme, _, host = endpoint.partition("://")
        authority = host.removesuffix(f"/{account}").rstrip("/")
        names = ("blob_storage_authority", "dfs_storage_authority", "blob_storage_scheme", "dfs_storage_scheme")
        options |= dict(zip(names, (authority, authority, scheme, scheme), strict=True))
    return fs.AzureFileSystem(account, **{name: value for name, value in options.items() if value})


def _variable(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def hub_filesystem() -> fs.FileSystem:
    """The repositories of Hugging Face's hub. Raises ConfigError if the package for it is missing."""
    import fsspec

    try:
        return fs.PyFileSystem(MarkedFiles(fsspec.filesystem("hf", use_listings_cache=False)))
    except ImportError as error:
        raise ConfigError("hf:// needs another package; install it: pip install 'vaal[hf]'") from error


class MarkedFiles(fs.FSSpecHandler):  # type: ignore[misc]
    """A file system of fsspec whose files have no times: a number in place of the time changes when a file does."""

    @staticmethod
    def _create_file_info(path: str, info: dict[str, Any]) -> fs.FileInfo:
        if info["type"] != "file":
            return fs.FileInfo(path, fs.FileType.Directory)
        marks = [str(info.get(name)) for name in ("ETag", "blob_id", "xet_hash", "sha256", "created")]
        number = int.from_bytes(hashlib.blake2b("\0".join(marks).encode(), digest_size=7).digest(), "big")
        return fs.FileInfo(path, fs.FileType.File, size=info["size"], mtime_ns=number)
