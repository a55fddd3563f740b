"""Files of state that are damaged, foreign or newer: one line that names the file and the field."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import picked_items
from engine.campaign.heartbeat import Beat, TrainBeat, read_heartbeat
from engine.campaign.labels import read_labels
from engine.campaign.manifests import (
    ScoresManifest,
    SelectionManifest,
    TrainManifest,
    read_manifest,
    write_manifest,
)
from engine.campaign.opening import open_campaign
from engine.campaign.stages import run_stage, stage_of
from engine.errors import ConfigError, InputError
from engine.report.facts import headline, read_manifests, round_facts, signal_facts
from engine.selection.explanation import explain
from engine.storage.location import Location
from jobs.status import status as show_status
from jobs.terminal import Terminal
from tests.rounds import SCRIPT, make_round

FILES = {
    "campaign.toml": lambda campaign: open_campaign(str(campaign.home)),
    "rounds/000/overrides.json": lambda campaign: open_campaign(str(campaign.home)),
    "rounds/000/train/manifest.json": lambda campaign: read_manifest(campaign, "train", TrainManifest),
    "rounds/000/scores/manifest.json": lambda campaign: read_manifest(campaign, "scores", ScoresManifest),
    "rounds/000/selection/manifest.json": lambda campaign: read_manifest(campaign, "selection", SelectionManifest),
    "rounds/000/ledger/progress.json": lambda campaign: read_heartbeat(
        campaign.stage("ledger") / "progress.json", Beat
    ),
    "rounds/000/train/progress.json": lambda campaign: read_heartbeat(
        campaign.stage("train") / "progress.json", TrainBeat
    ),
}
NOON = "2026-01-31T12:00:00Z"
BEAT = {
    "host": "h", "pid": 1, "run": "r", "started_at": NOON, "at": NOON, "is_running": True, "shards": 1,
    "total_shards": 1, "items": 1, "items_per_second": 1.0, "seconds_left": None, "errors": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A round with a selection, overrides and a sign of life."""
    campaign = make_round(tmp_path_factory.mktemp("whole")).campaign
    open_campaign(str(campaign.home), ["score.attempts=2"])
    (campaign.stage("ledger") / "progress.json").write_json(BEAT)
    (campaign.stage("train") / "progress.json").write_json({**BEAT, "steps": 1, "total_steps": 2})
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
        ("rounds/000/train/manifest.json", {"signal": "maybe"}, "signal='maybe': give 'present' or 'none'"),
        ("rounds/000/train/manifest.json", {"counts": {"steps": "many"}}, "counts.steps='many'"),
        ("rounds/000/scores/manifest.json", {"ledger": None}, "ledger: missing"),
        ("rounds/000/selection/manifest.json", {"files": None}, "files: missing"),
        (
            "rounds/000/train/manifest.json",
            {"completed_at": "at noon"},
            "completed_at=.*: input should be an ISO",
        ),
        ("rounds/000/ledger/progress.json", {"pid": None}, "pid: missing; delete it"),
        ("rounds/000/ledger/progress.json", {"pid": 2**70}, "pid=.*: must be less than"),
        ("rounds/000/ledger/progress.json", {"seconds_left": 2**70}, "seconds_left=.*: must be less than"),
        ("rounds/000/ledger/progress.json", {"at": "yesterday"}, "at='yesterday': input should be an ISO 8601 time"),
        ("rounds/000/ledger/progress.json", {"at": "2026-01-31T12:00:00"}, "at=.*: input should be an ISO 8601 time"),
        ("rounds/000/train/progress.json", {"steps": "few"}, "steps='few': not a whole number"),
        ("rounds/000/overrides.json", {"train.epochs": 0}, "train.epochs=0: must be at least"),
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


def readers(campaign: Campaign) -> Iterator[Callable[[], object]]:
    """What reads the manifests of complete stages: every command but the report's pictures."""
    yield lambda: show_status(Terminal(json=True), str(campaign.home))
    for name, command in (("train", "train"), ("scores", "score"), ("selection", "select"), ("handoff", "export")):
        stage = stage_of(name)
        yield lambda stage=stage, command=command: stage.describe(campaign, run_stage(command, campaign))
    yield lambda: explain(campaign, *SCRIPT)
    yield lambda: explain(campaign, "s-2.tar", "0149")
    yield lambda: round_facts(campaign.config, read_manifests(campaign), read_labels(campaign.home), 0)
    yield lambda: (signal_facts(read_manifests(campaign).train), headline(read_manifests(campaign), 0))
    yield lambda: picked_items(campaign.home, 1)


WRONG: tuple[Any, ...] = ([], {}, "x", 2**70, -1.5)


def is_refused(read: Callable[[], object]) -> bool:
    """Whether it ends in one line; any other error is the test's."""
    try:
        read()
    except (ConfigError, InputError) as error:
        return len(str(error).splitlines()) == 1
    return False


def places_in(tree: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Every field of a manifest, down to those of its first shard, its diagnosis and its options of the selection."""
    for key, value in list(tree.items()):
        yield tree, key
        if key == "config":
            yield from ((value, "select"), (value["select"], "diversity"))
        elif isinstance(value, dict):
            yield from ((value, inner) for inner in list(value))
        elif key == "shards":
            yield from ((value[0], inner) for inner in list(value[0]))


@pytest.mark.heavy
@pytest.mark.parametrize("each", [1, pytest.param(len(WRONG), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["train", "scores", "selection", "handed_out/generic-000"])
def test_any_wrong_or_missing_field_of_a_manifest_ends_in_one_line(
    whole: Campaign, name: str, each: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What a command makes again because a manifest is wrong is of no other case.
    shutil.copytree(whole.home.path, tmp_path / "campaign")
    whole = replace(whole, home=Location(f"{tmp_path}/campaign"))
    # Nobody else is here to wait for.
    monkeypatch.setattr("engine.campaign.heartbeat.SETTLING_SECONDS", 0.0)
    run_stage("export", whole)
    path = Path((whole.stage(name) / "manifest.json").path)
    content = path.read_bytes()
    refused = set()
    try:
        for number, (_, field) in enumerate(places_in(json.loads(content))):
            # A field lacks, and has one wrong value or all of them.
            for wrong in (None, *(WRONG[(number + more) % len(WRONG)] for more in range(each))):
                tree = json.loads(content)
                place, key = list(places_in(tree))[number]
                place[key] = wrong
                if wrong is None:
                    del place[key]
                path.write_text(json.dumps(tree))
                for read in readers(whole):
                    refused |= {field} if is_refused(read) else set()
    finally:
        path.write_bytes(content)
    assert {"counts", "files", "inputs", "config", "select", "completed_at"} <= refused
