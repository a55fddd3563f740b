"""Laws 1, 3 and 4 on a real local Ray: every item once, a score is the image's alone, and a rerun changes nothing."""

import re
import shutil
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.manifests import ScoresManifest, TrainManifest, read_manifest
from engine.campaign.stages import Run
from engine.config.input_options import ImageConfig
from engine.errors import InputError, NotAcceptableError
from engine.models.weights import load_networks, score_function
from engine.pool.identity import content_hash, fold_of
from engine.pool.images import decode
from engine.pool.items import read_shard
from engine.pool.manifest import read_shards
from engine.scoring.score import score
from engine.simulation.demo_pools import DemoPool
from tests.committed import records_of
from tests.conftest import MakeCampaign, pretend_trained
from tests.faults.driver import command
from tests.processes import wait_until
from tests.rounds import write_shard

pytestmark = pytest.mark.usefixtures("local_ray")
TOLERANCE = 1e-5
"""Of a logit, over batch sizes: convolutions sum in another order."""
FEW = ("select.budget=5", "score.max_bad_fraction=0.2", "score.workers=1")
"""Settings for pools of a hundred images: a second scorer would only take time to start."""


def run(campaign: Campaign) -> tuple[list[tuple[float, str]], list[str]]:
    progress: list[tuple[float, str]] = []
    log: list[str] = []
    score(campaign, Run(on_progress=lambda *seen: progress.append(seen), log=log.append))
    return progress, log


def files(campaign: Campaign, stage: str = "scores") -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(Path(campaign.stage(stage).path).glob("*.parquet"))}


def table(campaign: Campaign, stage: str = "scores") -> pa.Table:
    return pa.concat_tables([pq.read_table(pa.BufferReader(content)) for content in files(campaign, stage).values()])


def trained(make_campaign: MakeCampaign, *settings: str, **options: object) -> Campaign:
    campaign = make_campaign("image.size=8", *settings, **options)
    pretend_trained(campaign)
    return campaign


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, pool: DemoPool, local_ray: None) -> Campaign:
    """The digits scored in batches of 100, once for the module."""
    from engine.campaign.opening import create
    from engine.config.options import CampaignConfig
    from engine.config.texts import parse_settings
    from engine.config.toml import override

    config = override(CampaignConfig(), parse_settings([*pool.settings, "score.batch_size=100"]), "test")
    home = tmp_path_factory.mktemp("scored") / "campaign"
    campaign = create(str(home), pool.shards, str(pool.labels), config, lambda _: None)
    pretend_trained(campaign)
    run(campaign)
    return campaign


def test_every_item_is_scored_once_with_its_position(scored: Campaign, pool: DemoPool) -> None:
    rows = table(scored).to_pylist()
    assert {(row["shard"], row["key"]) for row in rows} == set(pool.oracle)
    assert len(rows) == len(pool.oracle) == 1797
    for row in rows[::100]:
        data = Path(scored.config.pool.root, row["shard"]).read_bytes()[row["offset"] :][: row["size_bytes"]]
        assert content_hash(data) == row["content_hash"]
    manifest = read_manifest(scored, "scores", ScoresManifest)
    assert manifest["counts"] == {"shards": 8, "listed": 1797, "scored": 1797, "quarantined": 0}
    assert [shard.num_items for shard in read_shards(scored.home)] == [225] * 7 + [222]


def test_no_process_of_a_scoring_outlives_it_in_a_driver_that_goes_on(scored: Campaign) -> None:
    def left() -> list[str]:
        names = map(command, psutil.Process().children(recursive=True))
        return [name for name in names if re.match("ray::(Attempts|MapWorker)", name)]

    assert is_complete(scored.stage("scores"))
    wait_until(lambda: not left(), seconds=30)


def test_a_score_is_that_of_the_image_alone(scored: Campaign) -> None:
    weights = read_manifest(scored, "train", TrainManifest)["files"]
    networks = load_networks(scored.stage("train"), scored.config, weights)
    rows = {(row["shard"], row["key"]): row for row in table(scored).to_pylist()}
    for shard in read_shards(scored.home)[:2]:
        for item in list(read_shard(shard, scored.config.image))[::20]:
            pixels = torch.tensor(decode(item.data, ImageConfig(size=8, channels=1)))[None].permute(0, 3, 1, 2)
            fold = torch.tensor([fold_of(shard.shard, item.key, scored.config.train.folds)])
            logit, mean = score_function(scored.config)(networks, pixels.float() / 127.5 - 1, fold)
            row = rows[shard.shard, item.key]
            assert row["logit"] == pytest.approx(logit.item(), abs=TOLERANCE)
            np.testing.assert_allclose(row["latent"], mean[0].numpy(), atol=1e-3)


