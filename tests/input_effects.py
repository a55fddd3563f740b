"""Options of embeddings, of the user's own task learner and of what is fitted at the end of training, and where the
change of each shows."""

import dataclasses
import shutil
from typing import Any

import numpy as np
import safetensors.torch
import torch

from engine.campaign.growing import follow
from engine.campaign.sharing import elsewhere, share
from engine.config.options import CampaignConfig
from engine.models.encoders import load_encoder
from engine.models.front import Front
from engine.models.task_models import load_task
from engine.models.task_trial import task_entry
from engine.models.weights import make_networks
from engine.pool.manifest import read_shards
from engine.pool.mask_files import MaskError
from engine.pool.mask_source import mask_source
from engine.pool.samples import Item
from engine.pool.sight import seen_as
from engine.storage.location import Location
from engine.training.plan import plan_training
from engine.training.refitting import fit_at_last
from tests.effects import Bench, Look
from tests.encoders import Blocks
from tests.rounds import encoded
from tests.tasks import Plain

ENCODER = {"encoder.model": "tests.encoders:Blocks", "encoder.size": 16, "image.channels": 3}


MASKS = {
    "train.task": "segmentation",
    "handoff.question": {"task": "mask", "classes": ["a", "b"]},
    "labels.masks": "member:m.png",
}
TASK = {"task.model": "tests.tasks:trained", "train.task": "auto", "image.channels": 3}


def followed(bench: Bench, config: CampaignConfig) -> Any:
    """The shards of a pool when a round begins and there is a new one."""
    campaign, new = bench.campaign(config), bench.folder / "pool/digits-99999.tar"
    shutil.copy(bench.folder / "pool/digits-00007.tar", new)
    try:
        follow(campaign, lambda _: None)
    finally:
        new.unlink()
    return [shard.shard for shard in read_shards(campaign.home)]


def bought(bench: Bench, config: CampaignConfig) -> Any:
    """How many images another campaign has, which shares a ledger."""
    pool = config.pool.model_copy(update={"shared_ledger": f"{bench.folder}/shared"})
    share(dataclasses.replace(bench.made, config=config.model_copy(update={"salt": "f" * 32, "pool": pool})))
    return len(elsewhere(dataclasses.replace(bench.made, config=config)).rows)


def sees_embeddings(bench: Bench, config: CampaignConfig) -> Any:
    return config.sees_embeddings


def embedded(bench: Bench, config: CampaignConfig) -> Any:
    """An image as the encoder of the configuration sees it."""
    if not config.encoder.model:
        return None
    pixels = np.random.default_rng(0).integers(0, 256, (1, config.encoder.size, config.encoder.size, 3), np.uint8)
    return load_encoder(config.encoder, "cpu").encoder(torch.from_numpy(pixels)).tolist()


def solved(bench: Bench, config: CampaignConfig) -> Any:
    """What the user's task learner makes of an image, and of what size that is."""
    if not config.task.model:
        return None
    loaded, (*_, shape) = load_task(config, "cpu"), seen_as(config, 0)[0]
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    return shape, loaded.task(loaded.preprocessing(torch.from_numpy(pixels))).tolist()


def named(bench: Bench, config: CampaignConfig) -> Any:
    """The names of the outputs of the user's task learner."""
    return task_entry(config, ["e", "d", "c", "b", "a"])["classes"]


def masked(bench: Bench, config: CampaignConfig) -> Any:
    """The mask that an image has, with these ids beside it."""
    source = mask_source(config, Location.of(str(bench.folder)))
    content = encoded(np.array([[0, 1, 2, 255]] * 2, np.uint8))
    try:
        return source and source.of(Item("a", 0, 1, content, "", companions=(content,)), "mask").tolist()
    except MaskError as error:
        return str(error)


def calibrated(bench: Bench, config: CampaignConfig) -> Any:
    """The discriminators at the end of training."""
    plan = plan_training(dataclasses.replace(bench.made, config=config))
    networks, *_ = fit_at_last(plan, make_networks(config).ready(), Front(torch.device("cpu")))
    assert networks.discriminators is not None
    return [float(value.double().sum()) for value in networks.discriminators.state_dict().values()]


def weights_of_an_encoder(bench: Bench) -> Any:
    safetensors.torch.save_file(Blocks().state_dict(), bench.folder / "encoder.safetensors")
    return {**ENCODER, "encoder.weights": f"{bench.folder}/encoder.safetensors"}


def weights_of_a_task(bench: Bench) -> Any:
    torch.manual_seed(5)
    safetensors.torch.save_file(Plain().state_dict(), bench.folder / "task.safetensors")
    return {**TASK, "task.weights": f"{bench.folder}/task.safetensors"}


INPUT_EFFECTS: dict[str, tuple[Any, Look]] = {
    "pool.follow": (True, followed),
    "pool.shared_ledger": (lambda bench: f"{bench.folder}/shared", bought),
    "pool.embeddings": ("member:npy", sees_embeddings),
    "encoder.model": ({**ENCODER, "encoder.model": "tests.encoders:Normalised"}, embedded),
    "encoder.arguments": ({**ENCODER, "encoder.arguments": {"length": 3}}, embedded),
    "encoder.weights": (weights_of_an_encoder, embedded),
    "encoder.size": ({**ENCODER, "encoder.size": 24}, embedded),
    "encoder.mean": ({**ENCODER, "encoder.mean": [0.0, 0.0, 0.0]}, embedded),
    "encoder.std": ({**ENCODER, "encoder.std": [1.0, 1.0, 1.0]}, embedded),
    "encoder.order": ({**ENCODER, "encoder.order": "bgr"}, embedded),
    "task.model": ({**TASK, "task.model": "tests.tasks:FunctionalDropout"}, solved),
    "task.arguments": ({**TASK, "task.arguments": {"num_classes": 3}}, solved),
    "task.weights": (weights_of_a_task, solved),
    "task.classes": ({**TASK, "task.classes": ["e", "d", "c", "b", "a"]}, named),
    "task.size": ({**TASK, "task.size": 24}, solved),
    "task.mean": ({**TASK, "task.mean": [0.0]}, solved),
    "task.std": ({**TASK, "task.std": [1.0]}, solved),
    "task.order": ({**TASK, "task.order": "bgr"}, solved),
    "labels.masks": ({**MASKS, "labels.masks": "elsewhere"}, masked),
    "labels.void": ({**MASKS, "labels.void": [2, 255]}, masked),
    "train.input": ({"train.input": "pixels", "pool.embeddings": "member:npy"}, sees_embeddings),
    "train.refit": (False, calibrated),
}
