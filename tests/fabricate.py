"""Committed scores with logits of one's choice, through the code that commits real ones."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.campaign import Campaign, write_manifest
from engine.pool import read_shards
from engine.score_files import Chunk, commit
from engine.shards import read_shard
from engine.weights import num_latents as latents_of


def fabricate_scores(
    campaign: Campaign,
    logits: Callable[[str, list[str]], NDArray[np.float32]],
    quarantine_every: int = 0,
    latents: Callable[[str, list[str]], NDArray[np.float32]] | None = None,
) -> None:
    """Complete the scores stage. `logits(shard, keys)` gives the logits of a shard's items in archive order.

    `latents(shard, keys)` gives their latents, which are zero without it.
    Every `quarantine_every`-th item of a shard is quarantined, none if that is 0.
    """
    entries = []
    num_latents = latents_of(campaign.config)
    for index, shard in enumerate(read_shards(campaign.home)):
        chunk, listed = Chunk(shard.shard, campaign.config.image), 0
        for item in read_shard(shard):
            listed += 1
            is_bad = quarantine_every and listed % quarantine_every == 0
            chunk.add(item._replace(fault="made faulty") if is_bad else item, 0)
        row = chunk.row(0, shard.size_bytes, listed=listed).to_pylist()[0]
        count = len(chunk.items)
        keys = [item[0] for item in chunk.items]
        row["logit"] = logits(shard.shard, keys).astype(np.float32).tobytes()
        latent = latents(shard.shard, keys) if latents else np.zeros((count, num_latents))
        row["latent"] = latent.astype(np.float16).tobytes()
        entries.append({"shard": shard.shard, **commit(campaign, shard.shard, f"{index:06d}.parquet", [row])._asdict()})
    counts = {
        "shards": len(entries),
        "listed": sum(entry["listed"] for entry in entries),
        "scored": sum(entry["scored"] for entry in entries),
        "quarantined": sum(entry["quarantined"] for entry in entries),
    }
    details = {"device": "cpu", "shards": entries}
    write_manifest(campaign.stage("scores"), campaign, inputs={}, counts=counts, files={}, details=details)
