"""Consensus: what class an item has, by the votes of its annotators. One row for each method.

To add one, add a file and a row. A row names its function, which is imported when it is used. It is called as
`function(votes)` with `Votes` and returns a `Consensus`.

All methods have these laws. The order of votes changes nothing, and the numbering of items, annotators and classes
changes nothing but the choice among tied classes, which is the lowest. A vote that is there twice counts twice. An item
whose class is known has that class, with probability 1, whatever its votes are.

Shape suffixes: V votes, N items, A annotators, C classes, P pairs of an item and a class that it was voted to be of.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Votes(NamedTuple):
    """Who says what of which item.

    item_V, annotator_V and class_V (V,) int64 are numbers from 0; truth_N (N,) int64 is the known class of an item, -1
    where it is not known.
    """

    item_V: "NDArray[np.int64]"
    annotator_V: "NDArray[np.int64]"
    class_V: "NDArray[np.int64]"
    truth_N: "NDArray[np.int64]"
    num_annotators: int
    num_classes: int


class Consensus(NamedTuple):
    """The most probable class of each item, and how good the annotators are.

    class_N (N,) int64 is -1, and probability_N (N,) float64 nan, for an item with neither votes nor a known class. Of
    classes that are tied (up to TIE) it is the lowest, so a tie is seen by its probability, which is at most 0.5.
    accuracy_A (A,) float64 is nan for an annotator without votes.
    """

    class_N: "NDArray[np.int64]"
    probability_N: "NDArray[np.float64]"
    accuracy_A: "NDArray[np.float64]"


class Method(NamedTuple):
    """A method: its function as "module:name", and what it assumes."""

    function: str
    words: str


CONSENSUS = {
    "majority": Method("vaal.consensus.majority:majority", "every vote counts alike"),
    "one_coin": Method("vaal.consensus.one_coin:one_coin", "every annotator has an accuracy"),
    "dawid_skene": Method(
        "vaal.consensus.dawid_skene:dawid_skene", "every annotator takes each class for each other at a rate"
    ),
}
