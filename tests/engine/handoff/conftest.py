"""Who signs links in a test: its clients of object stores, their keys and their clock."""

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.storage import _signing

from engine.storage.location import _remote_filesystem
from tests.signatures import EMAIL, NOW

Setup = Callable[..., None]


@pytest.fixture(scope="session")
def google_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def key_file(google_key: rsa.RSAPrivateKey, tmp_path: Path) -> str:
    """The key file of a service account."""
    form = serialization.PrivateFormat.PKCS8
    pem = google_key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    account = {"type": "service_account", "project_id": "project", "private_key_id": "1", "private_key": pem}
    content = account | {"client_email": EMAIL, "token_uri": "https://oauth2.googleapis.com/token"}
    (tmp_path / "key.json").write_text(json.dumps(content))
    return str(tmp_path / "key.json")


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Nothing of this machine is known to the clients but what a test sets; they know no network."""
    for name in [*os.environ]:
        if name.startswith(("AWS_", "GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST")):
            monkeypatch.delenv(name)
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
def signing_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], datetime]:
    """Sets the clock of those who sign."""

    def set_clock(now: datetime) -> datetime:
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now.replace(tzinfo=None))
        monkeypatch.setattr(_signing, "_NOW", lambda _: now)
        return now

    set_clock(NOW)
    return set_clock
