"""Files of state that are damaged, foreign or newer: one line that names the file and the field."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.heartbeat import read_heartbeat
from engine.campaign.manifests import (
    ScoresManifest,
    SelectionManifest,
    TrainManifest,
    read_manifest,
    write_manifest,
)
from engine.campaign.opening import open_campaign
from engine.errors import ConfigError, InputError
from tests.rounds import make_round

FILES = {
    "campaign.toml": lambda campaign: open_campaign(str(campaign.home)),
    "rounds/000/overrides.json": lambda campaign: open_campaign(str(campaign.home)),
    "rounds/000/train/manifest.json": lambda campaign: read_manifest(campaign, "train", TrainManifest),
    "rounds/000/scores/manifest.json": lambda campaign: read_manifest(campaign, "scores", ScoresManifest),
    "rounds/000/selection/manifest.json": lambda campaign: read_manifest(campaign, "selection", SelectionManifest),
    "rounds/000/ledger/progress.json": lambda campaign: read_heartbeat(campaign.stage("ledger") / "progress.json"),
}
BEAT = {
    "host": "h", "pid": 1, "run": "r", "started_at": "t", "at": "t", "is_running": True, "shards": 1, "total_shards": 1,
    "items": 1, "items_per_second": 1.0, "seconds_left": None, "errors": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A round with a selection, overrides and a sign of life."""
    campaign = make_round(tmp_path_factory.mktemp("whole")).campaign
    open_campaign(str(campaign.home), ["score.attempts=2"])
    (campaign.stage("ledger") / "progress.json").write_json(BEAT)
    return campaign


@pytest.fixture(params=FILES)
def case(request: pytest.FixtureRequest, whole: Campaign) -> object:
    """A file of state, and what reads it. The file is restored afterwards."""
    path = Path(whole.home.path) / request.param
    content = path.read_bytes()
    yield path, lambda: FILES[request.param](whole)
    path.write_bytes(content)


def test_what_was_written_is_read(case: tuple[Path, Callable[[], object]]) -> None:
    path, read = case
    found = read()
    if path.name == "manifest.json":
        assert found == json.loads(path.read_bytes())


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: c + b"\xff\xfe", lambda _: b"\0\1{"])
def test_a_damaged_file_is_one_line_with_exit_4(
    case: tuple[Path, Callable[[], object]], damage: Callable[[bytes], bytes]
) -> None:
    path, read = case
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{path}: damaged, ") as caught:
        read()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("rounds/000/train/manifest.json", {"signal": "maybe"}, "signal='maybe': input should be 'present' or 'none'"),
        ("rounds/000/train/manifest.json", {"counts": {"steps": "many"}}, "counts.steps='many'"),
        ("rounds/000/scores/manifest.json", {"shards": None}, "shards: missing"),
        ("rounds/000/selection/manifest.json", {"files": None}, "files: missing"),
        ("rounds/000/ledger/progress.json", {"pid": None}, "pid: missing"),
        ("rounds/000/overrides.json", {"train.epochs": 0}, "train.epochs=0: input should be greater than"),
        ("rounds/000/overrides.json", {"train.epoch": 1}, "train.epoch: unknown key; did you mean train.epochs"),
    ],
)
def test_a_foreign_file_is_one_line_that_names_the_field_with_exit_2(
    whole: Campaign, file: str, change: dict[str, object], message: str
) -> None:
    path = Path(whole.home.path) / file
    content = path.read_bytes()
    tree = json.loads(content) | change
    path.write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))
    try:
        with pytest.raises(ConfigError, match=f"{path}: .*{message}") as caught:
            FILES[file](whole)
    finally:
        path.write_bytes(content)
    assert len(str(caught.value).splitlines()) == 1


def test_a_campaign_of_a_newer_format_is_refused_by_name(whole: Campaign) -> None:
    path = Path(whole.home.path) / "campaign.toml"
    content = path.read_text()
    assert "\nformat = 1\n" in content
    # A newer one may have options that nobody knows here: that is not what is reported.
    for newer in ("2", '"next"'):
        path.write_text(content.replace("format = 1", f"format = {newer}\nnovelty = 1"))
        with pytest.raises(ConfigError, match=r"campaign.toml: format=.*: this version reads campaigns up to format 1"):
            open_campaign(str(whole.home))
    # Campaigns from before there was a format are of the first one.
    path.write_text(content.replace("format = 1\n", ""))
    assert open_campaign(str(whole.home)).config.score.attempts == 2
    path.write_text(content)


def test_a_manifest_without_a_field_of_its_kind_is_not_written(whole: Campaign) -> None:
    with pytest.raises(TypeError, match="the manifest lacks"):
        write_manifest(whole, "train", TrainManifest, inputs={}, counts={}, files={}, device="cpu")


def test_a_campaign_file_that_is_cut_off_anywhere_is_noticed(whole: Campaign) -> None:
    path = Path(whole.home.path) / "campaign.toml"
    content = path.read_bytes()
    try:
        for end in range(0, len(content.rstrip()), 41):
            path.write_bytes(content[:end])
            with pytest.raises(InputError, match=r"campaign.toml: damaged, "):
                open_campaign(str(whole.home))
    finally:
        path.write_bytes(content)
