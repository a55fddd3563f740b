"""Acquisition functions: one row for each score of an image (`score.acquisition`).

To add one, add a file and a row. A row names its function, which is imported when it is used.

A function is called as `function(networks, x_BCHW, fold_B)` in eval mode, with the `vaal.assembly.Networks` that the
row needs, images in [-1, 1] and the fold of each, int64. It returns scores (B,), the lowest for the most valuable
images, and an embedding (B, Z) or None, float32; then a tensor (B,) int32 for each of the row's further columns.
"""

from typing import NamedTuple


class Acquisition(NamedTuple):
    """A score: its function as "module:name", its column, the networks that it needs in addition to the method's, and
    further columns of whole numbers.

    An empty function means the score of the training method (`vaal.methods`).
    """

    function: str
    column: str
    needs: tuple[str, ...] = ()
    further: tuple[str, ...] = ()


ACQUISITIONS = {
    "vaal": Acquisition("", "logit"),
    "margin": Acquisition("vaal.acquisition.margin:margin", "margin", needs=("task",), further=("predicted",)),
}
