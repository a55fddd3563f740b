"""Files that appear at a place only if nothing is there, the same file at a second place, and files where a folder is
to be."""

import os
import secrets
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, InputError, StorageError, one_line
from engine.storage.endpoints import google_emulator, s3_endpoint
from engine.storage.location import Location

TAKEN = (409, 412)
"""What stores answer where the object is there already, or is being written by another one."""


def create(file: Location, content: bytes) -> bool:
    """Write a file whole if nothing is at its place. Returns whether it was: of several writers, one gets True.

    Raises StorageError if the storage refused.
    """
    if file.is_local:
        return _create_local(file, content)
    return _create_s3(file, content) if file.url.startswith("s3://") else _create_google(file, content)


def duplicate(source: Location, target: Location) -> None:
    """Make the same file at another place of the same storage, whole or not at all. What is there already stays on a
    disk. No bytes travel where the storage can do without: on a disk it is a link, which is safe because no file is
    ever written to.

    Raises StorageError if the storage refused.
    """
    try:
        if not source.is_local:
            target.filesystem.copy_file(source.path, target.path)
            return
        Path(target.path).parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.link(source.path, target.path)
    except OSError as error:
        # Another disk, or one without links.
        if not source.is_local:
            raise _refused(target, error) from error
        target.write_bytes(source.read_bytes())


def require_folder(place: Location, option: str = "") -> None:
    """Raises ConfigError if a file is where a folder is to be, or one of the local folders that it would be in. The
    error begins with the option that gave the place, where there is one."""
    above = [Location(str(path)) for path in Path(place.path).parents] if place.is_local else []
    for file in (place, *above):
        if file.info().is_file:
            raise ConfigError(f"{option} {file}: is a file; give a folder".lstrip())


def _create_local(file: Location, content: bytes) -> bool:
    path = Path(file.path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
    except OSError as error:
        raise _refused(file, error) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return True


def _create_s3(file: Location, content: bytes) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = file.path.partition("/")
    try:
        _s3_client(s3_endpoint(), file.filesystem.region).put_object(
            Bucket=bucket, Key=key, Body=content, IfNoneMatch="*"
        )
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in TAKEN:
            return False
        raise _refused(file, error) from error
    except (BotoCoreError, OSError) as error:
        raise _refused(file, error) from error
    return True


@lru_cache(maxsize=8)
def _s3_client(endpoint: str, region: str) -> Any:
    import boto3

    return boto3.Session().client("s3", endpoint_url=endpoint or None, region_name=region)


def _create_google(file: Location, content: bytes) -> bool:
    from google.api_core.exceptions import GoogleAPIError, PreconditionFailed
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    bucket, _, name = file.path.partition("/")
    emulator = google_emulator()
    options: dict[str, Any] = {"api_endpoint": emulator} if emulator else {}
    try:
        client = (
            storage.Client(project="none", credentials=AnonymousCredentials(), client_options=options)  # type: ignore[no-untyped-call]
            if emulator
            else storage.Client()
        )
        client.bucket(bucket).blob(name).upload_from_string(content, if_generation_match=0)
    except PreconditionFailed:
        return False
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        raise _refused(file, error) from error
    return True


def _refused(file: Location, error: Exception) -> StorageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    return StorageError(f"{file}: cannot be written: {reason}; fix that and run again")


def require_exclusive(file: Location) -> None:
    """Raises InputError where the storage lets a second writer replace what `create` wrote, as some stores do that do
    not know the condition; `file` is written to find out."""
    create(file, b"{}\n")
    if create(file, b"{}\n"):
        raise InputError(
            f"{file}: this store replaces files that are there, although asked not to, so that two campaigns cannot "
            "share it; use a store that knows If-None-Match, or a folder on a disk"
        )
