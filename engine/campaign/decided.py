"""How a selection picked, as its manifest says: which score decided, where the limits were, and why."""

from engine.campaign.manifests import SelectionManifest
from engine.errors import ConfigError
from vaal.diversity import branch_of, reason_for


def ranks(selection: SelectionManifest) -> str:
    """The acquisition function whose scores ranked."""
    return str(selection["config"]["select"].get("acquisition", "vaal"))


def decided_by(selection: SelectionManifest) -> str:
    """The acquisition function whose scores decided what was picked; "" where no score did. By the gate, this may be
    another one than that which ranks (`ranks`)."""
    if "branch" in selection:
        return branch_of(selection["branch"], ranks(selection)).by
    return "" if selection["when_no_signal"] else ranks(selection)


def scored_by(selection: SelectionManifest) -> str:
    """The acquisition function whose scores the rows of the selection's files hold in their column `score`."""
    return selection.get("scored_by", ranks(selection))


def first_ranks(selection: SelectionManifest) -> str:
    """The acquisition function whose scores ranked the whole pool."""
    return selection.get("first_ranks", ranks(selection))


def highest_scores(selection: SelectionManifest) -> tuple[float | None, float | None]:
    """The highest score of a pick of the query and of a candidate; None where scores did not decide."""
    # Older versions ranked by logits alone.
    picked = selection.get("highest_picked_score", selection.get("highest_picked_logit"))
    return picked, selection.get("highest_candidate_score", selection.get("highest_candidate_logit"))


def reason_of(selection: SelectionManifest) -> str:
    """How the images of a selection were picked, in words. Raises ConfigError for a method that is unknown here."""
    try:
        options = selection["config"]["select"]
        if "branch" in selection:
            return branch_of(selection["branch"], ranks(selection)).reason
        return reason_for(selection["when_no_signal"], options["diversity"])
    except (KeyError, TypeError) as error:
        why = f"when_no_signal or config.select.diversity: {error}: unknown"
        raise ConfigError(f"the manifest of the selection: {why}; use the version that wrote it") from error
