"""Methods to choose among the candidates: one row each (`select.diversity`).

To add one, add a file and a row. A row names its function, which is imported when it is used.

A function is called with the values that its row needs, in that order, and returns the indices (b,) of candidates in
order of choice, or a `Choice`. Values: logit_M (M,) float32, of candidates in the order of (logit, shard, key);
latent_MZ (M, Z) float32; draw_M (M,) uint64, a random number by an item's identity; cluster_M (M,) int32;
taken_LZ (L, Z) float32, latents of items that are labelled or out at a vendor; b; seed.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Choice(NamedTuple):
    """picked_B (b,) intp: indices of candidates in order of choice; the value of the objective, if there is one."""

    picked_B: "NDArray[np.intp]"
    objective: float | None = None


class Diversifier(NamedTuple):
    """A method: its function as "module:name", the values that it needs, why it picks an image, and its most picks."""

    function: str
    needs: tuple[str, ...]
    reason: str
    most_picks: int | None = None


DIVERSIFIERS = {
    "none": Diversifier("vaal.ranking:first", ("b",), "least like the labelled images (lowest logit)"),
    "gumbel": Diversifier(
        "vaal.diversity.gumbel:gumbel_top_b",
        ("logit_M", "draw_M", "b"),
        "least like the labelled images, with random noise (lowest logit with Gumbel noise)",
    ),
    "clusters": Diversifier(
        "vaal.diversity.clusters:round_robin",
        ("cluster_M", "b"),
        "least like the labelled images of those left in its cluster (lowest logit)",
    ),
    "k_center": Diversifier(
        "vaal.diversity.k_center:k_center_greedy",
        ("latent_MZ", "taken_LZ", "b"),
        "farthest in latent space from what is labelled or picked",
    ),
    "facility": Diversifier(
        "vaal.diversity.facility:two_round_cover",
        ("latent_MZ", "taken_LZ", "b", "seed"),
        "represents best the candidates that no pick represented yet",
        most_picks=2500,
    ),
    "mini_batches": Diversifier(
        "vaal.diversity.mini_batches:choose_in_mini_batches",
        ("logit_M", "latent_MZ", "taken_LZ", "b", "seed"),
        "least like the labelled images and the picks before it (lowest logit of a refitted discriminator)",
    ),
}


class Fallback(NamedTuple):
    """The method if there is no signal: the row of DIVERSIFIERS that picks from a random sample of the pool."""

    diversity: str
    reason: str


WITHOUT_SIGNAL = {
    "diversity": Fallback("k_center", "spread over latent space, because no signal was found"),
    "random": Fallback("none", "random, because no signal was found"),
}
"""By `select.when_no_signal`."""


def reason_for(when_no_signal: str | None, diversity: str) -> str:
    """Why an image is picked, in words; `when_no_signal` is None if there is a signal."""
    return WITHOUT_SIGNAL[when_no_signal].reason if when_no_signal else DIVERSIFIERS[diversity].reason
