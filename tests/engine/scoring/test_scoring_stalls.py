"""What hangs or dies on one image costs that image, or its shard, and nothing else: on a real local Ray."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.campaign.manifests import ScoresManifest, read_manifest
from engine.scoring.score import score
from tests.committed import records_of
from tests.conftest import MakeCampaign, pretend_trained
from tests.rounds import encoded, write_shard

pytestmark = pytest.mark.usefixtures("local_ray")


def slow_jpeg(repeats: int) -> bytes:
    """A blank JPEG of 98 megapixels whose last scan comes many times: 130 ms each to decode, in 400 kB."""
    content = io.BytesIO()
    Image.new("L", (9900, 9900), 128).save(content, "JPEG", progressive=True)
    data = content.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * repeats + b"\xff\xd9"


def test_an_image_that_takes_for_ever_is_quarantined_alone(tmp_path: Path, make_campaign: MakeCampaign) -> None:
    rng = np.random.default_rng(0)
    good = {f"{n:02d}.png": encoded(rng.integers(0, 256, (8, 8), np.uint8)) for n in range(30)}
    write_shard(tmp_path / "good.tar", good)
    write_shard(tmp_path / "slow.tar", {"slow.jpg": slow_jpeg(150), **good})
    (tmp_path / "labels.csv").write_text("shard,key,label\ngood.tar,00,1\n")
    shards, labels = [f"{tmp_path}/*.tar"], tmp_path / "labels.csv"
    settings = ("select.budget=5", "score.stall_seconds=4.0", "score.workers=1")
    campaign = make_campaign(*settings, shards=shards, labels=labels)
    pretend_trained(campaign)
    score(campaign)
    manifest = read_manifest(campaign, "scores", ScoresManifest)
    assert manifest["counts"] == {"shards": 2, "listed": 61, "scored": 60, "quarantined": 1}
    assert manifest["errors"] == {"decode/Stalled": 1}
    file = next(record.file for record in records_of(campaign) if record.shard == "slow.tar")
    (bad,) = pq.read_table(f"{campaign.stage('quarantine').path}/{file}").to_pylist()
    assert (bad["key"], bad["message"]) == ("slow", "decoding took longer than score.stall_seconds=4")