def test_batch_size_workers_and_order_of_shards_do_not_change_a_score(
    scored: Campaign, make_campaign: MakeCampaign, pool: DemoPool
) -> None:
    root = Path(pool.shards[0]).parent
    shuffled = [str(root / f"digits-{i:05d}.tar") for i in (5, 2, 7, 0, 1, 6, 3, 4)]
    other = trained(make_campaign, "score.batch_size=37", "score.workers=1", shards=shuffled)
    run(other)
    by = [("shard", "ascending"), ("key", "ascending")]
    one, two = table(scored).sort_by(by), table(other).sort_by(by)
    for column in ("shard", "key", "offset", "size_bytes", "content_hash"):
        assert one[column].to_pylist() == two[column].to_pylist()
    np.testing.assert_allclose(one["logit"].to_numpy(), two["logit"].to_numpy(), atol=TOLERANCE)


def test_a_rerun_after_losing_some_shards_gives_the_same_bytes(scored: Campaign, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(scored.home.path, copy)
    campaign = Campaign(type(scored.home)(str(copy)), scored.config, 0)
    before = files(campaign)
    (copy / "rounds/000/scores/manifest.json").unlink()
    kept = sorted(before)[:3]
    for name in sorted(before)[3:]:
        (copy / f"rounds/000/scores/{name}").unlink()
    # A file of other weights, and a draft of a write that was cut short.
    (copy / "rounds/000/scores/000000-0123456789abcdef.parquet").write_bytes(before[kept[0]])
    (copy / "rounds/000/scores/.000005.draft").write_bytes(b"half")
    times = {name: (copy / f"rounds/000/scores/{name}").stat().st_mtime_ns for name in kept}
    progress, log = run(campaign)
    assert files(campaign) == before
    assert {name: (copy / f"rounds/000/scores/{name}").stat().st_mtime_ns for name in kept} == times
    assert "3 of 8 shards are committed already" in log
    assert [line for line in log if "000000-0123456789abcdef.parquet: it was made of other bytes, weights" in line]
    share, words = progress[-1]
    assert share == 1
    items = 1797 - sum(pq.read_metadata(copy / f"rounds/000/scores/{name}").num_rows for name in kept)
    assert words.startswith(f"{items:,} items read, ")
    assert words.endswith(" 8 of 8 shards written")


@pytest.fixture
def mixed(tmp_path: Path, pool: DemoPool) -> tuple[list[str], Path]:
    """One good shard, one with a damaged image and a sample without one, one in which nothing decodes."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    good = {f"{item.key}.png": item.data for item in read_first(pool, 30)}
    names = list(good)
    write_shard(folder / "good.tar", good)
    write_shard(folder / "some.tar", {**good, names[3]: good[names[3]][:20], "zz.txt": b"no image"})
    write_shard(folder / "none.tar", {name: b"damaged" for name in names[:20]})
    labels = tmp_path / "mixed.csv"
    labels.write_text("shard,key,label\n" + f"good.tar,{names[0][:-4]},1\n")
    return [f"{folder}/*.tar"], labels


def read_first(pool: DemoPool, count: int) -> list[object]:
    from engine.pool.manifest import list_shards

    shards, _ = list_shards(pool.shards, "")
    return list(read_shard(shards[0], ImageConfig()))[:count]


def test_what_does_not_decode_is_quarantined_and_counted(
    make_campaign: MakeCampaign, mixed: tuple[list[str], Path]
) -> None:
    shards, labels = mixed
    campaign = trained(make_campaign, *FEW, shards=shards, labels=labels)
    log: list[str] = []
    with pytest.raises(
        NotAcceptableError, match=r"22 of 81 items \(27.2%\) are quarantined, too many in 1 of 3 shards: none.tar;.*0.2"
    ):
        score(campaign, Run(log=log.append))
    assert [line for line in log if line[0] != " "] == [
        "20 x decode/UnknownFormat",
        "1 x decode/CutOff",
        "1 x read/NotOneImage",
    ]
    assert len([line for line in log if line.startswith("    none.tar ")]) == 3
    assert not is_complete(campaign.stage("scores"))
    committed = files(campaign)
    assert len(committed) == 3
    accepted = accepting(campaign)
    run(accepted)
    assert files(accepted) == committed
    manifest = read_manifest(campaign, "scores", ScoresManifest)
    for record in records_of(campaign):
        assert record.listed == record.scored + record.quarantined
    assert manifest["counts"] == {"shards": 3, "listed": 81, "scored": 59, "quarantined": 22}
    assert manifest["errors"] == {"decode/CutOff": 1, "decode/UnknownFormat": 20, "read/NotOneImage": 1}
    bad = table(campaign, "quarantine").to_pylist()
    assert {(row["shard"], row["stage"], row["error"]) for row in bad} == {
        ("some.tar", "decode", "CutOff"), ("some.tar", "read", "NotOneImage"), ("none.tar", "decode", "UnknownFormat"),
    }  # fmt: skip
    assert not {(r["shard"], r["key"]) for r in bad} & {(r["shard"], r["key"]) for r in table(campaign).to_pylist()}


def accepting(campaign: Campaign) -> Campaign:
    """The same campaign, content with whatever there is."""
    options = campaign.config.score.model_copy(update={"max_bad_fraction": 1.0})
    return Campaign(campaign.home, campaign.config.model_copy(update={"score": options}), 0)


def test_a_shard_that_cannot_be_read_is_quarantined_whole_until_its_bytes_change(
    make_campaign: MakeCampaign, mixed: tuple[list[str], Path]
) -> None:
    shards, labels = mixed
    folder = Path(shards[0]).parent
    (folder / "none.tar").unlink()
    (folder / "lies.tar").write_bytes(b"this is not a tar archive" * 100)
    (folder / "short.tar").write_bytes((folder / "good.tar").read_bytes()[: 40 * 512])
    campaign = trained(make_campaign, *FEW, shards=shards, labels=labels)
    with pytest.raises(NotAcceptableError, match=r"4 of 63 items .*, too many in 2 of 4 shards: lies.tar, short.tar; "):
        run(campaign)
    assert not is_complete(campaign.stage("scores"))
    assert set(table(campaign)["shard"].to_pylist()) == {"good.tar", "some.tar"}
    bad = {(row["shard"], row["key"]): row for row in table(campaign, "quarantine").to_pylist()}
    assert {row["error"] for row in bad.values()} == {"CutOff", "NotOneImage", "ShardFailed"}
    assert re.search(r"lies.tar: byte 0: not a tar header .*\(3 attempts\)", bad["lies.tar", ""]["message"])
    assert re.search(r"short.tar: byte \d+: .*cut off", bad["short.tar", ""]["message"])
    # Restored in another size: it is scored, and what the others have stays as it is.
    kept = {name: content for name, content in files(campaign).items() if name.startswith(("good", "some"))}
    for name in ("lies.tar", "short.tar"):
        (folder / name).write_bytes((folder / "good.tar").read_bytes())
    _, log = run(campaign)
    assert {name: files(campaign)[name] for name in kept} == kept
    manifest = read_manifest(campaign, "scores", ScoresManifest)
    assert manifest["counts"] == {"shards": 4, "listed": 121, "scored": 119, "quarantined": 2}
    assert (
        len([line for line in log if "its bytes changed since it was listed; the next scoring scores it again" in line])
        == 2
    )
    assert set(table(campaign, "quarantine")["shard"].to_pylist()) == {"some.tar"}
    # Complete, it is left alone until a shard changes, as long as nothing is selected.
    before = files(campaign)
    assert score(campaign) == manifest
    (folder / "good.tar").write_bytes((folder / "some.tar").read_bytes())
    _, log = run(campaign)
    after = files(campaign)
    assert read_manifest(campaign, "scores", ScoresManifest)["counts"]["quarantined"] == 4
    is_kept = [name for name in before if not name.startswith("good")]
    assert len(is_kept) == 3
    assert [after[name] for name in is_kept] == [before[name] for name in is_kept]
    assert len(after) == 4
    assert [line for line in log if "good.tar: its bytes changed" in line]
    assert [line for line in log if "3 of 4 shards are committed already" in line]


def test_scoring_needs_the_weights_that_training_wrote(make_campaign: MakeCampaign) -> None:
    campaign = make_campaign()
    with pytest.raises(InputError, match="train: not complete; run: vaal train"):
        run(campaign)
