"""A campaign that trains and scores as VAAL's authors did, and selects by the function that every campaign uses."""

import time

import numpy as np
import torch
from numpy.typing import NDArray

from engine.campaign.folder import Campaign
from engine.config.train_options import TrainConfig
from engine.scoring.scorer import Scores
from engine.simulation.devices import on_device
from engine.simulation.paper_2019 import WIDTHS, Paper2019, Scored
from engine.simulation.pixel_campaign import PixelCampaign
from engine.simulation.stage_files import members_of, write_stages
from engine.simulation.trial_campaign import note_seconds
from engine.simulation.vector_round import Trained
from vaal.assembly import Networks
from vaal.paper import WIDTHS as PAPER_WIDTHS
from vaal.signal import Posterior, diagnose


class PaperCampaign(PixelCampaign):
    """Only its training and scoring are not those of the commands. Its AUC is on images that it trained on."""

    @property
    def _device(self) -> str:
        """Where its networks run; auto is cuda where this machine has one."""
        device = self.config.device
        return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"

    def train_and_score(self, campaign: Campaign) -> None:
        """Train on what is labelled and what is not, in memory, and score both."""
        train, pixel_NSSC = campaign.config.train, self.setup.pool.pixel_NSSC
        place_L = self.labelled()[0]
        place_U = np.setdiff1d(np.arange(len(pixel_NSSC)), place_L)
        steps = min(train.max_steps, max(1, train.epochs * len(place_U) // train.batch_size))
        seed, pools = train.seed + (campaign.round << 32), (pixel_NSSC[place_L], pixel_NSSC[place_U])
        parts, seconds = on_device(self._device, _trained_and_scored, pools, seed, steps, train, self._device)
        scored = Scored(*(torch.cat(column) for column in zip(*parts, strict=True)))
        diagnosis = diagnose(parts[0].logit_N, parts[1].logit_N, Posterior(*scored[1:]))
        members = members_of(campaign)
        at_N = np.argsort(np.concatenate([place_L, place_U]))[[self.place[name] for name in members.names]]
        scores = _table_of(scored, at_N)
        note_seconds(campaign, "score", seconds)
        write_stages(campaign, Trained(Networks(), scores, None, diagnosis, {"counts": {"steps": steps}}), members)


def _trained_and_scored(
    pools: tuple[NDArray[np.uint8], NDArray[np.uint8]], seed: int, steps: int, train: TrainConfig, device: str
) -> tuple[list[Scored], float]:
    """What networks say of the labelled and the unlabelled images (N, S, S, C) that they were trained on, and the
    seconds that this took after training."""
    side, channels = pools[0].shape[2:]
    widths = PAPER_WIDTHS if train.preset == "paper" else WIDTHS
    networks = Paper2019(side, channels, seed, widths, device)
    networks.train(*pools, steps, train)
    begin = time.perf_counter()
    # The authors score the unlabelled images alone. The table holds all: the others make batches of their own.
    parts = [networks.score(pixels, train.batch_size) for pixels in pools]
    return parts, time.perf_counter() - begin


def _table_of(scored: Scored, at_N: NDArray[np.intp]) -> Scores:
    """The scores of the items at these places."""
    logit_N, latent_NZ = scored.logit_N.numpy()[at_N], scored.mean_NZ.numpy()[at_N].astype(np.float16)
    return Scores({"logit": logit_N}, latent_NZ, np.isfinite(logit_N) & np.isfinite(latent_NZ).all(axis=1))
