"""BADGE against its definition on explicit gradients, an independent implementation, and duplicates."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tests.classified import answers, cifar10
from vaal.diversity import badge as module
from vaal.diversity import gradient_embeddings
from vaal.diversity.badge import STRIDE, badge, plus_plus
from vaal.diversity.gradient_embeddings import gradients_of
from vaal.diversity.gumbel import mixed, uniform

Array = NDArray[np.float32]


def draws(num_items: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(2**64, size=num_items, dtype=np.uint64)


def outputs(num_items: int, num_classes: int, num_features: int, seed: int = 0) -> tuple[Array, Array]:
    """Features in modes, and the answers of a random linear head."""
    random = np.random.default_rng(seed)
    middle = 2 * random.normal(size=(12, num_features))
    head = random.normal(size=(num_features, num_classes)) / np.sqrt(num_features)
    feature = middle[random.integers(12, size=num_items)] + 0.5 * random.normal(size=(num_items, num_features))
    exponential = np.exp(feature @ head - (feature @ head).max(axis=1, keepdims=True))
    return feature.astype(np.float32), answers(exponential / exponential.sum(axis=1, keepdims=True))


def explicit(feature: Array, answer: Array) -> NDArray[np.float64]:
    """The gradients themselves (M, C D)."""
    gradient = np.einsum("mc,md->mcd", answer.astype(np.float64), feature.astype(np.float64))
    return gradient.reshape(len(feature), answer.shape[1] * feature.shape[1])


def naive(feature: Array, answer: Array, draw: NDArray[np.uint64], b: int) -> list[int]:
    """The definition: all distances again for every choice; the largest ln D^2 + Gumbel noise."""
    gradient = explicit(feature, answer)
    chosen = [int(np.square(gradient).sum(axis=1).argmax())]
    squared = np.full(len(gradient), np.inf)
    while len(chosen) < b:
        squared = np.minimum(squared, np.square(gradient - gradient[chosen[-1]]).sum(axis=1))
        noise = -np.log(-np.log(uniform(mixed(draw + np.uint64(len(chosen) * STRIDE % 2**64)))))
        with np.errstate(divide="ignore"):
            chosen.append(int((np.log(squared) + noise).argmax()))
    return chosen


@pytest.mark.parametrize(("num_classes", "num_features"), [(1, 5), (2, 5), (10, 16)])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_definition_on_explicit_gradients(num_classes: int, num_features: int, seed: int) -> None:
    feature, answer = outputs(500, max(2, num_classes), num_features, seed)
    answer, draw = answer[:, :num_classes], draws(500, seed)
    found = badge(feature, answer, draw, 200)
    assert found.dtype == np.intp
    assert found.tolist() == naive(feature, answer, draw, 200)


def test_blocks_and_the_moment_of_renewal_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    feature, answer = outputs(500, 4, 8)
    expected = badge(feature, answer, draws(500), 150).tolist()
    monkeypatch.setattr(gradient_embeddings, "BLOCK_VALUES", 100)
    monkeypatch.setattr(module, "AT_ONCE", 7)
    monkeypatch.setattr(module, "FIRST_LOOK", 1)
    assert badge(feature, answer, draws(500), 150).tolist() == expected


@pytest.mark.heavy
def test_it_is_the_definition_on_real_embeddings() -> None:
    found = cifar10(500, 500)
    draw = draws(500)
    assert badge(found.feature_MD, found.answer_MC, draw, 80).tolist() == naive(
        found.feature_MD, found.answer_MC, draw, 80
    )


@pytest.mark.heavy
def test_chances_are_those_of_scikit_activeml_but_for_the_origin() -> None:
    pool = pytest.importorskip("skactiveml.pool")
    classifier = pytest.importorskip("skactiveml.classifier")
    found = cifar10(500, 500)
    x, y = found.feature_MD[:300], np.full(300, np.nan)
    model = classifier.SklearnClassifier(found.model, classes=list(range(10)))
    model.fit(found.labelled_LD, found.class_L)
    batch, chance = pool.Badge(random_state=0).query(x, y, model, fit_clf=False, batch_size=20, return_utilities=True)
    gradients = gradients_of("candidate", found.answer_MC[:300], x)
    assert batch[0] == badge(x, found.answer_MC[:300], draws(300), 1)[0]
    for step in range(1, 20):
        squared = gradients.squared_distances(gradients.some([int(item) for item in batch[:step]]))
        # Theirs counts the origin, by which the first is chosen, as a centre for all further ones; the paper does not.
        squared = np.minimum(squared, gradients.squared_N)
        left = np.setdiff1d(np.arange(300), batch[:step])
        np.testing.assert_allclose(chance[step, left], squared[left] / squared.sum(), rtol=1e-3, atol=1e-6)


@pytest.mark.heavy
def test_the_second_is_drawn_in_proportion_to_its_squared_distance() -> None:
    feature = np.array([[9, 0], [9, 1], [7, 0], [0, 2], [9, 0.5], [0, 0]], np.float32)
    answer = np.tile(np.array([0.5, -0.5], np.float32), (6, 1))
    squared = np.square(explicit(feature, answer) - explicit(feature, answer)[1]).sum(axis=1)
    seconds = [badge(feature, answer, draws(6, seed), 2).tolist() for seed in range(3000)]
    assert {first for first, _ in seconds} == {1}
    count = np.bincount([second for _, second in seconds], minlength=6)
    assert count[1] == 0
    others = [0, 2, 3, 4, 5]
    assert stats.chisquare(count[others], 3000 * squared[others] / squared.sum()).pvalue > 1e-3


def test_it_is_a_function_of_the_candidates_whatever_their_order() -> None:
    feature, answer = outputs(400, 5, 6)
    draw, order = draws(400), np.random.default_rng(1).permutation(400)
    moved = badge(feature[order], answer[order], draw[order], 120)
    assert order[moved].tolist() == badge(feature, answer, draw, 120).tolist()


def test_a_batch_is_the_head_of_a_larger_one_and_another_seed_makes_another() -> None:
    feature, answer = outputs(300, 5, 6)
    whole = badge(feature, answer, draws(300), 300).tolist()
    assert sorted(whole) == list(range(300))
    assert all(badge(feature, answer, draws(300), b).tolist() == whole[:b] for b in (0, 1, 2, 3, 70, 130))
    assert badge(feature, answer, draws(300, 1), 20).tolist() != whole[:20]


def test_no_duplicate_is_chosen_before_all_others() -> None:
    feature, answer = outputs(40, 10, 256)
    # Products of float32 are not exactly those of equal rows: what rounding leaves of a distance must not be drawn.
    many = np.tile(np.arange(40), 50)
    chosen = badge(1000 * feature[many], answer[many], draws(2000), 45)
    assert len(set(many[chosen[:40]].tolist())) == 40
    # No distance is left: the rest are in order.
    assert chosen[40:].tolist() == [item for item in range(45) if item not in chosen[:40]][:5]


def test_rounding_makes_no_item_a_choice_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_embeddings, "SLACK", np.float32(0))
    # Only rounding tells five of each apart.
    feature, answer = (np.tile(values, (5, 1)) for values in outputs(40, 10, 256))
    assert sorted(badge(feature, answer, draws(200), 200).tolist()) == list(range(200))
    found = plus_plus(gradients_of("candidate", answer, feature), list(range(40)), draws(200), 200).tolist()
    assert found[:40] == list(range(40))
    assert sorted(found) == list(range(200))


def test_items_without_a_gradient() -> None:
    feature, answer = outputs(30, 4, 8)
    answer[10:] = 0
    chosen = badge(feature, answer, draws(30), 30).tolist()
    # They are one point, at the origin: one is drawn as any other, and the others come last.
    assert sum(item >= 10 for item in chosen[:11]) == 1
    assert chosen[11:] == sorted(chosen[11:])
    assert badge(feature, answer * 0, draws(30), 4).tolist() == [0, 1, 2, 3]
    assert badge(feature * 0, answer, draws(30), 2).tolist() == [0, 1]


@pytest.mark.parametrize("b", [-1, 5])
def test_a_wrong_b_is_refused(b: int) -> None:
    with pytest.raises(ValueError, match=f"b of badge must be from 0 to 4, got {b}"):
        badge(*outputs(4, 3, 2), draws(4), b)


def test_values_that_do_not_fit_are_refused() -> None:
    feature, answer = outputs(4, 3, 2)
    with pytest.raises(ValueError, match="3 candidate answers for 4 candidate features"):
        badge(feature, answer[:3], draws(4), 1)
    feature[2, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 4 candidate features are not finite"):
        badge(feature, answer, draws(4), 1)
    with pytest.raises(ValueError, match="1 of 4 candidate answers are not finite"):
        badge(np.nan_to_num(feature), np.where(np.arange(4)[:, None] == 1, np.inf, answer), draws(4), 1)
    with pytest.raises(ValueError, match="4 of 4 candidate gradient norms are not finite"):
        badge(np.full((4, 2), 1e30, np.float32), answer, draws(4), 1)
