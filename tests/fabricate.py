"""Committed scores with logits of one's choice, through the code that commits real ones."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import fingerprint
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.campaign.scored_shards import complete_scores, file_name
from engine.config.input_options import ImageConfig
from engine.models.centring import load_centres
from engine.models.weights import make_networks
from engine.pool.items import read_shard
from engine.pool.manifest import read_shards
from engine.pool.shard import Shard
from engine.pool.sight import Sight
from engine.scoring.chunks import Chunk
from engine.scoring.drafts import Draft
from engine.tables.scores import pack, unpack
from engine.tables.shard_records import table_of


def fabricate_scores(
    campaign: Campaign,
    logits: Callable[[str, list[str]], NDArray[np.float32]],
    quarantine_every: int = 0,
    latents: Callable[[str, list[str]], NDArray[np.float32]] | None = None,
    margins: Callable[[str, list[str]], tuple[NDArray[np.float32], NDArray[np.int32]]] | None = None,
    inputs: dict[str, str] | None = None,
) -> None:
    """Complete the scores stage. `logits(shard, keys)` gives the logits of a shard's items in archive order.

    `latents(shard, keys)` gives their latents, which are zero without it. `margins(shard, keys)` gives the columns
    margin and predicted. Clusters are by the centres of the train stage, if it wrote any.
    `inputs` are those that scoring would write; without them it scores again where it is called.
    Every `quarantine_every`-th item of a shard is quarantined, none if that is 0.
    """
    records, folders = [], (campaign.stage("scores"), campaign.stage("quarantine"))
    num_latents = make_networks(campaign.config).num_latents
    is_trained = is_complete(campaign.stage("train"))
    trained = read_manifest(campaign, "train", TrainManifest)["files"] if is_trained else {}
    centres = load_centres(campaign.stage("train"), trained)
    # As scoring would say: otherwise it would score again where a test calls it.
    weights = inputs or {name: sha256 for name, sha256 in trained.items() if name.endswith(".safetensors")}
    for shard in read_shards(campaign.home):
        row = dict(_chunk_row(shard, campaign.config.image.model_dump_json(), quarantine_every))
        items = unpack(row["items"]).drop_columns(["fold"])
        keys = items["key"].to_pylist()
        latent = latents(shard.shard, keys) if latents else np.zeros((len(keys), num_latents))
        logit = pa.array(logits(shard.shard, keys).astype(np.float32))
        items = items.append_column("logit", logit)
        if margins:
            for name, values in zip(("margin", "predicted"), margins(shard.shard, keys), strict=True):
                items = items.append_column(name, pa.array(values))
        if centres:
            found = centres.of(torch.from_numpy(latent.astype(np.float32)))
            for name, values in zip(("cluster", "distance"), found, strict=True):
                items = items.append_column(name, pa.array(values.numpy()))
        latent = pa.FixedSizeListArray.from_arrays(pa.array(latent.astype(np.float16).reshape(-1)), num_latents)
        row["scored"] = pack(items.append_column("latent", latent))
        draft = Draft(shard.shard)
        draft.add(row)
        records.append(draft.commit(folders[0], folders[1], file_name(shard, fingerprint(**weights))))
    complete_scores(campaign, table_of(records), weights, {"device": "cpu"})


@cache
def _chunk_row(shard: Shard, image: str, quarantine_every: int) -> dict[str, Any]:
    """A whole shard as one chunk, decoded once for all tests: `image` are its options as JSON."""
    options = ImageConfig.model_validate_json(image)
    chunk, see, listed = Chunk(shard.shard, 0, Sight(options), 1), Sight(options).all_of(shard), 0
    for item in read_shard(shard, options):
        listed += 1
        if quarantine_every and listed % quarantine_every == 0:
            chunk.refuse(item, "Made", "made faulty")
        else:
            chunk.add(item, see)
    return dict(chunk.row(shard.size_bytes, listed=listed).to_pylist()[0])
