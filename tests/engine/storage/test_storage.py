"""Files appear whole or not at all, on local disks and on object stores over HTTP."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError, InputError, StorageError, UnreadableError
from engine.storage.documents import read_document
from engine.storage.endpoints import with_endpoint
from engine.storage.location import Location, masked
from engine.storage.retries import is_refusal
from tests.engine.storage.test_retries import LASTING, TRANSIENT
from tests.servers import gcs_server, s3_server


@pytest.fixture(params=["local", "s3", "gs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    if request.param == "local":
        yield Location.of(str(tmp_path / "folder"))
        return
    server = s3_server if request.param == "s3" else gcs_server
    with server("bucket") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield Location.of(f"{request.param}://bucket/folder")


def test_what_is_written_is_read(folder: Location) -> None:
    assert not (folder / "a/b.json").exists()
    assert folder.children() == {}
    (folder / "a/b.json").write_json({"x": "ü"})
    (folder / "a/c.json").write_json({})
    table = pa.table({"x": [1, 2]})
    assert (folder / "t.parquet").write_table(table) == (folder / "t.parquet").write_table(table)
    assert read_document(folder / "a/b.json", dict[str, str]) == {"x": "ü"}
    assert list((folder / "a").children()) == ["b.json", "c.json"]
    assert (folder / "t.parquet").read_table() == table
    (folder / "a/b.json").delete()
    assert list((folder / "a").children()) == ["c.json"]
    with pytest.raises(InputError, match=r"b.json: cannot be read"):
        (folder / "a/b.json").read_bytes()
    with pytest.raises(InputError, match="not a readable Parquet file"):
        (folder / "a/c.json").read_table()


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location.of("a/b").url == f"{tmp_path}/a/b"
    assert Location.of("a/../b/").url == f"{tmp_path}/b"
    assert Location.of(f"file://{tmp_path}/a").url == f"{tmp_path}/a"
    assert Location.of("s3://bucket/a/").url == "s3://bucket/a"
    with pytest.raises(ConfigError, match=r"ftp://host.*use a local path, s3://, gs://"):
        Location.of("ftp://host/file").exists()


def test_a_url_with_a_secret_is_refused_and_never_printed() -> None:
    for url in ("s3://key:SECRET@b/x", "s3://key:SE/CRET@b/x.tar", "gs://SECRET@b/x", "s3://b/x.tar?secret_key=SECRET"):
        with pytest.raises(ConfigError, match="has a password or options; set AWS") as caught:
            Location.of(url)
        assert "RET" not in str(caught.value)
    for url in ("https://user:SECRET@host/x", "https://host/x.tar?X-Amz-Signature=SECRET"):
        with pytest.raises(ConfigError, match="has a password or options") as caught:
            Location.of(url)
        assert "SECRET" not in str(caught.value)
    for url in ("s3://b/user@host/x?.tar", "s3://b/day=1/x-?.tar", "s3://b/a:b@c/x", "gs://b.c-d_e/x"):
        assert Location.of(url).url == masked(url) == url


def test_a_write_that_fails_leaves_the_older_file_and_no_draft(tmp_path: Path) -> None:
    file = Location.of(str(tmp_path / "file"))
    file.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match=r"file: cannot be written: File too large"):
            file.write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file/x: cannot be written"):
        (Location.of(str(tmp_path / "file")) / "x").write_bytes(b"")


def test_an_error_names_the_path_once_and_without_the_librarys_words(tmp_path: Path) -> None:
    for name, reason in (("absent", "No such file or directory"), (".", "is a directory")):
        place = Location.of(f"{tmp_path}/{name}")
        with pytest.raises(InputError) as caught:
            place.read_bytes()
        assert str(caught.value) == f"{place}: cannot be read: {reason}"


def test_what_is_refused_is_told_from_what_is_missing_or_damaged(tmp_path: Path) -> None:
    assert [text for text in (*TRANSIENT, *LASTING[:-1]) if not is_refusal(OSError(text))] == []
    assert all(is_refusal(OSError(number, "x")) for number in (errno.EACCES, errno.EIO, errno.ESTALE, errno.ETIMEDOUT))
    assert not any(is_refusal(OSError(number, "x")) for number in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR))
    file = Location.of(str(tmp_path / "t.parquet"))
    file.write_table(pa.table({"x": range(1000)}))
    content = file.read_bytes()
    for damaged in (content[:-9] + bytes(9), content[:100], bytes(400) + content[400:], b""):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="not a readable Parquet file") as caught:
            file.read_table()
        assert not isinstance(caught.value, UnreadableError)


def test_no_advice_is_given_on_what_the_storage_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Location.of(str(tmp_path / "t.parquet"))
    schema = pa.schema([pa.field("x", pa.int64())])
    readers: list[Callable[[], object]] = [
        file.read_bytes,
        file.read_table,
        lambda: file.read_verified("", "delete it"),
        lambda: file.read_typed_table(schema, "delete it"),
        lambda: read_document(file, dict[str, str], "delete it"),
    ]
    for read in readers:
        with pytest.raises(InputError, match="No such file"):
            read()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(LASTING[0])

    monkeypatch.setattr(pq, "read_table", refuse)
    monkeypatch.setattr(Location, "filesystem", SimpleNamespace(open_input_stream=refuse))
    for read in readers:
        with pytest.raises(UnreadableError, match=r"cannot be read: .*ACCESS_DENIED.*; see to the access") as caught:
            read()
        assert "delete" not in str(caught.value)


PROFILES = """[default]
region = us-east-1
[profile lab]
endpoint_url = {url}
[profile split]
endpoint_url = http://127.0.0.1:1
services = local
[services local]
dynamodb =
  endpoint_url = http://127.0.0.1:2
s3 =
  endpoint_url = {url}/
"""


@pytest.mark.heavy
@pytest.mark.parametrize("profile", ["lab", "split"])
def test_the_endpoint_of_an_aws_profile_is_used(profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server("bucket") as environment:
        (tmp_path / "config").write_text(PROFILES.format(url=environment.pop("AWS_ENDPOINT_URL")))
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (environment | {"AWS_CONFIG_FILE": f"{tmp_path}/config", "AWS_PROFILE": profile}).items():
            monkeypatch.setenv(name, value)
        file = Location.of("s3://bucket/a")
        file.write_bytes(b"here")
        assert file.read_bytes() == b"here"


def test_without_a_profile_that_names_one_the_endpoint_is_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(PROFILES.format(url="http://there:9000"))
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/config")
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    assert with_endpoint("s3://b") == "s3://b?allow_delayed_open=true"
    monkeypatch.setenv("AWS_DEFAULT_PROFILE", "lab")
    expected = "s3://b?allow_delayed_open=true&scheme=http&endpoint_override=there%3A9000"
    assert with_endpoint("s3://b") == expected
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://elsewhere")
    assert with_endpoint("s3://b") == "s3://b?allow_delayed_open=true"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    for content in (b"no section\n", b"\xff\xfe"):
        (tmp_path / "config").write_bytes(content)
        assert with_endpoint("s3://b") == "s3://b?allow_delayed_open=true"
