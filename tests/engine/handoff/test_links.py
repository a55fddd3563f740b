"""The links to images: they open what they name, for whom they are for, and as long as they say."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.storage import _signing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.handoff.links import Links, links_for, store_of
from engine.storage.location import Location, _remote_filesystem
from tests.servers import gcs_server, s3_server
from tests.signatures import Keys, Signed, guarded_store, is_google_link, is_s3_link

NOW = datetime(2040, 1, 31, 23, 59, 30, tzinfo=UTC)
"""Later than this test runs: botocore asks the real clock whether credentials have ended."""
FILE = "images/0123456789abcdef0123456789abcdef.png"
NAME = FILE.partition("/")[2]
PREFIXES = ["", "/handoff", "/two words/größe/日本", "/a+b=c&d/50%/100%25/~x", "/trailing/"]
EMAIL = "signer@project.iam.gserviceaccount.com"
Setup = Callable[..., None]


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def key_file(key: rsa.RSAPrivateKey, tmp_path: Path) -> str:
    """The key file of a service account."""
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    account = {"type": "service_account", "project_id": "project", "private_key_id": "1", "private_key": pem}
    content = account | {"client_email": EMAIL, "token_uri": "https://oauth2.googleapis.com/token"}
    (tmp_path / "key.json").write_text(json.dumps(content))
    return str(tmp_path / "key.json")


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Nothing of this machine is known to the clients but what a test sets; they know no network."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "SECURITY_TOKEN", "CREDENTIAL_EXPIRATION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("PROFILE", "DEFAULT_PROFILE", "REGION", "DEFAULT_REGION", "ENDPOINT_URL", "ENDPOINT_URL_S3"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_EC2_METADATA_DISABLED", "NO_GCE_CHECK"):
        monkeypatch.setenv(name, "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))

    def set_all(**values: str) -> None:
        _remote_filesystem.cache_clear()
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.fixture
def s3_keys(variables: Setup) -> Setup:
    variables(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_ENDPOINT_URL="http://store:9000")
    return variables


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], datetime]:
    """Sets the clock of those who sign."""

    def set_clock(now: datetime) -> datetime:
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now.replace(tzinfo=None))
        monkeypatch.setattr(_signing, "_NOW", lambda _: now)
        return now

    set_clock(NOW)
    return set_clock


def ended(links: Links) -> timedelta:
    assert links.expire_at
    return links.expire_at - NOW


def test_images_that_travel_as_files_are_linked_by_their_path(variables: Setup) -> None:
    links = links_for("files", 7, NOW)
    assert links.of(FILE) == FILE
    assert (links.expire_at, links.notices, store_of("files")) == (None, (), None)


@pytest.mark.parametrize(
    ("images", "link"),
    [
        ("https://host/prefix", f"https://host/prefix/{NAME}"),
        ("https://host", f"https://host/{NAME}"),
        ("http://host:8000/a/", f"http://host:8000/a/{NAME}"),
        ("https://host/two words/größe", f"https://host/two%20words/gr%C3%B6%C3%9Fe/{NAME}"),
        ("https://host/two%20words/gr%C3%B6%C3%9Fe", f"https://host/two%20words/gr%C3%B6%C3%9Fe/{NAME}"),
    ],
)
@pytest.mark.parametrize("days", [0, 7])
def test_what_the_user_serves_is_linked_by_its_plain_url(images: str, days: float, link: str, variables: Setup) -> None:
    links = links_for(images, days, NOW)
    assert (links.of(FILE), links.expire_at, links.notices, store_of(images)) == (link, None, (), None)


@pytest.mark.parametrize("scheme", ["s3", "gs", "gcs"])
def test_without_a_signature_the_link_is_the_object_itself_and_needs_no_credentials(
    scheme: str, variables: Setup
) -> None:
    links = links_for(f"{scheme}://bucket/two words/", 0, NOW)
    assert links == Links(links.of)
    assert links.of(FILE) == f"{scheme.replace('gcs', 'gs')}://bucket/two words/{NAME}"
    assert store_of(f"{scheme}://bucket/two words/") == Location(f"{scheme}://bucket/two words")


@pytest.mark.parametrize(
    ("images", "text"),
    [
        *[(bad, "not a place for images; use files, s3:") for bad in ("", "file", "/srv/images", "ftp://h/a", "s3://")],
        *[
            (bad, "not a place for images")
            for bad in ("s3:///a", "https://", "https:///a", "https://h h/a", "http://[")
        ],
        *[(f"https://{bad}", "use the plain URL") for bad in ("me:hidden@h/a", "me@h", "h/a?sig=hidden", "h/a#b")],
        *[(f"s3://{bad}", "has a password or options") for bad in ("me:hidden@b/a", "b/a?sig=hidden")],
    ],
)
def test_what_is_no_place_for_images_is_refused_in_one_line(images: str, text: str) -> None:
    for ask in (store_of, lambda images: links_for(images, 7, NOW)):
        with pytest.raises(ConfigError, match=re.escape(text)) as caught:
            ask(images)
        assert "hidden" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_verifier_knows_the_example_of_the_specification() -> None:
    # "Authenticating Requests: Using Query Parameters" in the API reference of Amazon S3.
    url = (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
        "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    at = datetime(2013, 5, 24, tzinfo=UTC)
    assert is_s3_link(url, keys, at)
    assert not is_s3_link(url, keys._replace(secret="other"), at)
    assert not is_s3_link(url.replace("test.txt", "text.txt"), keys, at)
    assert not is_s3_link(url.partition("?")[0], keys, at)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_link_to_s3_is_signed_for_one_object_and_for_a_time(prefix: str, s3_keys: Setup, at: Any) -> None:
    links = links_for(f"s3://bucket{prefix}", 2.5, NOW)
    link, end = links.of(FILE), NOW + timedelta(days=2.5)
    assert (links.expire_at, links.notices) == (end, ())
    assert link.startswith("http://store:9000/bucket/")
    assert is_s3_link(link, Keys(), NOW)
    assert is_s3_link(link, Keys(), end - timedelta(seconds=1))
    assert not is_s3_link(link, Keys(), end)
    assert not is_s3_link(link, Keys(secret="wrong"), NOW)
    assert not is_s3_link(link.replace("Expires=216000", "Expires=604800"), Keys(), NOW)
    assert not is_s3_link(link.replace(NAME, "0" + NAME[1:-5] + "0.png"), Keys(), NOW)
    assert not is_s3_link(link.replace("store:", "elsewhere:"), Keys(), NOW)


@pytest.mark.heavy
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    prefix=st.lists(
        st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="/:@?"), min_size=1)
    )
)
def test_a_signed_link_names_its_object_whatever_its_prefix(prefix: list[str], s3_keys: Setup, at: Any) -> None:
    folder = "/".join(["bucket", *prefix]).rstrip("/")
    link = links_for(f"s3://{folder}", 1, NOW).of(FILE)
    assert is_s3_link(link, Keys(), NOW)
    assert requests.utils.unquote(link.partition("?")[0]) == f"http://store:9000/{folder}/{NAME}"


def test_links_to_aws_go_to_the_region_of_the_bucket(s3_keys: Setup, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The global endpoint would redirect to a host that was not signed for.
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setattr(Location, "filesystem", SimpleNamespace(region="eu-central-1"))
    link = links_for("s3://bucket/a", 7, NOW).of(FILE)
    assert link.startswith(f"https://bucket.s3.eu-central-1.amazonaws.com/a/{NAME}?")
    assert is_s3_link(link, Keys(), NOW, "eu-central-1")
    assert not is_s3_link(link, Keys(), NOW, "us-east-1")
    # A certificate is for one level of names.
    dotted = links_for("s3://bucket.of.mine/a", 7, NOW).of(FILE)
    assert dotted.startswith(f"https://s3.eu-central-1.amazonaws.com/bucket.of.mine/a/{NAME}?")


@pytest.mark.parametrize("style", ["", "s3 =\n  addressing_style = virtual\n"])
def test_the_endpoint_and_keys_of_a_profile_are_used(style: str, variables: Setup, tmp_path: Path, at: Any) -> None:
    keys = "aws_access_key_id = other\naws_secret_access_key = hidden\n"
    (tmp_path / "config").write_text(f"[profile lab]\nendpoint_url = https://lab.example\n{keys}{style}")
    # Arrow's client reads the region of a profile when the process starts, so here a variable names it.
    variables(AWS_CONFIG_FILE=str(tmp_path / "config"), AWS_PROFILE="lab", AWS_DEFAULT_REGION="eu-north-1")
    link = links_for("s3://bucket/a", 7, NOW).of(FILE)
    assert link.startswith(f"https://{'bucket.lab.example' if style else 'lab.example/bucket'}/a/{NAME}?")
    assert is_s3_link(link, Keys("other", "hidden"), NOW, "eu-north-1")


def test_an_image_is_downloaded_by_its_link_and_by_no_other(s3_keys: Setup, at: Any) -> None:
    content, clock = b"\x89PNG and so on", [NOW]
    objects = {f"bucket/two words/größe/{NAME}": content, f"bucket/two words/größe/2{NAME}": b"another"}
    with guarded_store(objects, lambda url, now: is_s3_link(url, Keys(), now), lambda: clock[0]) as store:
        s3_keys(AWS_ENDPOINT_URL=store)
        links = links_for("s3://bucket/two words/größe", 1, NOW)
        link = links.of(FILE)
        assert requests.get(link, timeout=10).content == content
        assert requests.get(links.of(f"images/2{NAME}"), timeout=10).content == b"another"
        assert requests.get(link.replace(NAME, f"2{NAME}"), timeout=10).status_code == 403
        assert requests.get(link.replace("Expires=86400", "Expires=86401"), timeout=10).status_code == 403
        assert requests.get(link.partition("?")[0], timeout=10).status_code == 403
        s3_keys(AWS_SECRET_ACCESS_KEY="wrong")
        assert requests.get(links_for("s3://bucket/two words/größe", 1, NOW).of(FILE), timeout=10).status_code == 403
        s3_keys(AWS_SECRET_ACCESS_KEY="secret")
        clock[0] = NOW + timedelta(days=1)
        assert requests.get(link, timeout=10).status_code == 403
        refreshed = links_for("s3://bucket/two words/größe", 1, at(clock[0]))
        assert refreshed.expire_at == NOW + timedelta(days=2)
        assert requests.get(refreshed.of(FILE), timeout=10).content == content


@pytest.mark.heavy
def test_what_was_written_into_a_bucket_is_where_its_link_leads(variables: Setup) -> None:
    now = datetime.now(UTC)
    with s3_server("bucket") as environment:
        variables(**environment)
        for prefix in PREFIXES:
            store = store_of(f"s3://bucket{prefix}")
            assert store
            (store / NAME).write_bytes(prefix.encode())
            links = links_for(f"s3://bucket{prefix}", 7, now)
            assert requests.get(links.of(FILE), timeout=10).content == prefix.encode()
            assert is_s3_link(links.of(FILE), Keys(), datetime.now(UTC))


def test_longer_than_seven_days_is_cut_and_reported(s3_keys: Setup, at: Any) -> None:
    links = links_for("s3://bucket/a", 30, NOW)
    assert (ended(links), Signed.of(links.of(FILE), "X-Amz").ends_at) == (timedelta(days=7), links.expire_at)
    assert links.notices == ("s3://bucket/a: the links end after 7 days, not 30: stores sign for no longer",)
    assert links_for("s3://bucket/a", 7, NOW).notices == ()
    assert ended(links_for("s3://bucket/a", 1e-9, NOW)) == timedelta(seconds=1)


@pytest.mark.parametrize("days", [7, 30])
def test_links_end_when_the_credentials_do(days: float, s3_keys: Setup, at: Any) -> None:
    s3_keys(AWS_SESSION_TOKEN="to+ken/=", AWS_CREDENTIAL_EXPIRATION="2040-02-01T01:59:30+01:00")
    links = links_for("s3://bucket/a", days, NOW)
    assert ended(links) == timedelta(hours=1)
    assert Signed.of(links.of(FILE), "X-Amz").ends_at == links.expire_at
    assert is_s3_link(links.of(FILE), Keys(token="to+ken/="), NOW)
    assert not is_s3_link(links.of(FILE), Keys(token="other"), NOW)
    (notice,) = links.notices
    assert notice.startswith("s3://bucket/a: the links end at 2040-02-01 00:59 UTC, when the credentials do;")
    # Sooner than that they end as they were asked to.
    assert (links_for("s3://bucket/a", 1 / 48, NOW).notices) == ()
    assert ended(links_for("s3://bucket/a", 1 / 48, NOW)) == timedelta(minutes=30)


def test_an_end_of_the_credentials_that_is_not_known_is_reported(s3_keys: Setup, at: Any) -> None:
    s3_keys(AWS_SESSION_TOKEN="token")
    links = links_for("s3://bucket/a", 7, NOW)
    assert ended(links) == timedelta(days=7)
    (notice,) = links.notices
    assert "the links end when the credentials do, which is not known" in notice
    assert is_s3_link(links.of(FILE), Keys(token="token"), NOW)


@pytest.mark.heavy
def test_an_assumed_role_ends(variables: Setup, tmp_path: Path) -> None:
    keys = "aws_access_key_id = key\naws_secret_access_key = secret\n"
    role = "role_arn = arn:aws:iam::123456789012:role/exporter\nsource_profile = base\nduration_seconds = 3600\n"
    (tmp_path / "config").write_text(f"[profile base]\n{keys}[profile lab]\n{role}")
    with s3_server("bucket") as environment:
        variables(AWS_ENDPOINT_URL=environment["AWS_ENDPOINT_URL"], AWS_DEFAULT_REGION="us-east-1")
        variables(AWS_CONFIG_FILE=str(tmp_path / "config"), AWS_PROFILE="lab")
        now = datetime.now(UTC)
        links = links_for("s3://bucket/a", 7, now)
        assert links.expire_at
        assert timedelta(minutes=59) < links.expire_at - now < timedelta(minutes=61)
        assert "when the credentials do" in links.notices[0]
        assert Signed.of(links.of(FILE), "X-Amz").token


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "no AWS credentials to sign links with; set AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "key"}, "Partial credentials found"),
        ({"AWS_PROFILE": "lab"}, r"The config profile \(lab\) could not be found"),
        ({"AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"}, "still expired"),
        ({"AWS_CREDENTIAL_EXPIRATION": "2040-01-31T23:59:30Z"}, "the credentials ended at 2040-01-31 23:59 UTC; get"),
        ({"AWS_CREDENTIAL_EXPIRATION": "tomorrow"}, "links cannot be signed"),
        ({"AWS_ENDPOINT_URL": "http://no host"}, "Invalid endpoint"),
    ],
)
def test_credentials_for_s3_that_cannot_sign_are_refused_with_the_fix(
    values: dict[str, str], text: str, variables: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Location, "filesystem", SimpleNamespace(region="us-east-1"))
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    variables(**({} if {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & {*values} or not values else keys), **values)
    with pytest.raises(ConfigError, match=text) as caught:
        links_for("s3://bucket/a", 7, NOW)
    assert re.fullmatch(r"s3://bucket/a: .*; .* handoff\.link_days=0", str(caught.value))


def test_one_client_signs_all_links(s3_keys: Setup, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, original = [], boto3.Session.client
    monkeypatch.setattr(boto3.Session, "client", lambda *args, **named: made.append(1) or original(*args, **named))
    links = links_for("s3://bucket/a", 7, NOW)
    assert len({links.of(f"images/{number}.png") for number in range(50)}) == 50
    assert len(made) == 1


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("emulator", ["", "127.0.0.1:9023", "http://127.0.0.1:9023/"])
def test_a_link_to_google_is_signed_for_one_object_and_for_a_time(
    prefix: str, emulator: str, variables: Setup, key: rsa.RSAPrivateKey, key_file: str, at: Any
) -> None:
    variables(GOOGLE_APPLICATION_CREDENTIALS=key_file, **({"STORAGE_EMULATOR_HOST": emulator} if emulator else {}))
    links = links_for(f"gs://bucket{prefix}", 2.5, NOW)
    link, end = links.of(FILE), NOW + timedelta(days=2.5)
    assert (links.expire_at, links.notices) == (end, ())
    host = "http://127.0.0.1:9023" if emulator else "https://storage.googleapis.com"
    assert requests.utils.unquote(link.partition("?")[0]) == f"{host}/bucket{prefix.rstrip('/')}/{NAME}"
    public = key.public_key()
    assert is_google_link(link, EMAIL, public, NOW)
    assert is_google_link(link, EMAIL, public, end - timedelta(seconds=1))
    assert not is_google_link(link, EMAIL, public, end)
    assert not is_google_link(link.replace("Expires=216000", "Expires=604800"), EMAIL, public, NOW)
    assert not is_google_link(link.replace(NAME, f"2{NAME}"), EMAIL, public, NOW)
    other = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    assert not is_google_link(link, EMAIL, other, NOW)


def test_an_image_in_a_google_bucket_is_downloaded_by_its_link(
    variables: Setup, key: rsa.RSAPrivateKey, key_file: str, at: Any
) -> None:
    clock = [NOW]
    objects = {f"bucket/two words/größe/{NAME}": b"content"}
    valid = lambda url, now: is_google_link(url, EMAIL, key.public_key(), now)  # noqa: E731
    with guarded_store(objects, valid, lambda: clock[0]) as store:
        variables(GOOGLE_APPLICATION_CREDENTIALS=key_file, STORAGE_EMULATOR_HOST=store)
        links = links_for("gs://bucket/two words/größe", 30, NOW)
        assert ended(links) == timedelta(days=7)
        assert "after 7 days, not 30" in links.notices[0]
        assert requests.get(links.of(FILE), timeout=10).content == b"content"
        assert requests.get(links.of(FILE) + "0", timeout=10).status_code == 403
        clock[0] = NOW + timedelta(days=7)
        assert requests.get(links.of(FILE), timeout=10).status_code == 403


@pytest.mark.heavy
def test_what_was_written_into_a_google_bucket_is_where_its_link_leads(variables: Setup, key_file: str) -> None:
    with gcs_server("bucket") as environment:
        variables(GOOGLE_APPLICATION_CREDENTIALS=key_file, **environment)
        store = store_of("gs://bucket/two words/größe")
        assert store
        (store / NAME).write_bytes(b"content")
        links = links_for(store.url, 7, datetime.now(UTC))
        assert requests.get(links.of(FILE), timeout=10).content == b"content"


USER = {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}


@pytest.mark.parametrize("emulator", [{}, {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:1"}])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "no Google credentials to sign links with: Your default credentials were not found"),
        ("", "no Google credentials to sign links with: The file .* does not have a valid type|not a valid json"),
        ('{"type": "service_account"}', "no Google credentials to sign links with"),
        (json.dumps(USER), r"these Google credentials cannot sign links \(google\.oauth2\.credentials\.Credentials\)"),
    ],
)
def test_google_credentials_that_cannot_sign_are_refused_with_the_fix(
    content: str | None, text: str, emulator: dict[str, str], variables: Setup, tmp_path: Path
) -> None:
    variables(**emulator)
    if content is not None:
        (tmp_path / "other.json").write_text(content)
        variables(GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "other.json"))
    with pytest.raises(ConfigError, match=text) as caught:
        links_for("gs://bucket/a", 7, NOW)
    fix = "set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account, or handoff.link_days=0"
    assert re.fullmatch(rf"gs://bucket/a: .*; {re.escape(fix)}", str(caught.value))
