"""TypiClust against the algorithm as it is written, and an independent implementation of typicality."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.classified import cifar10
from vaal.diversity import typiclust as module
from vaal.diversity.typiclust import NEIGHBOURS, SMALL_CLUSTER, clusters_of, typicality, typiclust

Array = NDArray[np.float32]


def modes(sizes: list[int], seed: int = 0) -> tuple[Array, NDArray[np.intp]]:
    """Far modes of these sizes, mixed."""
    random = np.random.default_rng(seed)
    mode = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    middle = 30 * np.eye(len(sizes), 16)
    return (middle[mode] + random.normal(size=(len(mode), 16))).astype(np.float32), mode


def naive_typicality(latent: Array) -> NDArray[np.float64]:
    apart = np.linalg.norm(latent[:, None].astype(np.float64) - latent[None], axis=2)
    count = min(NEIGHBOURS, len(latent) // 2)
    return 1 / (np.sort(apart, axis=1)[:, 1 : count + 1].mean(axis=1) + 1e-5)


def naive(latent: Array, taken: Array, b: int, seed: int) -> list[int]:
    """Algorithm 1 with the authors' rule for small clusters, one choice at a time."""
    cluster = clusters_of(np.concatenate([latent, taken]), min(len(taken) + b, module.MOST_CLUSTERS), seed)
    own = cluster[: len(latent)]
    value = np.empty(len(latent))
    for k in set(own.tolist()):
        members = np.flatnonzero(own == k)
        value[members] = naive_typicality(latent[members]) if len(members) > 1 else 0
    counts = [int((cluster[len(latent) :] == k).sum()) for k in range(cluster.max() + 1)]
    chosen: list[int] = []
    for _ in range(b):
        left = {k: [i for i in np.flatnonzero(own == k).tolist() if i not in chosen] for k in set(own.tolist())}
        rank = {
            k: (
                int((cluster == k).sum()) <= SMALL_CLUSTER,
                counts[k],
                -int((cluster == k).sum()),
                int((own == k).argmax()),
            )
            for k, members in left.items()
            if members
        }
        best = min(rank, key=lambda k: rank[k])
        chosen.append(max(left[best], key=lambda item: value[item]))
        counts[best] += 1
    return chosen


@pytest.mark.parametrize("num_taken", [0, 9])
@pytest.mark.parametrize(("sizes", "b"), [([40, 30, 25, 3, 1], 7), ([25, 20, 5, 4], 54)])
def test_it_is_the_algorithm_as_written(num_taken: int, sizes: list[int], b: int) -> None:
    latent, _ = modes(sizes)
    taken = latent[:num_taken] + np.float32(0.01)
    found = typiclust(latent, taken, b, 3)
    assert found.dtype == np.intp
    assert found.tolist() == naive(latent, taken, b, 3)


def test_with_more_picks_than_clusters_these_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    latent, mode = modes([40, 30, 20, 4])
    monkeypatch.setattr(module, "MOST_CLUSTERS", 4)
    found = mode[typiclust(latent, latent[:0], 94, 0)].tolist()
    # The largest first, a cluster of few items when all others are empty.
    assert found[:6] == [0, 1, 2, 0, 1, 2]
    assert found[60:90] == [0, 1] * 10 + [0] * 10
    assert found[90:] == [3] * 4
    # Of clusters of a size, the one whose first candidate comes first.
    for seed in range(4):
        latent, _ = modes([12] * 4, seed)
        assert typiclust(latent, latent[:0], 12, 0).tolist() == naive(latent, latent[:0], 12, 0)


def test_what_is_taken_has_had_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    latent, mode = modes([40, 30, 20])
    monkeypatch.setattr(module, "MOST_CLUSTERS", 3)
    assert mode[typiclust(latent, latent[mode == 0][:2], 5, 0)].tolist() == [1, 2, 1, 2, 0]


def test_typicality_is_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    for num_items in (2, 3, 7, 150):
        latent = modes([num_items])[0] + np.float32(500)
        np.testing.assert_allclose(typicality(latent), naive_typicality(latent), rtol=1e-6)
        with monkeypatch.context() as patch:
            patch.setattr(module, "BLOCK_VALUES", 1)
            np.testing.assert_allclose(typicality(latent), naive_typicality(latent), rtol=1e-6)
    assert typicality(np.ones((1, 3), np.float32)).tolist() == [0]
    assert typicality(np.ones((50, 3), np.float32)).tolist() == pytest.approx([1e5] * 50)


@pytest.mark.heavy
def test_typicality_is_that_of_scikit_activeml_on_real_embeddings() -> None:
    other = pytest.importorskip("skactiveml.pool._typi_clust")
    latent = cifar10(500, 500).feature_MD[:300]
    # Theirs divides the sum of the distances to 20 others by 20, too, and adds 1e-7 to the sum.
    np.testing.assert_allclose(typicality(latent), other._typicality(latent, np.arange(300), 20), rtol=1e-5)


@pytest.mark.heavy
def test_picks_are_more_typical_than_chance_and_of_more_clusters_on_real_embeddings() -> None:
    latent = cifar10(500, 500).feature_MD
    cluster, value = clusters_of(latent, 30, 0), typicality(latent)
    found, chance = typiclust(latent, latent[:0], 30, 0), np.arange(30)
    assert value[found].mean() > 1.1 * value[chance].mean()
    assert len(set(cluster[found])) > len(set(cluster[chance]))


def test_it_is_a_function_of_the_seed_and_takes_all_once() -> None:
    latent, _ = modes([30, 30, 30])
    assert sorted(typiclust(latent, latent[:5], 90, 0).tolist()) == list(range(90))
    same = [typiclust(latent, latent[:0], 12, seed).tolist() for seed in (0, 0, 1, 2)]
    assert same[0] == same[1]
    assert len({tuple(batch) for batch in same}) > 1
    assert typiclust(latent, latent[:0], 0, 0).tolist() == []
    assert typiclust(np.ones((4, 3), np.float32), latent[:0, :3], 3, 0).tolist() == [0, 1, 2]


def test_what_it_cannot_do_is_refused_by_name() -> None:
    latent, _ = modes([4])
    with pytest.raises(ValueError, match="b of typiclust must be from 0 to 4, got 5"):
        typiclust(latent, latent[:0], 5, 0)
    broken = latent.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 4 candidate latents are not finite"):
        typiclust(broken, latent, 1, 0)
    with pytest.raises(ValueError, match="1 of 4 taken latents are not finite"):
        typiclust(latent, broken, 1, 0)
