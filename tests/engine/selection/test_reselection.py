"""A selection is made once; again when its options change; and, handed out, by force alone: nothing is sent twice."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.campaign.folder import Campaign
from engine.campaign.handed_out import batches, completed, picked_items
from engine.campaign.labels import append_labels, labelled_items
from engine.campaign.opening import open_campaign
from engine.campaign.stages import Run
from engine.config.toml import override
from engine.errors import ConfigError, InputError, NotAcceptableError
from engine.handoff.export import export
from engine.selection.batch import Batch
from engine.selection.candidates import choose_batch
from engine.selection.select import select
from engine.tables.item_keys import rows_of_items
from engine.tables.selections import CANDIDATES_FILE, HISTOGRAM_FILE, SAMPLE_FILE
from tests.committed import with_entries_inside
from tests.conftest import MakeCampaign, pretend_trained
from tests.fabricate import fabricate_scores

Identity = tuple[str, str]


@pytest.fixture
def scored(make_campaign: MakeCampaign) -> Campaign:

    campaign = make_campaign("select.budget=40", "select.duplicates=exact")
    pretend_trained(campaign)
    rng = np.random.default_rng(0)
    fabricate_scores(
        campaign,
        lambda _, keys: rng.normal(size=len(keys)),
        quarantine_every=50,
        latents=lambda _, keys: rng.normal(size=(len(keys), 32)),
    )
    return campaign


def picks(campaign: Campaign) -> set[Identity]:
    return identities((campaign.stage("selection") / "selection.parquet").read_table())


def identities(table: pa.Table) -> set[Identity]:
    return set(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))


def files(campaign: Campaign) -> dict[str, bytes]:
    folder = campaign.stage("selection")
    return {name: (folder / name).read_bytes() for name in ("selection.parquet", CANDIDATES_FILE)}


def with_options(campaign: Campaign, **options: object) -> Campaign:
    changed = {f"select.{name}": value for name, value in options.items()}
    return dataclasses.replace(campaign, config=override(campaign.config, changed, "test"))


@pytest.mark.parametrize("left", [(), (CANDIDATES_FILE,), (CANDIDATES_FILE, "selection.parquet")])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(scored: Campaign, left: tuple[str, ...]) -> None:
    select(scored)
    whole = files(scored)
    folder = scored.stage("selection")
    (folder / "manifest.json").delete()
    for name in {*whole} - {*left}:
        (folder / name).delete()
    select(scored)
    assert files(scored) == whole


def test_other_options_make_it_again_as_long_as_it_is_not_handed_out(scored: Campaign) -> None:
    select(scored)
    lines: list[str] = []
    manifest = select(with_options(scored, budget=25), Run(log=lines.append))
    assert manifest["counts"]["picked"] == len(picks(scored)) == 25
    assert lines[0] == "the selection is made again: select.budget changed"
    with pytest.raises(ConfigError, match=r"selection: made before select.budget changed; run: vaal select"):
        export(scored)
    assert picked_items(scored.home, before=0).num_rows == 0


def test_a_selection_without_what_its_report_needs_is_made_again_until_it_is_handed_out(scored: Campaign) -> None:
    whole = select(scored)
    manifest = scored.stage("selection") / "manifest.json"
    fewer = {name: sha256 for name, sha256 in whole["files"].items() if name not in (HISTOGRAM_FILE, SAMPLE_FILE)}
    manifest.write_json({**whole, "files": fewer})
    assert select(scored)["files"] == whole["files"]
    export(scored)
    manifest.write_json({**whole, "files": fewer})
    assert select(scored)["files"] == fewer


def test_a_train_manifest_that_was_written_again_changes_nothing(scored: Campaign) -> None:
    first = select(scored)
    manifest = scored.stage("train") / "manifest.json"
    manifest.write_json({**json.loads(manifest.read_bytes()), "completed_at": "2027-01-31T12:00:00Z"})
    assert select(scored) == first


def test_a_setting_is_too_late_once_it_is_handed_out(scored: Campaign) -> None:
    home = str(scored.home)
    select(scored)
    assert open_campaign(home, ["select.budget=41"]).config.select.budget == 41
    select(open_campaign(home, []))
    export(open_campaign(home, []))
    with pytest.raises(ConfigError, match=r"too late .*handed_out/generic-000 is complete.*select --force"):
        open_campaign(home, ["select.budget=42"])
    # The command that is advised has the settings of this one, and works as it is written.
    given = ["--set", "select.budget=42", "--set", "select.control_fraction= 0.1"]
    with pytest.raises(ConfigError) as refused:
        open_campaign(home, given[1::2])
    command, _, rest = str(refused.value).partition("pick other images as well: ")[2].partition(" (")
    assert shlex.split(command) == ["vaal", "select", "--force", home, *given]
    assert rest == "what is out at a vendor stays out, and stays bought)"
    assert open_campaign(home, ["select.budget=42"], force=True).config.select.budget == 42


def test_what_is_handed_out_is_replaced_by_force_alone_and_stays_out(scored: Campaign) -> None:
    select(scored)
    export(scored)
    first = picks(scored)
    tasks = (scored.stage("handoff/generic") / "tasks.csv").read_bytes()
    other = with_options(scored, seed=5)
    with pytest.raises(ConfigError, match=r"select.seed changed, but its images are handed out; .*select --force"):
        select(other)
    assert picks(scored) == first

    select(other, force=True)
    second = picks(other)
    assert len(second) == 40
    assert not second & first
    (old,) = batches(other.home, 0)
    assert identities(old.images()) == first
    assert (old.folder / "tasks.csv").read_bytes() == tasks
    assert picked_items(other.home, before=0).num_rows == 40
    assert picked_items(other.home, before=1).num_rows == 80
    # One that nobody was sent leaves nothing out: asked for again, it is the same, and can be sent.
    select(other, force=True)
    assert picks(other) == second
    export(other)
    assert [batch.folder.name for batch in batches(other.home, 0)] == ["generic-000", "generic-001"]

    select(other, force=True)
    assert not picks(other) & (first | second | labelled_items(other.home))
    assert picked_items(other.home, before=1).num_rows == 120


def test_the_vendors_folder_holds_the_newest_batch_and_nothing_else(scored: Campaign) -> None:
    folder = Path(scored.stage("handoff/generic").path)
    for leftover in ("images/of-a-killed-export.png", "manifest.json"):
        (folder / leftover).parent.mkdir(parents=True, exist_ok=True)
        (folder / leftover).write_bytes(b"left over")
    for _ in range(2):
        select(scored, force=True)
        export(scored)
        ids = set(batches(scored.home, 0)[-1].images()["item_id"].to_pylist())
        assert {path.stem for path in (folder / "images").iterdir()} == ids
        written = {"tasks.csv", "tasks.jsonl", "question.json", "tasks.schema.json", "answers.schema.json"}
        assert {path.name for path in folder.iterdir()} == {"images", *written}
    text = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for secret in (scored.config.salt, scored.config.pool.root, "digits-0"):
        assert secret.encode() not in text


def test_what_is_out_is_not_forgotten_with_the_selection(scored: Campaign) -> None:
    select(scored)
    sent = export(scored)
    first = picks(scored)
    shutil.rmtree(scored.stage("selection").path)
    select(scored)
    assert picks(scored) == first
    assert export(scored) == sent
    # Where other images would be picked now, that is refused; by force they are other ones than those that are out.
    shutil.rmtree(scored.stage("selection").path)
    other = with_options(scored, seed=5)
    with pytest.raises(ConfigError, match=r"selection: it is gone, and now other images would be picked .*--force"):
        select(other)
    select(other, force=True)
    assert not picks(other) & first


def test_scores_that_are_made_again_change_nothing_that_is_handed_out(scored: Campaign) -> None:
    first = select(scored)
    manifest = scored.stage("scores") / "manifest.json"
    content = with_entries_inside(scored)
    manifest.write_json({**content, "completed_at": "2027-01-31T12:00:00Z", "code_version": "later"})
    assert select(scored) == first
    export(scored)
    content["shards"][0]["sha256"] = "0" * 64
    manifest.write_json(content)
    lines: list[str] = []
    assert select(scored, Run(log=lines.append)) == first
    assert lines == ["scores changed since the images were picked; the images are handed out, and stay picked"]
    assert len(batches(scored.home, 0)) == 1
    export(scored)
    assert len(batches(scored.home, 0)) == 1


def test_a_replacement_that_was_killed_ends_with_the_same_picks(scored: Campaign) -> None:
    select(scored)
    export(scored)
    first = picks(scored)
    select(scored, force=True)
    calm = files(scored)
    # As if the run had died after it opened the stage.
    (scored.stage("selection") / "manifest.json").delete()
    (scored.stage("selection") / "selection.parquet").delete()
    select(scored, force=True)
    assert files(scored) == calm
    assert not picks(scored) & first


def test_a_replacement_that_fails_leaves_what_there_was(scored: Campaign) -> None:
    manifest = select(scored)
    export(scored)
    with pytest.raises(ConfigError, match="only"):
        select(with_options(scored, budget=1550), force=True)
    assert json.loads((scored.stage("selection") / "manifest.json").read_bytes()) == manifest
    assert completed(scored, "handoff")
    assert picked_items(scored.home, before=0).num_rows == 0


def test_inputs_that_change_while_images_are_picked_are_noticed(
    scored: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose_late(*arguments: Any) -> Batch:
        append_labels(scored.home, "late", [("digits-00000.tar", "000001", "1", 0, "generic", None, None)])
        return choose_batch(*arguments)

    monkeypatch.setattr("engine.selection.select.choose_batch", choose_late)
    with pytest.raises(InputError, match=r"scores or labels changed while images were picked; run: vaal select"):
        select(scored)
    assert not (scored.stage("selection") / "manifest.json").exists()


def test_scores_of_other_weights_are_refused(scored: Campaign) -> None:
    manifest = scored.stage("scores") / "manifest.json"
    manifest.write_json({**json.loads(manifest.read_bytes()), "inputs": {"vae.safetensors": "0" * 64}})
    with pytest.raises(InputError, match=r"scores: made with another vae.safetensors than the one in .*vaal score"):
        select(scored)


def test_a_budget_of_nothing_picks_nothing(scored: Campaign) -> None:
    manifest = select(with_options(scored, budget=0))
    assert picks(scored) == set()
    assert (manifest["counts"]["candidates"], manifest["highest_picked_score"]) == (0, None)


def test_a_pool_that_is_labelled_whole_has_nothing_to_pick(scored: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = set()
    for name in scored.stage("scores").children():
        if name.endswith(".parquet"):
            table = (scored.stage("scores") / name).read_table(["shard", "key"])
            everything |= set(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))
    table = rows_of_items(everything)
    for name, kind in (("round", pa.int32()), ("origin", pa.string())):
        table = table.append_column(name, pa.nulls(len(table), kind))
    monkeypatch.setattr("engine.selection.unpickable.read_labels", lambda *_: table)
    with pytest.raises(ConfigError, match=r"select.budget=40: only 0 items are neither labelled, .*select.budget=0"):
        select(scored)
    assert select(with_options(scored, budget=0))["counts"]["eligible"] == 0


def test_duplicates_beyond_the_candidates_call_for_more_of_them(scored: Campaign) -> None:

    # All of the lowest logits have one latent, and are one another's duplicates.
    fabricate_scores(
        scored,
        lambda shard, keys: np.arange(len(keys)) + (1000 if shard != "digits-00000.tar" else 0),
        latents=lambda shard, keys: np.where(
            (np.arange(len(keys))[:, None] < 60) & (shard == "digits-00000.tar"),
            1.0,
            np.random.default_rng(int(shard[7:12])).normal(size=(len(keys), 32)),
        ),
    )
    manifest = select(with_options(scored, duplicates="near", oversample=1.0, control_fraction=0.0))
    assert manifest["counts"]["picked"] == len(picks(scored)) == 40
    assert manifest["counts"]["candidates"] > 100
    with pytest.raises(ConfigError, match=r"only \d+ of .* not duplicates; lower it: .*raise select.duplicate_cosine"):
        select(with_options(scored, duplicates="near", budget=1560))


def test_no_signal_is_refused_before_anything_is_read(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign("select.when_no_signal=refuse", "select.diversity=clusters")
    pretend_trained(campaign, "none")
    fabricate_scores(campaign, lambda _, keys: np.zeros(len(keys)))
    for name in campaign.stage("scores").children():
        if name.endswith(".parquet"):
            (campaign.stage("scores") / name).delete()
    with pytest.raises(NotAcceptableError):
        select(campaign)
