"""Orthogonal gradients against projections of explicit gradients, and what follows when these span everything."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.classified import cifar10
from tests.vaal.diversity.test_badge import draws, explicit, outputs
from vaal.diversity import DIVERSIFIERS
from vaal.diversity import gradient_matching as module
from vaal.diversity.badge import badge, plus_plus
from vaal.diversity.gradient_embeddings import gradients_of
from vaal.diversity.gradient_matching import gradient_matching

Array = NDArray[np.float32]
Outputs = tuple[Array, Array]


def none_labelled(pair: Outputs) -> Outputs:
    return pair[0][:0], pair[1][:0]


def naive(candidates: Outputs, labelled: Outputs, b: int) -> list[int]:
    """The definition: the largest residual of a least-squares fit by what is labelled and chosen."""
    gradient, span = explicit(*candidates), explicit(*labelled)
    chosen: list[int] = []
    for _ in range(b):
        basis = np.linalg.qr(np.concatenate([span, gradient[chosen]]).T)[0]
        left = np.square(gradient - gradient @ basis @ basis.T).sum(axis=1)
        left[chosen] = 0
        chosen.append(int(left.argmax()))
    return chosen


@pytest.mark.parametrize("num_labelled", [0, 40])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_definition_on_explicit_gradients(num_labelled: int, seed: int) -> None:
    candidates, labelled = outputs(300, 4, 40, seed), outputs(num_labelled, 4, 40, seed + 9)
    found = gradient_matching(*candidates, *labelled, draws(300), 60)
    assert found.dtype == np.intp
    assert found.tolist() == naive(candidates, labelled, 60)


@pytest.mark.heavy
def test_blocks_and_the_moment_of_renewal_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, labelled = outputs(300, 4, 40), outputs(50, 4, 40, 1)
    expected = gradient_matching(*candidates, *labelled, draws(300), 60).tolist()
    for values in ({"AT_ONCE": 1}, {"AT_ONCE": 7, "BLOCK_VALUES": 100}, {"FIRST_LOOK": 2, "MOST_LOOKED_AT": 1}):
        with monkeypatch.context() as patch:
            for name, value in values.items():
                patch.setattr(module, name, value)
            assert gradient_matching(*candidates, *labelled, draws(300), 60).tolist() == expected


def test_a_block_ends_where_every_choice_lowers_all_alike() -> None:
    # All pairs have the same angle: to renew the leaders would be to renew all, at every step.
    feature = np.eye(300, dtype=np.float32) + np.float32(0.3)
    gradients = gradients_of("candidate", np.ones((300, 1), np.float32), feature)
    assert 1 <= len(module._Residuals(gradients, 64).next_block(64).places) < 8
    none = feature[:0], np.ones((0, 1), np.float32)
    assert len(set(gradient_matching(feature, np.ones((300, 1), np.float32), *none, draws(300), 90).tolist())) == 90


@pytest.mark.heavy
def test_it_is_the_definition_on_real_embeddings() -> None:
    found = cifar10(500, 500)
    candidates = found.feature_MD[:200], found.answer_MC[:200]
    labelled = found.labelled_LD[:50], found.labelled_answer_LC[:50]
    assert gradient_matching(*candidates, *labelled, draws(200), 40).tolist() == naive(candidates, labelled, 40)


def test_its_determinant_is_larger_than_that_of_badge_and_of_chance() -> None:
    candidates = outputs(400, 4, 20)
    gradient = explicit(*candidates)

    def volume(chosen: NDArray[np.intp]) -> float:
        return float(np.linalg.slogdet(gradient[chosen] @ gradient[chosen].T)[1])

    found = volume(gradient_matching(*candidates, *none_labelled(candidates), draws(400), 30))
    assert found > volume(badge(*candidates, draws(400), 30)) + 5
    assert found > volume(np.arange(30)) + 5


def test_after_the_span_is_full_choices_are_those_of_k_means_plus_plus() -> None:
    feature, answer = outputs(300, 2, 6)
    # Of two classes the answers are multiples of one another: gradients have as many dimensions as features.
    found = gradient_matching(feature, answer, feature[:0], answer[:0], draws(300), 40)
    assert found[:6].tolist() == naive((feature, answer), (feature[:0], answer[:0]), 6)
    gradients = gradients_of("candidate", answer, feature)
    assert found.tolist() == plus_plus(gradients, found[:6].tolist(), draws(300), 40).tolist()
    # Labelled gradients span it all: nothing is left to match, and choices are those of BADGE.
    assert gradient_matching(feature, answer, feature, answer, draws(300), 20).tolist() == (
        badge(feature, answer, draws(300), 20).tolist()
    )


def test_the_labelled_gradients_that_count_are_those_that_span_most(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, labelled = outputs(200, 4, 30), outputs(90, 4, 30, 1)
    monkeypatch.setattr(module, "MOST_LABELLED", 25)
    some = naive(labelled, none_labelled(labelled), 25)
    found = gradient_matching(*candidates, *labelled, draws(200), 30).tolist()
    assert found == naive(candidates, (labelled[0][some], labelled[1][some]), 30)


def test_duplicates_and_items_without_a_gradient_come_last() -> None:
    feature, answer = outputs(30, 4, 20)
    many = np.tile(np.arange(30), 4)
    found = gradient_matching(1000 * feature[many], answer[many], feature[:0], answer[:0], draws(120), 40)
    assert len(set(many[found[:30]].tolist())) == 30
    assert len(set(found.tolist())) == 40
    assert gradient_matching(feature, answer * 0, feature[:0], answer[:0], draws(30), 3).tolist() == [0, 1, 2]
    assert gradient_matching(feature, answer, feature[:0], answer[:0], draws(30), 0).tolist() == []


def test_what_it_cannot_do_is_refused_by_name() -> None:
    most = DIVERSIFIERS["gradient_matching"].most_picks
    assert most is not None
    feature, answer = outputs(most + 5, 2, 2)
    with pytest.raises(ValueError, match=f"b of gradient_matching must be from 0 to {most}, got {most + 1}"):
        gradient_matching(feature, answer, feature[:0], answer[:0], draws(most + 5), most + 1)
    with pytest.raises(ValueError, match="b of gradient_matching must be from 0 to 4, got 5"):
        gradient_matching(feature[:4], answer[:4], feature[:0], answer[:0], draws(4), 5)
    broken = feature[:3].copy()
    broken[1] = np.inf
    with pytest.raises(ValueError, match="1 of 3 labelled features are not finite"):
        gradient_matching(feature[:4], answer[:4], broken, answer[:3], draws(4), 2)
