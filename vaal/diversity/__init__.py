"""Methods to choose among the candidates: one row each (`select.diversity`).

To add one, add a file and a row. A row names its function, which is imported when it is used.

A function is called with the values that its row needs, in that order, and returns the indices (b,) of candidates in
order of choice, or a `Choice`. It is deterministic for the seed, where BLAS has one thread. Values:

    score_M (M,) float32: the ranking column, the lowest best; candidates are in the order of (score, ties, shard, key)
    logit_M (M,) float32: the same where that column is the labelled-logit
    worth_M (M,) float64, at least 0: how much an image is worth by the ranking column
    draw_M (M,) uint64: a random number by the seed and an item's identity, uniform on 64 bits
    cluster_M (M,) int32
    predicted_M (M,) int32: the class that the task learner predicts
    latent_MZ (M, Z) float32
    feature_MD (M, D) float32: the task learner's features; of a map their mean
    answer_MC (M, C) float32: the gradient of the loss by the logits where what is predicted is true, which is
        p - onehot(largest p) for classes and p - (p > 1/2) for labels
    taken_LZ (L, Z) float32: latents of what is labelled or out at a vendor; L may be 0
    sample_RZ (R, Z) float32: latents of a uniform random sample of the unlabelled pool, R at least 1
    labelled_feature_LD, labelled_answer_LC: as feature_MD and answer_MC, of what is labelled, or of a random sample of
        it; L may be 0
    b, seed: int
"""

from typing import TYPE_CHECKING, Literal, NamedTuple

from vaal.acquisition import in_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Choice(NamedTuple):
    """picked_B (b,) intp: indices of candidates in order of choice; the value of the objective, if there is one."""

    picked_B: "NDArray[np.intp]"
    objective: float | None = None


class Diversifier(NamedTuple):
    """A method: its function as "module:name", the values that it needs, why it picks an image, and its most picks.

    In the reason {what} stands for what the lowest scores of the acquisition function say of an image.
    """

    function: str
    needs: tuple[str, ...]
    reason: str
    most_picks: int | None = None


MOST_COVERING = 2500
"""Most picks to cover a ground set: a quarter of it. More would be the ground set, and represent nothing else."""

DIVERSIFIERS = {
    "completion": Diversifier(
        "vaal.ranking:first",
        ("b",),
        "completes the labels where they lack parts of the pool, else refines them",
    ),
    "none": Diversifier("vaal.ranking:first", ("b",), "{what}"),
    "gumbel": Diversifier(
        "vaal.diversity.gumbel:gumbel_top_b",
        ("score_M", "draw_M", "b"),
        "{what}, with random noise (softmax acquisition: Gumbel noise)",
    ),
    "power": Diversifier(
        "vaal.diversity.gumbel:power_top_b",
        ("worth_M", "draw_M", "b"),
        "{what}, drawn in proportion to what it is worth by that (power acquisition)",
    ),
    "soft_rank": Diversifier(
        "vaal.diversity.gumbel:soft_rank_top_b",
        ("draw_M", "b"),
        "{what}, drawn by its rank (soft-rank acquisition)",
    ),
    "clusters": Diversifier(
        "vaal.diversity.clusters:round_robin",
        ("cluster_M", "b"),
        "{what}, of those left in its cluster",
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
        most_picks=MOST_COVERING,
    ),
    "herding": Diversifier(
        "vaal.diversity.herding:herding",
        ("latent_MZ", "taken_LZ", "sample_RZ", "b", "seed"),
        "covers best what no label or pick covers of the pool yet (MaxHerding)",
        most_picks=MOST_COVERING,
    ),
    "uherding": Diversifier(
        "vaal.diversity.herding:uherding",
        ("latent_MZ", "taken_LZ", "worth_M", "b", "seed"),
        "covers best what no label or pick covers yet, each candidate by its worth (UHerding)",
        most_picks=MOST_COVERING,
    ),
    "typiclust": Diversifier(
        "vaal.diversity.typiclust:typiclust",
        ("latent_MZ", "taken_LZ", "b", "seed"),
        "most typical of the cluster that has the fewest labels and picks (TypiClust)",
    ),
    "badge": Diversifier(
        "vaal.diversity.badge:badge",
        ("feature_MD", "answer_MC", "draw_M", "b"),
        "would change the task learner much, and unlike the picks before it (BADGE)",
    ),
    "gradient_matching": Diversifier(
        "vaal.diversity.gradient_matching:gradient_matching",
        ("feature_MD", "answer_MC", "labelled_feature_LD", "labelled_answer_LC", "draw_M", "b"),
        "would change the task learner as no label and no pick before it does (orthogonal gradients)",
        most_picks=2000,
    ),
    "class_balanced": Diversifier(
        "vaal.diversity.class_balanced:class_balanced",
        ("score_M", "predicted_M", "b"),
        "{what}, of those left of the class that is predicted for it",
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
    "uncertainty": Fallback("none", "drawn by how unsure its class is, because the labels lack no part of the pool"),
}
"""By `select.when_no_signal`."""


class Branch(NamedTuple):
    """What a selection does: which items are its candidates, the row of DIVERSIFIERS that chooses among them, the
    origin that the picks have, why an image is picked, and the acquisition function `by` whose scores that was decided,
    "" where no score was asked.

    Candidates are the lowest scores, a random sample, the items nearest the centres of the clusters that lack most, the
    lowest keys of the completion, or those of the uncertainty in turn over the predicted classes.
    """

    candidates: Literal["lowest", "random", "nearest", "keyed", "turned"]
    diversity: str
    origin: str
    reason: str
    by: str = ""


BRANCHES = {
    "cluster_completion": Branch(
        "nearest", "none", "completion", "nearest the centre of a part of the pool that the labels lack", by="vaal"
    ),
    "weight_completion": Branch(
        "keyed", "none", "completion", "drawn by how much the labels lack images like it", by="vaal"
    ),
    "uncertainty_sampling": Branch(
        "turned",
        "none",
        "uncertainty",
        "drawn by how unsure its class is, in turn over the predicted classes (margin)",
        by="margin",
    ),
    # What campaigns of an earlier version did, for their explanations: nothing picks like that now.
    "class_balanced_margin": Branch(
        "turned",
        "none",
        "uncertainty",
        "least sure of its class, in turn over the predicted classes (lowest margin)",
        by="margin",
    ),
    "as_random": Branch(
        "keyed",
        "none",
        "completion",
        "as random, because the labels lack no part of the pool and no task learner says what it is unsure of",
    ),
    "random": Branch("random", "none", "query", WITHOUT_SIGNAL["random"].reason),
    "spread": Branch("random", WITHOUT_SIGNAL["diversity"].diversity, "query", WITHOUT_SIGNAL["diversity"].reason),
}
"""What the rule does by the gate, and what any rule does without a signal."""


def branch_of(name: str, acquisition: str = "vaal") -> Branch:
    """A row of BRANCHES; under the name of a diversity method, its choice among the lowest scores."""
    if name in BRANCHES:
        return BRANCHES[name]
    # Labels by what the task learner is unsure of say nothing of what the labels lack.
    origin = "query" if acquisition in ("vaal", "random") else "uncertainty"
    return Branch("lowest", name, origin, DIVERSIFIERS[name].reason.format(what=in_words(acquisition)), acquisition)


def reason_for(when_no_signal: str | None, diversity: str) -> str:
    """Why an image was picked by an older version, in words; `when_no_signal` is None if there was a signal."""
    return WITHOUT_SIGNAL[when_no_signal].reason if when_no_signal else branch_of(diversity).reason
