"""Acquisition functions: one row a score of an image (`score.acquisition`).

A row names its function, which is imported when it is used; add one as one file and one row.

A function is called as `function(networks, x_BCHW, fold_B)` in eval mode, with the `vaal.assembly.Networks` that the
row needs, images in [-1, 1] and the fold of each, int64. It returns scores (B,), of which the lowest are the most
valuable images, and an embedding (B, Z) or None, float32.
"""

from typing import NamedTuple


class Acquisition(NamedTuple):
    """A score: its function as "module:name", the column it fills, and the networks that it needs besides the method's.

    An empty function is the score that the training method brings (`vaal.methods`).
    """

    function: str
    column: str
    needs: tuple[str, ...] = ()


ACQUISITIONS = {
    "vaal": Acquisition("", "logit"),
    "margin": Acquisition("vaal.acquisition.margin:margin", "margin", needs=("task",)),
}
