"""The links to images: they open what they name, for whom they are for, and as long as they say."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.handoff.links import Links, links_for, store_of
from engine.storage.location import Location
from tests.servers import s3_server
from tests.signatures import FILE, NAME, NOW, PREFIXES, Keys, guarded_store, is_s3_link

Setup = Callable[..., None]


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
def test_a_link_to_s3_is_signed_for_one_object_and_for_a_time(prefix: str, s3_keys: Setup, signing_at: Any) -> None:
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
def test_a_signed_link_names_its_object_whatever_its_prefix(prefix: list[str], s3_keys: Setup, signing_at: Any) -> None:
    folder = "/".join(["bucket", *prefix]).rstrip("/")
    link = links_for(f"s3://{folder}", 1, NOW).of(FILE)
    assert is_s3_link(link, Keys(), NOW)
    assert requests.utils.unquote(link.partition("?")[0]) == f"http://store:9000/{folder}/{NAME}"


def test_links_to_aws_go_to_the_region_of_the_bucket(
    s3_keys: Setup, signing_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_the_endpoint_and_keys_of_a_profile_are_used(
    style: str, variables: Setup, tmp_path: Path, signing_at: Any
) -> None:
    keys = "aws_access_key_id = other\naws_secret_access_key = hidden\n"
    (tmp_path / "config").write_text(f"[profile lab]\nendpoint_url = https://lab.example\n{keys}{style}")
    # Arrow's client reads the region of a profile when the process starts, so here a variable names it.
    variables(AWS_CONFIG_FILE=str(tmp_path / "config"), AWS_PROFILE="lab", AWS_DEFAULT_REGION="eu-north-1")
    link = links_for("s3://bucket/a", 7, NOW).of(FILE)
    assert link.startswith(f"https://{'bucket.lab.example' if style else 'lab.example/bucket'}/a/{NAME}?")
    assert is_s3_link(link, Keys("other", "hidden"), NOW, "eu-north-1")


def test_an_image_is_downloaded_by_its_link_and_by_no_other(s3_keys: Setup, signing_at: Any) -> None:
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
        refreshed = links_for("s3://bucket/two words/größe", 1, signing_at(clock[0]))
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


def test_one_client_signs_all_links(s3_keys: Setup, signing_at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, original = [], boto3.Session.client
    monkeypatch.setattr(boto3.Session, "client", lambda *args, **named: made.append(1) or original(*args, **named))
    links = links_for("s3://bucket/a", 7, NOW)
    assert len({links.of(f"images/{number}.png") for number in range(50)}) == 50
    assert len(made) == 1
