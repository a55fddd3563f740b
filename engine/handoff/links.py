"""Links to the images of a batch: where the annotators' program finds them, and until when."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from engine.errors import ConfigError, one_line
from engine.storage.endpoints import SCHEMES, google_emulator, s3_endpoint
from engine.storage.location import Location, masked

FILES = "files"
MOST_SECONDS = 7 * 24 * 3600
"""S3 and Google Cloud Storage refuse signatures that are to last longer. The client of S3 makes them all the same."""


class Links(NamedTuple):
    """How the images of a batch are linked.

    Args:
        of: the link of a file, images/ITEM_ID.SUFFIX.
        expire_at: until then each link works; the earliest end of them. None: they do not end.
        notices: what a person should know of it, a line each.
    """

    of: Callable[[str], str]
    expire_at: datetime | None = None
    notices: tuple[str, ...] = ()


class _Signer(NamedTuple):
    """Gives the signed link of (bucket, name of the object, seconds). `ends_at`: when its credentials do."""

    sign: Callable[[str, str, int], str]
    ends_at: datetime | None = None
    is_end_known: bool = True


def store_of(images: str) -> Location | None:
    """The folder on an object store into which the images are written; None: below the vendor's folder.

    Args:
        images: the option handoff.images: files, or a URL below which the images are.

    Raises:
        ConfigError: the option is neither.
    """
    scheme, _, rest = images.partition("://")
    if scheme in SCHEMES and rest.partition("/")[0]:
        return Location.of(images)
    if images != FILES:
        _check_web(images)
    return None


def links_for(images: str, days: float, now: datetime) -> Links:
    """The links of images at a place. Called again later, it gives new links of the same images.

    Args:
        images: the option handoff.images. Images of https:// are there as ITEM_ID.SUFFIX because the user serves them,
            and their links are never signed.
        days: how long signed links work, at most 7. 0: the links are those of the objects, not signed.
        now: when the links are made, with its zone.

    Raises:
        ConfigError: the option is wrong, or there are no credentials that can sign.
        InputError: the store that signs cannot be reached.
    """
    store = store_of(images)
    if store is None:
        return Links(_unchanged if images == FILES else _below(_quoted(images.rstrip("/"))))
    url = store.url.replace("gcs://", "gs://", 1)
    if not days:
        return Links(_below(url))
    signer = _s3_signer(store) if url.startswith("s3://") else _google_signer(store)
    wanted_s = max(1, int(timedelta(days=days).total_seconds()))
    seconds, notices = _lasting(url, wanted_s, signer, now)
    bucket, _, prefix = store.path.partition("/")

    def signed(file: str) -> str:
        return signer.sign(bucket, f"{prefix}/{_name(file)}" if prefix else _name(file), seconds)

    return Links(signed, now + timedelta(seconds=seconds), notices)


def _lasting(url: str, wanted_s: int, signer: _Signer, now: datetime) -> tuple[int, tuple[str, ...]]:
    """For how many seconds the links work, and what is to be said of it."""
    seconds, notices = min(wanted_s, MOST_SECONDS), []
    if wanted_s > MOST_SECONDS:
        notices.append(f"{url}: the links end after 7 days, not {wanted_s / 86400:g}: stores sign for no longer")
    if not signer.is_end_known:
        notices.append(f"{url}: the links end when the credentials do, which is not known: they have a session token")
    if signer.ends_at and signer.ends_at < now + timedelta(seconds=seconds):
        seconds = int((signer.ends_at - now).total_seconds())
        end = f"{signer.ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        if seconds < 1:
            raise ConfigError(f"{url}: the credentials ended at {end}; get new ones, or set handoff.link_days=0")
        notices = [f"{url}: the links end at {end}, when the credentials do; a user's access key lasts longer"]
    return seconds, tuple(notices)


def _s3_signer(store: Location) -> _Signer:
    """Signs with the credentials, endpoint and region that the files of the store are written with."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    # Arrow asks S3 for the region of the bucket; a signature holds in that region alone.
    region, endpoint = store.filesystem.region, s3_endpoint()
    # On AWS, other than virtual hosts would be links to the global endpoint, which redirects to hosts that were not
    # signed for. Other stores have paths, as with Arrow, unless the profile says otherwise. The client's own choice of
    # a signature is the old one, version 2.
    config = Config(signature_version="s3v4", s3=None if endpoint else {"addressing_style": "virtual"})
    try:
        session = boto3.Session()
        credentials = session.get_credentials()
        if credentials is None:
            fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or handoff.link_days=0"
            raise ConfigError(f"{store}: no AWS credentials to sign links with; {fix}")
        keys, ends_at = credentials.get_frozen_credentials(), getattr(credentials, "_expiry_time", None)
        client = session.client(
            "s3",
            region_name=region,
            endpoint_url=endpoint or None,
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            aws_session_token=keys.token,
            config=config,
        )
    except (BotoCoreError, ClientError, OSError, ValueError, TypeError, RuntimeError) as error:
        # botocore's own errors, and what passes through it: no such credential_process, no JSON from it, an end without
        # its zone, credentials that have ended.
        fix = "correct the AWS credentials, or set handoff.link_days=0"
        raise ConfigError(f"{store}: links cannot be signed: {one_line(error)}; {fix}") from error

    def sign(bucket: str, key: str, seconds: int) -> str:
        url: str = client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=seconds)
        return url

    return _Signer(sign, ends_at, is_end_known=not keys.token or ends_at is not None)


def _google_signer(store: Location) -> _Signer:
    """Signs with the key of a service account: other credentials have none, and would ask Google for each link."""
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage
    from google.oauth2 import service_account

    fix = "set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account, or handoff.link_days=0"
    try:
        credentials, _ = google.auth.default()
    except (GoogleAuthError, OSError, ValueError) as error:
        raise ConfigError(f"{store}: no Google credentials to sign links with: {one_line(error)}; {fix}") from error
    if not isinstance(credentials, service_account.Credentials):
        kind = f"{type(credentials).__module__}.{type(credentials).__name__}"
        raise ConfigError(f"{store}: these Google credentials cannot sign links ({kind}); {fix}")
    emulator = google_emulator()
    options: dict[str, Any] = {"api_endpoint": emulator} if emulator else {}
    client = storage.Client(project=credentials.project_id or "none", credentials=credentials, client_options=options)

    def sign(bucket: str, name: str, seconds: int) -> str:
        url: str = client.bucket(bucket).blob(name).generate_signed_url(version="v4", expiration=seconds)
        return url

    return _Signer(sign)


def _check_web(images: str) -> None:
    try:
        parts = urlsplit(images)
        is_web = parts.scheme in ("https", "http") and bool(parts.hostname) and not any(map(str.isspace, parts.netloc))
    except ValueError:
        is_web = False
    if not is_web:
        fix = "use files, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or https://HOST/FOLDER"
        raise ConfigError(f"handoff.images={masked(images)!r}: not a place for images; {fix}")
    if parts.username is not None or set("?#") & set(images):
        fix = "use the plain URL of a folder: the vendor sees it in every link"
        raise ConfigError(f"handoff.images={masked(images)!r}: has a password or options; {fix}")


def _quoted(url: str) -> str:
    """A URL as it stands in a link; what is quoted already stays as it is."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{slash}{quote(path, safe='/%:@!$&()*+,;=~')}"


def _below(url: str) -> Callable[[str], str]:
    return lambda file: f"{url}/{_name(file)}"


def _unchanged(file: str) -> str:
    return file


def _name(file: str) -> str:
    return file.rpartition("/")[2]
