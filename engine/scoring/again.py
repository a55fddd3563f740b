"""The second pass: candidates are read again and get the scores that are dear, and the task learner's features.

A shard's candidates are one file, written whole or not at all, whose name is a hash of them and of all that decides
their scores. So a run that was killed goes on, and nothing is scored twice. Where the task learner sees embeddings,
these are its features, and no image is read.
"""

from collections import defaultdict
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.freshness import fingerprint
from engine.campaign.manifests import RESCORES, Manifest, TrainManifest, read_manifest, write_manifest
from engine.campaign.stages import Run
from engine.campaign.workers import session_with_workers
from engine.cluster.waiting import watched
from engine.config.texts import plural
from engine.errors import InputError
from engine.models.summaries import settings_of
from engine.pool.manifest import read_shards
from engine.pool.shard import Place
from engine.scoring.drafts import Draft, recall
from engine.scoring.score import inputs_of, require_model
from engine.scoring.scorer import candidate_functions, networks_of
from engine.scoring.stream import choose_actors, scored_chunks
from engine.storage.location import Location
from engine.tables.score_reader import read_scores
from engine.tables.scores import ShardRecord, latents_of
from vaal.acquisition.view import Inputs, View


def score_again(campaign: Campaign, candidates: pa.Table, run: Run) -> pa.Table:
    """The candidates in their order, with a column for each score that is dear and `feature`, the task learner's
    features (M, D) float16; without those that could not be scored again, which is logged.

    Raises InputError if a shard changed or cannot be read; what was scored until then stays.
    """
    inputs = inputs_of(campaign, is_again=True)
    if campaign.config.sees_embeddings:
        return _from_latents(campaign, candidates, inputs)
    places = _places_of(candidates)
    folder = campaign.stage(RESCORES)
    files = {
        shard: f"{fingerprint(inputs=inputs, shard=shard, places=at)[:32]}.parquet" for shard, at in places.items()
    }
    records = _committed(folder, files)
    todo = {shard: at for shard, at in places.items() if shard not in records}
    if todo:
        require_model(campaign)
        with session_with_workers(campaign, run):
            records |= _score(campaign, todo, files, inputs, run)
    counts = {name: sum(getattr(record, name) for record in records.values()) for name in ("listed", "scored")}
    digests = {record.file: record.sha256 for record in records.values()}
    write_manifest(campaign, RESCORES, Manifest, inputs=inputs, counts=counts, files=digests)
    if lost := counts["listed"] - counts["scored"]:
        run.log(f"{plural(lost, 'candidate')} could not be scored again, and cannot be picked: {folder}/quarantine")
    return _joined(candidates, folder, list(records.values()), campaign)


def _places_of(candidates: pa.Table) -> dict[str, list[Place]]:
    """The candidates of each shard in the order of their bytes."""
    places: dict[str, list[Place]] = defaultdict(list)
    for row in candidates.select(["shard", *Place._fields]).to_pylist():
        places[row.pop("shard")].append(Place(**row))
    return {shard: sorted(places[shard], key=lambda place: place.offset) for shard in sorted(places)}


def _committed(folder: Location, files: dict[str, str]) -> dict[str, ShardRecord]:
    """The records of the files that are there; others are removed."""
    if is_complete(folder):
        (folder / "manifest.json").delete()
    there = {name for name in folder.children() if name.endswith(".parquet")}
    for name in there - set(files.values()):
        (folder / name).delete()
    found = {shard: recall(folder, name) for shard, name in files.items() if name in there}
    return {shard: record for shard, record in found.items() if record is not None}


def _score(
    campaign: Campaign, todo: dict[str, list[Place]], files: dict[str, str], inputs: dict[str, str], run: Run
) -> dict[str, ShardRecord]:
    shards = read_shards(campaign.home)
    shards = shards.where(shards.are_named(todo))
    trained, folder = read_manifest(campaign, "train", TrainManifest), campaign.stage(RESCORES)
    drafts, records, total = dict[str, Draft](), dict[str, ShardRecord](), sum(map(len, todo.values()))
    num_scored = 0
    actors = choose_actors(campaign.config, run)
    stream = scored_chunks(campaign, shards, inputs, actors, trained, todo)
    with watched(actors.need, run.address, run.log, run.measure), closing(stream) as chunks:
        for row in (row for table in chunks for row in table.to_pylist()):
            shard = row["shard"]
            if row["failure"]:
                raise InputError(f"{row['failure']}; run: vaal select {campaign.home}")
            if shard in records or not drafts.setdefault(shard, Draft(shard)).add(row):
                continue
            num_scored += row["num_items"]
            run.on_progress(num_scored / total, f"{num_scored:,} of {total:,} candidates scored again")
            if drafts[shard].is_whole:
                records[shard] = drafts.pop(shard).commit(folder, folder / "quarantine", files[shard])
    if missing := sorted(todo.keys() - records.keys()):
        raise RuntimeError(f"Ray Data ended without all chunks of {missing[:3]}; run the same command again")
    return records


def _joined(candidates: pa.Table, folder: Location, records: list[ShardRecord], campaign: Campaign) -> pa.Table:
    """The candidates with the columns of the second pass."""
    names = [*candidate_functions(campaign.config), "latent"]
    tables = [read_scores(folder, record, ["shard", "key", *names]) for record in records]
    again = pa.concat_tables(tables).append_column("place", pa.array(np.arange(sum(map(len, tables)))))
    numbers = candidates.select(["shard", "key"]).append_column("row", pa.array(np.arange(len(candidates))))
    pairs = numbers.join(again.select(["shard", "key", "place"]), ["shard", "key"], join_type="inner").sort_by("row")
    found, added = candidates.take(pairs["row"]), again.take(pairs["place"])
    return _with(found, {"feature" if name == "latent" else name: added[name] for name in names})


def _from_latents(campaign: Campaign, candidates: pa.Table, inputs: dict[str, str]) -> pa.Table:
    """The same where the task learner sees the embeddings whose latents the scores hold."""
    config = campaign.config
    networks = networks_of(campaign.stage("train"), config, inputs)
    x_MZ = torch.from_numpy(latents_of(candidates))
    view = View(networks, Inputs(x_MZ, torch.zeros(len(x_MZ), dtype=torch.int64)), settings_of(config))
    scores: dict[str, Any] = {
        name: pa.array(function(view).numpy()) for name, function in candidate_functions(config).items()
    }
    return _with(candidates, {**scores, "feature": candidates["latent"]})


def _with(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """The table with these columns, also in place of those that the first pass gave it."""
    kept = table.drop_columns([name for name in columns if name in table.column_names])
    for name, column in columns.items():
        kept = kept.append_column(name, column)
    return kept
