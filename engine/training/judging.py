"""The end of training, on one worker: the networks are judged as scoring uses them, and written."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.campaign.packed_positions import Position
from engine.errors import VaalError
from engine.models.diagnosis import manifest_entries, not_trained
from engine.models.front import Front
from engine.models.task_models import load_task
from engine.models.weights import make_classifier, make_networks, save_weights, score_function
from engine.training.batches import to_images, unlabelled_sample
from engine.training.describing import reader_of
from engine.training.labelled import Images, decoded
from engine.training.mask_judging import judge_masks
from engine.training.metrics import StepLog
from engine.training.own_judging import judge_own
from engine.training.plan import TrainingPlan
from engine.training.refitting import fit_at_last
from engine.training.streams import Pool
from engine.training.task_judging import judge_task
from vaal.assembly import Networks
from vaal.signal import Posterior, diagnose

MOST_JUDGED = 5000
"""Most images of each pool on which the networks are judged."""
BATCH = 256
State = dict[str, Tensor]
"""State of an engine: see `engine.training.zero.EngineUpdater.full_state`."""


def finish(plan: TrainingPlan, states: dict[str, State], front: Front, log: StepLog) -> dict[str, Any]:
    """Write weights and metrics, and judge the networks on the images held out. Returns `files` and `details`.

    Raises VaalError if a weight is not finite.
    """
    networks, positions = make_networks(plan.config, front.num_inputs), plan.positions
    networks = networks._replace(embedding=front.standardiser)
    if plan.task is not None:
        networks = networks._replace(task=make_classifier(plan.config, len(plan.task.classes)))
    for name, state in states.items():
        tensors = {key.partition("/")[2]: tensor for key, tensor in state.items()}
        getattr(networks, name).load_state_dict(tensors)
    networks = networks.ready(front.device)
    judges = judge_task if plan.masks is None else judge_masks
    task = {"task": judges(plan, networks.task, front)} if networks.task is not None else {}
    fit_centroid(networks, plan.pool, positions, front)
    classes, reader = plan.task.classes if plan.task else [], None
    if plan.config.task.model:
        loaded = load_task(plan.config, front.device)
        networks, reader = networks._replace(task=loaded.task), reader_of(plan, loaded, front)
        classes = plan.config.task_classes or plan.labels.different
        task = {"task": judge_own(plan, loaded.task, reader, classes)}
    networks, centres, fitted = fit_at_last(plan, networks, front, classes, reader)
    # Before judging, so that a network that is not finite is reported by its weight.
    saved = networks._replace(task=None) if plan.config.task.model else networks
    files = save_weights(plan.folder, saved.files()) | centres
    judged = judge(plan, networks, positions, front) if plan.config.needs_method else not_trained(len(plan.labels))
    entries = judged | task | fitted
    if front.standardiser is not None:
        mean, factor = front.standardiser.mean_D.tolist(), front.standardiser.factor
        entries["embedding"] = {"length": front.length, "mean": mean, "factor": factor}
        if front.encoder is not None:
            entries["embedding"]["encoder_sha256"] = front.encoder.sha256
    details = {**entries, "losses": log.last, "waiting_for_images": log.waiting}
    return {"files": {**files, **log.save(plan.folder)}, "details": details}


@torch.inference_mode()
def judge(plan: TrainingPlan, networks: Networks, positions: Sequence[Position], front: Front) -> dict[str, Any]:
    """The signal and the diagnosis of networks in eval mode, for the train manifest."""
    # Held-out images, if any are held out.
    held_out = [n for n, p in enumerate(positions) if plan.pool.is_held_out(*p[:2]) == (plan.pool.held_out > 0)]
    chosen = np.random.default_rng((plan.deal.seed, 5)).permutation(len(held_out))[:MOST_JUDGED]
    # Images of one shard are read together.
    labelled, _ = _images(plan.pool, sorted((positions[held_out[n]] for n in chosen), key=lambda position: position[0]))
    unlabelled = unlabelled_sample(plan.pool, plan.deal, MOST_JUDGED)
    logits: list[Tensor] = []
    groups: list[Tensor] = []
    posteriors: list[Posterior] = []
    for images in (labelled, unlabelled):
        scores = [torch.empty(0)]
        for x_BCHW, fold_B in _inputs(images, front):
            scores.append(score_function(plan.config)(networks, x_BCHW, fold_B)[0].cpu())
            if networks.vae is not None:
                mean_BZ, logvar_BZ = networks.vae.encode(x_BCHW)
                image_BCHW, *_ = networks.vae(x_BCHW, torch.zeros_like(mean_BZ))
                error_B = (image_BCHW - x_BCHW).square().flatten(1).mean(dim=1)
                posteriors.append(Posterior(mean_BZ.cpu(), logvar_BZ.cpu(), error_B.cpu()))
        logits.append(torch.cat(scores))
        if images.group_N is not None:
            groups.append(torch.from_numpy(images.group_N))
        if not torch.isfinite(logits[-1]).all():
            raise VaalError("training: a held-out score is not finite; lower train.learning_rate and train again")
    posterior = Posterior(*(torch.cat(parts) for parts in zip(*posteriors, strict=True))) if posteriors else None
    # `images_per_epoch` are those that train.
    picked_share = plan.config.select.budget * (1 - plan.pool.held_out) / plan.images_per_epoch
    diagnosis = diagnose(
        logits[0], logits[1], posterior, is_cross_fitted=bool(plan.labelled_share),
        groups=(groups[0], groups[1]) if groups else None, picked_share=picked_share,
    )  # fmt: skip
    if networks.discriminators is None:
        # The score is then a distance, for which saturation has no meaning.
        diagnosis = diagnosis._replace(saturation=0.0)
    return manifest_entries(diagnosis)


def _images(pool: Pool, positions: Sequence[Position]) -> tuple[Images, list[int]]:
    """The images at these positions that decode, and the numbers of their positions."""
    found = list(decoded(pool, positions))
    return to_images(pool, [(*positions[n][:2], image) for n, image in found]), [number for number, _ in found]


def _inputs(images: Images, front: Front) -> Iterator[tuple[Tensor, Tensor]]:
    for begin in range(0, len(images.fold_N), BATCH):
        seen_N, fold_N, _ = images.at(slice(begin, begin + BATCH))
        yield front(seen_N), torch.from_numpy(fold_N).to(front.device)


@torch.inference_mode()
def fit_centroid(networks: Networks, pool: Pool, positions: Sequence[Position], front: Front) -> None:
    """Fit the centroid, if there is one, to the labelled images that train."""
    if networks.centroid is None:
        return
    assert networks.vae is not None
    training = [number for number, position in enumerate(positions) if not pool.is_held_out(*position[:2])]
    parts = []
    for begin in range(0, len(training), BATCH):
        images, _ = _images(pool, [positions[number] for number in training[begin : begin + BATCH]])
        for x_BCHW, _ in _inputs(images, front):
            parts.append(networks.vae.encode(x_BCHW))
    networks.centroid.fit(*(torch.cat(values) for values in zip(*parts, strict=True)))
