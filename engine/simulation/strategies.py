"""Strategies of an experiment: by name from one table, or by options of a campaign.

To add one, add a row. Of what other papers compare, each row's comment says how it is read here.
"""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from engine.config.section import Section
from engine.config.texts import list_setting, parts_of
from engine.config.train_options import SIMULATED_ONLY

RANDOM = "random"
"""The strategy that all others are compared with: all picks are a uniform random sample."""
_LOWEST: dict[str, Any] = {"select.diversity": "none", "select.duplicates": "off", "select.control_fraction": 0.0}
"""As papers pick: exactly the b lowest scores, of whatever images."""
_VAAL: dict[str, Any] = {**_LOWEST, "labels.are_biased": "yes", "train.task": "none"}
"""VAAL's lowest scores, whatever a test of the labels says; it asks no task learner."""


def _ranked(name: str) -> dict[str, Any]:
    return {**_LOWEST, "score.acquisition": [name], "select.acquisition": name}


STRATEGIES: dict[str, dict[str, Any]] = {
    RANDOM: {"score.acquisition": ["random"], "select.acquisition": "random", "train.task": "none"},
    # This project's, with the margin of the task learner for where the labels lack nothing.
    "default": {"score.acquisition": ["vaal", "margin"], "select.control_fraction": 0.0},
    # VAAL as its authors' code trains and scores, and as this project does; the paper's rule.
    "vaal_2019": {"train.method": SIMULATED_ONLY, "train.task": "none"},
    "vaal": _VAAL,
    # Sener and Savarese 2018: k-center over the task learner's features of the pool; up to 1,000 budgets of candidates.
    "core_set": {
        **_LOWEST, "score.acquisition": ["random"], "select.acquisition": "random", "select.diversity": "k_center",
        "select.oversample": 1000,
    },
    # Gal and Ghahramani 2016: how the probabilities vary over passes with dropout.
    "mc_dropout": _ranked("mean_std"),
    # Gal et al. 2017: the entropy of the mean over these passes; and what the answer says of the weights.
    "dbal": _ranked("predictive_entropy"),
    "bald": _ranked("bald"),
    # Beluch et al. 2018: the votes of a committee, which shares its features here.
    "ensemble_varr": _ranked("ensemble_varr"),
    "entropy": _ranked("entropy"),
    "margin": _ranked("margin"),
    # The paper's ablations: a discriminator of pixels, without a VAE; a VAE trained first and then frozen, and a
    # discriminator on its latents; and the 2-Wasserstein distance from the labelled images' centroid.
    "discriminator_only": {**_VAAL, "train.method": "pixels"},
    "frozen_vae": {**_VAAL, "train.method": "frozen_vae"},
    "vae_only": {**_VAAL, "train.method": "vae_only"},
}  # fmt: skip
"""Options of a campaign by the name that an experiment lists, strategies = ["random", "core_set"]; they count more than
those of [campaign]."""


_NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._+=-]{0,60}$"
_PLACES = ("first", "second", "third")


def _row(name: Any) -> dict[str, Any]:
    if not isinstance(name, str) or name not in STRATEGIES:
        raise ValueError(f"strategies: {name!r} is none of {', '.join(STRATEGIES)}; give one, or a table with a name")
    return {"name": name, "options": STRATEGIES[name]}


def listed(strategies: Any) -> list[Any]:
    """The strategies of a file, each as a table, with random first where it is not among them.

    Raises ValueError where there are none, for a name that is in no row, and for what is no strategy, by its place in
    the file: random, which is put in front, would shift it.
    """
    if fault := _fault_of(strategies):
        raise ValueError(fault)
    found = [_row(one) if isinstance(one, str) else one for one in strategies]
    names = [one.get("name", one.get("like")) for one in found]
    return found if RANDOM in names else [_row(RANDOM), *found]


def _fault_of(strategies: Any) -> str:
    """Why these are no strategies; empty where they are."""
    if not isinstance(strategies, list):
        is_name = isinstance(strategies, str)
        fix = (
            list_setting("strategies", parts_of(strategies))
            if is_name
            else "names, or [[strategies]] with a name and options"
        )
        return f"strategies={strategies!r}: not a list; give {fix}"
    if not strategies:
        return 'strategies: none is given; list names, ["random", "default"], or write [[strategies]]'
    faults = ((place, _fault_of_one(one)) for place, one in enumerate(strategies) if not isinstance(one, str))
    for place, fault in faults:
        if fault:
            return f"strategies: the {_PLACES[place] if place < len(_PLACES) else f'{place + 1}th'} {fault}"
    return ""


def _fault_of_one(one: Any) -> str:
    if not isinstance(one, dict):
        return f"is {one!r}, neither a name in quotes nor a table; give one of them"
    name, options = one.get("name", one.get("like")), one.get("options", {})
    if name is None:
        return "table has neither name nor like; give it a name"
    if not isinstance(name, str) or not re.match(_NAME, name):
        why = "not 1 to 61 letters, digits, spaces and . _ + = -, first a letter or digit"
        return f"table has name={name!r}: {why}; give it another"
    return "" if isinstance(options, dict) else f"table has options={options!r}: not a table; leave it out"


class Strategy(Section):
    """A way to pick: a name and options of a campaign by dotted key, `select.diversity = "none"`. With `like`, the name
    of a row of STRATEGIES, they are added to those of that row, and its name is the default."""

    name: str = Field(pattern=_NAME)
    options: dict[str, Any] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _all_else_are_options(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        rest = {name: value for name, value in values.items() if name not in ("name", "options", "like")}
        row = _row(values["like"]) if "like" in values else {"options": {}}
        given = {"name": values["name"]} if "name" in values else {}
        options = {**row["options"], **flat(rest), **flat(values.get("options", {}))}
        return {**row, **given, "options": options}


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as values by dotted key."""
    return dict(_leaves(tree, prefix)) if isinstance(tree, dict) else {"": tree}


def _leaves(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
