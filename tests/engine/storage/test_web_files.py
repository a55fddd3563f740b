"""A pool on a web server: read in ranges, exactly, or refused in one line. And on Azure, and in a repository."""

import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from pyarrow import fs

from engine.campaign.changes import refresh
from engine.campaign.opening import create
from engine.config.input_options import ImageConfig
from engine.config.options import CampaignConfig
from engine.config.toml import override
from engine.errors import ConfigError, InputError, StorageError, UnreadableError
from engine.pool.items import read_shard
from engine.pool.manifest import list_shards, look_up, read_shards
from engine.pool.shard import ChangedShardError, Place, ShardError, check_unchanged, read_images
from engine.storage.endpoints import MarkedFiles
from engine.storage.location import Location
from tests.processes import wait_until
from tests.servers import free_port
from tests.tars import VARIABLE, archive
from tests.web import FIRST_TIME, Web, web_server

TAR = archive(VARIABLE)
AZURITE = Path(__file__).parents[3] / "build/azurite/node_modules/.bin/azurite-blob"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""It is the emulator's, and the same everywhere."""


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server({f"pool/x-{n}.tar": TAR for n in range(3)}) as server:
        yield server


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.storage.retries.FIRST_WAIT_S", 0.001)


def test_shards_of_a_server_are_listed_by_name_and_read_exactly(web: Web) -> None:
    shards, root = list_shards([web.url + "/pool/x-{0..2}.tar"], "")
    assert (root, [shard.shard for shard in shards]) == (f"{web.url}/pool", ["x-0.tar", "x-1.tar", "x-2.tar"])
    assert {(shard.size_bytes, shard.mtime_ns) for shard in shards} == {(len(TAR), FIRST_TIME * 10**9)}
    assert look_up(shards).are_same(shards).all()
    items = list(read_shard(shards[0], ImageConfig()))
    assert [item.data for item in items] == [data for name, data in VARIABLE if name.endswith("jpg")]
    places = [Place(item.key, item.offset, item.size_bytes, None) for item in reversed(items)]
    web.asked.clear()
    assert list(read_images(shards[0], places)) == [item.data for item in reversed(items)]


def test_a_campaign_on_a_server_sees_which_shard_changed(web: Web, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("shard,key,label\nx-0.tar,000,cat\n")
    config = override(CampaignConfig(), {"select.budget": 2}, "test")
    pool = [f"{web.url}/pool/x-{{0..2}}.tar"]
    campaign = create(str(tmp_path / "campaign"), pool, str(tmp_path / "labels.csv"), config, lambda _: None)
    assert [shard.num_items for shard in read_shards(campaign.home)] == [6, None, None]
    before = refresh(campaign, lambda _: None, "key")
    assert [shard.shard for shard in before] == ["x-0.tar", "x-1.tar", "x-2.tar"]
    web.times["pool/x-1.tar"] = FIRST_TIME + 60
    after = refresh(campaign, lambda _: None, "key")
    assert [now.mtime_ns == was.mtime_ns for now, was in zip(after, before, strict=True)] == [True, False, True]


def test_only_the_ranges_that_are_wanted_are_asked_for(web: Web) -> None:
    place = Location.of(f"{web.url}/pool/x-0.tar")
    with place.filesystem.open_input_file(place.path) as file:
        assert (file.size(), file.read_at(7, 512)) == (len(TAR), TAR[512:519])
        file.seek(len(TAR) - 3)
        assert (file.read(10), file.read(1)) == (TAR[-3:], b"")


def test_a_shard_that_changed_or_went_is_found(web: Web) -> None:
    shards, _ = list_shards([f"{web.url}/pool/x-0.tar"], "")
    web.times["pool/x-0.tar"] = FIRST_TIME + 60
    with pytest.raises(ChangedShardError, match="changed since it was listed"):
        check_unchanged(shards[0])
    assert not look_up(shards).are_same(shards).any()
    del web.files["pool/x-0.tar"]
    assert not look_up(shards).are_there.any()
    with pytest.raises(ShardError, match="the shard is gone"):
        list(read_shard(shards[0], ImageConfig()))
    with pytest.raises(InputError, match=r"x-0.tar: no such file"):
        list_shards([f"{web.url}/pool/x-0.tar"], "")


def test_what_fails_once_is_asked_again(web: Web) -> None:
    shards, _ = list_shards([f"{web.url}/pool/x-0.tar"], "")
    web.files["busy-2/pool/x-0.tar"] = TAR
    flaky = shards[0]._replace(url=f"{web.url}/busy-2/pool/x-0.tar")
    assert len(list(read_shard(flaky, ImageConfig()))) == 6
    assert web.asked["/busy-2/pool/x-0.tar"] > 2


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("status-403/x.tar", "HTTP status 403: access is refused"),
        ("status-418/x.tar", "HTTP status 418"),
        ("status-503/x.tar", "HTTP status 503"),
    ],
)
def test_a_refusal_is_one_line(web: Web, path: str, text: str) -> None:
    with pytest.raises(UnreadableError, match=rf"{path}: cannot be looked up: {text}; see to the access"):
        Location.of(f"{web.url}/{path}").info()


