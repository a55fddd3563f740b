"""A turn for every predicted class, by any score.

Picks by an uncertainty alone are of few classes, which a task learner with few labels confuses. In turn over the
classes that it predicts, picks are the best of every kind.
"""

import numpy as np
from numpy.typing import NDArray

from vaal.checks import require_between, require_finite
from vaal.completion import Items, in_turn


def class_balanced(score_M: NDArray[np.float32], predicted_M: NDArray[np.int32], b: int) -> NDArray[np.intp]:
    """Indices (b,) of candidates in the order of choice: in every turn the candidate left with the lowest score of
    each predicted class, the lowest first; ties go to the lowest index. O(M log M) time.

    Raises ValueError if b is not from 0 to M, or a score is not finite.
    """
    require_between("b of class_balanced", b, 0, len(score_M))
    require_finite("scores", score_M)
    place_M = np.arange(len(score_M))
    none = np.zeros(len(score_M), np.float32)
    items = Items(predicted_M.astype(np.int64), score_M.astype(np.float64), none, place_M * 0, place_M)
    return in_turn(items, b).at_K.astype(np.intp)
