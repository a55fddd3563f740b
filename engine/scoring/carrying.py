"""Scores of earlier rounds whose networks are the same: a shard's file is taken over, and the shard is not read again.

The name of a scores file is a hash of all that decides it, so that a file of an earlier round with the name that is
expected now holds the scores that would be made. On a disk it is linked, on an object store copied by the store.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.campaign.decisions import forgotten
from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import fingerprint
from engine.campaign.manifests import ScoresManifest, TrainManifest, read_manifest
from engine.campaign.scored_shards import LEDGER, shard_records
from engine.campaign.stages import Log
from engine.config.texts import plural
from engine.storage.placing import duplicate
from engine.tables.scores import BY_PERSON, FORGOTTEN, ShardRecord
from engine.tables.shard_records import read_ledger, records_in

THREADS, AT_ONCE = 16, 4096


def carry_over(campaign: Campaign, inputs: dict[str, str], files: pa.Table, log: Log) -> Iterator[ShardRecord]:
    """Take over the scores of shards that an earlier round committed, by the same networks, settings and code. Yields
    their records, each when its files are there.

    A shard with an image that is to be forgotten since is scored again without it. So is one whose file was here before
    and is gone, where the earlier round's is not what was committed: the two are one file on a disk, and who found it
    damaged deleted it here.

    Args:
        inputs: those of the scores that are being made.
        files: the names of the files that scoring would make: columns shard and file.
    """
    wanted = files
    for number in range(campaign.round - 1, -1, -1):
        before = replace(campaign, round=number)
        if len(wanted) and is_complete(before.stage("scores")) and _is_alike(campaign, before, inputs):
            if wanted is files:
                there = pa.array([*campaign.stage("scores").children()], pa.string())
                wanted = files.filter(pc.invert(pc.is_in(files["file"], value_set=there)))
            records = shard_records(before, read_manifest(before, "scores", ScoresManifest))
            # The name of a file says of which shard it is.
            whole = _whole(campaign, before, records.filter(pc.is_in(records["file"], value_set=wanted["file"])))
            if len(whole):
                log(f"{plural(len(whole), 'shard')} keep the scores of round {number:03d}: the networks are the same")
            with ThreadPoolExecutor(THREADS) as threads:
                # A part of them waits at a time: a million calls that wait take a gigabyte.
                for batch in whole.to_batches(AT_ONCE):
                    part = records_in(pa.Table.from_batches([batch]))
                    yield from threads.map(partial(_take_over, campaign, before), part)
            wanted = wanted.filter(pc.invert(pc.is_in(wanted["file"], value_set=whole["file"])))


def _is_alike(campaign: Campaign, before: Campaign, inputs: dict[str, str]) -> bool:
    """Whether a round's scores are by the same networks, and each image by those that did not see it."""
    made = read_manifest(before, "scores", ScoresManifest)["inputs"]
    if fingerprint(**made) != fingerprint(**inputs) or not is_complete(before.stage("train")):
        return False
    rounds = [read_manifest(one, "train", TrainManifest).get("fold_round") for one in (campaign, before)]
    return rounds[0] == rounds[1]


def _whole(campaign: Campaign, before: Campaign, records: pa.Table) -> pa.Table:
    """Those of an earlier round's records whose scores can be used again."""
    sizes = before.stage("scores").children()
    there = pa.array([*sizes], pa.string()), pa.array([*sizes.values()], pa.int64())
    size = there[1].take(pc.index_in(records["file"], value_set=there[0]))
    is_whole = pc.and_(pc.equal(size, records["size_bytes"]), pc.equal(records["failure"], ""))
    records = records.filter(pc.fill_null(is_whole, fill_value=False))
    was_here = pc.is_in(records["file"], value_set=read_ledger(campaign.stage(LEDGER))["file"])
    with ThreadPoolExecutor(THREADS) as threads:
        doubtful = list(records_in(records.filter(was_here)))
        are_same = list(threads.map(partial(_is_as_committed, before), doubtful))
    bad = [record.file for record, is_same in zip(doubtful, are_same, strict=True) if not is_same]
    records = records.filter(pc.invert(pc.is_in(records["file"], value_set=pa.array(bad, pa.string()))))
    gone, name = Counter(shard for shard, _ in forgotten(campaign.home)), f"{BY_PERSON}/{FORGOTTEN}"
    is_asked = pc.is_in(records["shard"], value_set=pa.array([*gone], pa.string())).to_numpy()
    is_asked |= pc.match_substring(records["errors"], name).to_numpy()
    is_left = ~is_asked
    for row, one in zip(np.flatnonzero(is_asked), records_in(records.filter(pa.array(is_asked))), strict=True):
        is_left[row] = one.errors.get(name, 0) == gone[one.shard]
    return records.filter(pa.array(is_left))


def _is_as_committed(before: Campaign, record: ShardRecord) -> bool:
    content = (before.stage("scores") / record.file).read_bytes()
    return hashlib.sha256(content).hexdigest() == record.sha256


def _take_over(campaign: Campaign, before: Campaign, record: ShardRecord) -> ShardRecord:
    # The scores last: a shard is committed from then on.
    for name in ("quarantine", "scores") if record.quarantined else ("scores",):
        duplicate(before.stage(name) / record.file, campaign.stage(name) / record.file)
    return record
