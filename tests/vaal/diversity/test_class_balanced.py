"""The round-robin over predicted classes against one written out, by any score."""

import numpy as np
import pytest

from vaal.diversity.class_balanced import class_balanced


@pytest.mark.parametrize("shift", [-7.0, 0.0])
def test_in_every_turn_each_class_gives_its_lowest_left(shift: float) -> None:
    random = np.random.default_rng(0)
    score = (random.integers(9, size=90) / 4 + shift).astype(np.float32)
    predicted = random.choice(5, 90, p=[0.6, 0.2, 0.1, 0.05, 0.05]).astype(np.int32)
    left, expected = set(range(90)), []
    while left:
        turn = [min((score[i], i) for i in left if predicted[i] == name) for name in {predicted[i] for i in left}]
        expected += [item for _, item in sorted(turn)]
        left -= set(expected)
    for b in (0, 1, 12, 90):
        assert class_balanced(score, predicted, b).tolist() == expected[:b]


def test_a_wrong_b_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="b of class_balanced must be from 0 to 1, got 2"):
        class_balanced(np.zeros(1, np.float32), np.zeros(1, np.int32), 2)
