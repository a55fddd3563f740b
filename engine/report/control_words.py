"""What the control arm shows, for `vaal status`: as lines for a person, and as plain values for a program."""

from typing import Any

from engine.campaign.folder import Campaign
from engine.campaign.labels import Snapshot
from engine.campaign.ledger import Ledger
from engine.errors import InputError
from engine.report.arms import HARDER, gains_of
from engine.report.control_arm import WORTH_MORE, ControlArm, ControlRound, control_arm
from vaal.proportions import Share, few_text

MOST_ROUNDS = 5
"""Rounds that a person is shown, the newest ones."""


def read_control(campaign: Campaign, snapshot: Snapshot, ledger: Ledger) -> ControlArm:
    """What the control arms up to the campaign's round show. It reads the selections, and no scores; where one is
    damaged, that is why nothing is shown."""
    try:
        gains = gains_of(campaign, snapshot, range(campaign.round + 1), kept_only=True)
        return control_arm(campaign, snapshot, gains, ledger)
    except InputError as error:
        return ControlArm([], [], None, str(error))


def control_lines(control: ControlArm) -> list[str]:
    """The lines; none where nothing was picked yet."""
    after = [control.few] if control.few else []
    after += [f"{WORTH_MORE} {control.next_batch[:1].upper()}{control.next_batch[1:]}"] if control.next_batch else []
    if control.why:
        return [control.why, *after]
    if not control.labelled:
        return []
    left_out = max(0, len(control.rounds) - MOST_ROUNDS)
    lines = [f"earlier rounds: {left_out}, see the report"] if left_out else []
    lines += [_round_line(one) for one in control.rounds[left_out:]]
    # Of so few labels the intervals of all classes together say nothing.
    if (shown := control.shown_classes) and not few_text(control.labelled, ""):
        rest = len(control.classes) - len(shown)
        shares = "; ".join(f"{one.name}: {one.share.text}" for one in shown)
        more = f"; and {rest:,} more" if rest else ""
        lines.append(f"classes of the pool (95% intervals of all classes together): {shares}{more}")
    return [*lines, *after, "brackets: 95% intervals; images without a label are left out"]


def _round_line(one: ControlRound) -> str:
    missing = ", ".join(f"{count:,} {state}" for state, count in sorted(one.missing.items()))
    back = f"{one.labelled:,} of {one.picked:,} labels back" + (f" ({missing})" if missing else "")
    known = one.gain.known
    if one.gain.no_known:
        return f"round {one.round:03d}: {back}; no accuracy: {one.gain.no_known}"
    if not known or not known.control:
        return f"round {one.round:03d}: {back}"
    learned = f" after {one.learned:,} labels" if one.learned else ""
    right = f"accuracy on the pool {known.control.text}{learned}"
    if not known.gain:
        return f"round {one.round:03d}: {back}; {right}"
    return f"round {one.round:03d}: {back}; {right}; {HARDER} {known.gain.points_text}"


def control_values(control: ControlArm) -> dict[str, Any]:
    """All of it as JSON values; what is not known is null."""
    return {
        "rounds": [
            {
                "round": one.round,
                "labels_learned": one.learned,
                "picked": one.picked,
                "labelled": one.labelled,
                "missing": dict(one.missing),
                "accuracy_on_pool": _values(one.gain.known.control if one.gain.known else None),
                "accuracy_on_query": _values(one.gain.known.query if one.gain.known else None),
                "wrong_more_often_on_query": _values(one.gain.known.gain if one.gain.known else None),
                "no_accuracy": one.gain.no_known,
            }
            for one in control.rounds
        ],
        "classes": [{"label": one.name, **(_values(one.share) or {})} for one in control.classes],
        "next_batch": {
            "labels": control.forecast.labels,
            "more": control.forecast.more,
            "gain": _values(control.forecast.gain),
            "needed_for_a_point": control.forecast.needed,
            "text": control.next_batch,
        }
        if control.forecast
        else None,
        "why_not": control.why,
    }


def _values(share: Share | None) -> dict[str, Any] | None:
    return share._asdict() if share else None
