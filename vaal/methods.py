"""Training methods: one row each (`train.method`).

To add one, add a file and a row. A row names its functions, which are imported when they are used.
"""

from typing import NamedTuple


class Method(NamedTuple):
    """The networks that a method trains, and its score; functions as "module:name".

    `networks(sizes)` makes its `vaal.assembly.Networks` with random weights; `score` is as in `vaal.acquisition`.
    `vae_first`: only the VAE trains in the first half; it is frozen while the discriminators train in the second.
    """

    networks: str
    score: str
    has_vae: bool = True
    has_discriminators: bool = True
    vae_first: bool = False
    has_paper_preset: bool = True

    def batches_per_step(self, vae_steps: int, discriminator_steps: int) -> float:
        """Batches of an iteration: the discriminators' first update shares the VAE's last batch."""
        if self.vae_first:
            return (vae_steps + discriminator_steps) / 2
        if self.has_vae and self.has_discriminators:
            return vae_steps + discriminator_steps - 1
        return vae_steps if self.has_vae else discriminator_steps


TASK_FILE = "task.safetensors"
"""The weights of the task learner, which can be trained beside any method."""
EMBEDDING_FILE = "embedding.safetensors"
"""What scales embeddings, where the networks see them."""
PROJECTION_FILE = "projection.safetensors"
"""What makes latents of the task learner's features, where no method is trained."""
SUMMARY = "acquisition-"
"""Files of weights of what acquisition functions were fitted to begin with it."""
ENCODER = "encoder"
"""The name of a frozen encoder's weights among the inputs of the scores: they are in no train folder."""
_LATENT_LOGIT = "vaal.acquisition.discriminator:labelled_logit"
_IMAGE_LOGIT = "vaal.acquisition.discriminator:image_logit"
METHODS = {
    "vaal": Method("vaal.assembly:vaal_networks", _LATENT_LOGIT),
    "frozen_vae": Method("vaal.assembly:vaal_networks", _LATENT_LOGIT, vae_first=True),
    "vae_only": Method(
        "vaal.assembly:vae_only_networks", "vaal.acquisition.wasserstein:centroid_score", has_discriminators=False
    ),
    "pixels": Method("vaal.assembly:pixel_networks", _IMAGE_LOGIT, has_vae=False),
    "features": Method("vaal.assembly:feature_networks", _IMAGE_LOGIT, has_vae=False, has_paper_preset=False),
}
