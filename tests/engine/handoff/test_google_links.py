"""Links to Google Cloud Storage, signed with the key of a service account."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa

from engine.errors import ConfigError
from engine.handoff.links import Links, links_for, store_of
from tests.servers import gcs_server
from tests.signatures import EMAIL, FILE, NAME, NOW, PREFIXES, guarded_store, is_google_link

Setup = Callable[..., None]


def ended(links: Links) -> timedelta:
    assert links.expire_at
    return links.expire_at - NOW


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("emulator", ["", "127.0.0.1:9023", "http://127.0.0.1:9023/"])
def test_a_link_to_google_is_signed_for_one_object_and_for_a_time(
    prefix: str,
    emulator: str,
    variables: Setup,
    google_key: rsa.RSAPrivateKey,
    key_file: str,
    signing_at: Any,
) -> None:
    variables(GOOGLE_APPLICATION_CREDENTIALS=key_file, **({"STORAGE_EMULATOR_HOST": emulator} if emulator else {}))
    links = links_for(f"gs://bucket{prefix}", 2.5, NOW)
    link, end = links.of(FILE), NOW + timedelta(days=2.5)
    assert (links.expire_at, links.notices) == (end, ())
    host = "http://127.0.0.1:9023" if emulator else "https://storage.googleapis.com"
    assert requests.utils.unquote(link.partition("?")[0]) == f"{host}/bucket{prefix.rstrip('/')}/{NAME}"
    public = google_key.public_key()
    assert is_google_link(link, EMAIL, public, NOW)
    assert is_google_link(link, EMAIL, public, end - timedelta(seconds=1))
    assert not is_google_link(link, EMAIL, public, end)
    assert not is_google_link(link.replace("Expires=216000", "Expires=604800"), EMAIL, public, NOW)
    assert not is_google_link(link.replace(NAME, f"2{NAME}"), EMAIL, public, NOW)
    other = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    assert not is_google_link(link, EMAIL, other, NOW)


def test_an_image_in_a_google_bucket_is_downloaded_by_its_link(
    variables: Setup, google_key: rsa.RSAPrivateKey, key_file: str, signing_at: Any
) -> None:
    clock = [NOW]
    objects = {f"bucket/two words/größe/{NAME}": b"content"}
    is_valid = partial(is_google_link, email=EMAIL, key=google_key.public_key())
    with guarded_store(objects, lambda url, now: is_valid(url, now=now), lambda: clock[0]) as store:
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
