"""The VAE sees every labelled image many times, because half of each batch is labelled: what may not leak into a score.

The networks are trained as the engine does, in this process, until they know twenty labelled images by heart.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from engine.training.batches import unlabelled_sample
from engine.training.judging import _images, _inputs
from tests.constructed import no_difference
from tests.learn import FRONT, Learnt, learn
from vaal.signal import SHARED_VARIANCE, Interval, auc_interval

NUM_FOLDS = 2


def encoded(learnt: Learnt) -> tuple[NDArray[np.float64], Tensor, NDArray[np.bool_], NDArray[np.int64]]:
    """Means (N, Z), errors of reconstruction (N,), what is labelled and the folds of both pools."""
    plan, vae = learnt.plan, learnt.networks.vae
    assert vae
    images = (_images(plan.pool, plan.positions)[0], unlabelled_sample(plan.pool, plan.deal, 5000))
    means, errors = [], []
    with torch.inference_mode():
        for part in images:
            for x_BCHW, _ in _inputs(part, FRONT):
                mean_BZ, _ = vae.encode(x_BCHW)
                means.append(mean_BZ.double())
                image_BCHW, *_ = vae(x_BCHW, torch.zeros_like(mean_BZ))
                errors.append((image_BCHW - x_BCHW).square().flatten(1).mean(dim=1))
    fold_N = np.concatenate([part.fold_N for part in images])
    return torch.cat(means).numpy(), torch.cat(errors), np.arange(len(fold_N)) < len(images[0].fold_N), fold_N


def auc_of_means(mean_NZ: NDArray[np.float64], is_labelled_N: NDArray[np.bool_], fold_N: NDArray[np.int64]) -> Interval:
    """Of logistic discriminators on the means, each judged on the fold that it did not see."""
    logit_N = np.zeros(len(mean_NZ))
    for fold in range(NUM_FOLDS):
        trains_N = fold_N != fold
        fitted = LogisticRegression(C=0.1, class_weight="balanced").fit(mean_NZ[trains_N], is_labelled_N[trains_N])
        logit_N[~trains_N] = fitted.decision_function(mean_NZ[~trains_N])
    logit = torch.tensor(logit_N)
    return auc_interval(logit[is_labelled_N], logit[~is_labelled_N], SHARED_VARIANCE)


@pytest.mark.heavy
def test_means_hold_no_trace_of_what_was_memorised_and_errors_do(tmp_path: Path) -> None:
    made = no_difference(tmp_path, 0, "train.max_steps=250", "train.epochs=1000", num_labelled=20)
    mean_NZ, error_N, is_labelled_N, fold_N = encoded(learn(made.campaign))
    assert auc_interval(-error_N[is_labelled_N], -error_N[~is_labelled_N]).low > 0.85
    found = auc_of_means(mean_NZ, is_labelled_N, fold_N)
    assert found.low < 0.5 < found.high
    # The same discriminators would find it if it were in the means.
    log_N = error_N.double().log()
    leaking_NZ = np.column_stack([mean_NZ, (log_N - log_N.mean()) / log_N.std()])
    assert auc_of_means(leaking_NZ, is_labelled_N, fold_N).low > 0.5
