"""The networks of a configuration, and trained ones as safetensors files in a round's train folder.

Files hold fp32 tensors and no pickle. `Networks.score` is what scoring and the diagnosis of training share.
"""

from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from engine.campaign.folder import read_trained
from engine.config.options import CampaignConfig
from engine.errors import VaalError
from engine.storage.location import Location
from vaal.ablations import Centroid, FeatureDiscriminators, ImageDiscriminators, PixelDiscriminators
from vaal.acquisition.discriminator import image_logit, labelled_logit
from vaal.acquisition.wasserstein import centroid_score
from vaal.networks import VAE, Autoencoder, Discriminators, shape_for
from vaal.paper import PAPER_SHAPE, PaperVAE, paper_discriminators
from vaal.task import Classifier


class Networks(NamedTuple):
    """What a method scores with; None is what it has not."""

    vae: Autoencoder | None
    discriminators: Discriminators | ImageDiscriminators | None
    centroid: Centroid | None

    def score(self, x_BCHW: Tensor, fold_B: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B,), the lowest of which are picked, and latents (B, Z), float32. In eval mode only."""
        if isinstance(self.discriminators, ImageDiscriminators):
            return image_logit(self.discriminators, x_BCHW, fold_B)
        assert self.vae is not None
        if self.discriminators is not None:
            return labelled_logit(self.vae, self.discriminators, x_BCHW, fold_B)
        assert self.centroid is not None
        return centroid_score(self.vae, self.centroid, x_BCHW)

    @property
    def num_latents(self) -> int:
        """Units of a latent."""
        encoder = self.discriminators if isinstance(self.discriminators, ImageDiscriminators) else self.vae
        assert encoder is not None
        return encoder.num_latents

    def eval(self) -> "Networks":
        """The same networks, in eval mode."""
        for network in self:
            if network is not None:
                network.eval()
        return self

    def to(self, device: torch.device) -> "Networks":
        """The same networks, on a device."""
        for network in self:
            if network is not None:
                network.to(device)
        return self

    def files(self) -> dict[str, nn.Module]:
        """The module of each file that scoring reads."""
        files: dict[str, nn.Module] = {} if self.vae is None else {"vae.safetensors": self.vae}
        if self.discriminators is not None:
            files |= {f"discriminator-{n}.safetensors": fold for n, fold in enumerate(self.discriminators.folds)}
        return files if self.centroid is None else {**files, "centroid.safetensors": self.centroid}


def make_networks(config: CampaignConfig) -> Networks:
    """The networks of a configuration with the initial weights of `train.seed`."""
    train, image = config.train, (config.image.size, config.image.channels)
    is_paper = train.preset == "paper"
    shape = PAPER_SHAPE if is_paper else shape_for(train.preset, config.image.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(train.seed)
        if train.method == "pixels":
            return Networks(None, PixelDiscriminators(train.folds, *image, shape), None)
        if train.method == "features":
            return Networks(None, FeatureDiscriminators(train.folds, *image, shape), None)
        vae = PaperVAE(*image) if is_paper else VAE(*image, shape)
        if train.method == "vae_only":
            return Networks(vae, None, Centroid(vae.num_latents))
        return Networks(
            vae, paper_discriminators(train.folds) if is_paper else Discriminators(train.folds, shape), None
        )


def make_classifier(config: CampaignConfig, num_classes: int) -> Classifier:
    """The task learner with the initial weights of `train.seed`.

    Raises:
        VaalError: there is only one class.
    """
    if num_classes < 2:
        raise VaalError(f"train.task=classification needs two classes, the labels hold {num_classes}; set it to none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return Classifier(config.image.size, config.image.channels, num_classes)


def to_input(pixels_NHWC: np.ndarray[Any, np.dtype[np.uint8]], device: torch.device) -> Tensor:
    """Pixels as the networks take them: (N, C, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels_NHWC)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def num_latents(config: CampaignConfig) -> int:
    """Units of a latent, as `scores/*.parquet` holds them."""
    with torch.device("meta"):
        return make_networks(config).num_latents


def require_finite(state: dict[str, Tensor], name: str, when: str = "") -> None:
    """Raises VaalError that names the state, and when it was, where a tensor of it is not finite."""
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise VaalError(f"training: {when}{key} of {name} is not finite; lower train.learning_rate and train again")


def save_weights(folder: Location, modules: dict[str, nn.Module]) -> dict[str, str]:
    """Write a file a module. Returns SHA-256 by file name.

    Raises:
        VaalError: a weight is not finite; nothing is written.
    """
    states = {name: module.state_dict() for name, module in modules.items()}
    for name, state in states.items():
        require_finite(state, name)
    return {
        name: (folder / name).write_bytes(
            safetensors.torch.save({key: tensor.float().cpu().contiguous() for key, tensor in state.items()})
        )
        for name, state in states.items()
    }


def load_networks(folder: Location, config: CampaignConfig, sha256: dict[str, str]) -> Networks:
    """The trained networks in eval mode, on the CPU. `sha256` is what the train stage's manifest says of each file.

    Raises:
        InputError: a file is missing, or is not the one that training wrote.
    """
    networks = make_networks(config)
    for name, module in networks.files().items():
        module.load_state_dict(safetensors.torch.load(read_trained(folder, name, sha256.get(name))))
    return networks.eval()
