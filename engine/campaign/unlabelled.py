"""Rounds that begin without a label: see `engine.config.first_round`."""

from dataclasses import replace

from engine.campaign.folder import Campaign, is_complete
from engine.campaign.labels import read_labels, read_snapshot
from engine.campaign.manifests import TrainManifest, read_manifest
from engine.config.first_round import without_labels
from engine.storage.location import Location


def begins_without_labels(campaign: Campaign) -> bool:
    """Whether the campaign's round begins without a label. What its training began with counts, once that is done."""
    if is_complete(campaign.stage("train")):
        return read_manifest(campaign, "train", TrainManifest)["counts"].get("labelled", 1) == 0
    return not has_labels(campaign.home)


def has_labels(home: Location) -> bool:
    """Whether anything has a label. Raises as `read_snapshot`."""
    labels = read_snapshot(home, ["label", "round"]).history["label"]
    if labels.null_count == len(labels):
        return False
    # The newest row of all is the newest of its item.
    return labels[-1].is_valid or len(read_labels(home)) > 0


def as_labels_allow(campaign: Campaign) -> Campaign:
    """The campaign with the configuration that its round can have by its labels."""
    if not begins_without_labels(campaign):
        return campaign
    return replace(campaign, config=without_labels(campaign.config))


def in_words(campaign: Campaign) -> str:
    """What a round does that begins without a label, for a person. `campaign` is as `as_labels_allow` gives it."""
    select = campaign.config.select
    how = "a random sample of the pool"
    if select.diversity != "none":
        how = f"spread over the embeddings ({select.diversity.replace('_', ' ')})"
    advice = "" if campaign.config.sees_embeddings else "; with embeddings (pool.embeddings) they would be spread"
    return (
        f"no labels yet: nothing is trained on labels in this round, and its {select.budget:,} picks are {how}{advice}"
    )
