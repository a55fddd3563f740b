"""Acquisition functions: one row for each score of an image (`score.acquisition`).

To add one, add a file and a row. A row names its functions, which are imported when they are used.

A function is called with the `vaal.acquisition.view.View` of a batch, whose networks are in eval mode, and returns
scores (B,), float32, the lowest for the most valuable images. The score of an item depends on it and on the weights
alone, but for rounding.
"""

from typing import Any, Literal, NamedTuple


class Acquisition(NamedTuple):
    """A score.

    Args:
        function: "module:name" of the function.
        needs: what must be there: the training method's networks (method), the task learner (task), a head of it that
            is one linear layer (linear), gradients by its input (gradient), a hash of the item's identity (identity).
        column: of the scores files, where it is not the name of the row.
        ties: the row whose column decides between equal scores; it is computed too.
        fit: "module:name" of a function from a `vaal.acquisition.reference.Reference` to the tensors that
            `View.summary` gives; empty without.
        dear: "module:name" of a function that costs more than about three forward passes. It gives the scores of
            candidates, in a second pass, instead of `function`.
        dear_when: when that is so: always, with score.dropout=network, or with several weights of the task learner.
        worthless: what the column holds of an image that is worth nothing, where there is such a number; draws in
            proportion to a score (power) need it.
        not_for: kinds of a task learner for which it is not defined.
    """

    function: str
    needs: tuple[str, ...] = ("task",)
    column: str = ""
    ties: str = ""
    fit: str = ""
    dear: str = ""
    dear_when: Literal["always", "network_dropout", "members"] = "always"
    worthless: float | None = None
    not_for: tuple[str, ...] = ()


def _row(place: str, *needs: str, fit: str = "", dear: str = "", **values: Any) -> Acquisition:
    fit, dear = (f"vaal.acquisition.{name}" if name else "" for name in (fit, dear))
    return Acquisition(f"vaal.acquisition.{place}", needs or ("task",), fit=fit, dear=dear, **values)


def _bayesian(name: str, **values: Any) -> Acquisition:
    return _row(f"bayesian:{name}", dear=f"bayesian:network_{name}", dear_when="network_dropout", worthless=0, **values)


def _committee(name: str, **values: Any) -> Acquisition:
    dear = f"committee:member_{name}"
    return _row(f"committee:{name}", fit="committee:fit_heads", dear=dear, dear_when="members", worthless=0, **values)


ACQUISITIONS: dict[str, Acquisition] = {
    "vaal": _row("discriminator:vaal", "method", column="logit"),
    "least_confidence": _row("uncertainty:least_confidence", worthless=1),
    "margin": _row("uncertainty:margin", worthless=1),
    "ratio": _row("uncertainty:ratio", worthless=0),
    "entropy": _row("uncertainty:entropy", worthless=0),
    "bald": _bayesian("bald"),
    "predictive_entropy": _bayesian("predictive_entropy"),
    "variation_ratio": _bayesian("variation_ratio", ties="predictive_entropy"),
    "mean_std": _bayesian("mean_std"),
    "vote_entropy": _committee("vote_entropy", ties="consensus_kl"),
    "consensus_kl": _committee("consensus_kl"),
    "ensemble_varr": _committee("ensemble_varr", ties="consensus_kl"),
    "expected_gradient_length": _row("gradient_length:expected_gradient_length", "task", "linear", worthless=0),
    "expected_error_reduction": _row(
        "look_ahead:expected_error_reduction", fit="look_ahead:fit_look_ahead", worthless=0
    ),
    "gradient_norm": _row("input_gradient:gradient_norm", "task", "gradient", "identity", worthless=0),
    "margin_drop": _row("input_gradient:margin_drop", "task", "gradient"),
    "dfal": _row("deepfool:first_order", "task", "gradient", dear="deepfool:deepfool", not_for=("segmentation",)),
    "contrastive": _row("contrastive:contrastive", fit="contrastive:fit_contrastive", worthless=0),
    "typicality": _row("neighbours:typicality", fit="neighbours:fit_typicality", worthless=0),
    "core_set": _row("neighbours:core_set", fit="neighbours:fit_core_set", worthless=0),
    "pseudo_label_error": _row(
        "pseudo_label_error:pseudo_label_error",
        fit="pseudo_label_error:fit_confusion",
        worthless=0,
        not_for=("labels",),
    ),
    "confused": _row("discriminator:confused", "method"),
    "random": _row("random_hash:random_hash", "identity", worthless=1),
}


def in_words(name: str) -> str:
    """What the lowest scores of an acquisition function say of an image."""
    if name == "vaal":
        return "least like the labelled images (lowest logit)"
    return f"lowest {column_of(name).replace('_', ' ')}"


def column_of(name: str) -> str:
    """The column of an acquisition function in the scores files."""
    return ACQUISITIONS[name].column or name
