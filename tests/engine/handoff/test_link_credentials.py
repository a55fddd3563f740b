"""How long links work is what the credentials and the store allow, and is reported."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.handoff.links import Links, links_for
from engine.storage.location import Location
from tests.servers import s3_server
from tests.signatures import FILE, NOW, Keys, Signed, is_s3_link

Setup = Callable[..., None]


def ended(links: Links) -> timedelta:
    assert links.expire_at
    return links.expire_at - NOW


def test_longer_than_seven_days_is_cut_and_reported(s3_keys: Setup, signing_at: Any) -> None:
    links = links_for("s3://bucket/a", 30, NOW)
    assert (ended(links), Signed.of(links.of(FILE), "X-Amz").ends_at) == (timedelta(days=7), links.expire_at)
    assert links.notices == ("s3://bucket/a: the links end after 7 days, not 30: stores sign for no longer",)
    assert links_for("s3://bucket/a", 7, NOW).notices == ()
    assert ended(links_for("s3://bucket/a", 1e-9, NOW)) == timedelta(seconds=1)


@pytest.mark.parametrize("days", [7, 30])
def test_links_end_when_the_credentials_do(days: float, s3_keys: Setup, signing_at: Any) -> None:
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


def test_an_end_of_the_credentials_that_is_not_known_is_reported(s3_keys: Setup, signing_at: Any) -> None:
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
        ({"AWS_CREDENTIAL_EXPIRATION": "2040-01-31T23:59:30"}, "links cannot be signed"),
        ({"AWS_CONFIG_FILE": "[default\n"}, "Unable to parse config file"),
        ({"AWS_CONFIG_FILE": "[default]\ncredential_process = /no/program"}, "No such file or directory"),
        ({"AWS_CONFIG_FILE": "[default]\ncredential_process = /bin/false"}, "Error when retrieving credentials"),
        ({"AWS_CONFIG_FILE": "[default]\ncredential_process = /bin/echo no JSON"}, "links cannot be signed"),
        ({"AWS_ENDPOINT_URL": "http://no host"}, "Invalid endpoint"),
    ],
)
def test_credentials_for_s3_that_cannot_sign_are_refused_with_the_fix(
    values: dict[str, str], text: str, variables: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Location, "filesystem", SimpleNamespace(region="us-east-1"))
    if "AWS_CONFIG_FILE" in values:
        (tmp_path / "config").write_text(values["AWS_CONFIG_FILE"])
        values = {"AWS_CONFIG_FILE": str(tmp_path / "config")}
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    variables(**(keys if {"AWS_CREDENTIAL_EXPIRATION", "AWS_ENDPOINT_URL"} & {*values} else {}), **values)
    with pytest.raises(ConfigError, match=text) as caught:
        links_for("s3://bucket/a", 7, NOW)
    assert re.fullmatch(r"s3://bucket/a: .*; .* handoff\.link_days=0", str(caught.value))
