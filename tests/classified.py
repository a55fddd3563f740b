"""Real embeddings, and what a task learner with a linear head makes of them, for tests of choices among candidates."""

import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

Array = NDArray[np.float32]


class Classified(NamedTuple):
    """Features (M, D) and answers (M, C) of candidates, and the same of what the task learner was fitted to, with the
    true classes (L,); the task learner."""

    feature_MD: Array
    answer_MC: Array
    labelled_LD: Array
    labelled_answer_LC: Array
    class_L: NDArray[np.int64]
    model: LogisticRegression


def answers(probability_NC: NDArray[np.float64]) -> Array:
    """p - onehot(argmax)."""
    return (probability_NC - np.eye(probability_NC.shape[1])[probability_NC.argmax(axis=1)]).astype(np.float32)


@cache
def cifar10(num_labelled: int, num_candidates: int) -> Classified:
    """CIFAR-10's embeddings; skips where they are absent."""
    data = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[2] / "shared/data"))
    if not (data / "cifar10-embeddings").exists():
        pytest.skip("no cifar10-embeddings below VAAL_DATA or ../shared/data")
    rows = pq.read_table(data / "cifar10-embeddings/train.parquet").slice(0, num_labelled + num_candidates)
    oracle = pq.read_table(data / "cifar10/train-oracle.parquet")
    label = dict(zip(_names(oracle), oracle["label"].to_pylist(), strict=True))
    classes = sorted(set(label.values()))
    class_L = np.array([classes.index(label[name]) for name in _names(rows)[:num_labelled]])
    flat = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    labelled_LD, feature_MD = np.split(flat.astype(np.float32).reshape(len(rows), -1), [num_labelled])
    model = LogisticRegression(C=0.01, max_iter=300).fit(labelled_LD, class_L)
    answer_MC, labelled_answer_LC = (answers(model.predict_proba(x)) for x in (feature_MD, labelled_LD))
    return Classified(feature_MD, answer_MC, labelled_LD, labelled_answer_LC, class_L, model)


def _names(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))
