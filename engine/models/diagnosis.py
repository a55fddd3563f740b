"""The signal and the diagnosis in the train manifest, with the setting that fixes each fault, and as one line."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.campaign.manifests import Lift, TrainManifest

if TYPE_CHECKING:
    from vaal.signal import Diagnosis

NOT_TRAINED = "VAAL was not trained"


def manifest_entries(diagnosis: "Diagnosis") -> dict[str, Any]:
    """The keys `signal` and `diagnosis` of the train manifest, as JSON values."""
    from vaal.signal import CONFIDENCE

    held_out = {"labelled": diagnosis.num_labelled, "unlabelled": diagnosis.num_unlabelled}
    if diagnosis.num_groups:
        held_out |= {"labelled_groups": diagnosis.num_groups[0], "unlabelled_groups": diagnosis.num_groups[1]}
    return {
        "signal": diagnosis.signal,
        "diagnosis": {
            "auc": diagnosis.auc.value,
            "auc_low": diagnosis.auc.low,
            "auc_high": diagnosis.auc.high,
            "confidence": CONFIDENCE,
            "held_out": held_out,
            "active_units": diagnosis.active_units,
            "latent_units": len(diagnosis.kl_Z),
            "kl_per_unit": diagnosis.kl_Z,
            "mean_squared_error": diagnosis.mean_squared_error,
            "saturation": diagnosis.saturation,
            "findings": _findings(diagnosis),
            **_lift_entry(diagnosis),
        },
    }


def not_trained(num_labels: int = 1) -> dict[str, Any]:
    """The same keys where no networks of the training method were trained, because no score needs them, or there is no
    label yet."""
    import torch

    from vaal.signal import diagnose

    entries = manifest_entries(diagnose(torch.empty(0), torch.empty(0), None))
    why = "no score of score.acquisition needs it" if num_labels else "there are no labels yet"
    entries["diagnosis"] |= {"findings": [f"{NOT_TRAINED}: {why}"], "is_trained": False}
    return entries


def _lift_entry(diagnosis: "Diagnosis") -> dict[str, Any]:
    if not (lift := diagnosis.lift):
        return {}
    # JSON has no infinity.
    high = lift.high if math.isfinite(lift.high) else None
    return {"lift": {"value": lift.value, "low": lift.low, "high": high, "share": diagnosis.lift_share}}


def interval_of(manifest: TrainManifest) -> str:
    """The AUC and its interval, as text."""
    return _interval(manifest["diagnosis"])


def _interval(found: Mapping[str, Any]) -> str:
    return f"AUC {found['auc']:.2f} ({found['auc_low']:.2f} to {found['auc_high']:.2f})"


def lift_text(lift: Lift) -> str:
    """The lift and its interval, as text."""
    if lift["high"] is None:
        return f"at least {_rounded(lift['low'])}"
    return f"{_rounded(lift['value'])} ({_rounded(lift['low'])} to {_rounded(lift['high'])})"


def share_text(share: float) -> str:
    """A share of the pool, in percent."""
    return f"{100 * share:.2g}%"


def _rounded(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def summary(manifest: TrainManifest, ranks: str = "vaal") -> str:
    """One line on the signal that a train manifest records, where the acquisition function `ranks` ranks."""
    found = manifest["diagnosis"]
    if not found.get("is_trained", True):
        return NOT_TRAINED
    units = f", {found['active_units']} of {found['latent_units']} latent units active" if found["latent_units"] else ""
    other = f"; it does not matter here, because {ranks.replace('_', ' ')} ranks" if ranks != "vaal" else ""
    return f"{signal_text(manifest['signal'], found)}{units}{other}"


def signal_text(signal: str, found: Mapping[str, Any]) -> str:
    """The signal, its AUC and its lift. `found` has these as the diagnosis of a manifest does."""
    verdict = "signal present" if signal == "present" else "no signal"
    lift = found.get("lift")
    picks = f", lift {lift_text(lift)} among the lowest {share_text(lift['share'])}" if lift else ""
    return f"{verdict}: {_interval(found)}{picks}"


def findings_of(manifest: TrainManifest, ranks: str) -> list[str]:
    """A line for each fault, with what follows from it where the acquisition function `ranks` ranks."""
    found = manifest["diagnosis"]["findings"]
    if manifest["signal"] == "present" or not manifest["diagnosis"].get("is_trained", True):
        return found
    then = f"select.acquisition={ranks} ranks all the same"
    if ranks == "vaal":
        then = "if they lack no part of the pool either, select.when_no_signal decides what is picked"
    # That there is no signal is the last finding.
    return [*found[:-1], f"{found[-1]}; {then}"]


def _findings(diagnosis: "Diagnosis") -> list[str]:
    """A line for each fault, with its fix."""
    from vaal.signal import MIN_HELD_OUT, SATURATED_LOGIT

    found = []
    if diagnosis.is_collapsed:
        active = f"{diagnosis.active_units} of {len(diagnosis.kl_Z)} latent units are active"
        found.append(f"the posterior has collapsed, {active}: lower train.beta")
    if diagnosis.is_saturated:
        share = f"{diagnosis.saturation:.0%} of the held-out logits are beyond ±{SATURATED_LOGIT:g}"
        fix = "raise train.adversarial_weight or lower train.discriminator_steps"
        found.append(f"the discriminators are saturated, {share}: {fix}")
    if diagnosis.signal == "none":
        counts, unit = (diagnosis.num_labelled, diagnosis.num_unlabelled), "images"
        if diagnosis.num_groups:
            counts, unit = diagnosis.num_groups, "groups of images"
        held_out = f"{counts[0]} labelled and {counts[1]} unlabelled {unit} are held out"
        interval = f"the AUC's interval, {diagnosis.auc.low:.2f} to {diagnosis.auc.high:.2f},"
        if min(counts) < MIN_HELD_OUT:
            why = f"{held_out}, at least {MIN_HELD_OUT} of each are needed: label more"
        elif diagnosis.auc.high < 0.5:
            why = f"{interval} is below 0.5: the labels are spread more evenly over the pool than a random draw is"
        else:
            why = f"{interval} includes 0.5: the labelled images look like the rest of the pool"
        found.append(f"no signal, {why}")
    return found