def test_a_server_without_ranges_and_one_without_a_list_are_one_line(web: Web) -> None:
    with pytest.raises(InputError, match=r"a web server has no list of its files; name them, as x-"):
        list_shards([f"{web.url}/pool/*.tar"], "")
    with pytest.raises(StorageError, match="a web server cannot be written; give a local path"):
        (Location.of(web.url + "/pool") / "x").write_bytes(b"")
    with web_server({"x.tar": TAR}, has_ranges=False) as plain:
        shards, _ = list_shards([f"{plain.url}/x.tar"], "")
        # Whole files can be read.
        assert len(list(read_shard(shards[0], ImageConfig()))) == 6
        with pytest.raises(ShardError, match=r"serves whole files only, no ranges of bytes; copy the pool to a disk"):
            list(read_images(shards[0], [Place("0", 512, 100, None)]))


def test_a_url_may_have_a_port_and_no_secret() -> None:
    assert Location.of("http://127.0.0.1:8000/x/").url == "http://127.0.0.1:8000/x"
    for url in ("https://host/x.tar?X-Amz-Signature=SECRET", "http://user:SECRET@host:80/x", "https://host:SECRET/x"):
        with pytest.raises(ConfigError, match="has a password or options") as caught:
            Location.of(url)
        assert "SECRET" not in str(caught.value).replace("host:SECRET", "")


def test_azure_wants_an_account_beside_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="which account"):
        Location.of("az://images/x").exists()
    fix = "write az://images/..., and export AZURE_STORAGE_ACCOUNT_NAME=mine"
    with pytest.raises(ConfigError, match=fix):
        Location.of("abfss://images@mine.dfs.core.windows.net/x")


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is not None, reason="the package is there")
def test_a_repository_wants_its_package() -> None:
    with pytest.raises(ConfigError, match=r"hf:// needs another package; install it: pip install 'vaal\[hf\]'"):
        Location.of("hf://datasets/a/b/x.tar").exists()


def test_files_of_fsspec_have_marks_that_change_with_them() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/repo/a.tar", TAR)
    files = fs.PyFileSystem(MarkedFiles(memory))
    first = files.get_file_info("/repo/a.tar")
    assert (first.type, first.size) == (fs.FileType.File, len(TAR))
    assert files.get_file_info("/repo/a.tar").mtime_ns == first.mtime_ns
    assert files.get_file_info("/repo").type == fs.FileType.Directory
    assert [info.path for info in files.get_file_info(fs.FileSelector("/repo"))] == ["/repo/a.tar"]
    memory.pipe("/repo/a.tar", TAR)
    assert files.get_file_info("/repo/a.tar").mtime_ns != first.mtime_ns
    assert files.get_file_info("/repo/b.tar").type == fs.FileType.NotFound


@pytest.mark.heavy
@pytest.mark.skipif(not AZURITE.exists(), reason="make azurite")
def test_a_pool_on_azure_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
    parts = ("AccountName=devstoreaccount1", f"AccountKey={AZURITE_KEY}", f"BlobEndpoint={endpoint}")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", ";".join(parts))
    words = [AZURITE, "--silent", "--skipApiVersionCheck", "--location", tmp_path, "--blobPort", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(port), server.poll)
        Location.of("az://images/x").filesystem.create_dir("images")
        Location.of("az://images/pool/x.tar").write_bytes(TAR)
        shards, root = list_shards(["az://images/pool/*.tar"], "")
        assert root == "az://images/pool"
        assert shards[0].etag_or_mtime.startswith("etag:")
        items = list(read_shard(shards[0], ImageConfig()))
        assert [item.data for item in items] == [data for name, data in VARIABLE if name.endswith("jpg")]
        assert look_up(shards).are_same(shards).all()
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
