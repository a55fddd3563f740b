"""How training gives its networks their input: embeddings are scaled by constants that a sample of the pool gives."""

import torch

from engine.errors import InputError
from engine.models.front import MOST_MEASURED, Front, front_of
from engine.training.batches import unlabelled_sample
from engine.training.plan import TrainingPlan
from vaal.standardise import Standardiser


def training_front(plan: TrainingPlan) -> Front:
    """The front of a training, the same on every worker. Must be called by all of them.

    Raises InputError if the encoder cannot be used, or no item of the pool has an embedding.
    """
    front = front_of(plan.config, torch.device(plan.device))
    if not plan.config.sees_embeddings:
        return front
    found: list[Standardiser | None] = [None]
    if torch.distributed.get_rank() == 0:
        found = [fit_standardiser(plan, front)]
    # Arithmetic of another machine may differ in the last bits.
    torch.distributed.broadcast_object_list(found, src=0)
    assert found[0] is not None
    return front._replace(standardiser=found[0].to(front.device))


def fit_standardiser(plan: TrainingPlan, front: Front) -> Standardiser:
    """The constants of the pool's embeddings, on the CPU. Raises InputError if no item of the pool has one."""
    sample = unlabelled_sample(plan.pool, plan.deal, MOST_MEASURED)
    if not len(sample.fold_N):
        raise InputError(f"{plan.folder}: no unlabelled item has a usable embedding; see pool.embeddings")
    return Standardiser.fit(front.vectors(sample.seen_N).cpu())
