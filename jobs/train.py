"""`vaal train`: train this round's networks."""

from typing import TYPE_CHECKING

from jobs.terminal import (
    AddressOption,
    CampaignArgument,
    DebugOption,
    JsonOption,
    Outcome,
    SetOption,
    Terminal,
    terminal,
)

if TYPE_CHECKING:
    from engine.campaign.folder import Campaign


def train(
    campaign: CampaignArgument,
    settings: SetOption = [],
    address: AddressOption = "local",
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train the VAE and the discriminators on both pools."""
    with terminal(json=json, debug=debug) as screen:
        from engine.campaign.folder import open_campaign

        screen.result(run(screen, open_campaign(campaign, settings), address))


def run(screen: Terminal, campaign: "Campaign", address: str) -> Outcome:
    """The train stage of a round, with its progress bar."""
    from engine.models.diagnosis import summary
    from engine.training import train as training

    with screen.progress("train") as update:

        def on_step(step: int, num_steps: int, losses: dict[str, float]) -> None:
            update(step / num_steps, f"step {step} of {num_steps}, {_words(losses)}")

        manifest = training.train(campaign, address, on_step, screen.log)
    findings = manifest.get("diagnosis", {}).get("findings", [])
    facts = {
        "steps": manifest["counts"]["steps"],
        "losses": _words(manifest["losses"]),
        "verdict": summary(manifest),
        **{f"finding {number}": line for number, line in enumerate(findings, 1)},
        "weights, metrics": campaign.stage("train"),
    }
    return Outcome(f"Round {campaign.round:03d}: trained", facts, manifest)


def _words(losses: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
